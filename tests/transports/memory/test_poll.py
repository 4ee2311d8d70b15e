"""Polling a session: batches, holes, isolation, pause and seek."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_consumer._types import TopicPartition

from .support import T0, T1, Recorder, broker, poll_offsets, run, settings

TOPICS = frozenset({"t"})


def test_poll_returns_whole_batches_in_order() -> None:
    """One batch a partition, its position, and the high watermark."""

    async def main() -> None:
        b = broker(partitions=2, records=3)
        async with b.connect(settings(), Recorder()) as session:
            await session.subscribe(TOPICS)
            batches = await session.poll()
            assert sorted(batch.tp for batch in batches) == [T0, T1]
            for batch in batches:
                assert [r.value for r in batch.records] == [b"0", b"1", b"2"]
                assert (batch.next_offset, batch.high_watermark) == (3, 3)

    run(main)


def test_poll_is_bounded_and_fair() -> None:
    """A poll has at most max_poll_records, and the partitions take turns."""

    async def main() -> None:
        b = broker(partitions=2, records=100)
        own = settings(client={"max_poll_records": 10})
        async with b.connect(own, Recorder()) as session:
            await session.subscribe(TOPICS)
            polls = [await session.poll() for _ in range(6)]
            assert [sum(len(batch.records) for batch in p) for p in polls] == [10] * 6
            assert sorted(batch.tp for p in polls for batch in p) == [T0] * 3 + [T1] * 3

    run(main)


def test_poll_waits_for_records() -> None:
    """A waiting poll wakes when something is produced."""

    async def main() -> None:
        b = broker(partitions=1)
        async with b.connect(settings(), Recorder()) as session, trio.open_nursery() as nursery:
            await session.subscribe(TOPICS)
            [start] = await session.poll()
            assert (list(start.records), start.next_offset) == ([], 0)

            async def later() -> None:
                await trio.sleep(100)
                b.produce("t", b"x", headers=[("h", b"1")], timestamp=5)

            nursery.start_soon(later)
            [batch] = await session.poll()
            assert trio.current_time() == 100
            [record] = batch.records
            assert (record.headers, record.timestamp) == ([("h", b"1")], 5)

    run(main)


def test_poll_cancelled_at_any_time_loses_nothing() -> None:
    """Polls with short deadlines give every record exactly once."""

    async def main() -> None:
        b = broker(partitions=2, records=40, latency=(0.0, 0.3))
        own = settings(client={"max_poll_records": 3})
        seen: dict[TopicPartition, list[int]] = {T0: [], T1: []}
        async with b.connect(own, Recorder()) as session:
            await session.subscribe(TOPICS)
            cancelled = 0
            while sum(map(len, seen.values())) < 80:
                with trio.move_on_after(0.1) as scope:
                    for batch in await session.poll():
                        seen[batch.tp] += [r.offset for r in batch.records]
                cancelled += scope.cancelled_caught
        assert cancelled > 10
        assert seen == {T0: list(range(40)), T1: list(range(40))}

    run(main)


def test_poll_is_for_one_task() -> None:
    """A second task in poll is told so; the first goes on."""

    async def main() -> None:
        b = broker(partitions=1)
        async with b.connect(settings(), Recorder()) as session, trio.open_nursery() as nursery:
            await session.subscribe(TOPICS)
            await session.poll()  # where reading starts
            nursery.start_soon(session.poll)
            await wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError, match=r"^another task is in poll\(\)"):
                await session.poll()
            b.produce("t", b"x")

    run(main)


def test_poll_steps_over_holes() -> None:
    """Deleted records are not delivered; a hole at the end moves the position alone."""

    async def main() -> None:
        b = broker(partitions=1, records=6)
        b.delete_offsets(T0, [0, 2, 3, 5])
        async with b.connect(settings(), Recorder()) as session:
            await session.subscribe(TOPICS)
            [batch] = await session.poll()
            assert [r.offset for r in batch.records] == [1, 4]
            assert batch.next_offset == 6
            b.append_marker(T0)
            [batch] = await session.poll()
            assert (list(batch.records), batch.next_offset) == ([], 7)

    run(main)


@pytest.mark.parametrize("isolation", ["read_uncommitted", "read_committed"])
def test_transactions_follow_the_isolation_level(isolation: str) -> None:
    """Open and aborted data are visible to read_uncommitted only; markers to nobody."""

    async def main() -> None:
        b = broker(partitions=1)
        with b.transaction("p") as committed:
            committed.produce("t", b"committed")
        aborted = b.transaction("p")
        aborted.produce("t", b"aborted")
        aborted.abort()
        b.produce("t", b"plain")
        still_open = b.transaction("q")
        still_open.produce("t", b"open")
        async with b.connect(settings(isolation_level=isolation), Recorder()) as session:
            await session.subscribe(TOPICS)
            found: list[bytes | None] = []
            position = 0
            with trio.move_on_after(5):
                while True:
                    for batch in await session.poll():
                        found += [r.value for r in batch.records]
                        position = batch.next_offset
            ends = await session.end_offsets([T0])
            if isolation == "read_committed":
                assert found == [b"committed", b"plain"]
                assert (position, ends) == (5, {T0: 5})
                still_open.commit()
                [batch] = await session.poll()
                assert ([r.value for r in batch.records], batch.next_offset) == ([b"open"], 7)
            else:
                assert found == [b"committed", b"aborted", b"plain", b"open"]
                assert (position, ends) == (6, {T0: 6})

    run(main)


def test_pause_keeps_the_position() -> None:
    """A paused partition delivers nothing, the other goes on, resume loses nothing."""

    async def main() -> None:
        b = broker(partitions=2, records=4)
        own = settings(client={"max_poll_records": 2})
        async with b.connect(own, Recorder()) as session:
            await session.subscribe(TOPICS)
            [first] = await session.poll()
            other = T1 if first.tp == T0 else T0
            session.pause([first.tp, TopicPartition("t", 99)])
            assert await poll_offsets(session) == {other: [0, 1, 2, 3]}
            session.resume([first.tp])
            assert await poll_offsets(session) == {first.tp: [2, 3]}

    run(main)


def test_resume_wakes_a_waiting_poll() -> None:
    """A poll that waits because all is paused goes on at once."""

    async def main() -> None:
        b = broker(partitions=1, records=1)
        listener = Recorder()
        async with b.connect(settings(), listener) as session, trio.open_nursery() as nursery:

            async def pause(name: str, tps: Any) -> None:
                session.pause(tps)

            listener.hook = pause
            await session.subscribe(TOPICS)

            async def resume() -> None:
                await trio.sleep(50)
                session.resume([T0])

            nursery.start_soon(resume)
            assert len(await session.poll()) == 1
            assert trio.current_time() == 50

    run(main)


def test_pause_ends_with_the_assignment() -> None:
    """After an eager rebalance the partition is fetched again, unless paused again."""

    async def main() -> None:
        b = broker(partitions=1, records=1)
        async with b.connect(settings(), Recorder()) as session:
            await session.subscribe(TOPICS)
            await trio.sleep(5)
            session.pause([T0])
            b.rebalance("g")
            await trio.sleep(20)
            assert await poll_offsets(session) == {T0: [0]}

    run(main)


def test_seek_moves_the_position() -> None:
    """Forward and back, and for a partition that is not assigned nothing."""

    async def main() -> None:
        b = broker(partitions=1, records=5)
        async with b.connect(settings(), Recorder()) as session:
            await session.subscribe(TOPICS)
            session.seek(T0, 3)
            assert await poll_offsets(session) == {T0: [0, 1, 2, 3, 4]}
            session.seek(T0, 3)
            session.seek(T1, 3)
            assert await poll_offsets(session) == {T0: [3, 4]}

    run(main)


def test_seek_within_assigned_is_where_reading_begins() -> None:
    """The listener may set the position before the first record comes."""

    async def main() -> None:
        b = broker(partitions=1, records=5)
        listener = Recorder()
        async with b.connect(settings(), listener) as session:

            async def seek(name: str, tps: object) -> None:
                session.seek(T0, 4)

            listener.hook = seek
            await session.subscribe(TOPICS)
            assert await poll_offsets(session) == {T0: [4]}

    run(main)


def test_seek_under_a_poll_under_way_counts() -> None:
    """From the call of seek on, nothing from before comes, whatever is on its way."""

    async def main() -> None:
        b = broker(partitions=1, records=5, latency=2.0)
        async with b.connect(settings(), Recorder()) as session, trio.open_nursery() as nursery:
            await session.subscribe(TOPICS)
            await trio.sleep(20)

            async def seek() -> None:
                await trio.sleep(1.5)
                session.seek(T0, 4)

            nursery.start_soon(seek)
            [batch] = await session.poll()
            assert [r.offset for r in batch.records] == [4]

    run(main)
