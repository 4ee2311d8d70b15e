"""Where a session begins to read, and what stops it."""

from __future__ import annotations

import pytest
import trio

from trio_consumer._errors import (
    CorruptRecordError,
    OffsetOutOfRangeError,
)
from trio_consumer._types import TopicPartition

from .support import T0, T1, Recorder, at, broker, poll_offsets, run, settings

TOPICS = frozenset({"t"})


@pytest.mark.parametrize(("reset", "expected"), [("earliest", [0, 1, 2, 3]), ("latest", [3])])
def test_reset_without_committed_offset(reset: str, expected: list[int]) -> None:
    """Earliest begins at the log's start, latest at its end when assigned."""

    async def main() -> None:
        b = broker(partitions=1, records=3)
        async with b.connect(settings(auto_offset_reset=reset), Recorder()) as session:
            await session.subscribe(TOPICS)
            await trio.sleep(10)
            b.produce("t", b"new")
            assert await poll_offsets(session) == {T0: expected}

    run(main)


def test_latest_of_read_committed_is_the_last_stable_offset() -> None:
    """What an open transaction wrote before the assignment may still come."""

    async def main() -> None:
        b = broker(partitions=1, records=3)
        transaction = b.transaction()
        transaction.produce("t", b"x")
        own = settings(auto_offset_reset="latest", isolation_level="read_committed")
        async with b.connect(own, Recorder()) as session:
            await session.subscribe(TOPICS)
            await trio.sleep(10)
            transaction.commit()
            assert await poll_offsets(session) == {T0: [3]}

    run(main)


def test_reading_begins_at_the_committed_offset() -> None:
    """Whatever the policy, the committed offset is where to go on."""

    async def main() -> None:
        b = broker(partitions=1, records=3)
        b.set_committed("g", T0, 2)
        async with b.connect(settings(auto_offset_reset="none"), Recorder()) as session:
            await session.subscribe(TOPICS)
            assert await poll_offsets(session) == {T0: [2]}
            assert await session.committed([T0, T1]) == {T0: at(2), T1: None}

    run(main)


@pytest.mark.parametrize(("reset", "expected"), [("earliest", [2, 3]), ("latest", [4])])
def test_position_below_the_log_is_reset(reset: str, expected: list[int]) -> None:
    """A head that was deleted sends the reader where the policy says."""

    async def main() -> None:
        b = broker(partitions=1, records=4)
        b.set_committed("g", T0, 0)
        b.delete_records(T0, 2)
        async with b.connect(settings(auto_offset_reset=reset), Recorder()) as session:
            await session.subscribe(TOPICS)
            await trio.sleep(10)
            if reset == "latest":
                b.produce("t", b"new")
            assert await poll_offsets(session) == {T0: expected}
            assert await session.beginning_offsets([T0]) == {T0: 2}

    run(main)


def test_truncated_log_resets_a_reader_beyond_its_end() -> None:
    """A position above the end is out of range as well."""

    async def main() -> None:
        b = broker(partitions=1, records=4)
        async with b.connect(settings(), Recorder()) as session:
            await session.subscribe(TOPICS)
            await poll_offsets(session)
            b.truncate(T0, 2)
            assert await poll_offsets(session) == {T0: [0, 1]}

    run(main)


def test_reset_none_raises_and_a_seek_helps() -> None:
    """Without a place to begin, poll names partition and offset, each time."""

    async def main() -> None:
        b = broker(partitions=1, records=4)
        async with b.connect(settings(auto_offset_reset="none"), Recorder()) as session:
            await session.subscribe(TOPICS)
            for _ in range(2):
                with pytest.raises(
                    OffsetOutOfRangeError,
                    match=r"^cannot start reading t\[0\]: the group 'g' has no committed offset",
                ) as caught:
                    await session.poll()
                assert (caught.value.tp, caught.value.offset) == (T0, None)
            session.seek(T0, 3)
            assert await poll_offsets(session) == {T0: [3]}
            session.seek(T0, 9)
            with pytest.raises(
                OffsetOutOfRangeError, match=r"^cannot read t\[0\] at offset 9: the log has 0 to 4"
            ) as caught:
                await session.poll()
            assert caught.value.offset == 9

    run(main)


def test_corrupt_record_is_raised_after_what_is_below() -> None:
    """Good records come first, the other partition is not lost, a seek passes it."""

    async def main() -> None:
        b = broker(partitions=2, records=4)
        b.corrupt(T0, 2)
        async with b.connect(settings(), Recorder()) as session:
            await session.subscribe(TOPICS)
            found: dict[TopicPartition, list[int]] = {}

            async def read() -> None:
                while True:
                    for batch in await session.poll():
                        found.setdefault(batch.tp, []).extend(r.offset for r in batch.records)

            with pytest.raises(CorruptRecordError, match=r"^cannot read t\[0\] offset") as caught:
                await read()
            assert found == {T0: [0, 1], T1: [0, 1, 2, 3]}
            assert (caught.value.tp, caught.value.offset) == (T0, 2)
            session.seek(T0, 3)
            assert await poll_offsets(session) == {T0: [3]}

    run(main)


def test_deleted_topic_delivers_nothing_more() -> None:
    """Until the group notices, its partitions are just empty."""

    async def main() -> None:
        b = broker(partitions=1, records=4)
        listener = Recorder()
        async with b.connect(settings(), listener) as session:
            await session.subscribe(TOPICS)
            await trio.sleep(1)
            b.delete_topic("t")
            assert await poll_offsets(session) == {}
            await trio.sleep(10)
            assert listener.held == set()

    run(main)


def test_error_of_one_partition_waits_for_the_records_of_another() -> None:
    """What a poll has read already is handed over; the next poll raises."""

    async def main() -> None:
        b = broker(partitions=2, records=2)
        b.corrupt(T1, 0)
        async with b.connect(settings(), Recorder()) as session:
            await session.subscribe(TOPICS)
            [batch] = await session.poll()
            assert (batch.tp, len(batch.records)) == (T0, 2)
            with pytest.raises(CorruptRecordError, match=r"^cannot read t\[1\] offset 0:"):
                await session.poll()

    run(main)
