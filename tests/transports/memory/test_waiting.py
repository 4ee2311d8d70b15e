"""Waits for what becomes true of the broker: woken by the change, from any event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
import trio

from trio_consumer._errors import ConfigurationError, UnknownTopicError
from trio_consumer.transports.memory import MemoryBroker

from .support import ALL, COOPERATIVE, T0, T1, T2, T3, Recorder, at, broker, run, settings

TOPICS = frozenset({"t"})


@pytest.fixture(params=["asyncio", "trio"])
def run_any(request: pytest.FixtureRequest) -> Callable[[Callable[[], Awaitable[Any]]], Any]:
    """Each event loop, on the real clock."""
    return lambda main: anyio.run(main, backend=request.param)


def test_wait_committed_returns_in_the_step_of_the_commit() -> None:
    """No time passes after the commit, and one that is there already needs none."""

    async def main() -> None:
        b = broker(1)

        async def commit() -> None:
            for offset in (2, 5, 7):
                await trio.sleep(10)
                b.set_committed("g", T0, offset)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(commit)
            assert await b.wait_committed("g", T0, 3) == at(5)
            assert trio.current_time() == 20
            assert await b.wait_committed("g", T0, 1) == at(5)
            assert trio.current_time() == 20

    run(main)


def test_wait_that_sees_a_moment_does_not_miss_it() -> None:
    """A commit that is set back in the same step was seen."""

    async def main() -> None:
        b = broker(1)

        async def commit() -> None:
            b.set_committed("g", T0, 9)
            b.set_committed("g", T0, 1)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(commit)
            assert await b.wait_committed("g", T0, 9) == at(9)

    run(main)


def test_wait_tells_what_it_met_when_time_is_over() -> None:
    """The text says how far the group is; the virtual clock makes that immediate."""

    async def main() -> None:
        b = broker(2, records=4)
        with pytest.raises(
            TimeoutError, match=r"^t\[0\] is not committed at 3 within 5 s: the group 'g' is empty"
        ):
            await b.wait_committed("g", T0, 3, timeout=5)
        assert trio.current_time() == 5
        b.set_committed("g", T0, 2)
        with pytest.raises(
            TimeoutError,
            match=r"^the lag of t is 6 and not down to 1 within 60 s: the group 'g' is empty,"
            r" has no member; committed: t\[0\] at 2$",
        ):
            await b.wait_lag("g", "t", 1)
        async with b.connect(settings(), Recorder()) as session:
            await session.subscribe(TOPICS)
            with pytest.raises(
                TimeoutError,
                match=r"^the group 'g' has not settled with 2 members within 20 s: the group 'g' is"
                r" stable, trio-consumer-0001 has t\[0\], t\[1\]; committed",
            ):
                await b.wait_members("g", 2, timeout=20)

    run(main)


def test_wait_lag_follows_records_and_commits() -> None:
    """A partition or a topic, down to a bound; a deleted topic ends the wait."""

    async def main() -> None:
        b = broker(2)
        await b.wait_lag("g", "t")
        b.produce_many("t", [b"x"] * 6)

        async def commit() -> None:
            await trio.sleep(1)
            b.set_committed("g", T0, 3)
            await trio.sleep(1)
            b.set_committed("g", T1, 2)
            await trio.sleep(1)
            b.set_committed("g", T1, 3)
            b.produce("t", b"x")
            await trio.sleep(1)
            b.delete_topic("t")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(commit)
            await b.wait_lag("g", T0)
            assert trio.current_time() == 1
            await b.wait_lag("g", "t", 1)
            assert trio.current_time() == 2
            await b.wait_lag("g", "t")
            assert trio.current_time() == 3
            with pytest.raises(UnknownTopicError, match=r"^cannot find the topic 't'"):
                await b.wait_lag("g", "t")
            assert trio.current_time() == 4

    run(main)


def test_wait_lag_is_woken_when_the_log_gets_shorter() -> None:
    """Retention deletes what was not consumed."""

    async def main() -> None:
        b = broker(1, records=4)

        async def delete() -> None:
            await trio.sleep(1)
            b.delete_records(T0, 4)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(delete)
            await b.wait_lag("g", "t")
            assert trio.current_time() == 1

    run(main)


def test_wait_members_waits_for_the_callbacks() -> None:
    """A member that was assigned and is still being told has not settled."""

    async def main() -> None:
        b = broker()

        async def slow(name: str, tps: object) -> None:
            await trio.sleep(7)

        listener = Recorder(hook=slow)
        async with b.connect(settings(), listener) as session:
            await session.subscribe(TOPICS)
            await b.wait_members("g", 1)
            assert trio.current_time() == 7
            assert listener.held == ALL
            b.rebalance("g")
            await b.wait_settled("g")
            assert listener.names == ["assigned", "revoked", "assigned"]
            assert trio.current_time() >= 21
        assert await b.wait_members("g", 0) == {}

    run(main)


def test_wait_settled_sees_both_rounds_of_a_cooperative_rebalance() -> None:
    """Between them the group is stable, and not done."""

    async def main() -> None:
        b = broker(latency=0.1)
        one, two = Recorder(), Recorder()
        cooperative = settings(client=COOPERATIVE)
        async with b.connect(cooperative, one) as first, b.connect(cooperative, two) as second:
            await first.subscribe(TOPICS)
            await b.wait_members("g", 1)
            await second.subscribe(TOPICS)
            members = await b.wait_members("g", 2)
            assert sorted(map(len, members.values())) == [2, 2]
            assert (members[first.member_id], members[second.member_id]) == (one.held, two.held)

    run(main)


def test_wait_settled_waits_for_new_partitions() -> None:
    """A topic has grown, and the leader notices with its next heartbeat."""

    async def main() -> None:
        b = broker(3)
        async with b.connect(settings(), Recorder()) as session:
            await session.subscribe(TOPICS)
            assert await b.wait_members("g", 1) == {session.member_id: {T0, T1, T2}}
            b.add_partitions("t", 4)
            assert await b.wait_settled("g") == {session.member_id: {T0, T1, T2, T3}}

    run(main)


def test_wait_settled_does_not_wait_for_who_is_frozen() -> None:
    """It can learn nothing, and its session expires."""

    async def main() -> None:
        b = broker()
        async with (
            b.connect(settings(), Recorder()) as one,
            b.connect(settings(), Recorder()) as two,
        ):
            await one.subscribe(TOPICS)
            await two.subscribe(TOPICS)
            await b.wait_members("g", 2)
            b.freeze(two.member_id)
            b.expire(two.member_id)
            assert await b.wait_settled("g") == {one.member_id: ALL}
            frozen = two.member_id
            b.thaw(frozen)
            members = await b.wait_members("g", 2)
            assert frozen not in members

    run(main)


def test_wait_settled_ends_when_the_last_one_that_was_busy_is_frozen() -> None:
    """Nothing else happens then that would wake it."""

    async def main() -> None:
        b = broker()

        async def slow(name: str, tps: object) -> None:
            await trio.sleep(40)

        async with b.connect(settings(), Recorder(hook=slow)) as session:
            await session.subscribe(TOPICS)

            async def freeze() -> None:
                await trio.sleep(5)
                b.freeze(session.member_id)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(freeze)
                await b.wait_settled("g")
                assert trio.current_time() == 5

    run(main)


def test_wait_settled_waits_for_who_lost_nothing() -> None:
    """A member that has no partition and was thrown out joins again all the same."""

    async def main() -> None:
        b = broker()
        async with b.connect(settings(), Recorder()) as session:
            await session.subscribe(TOPICS)
            await b.wait_members("g", 1)
            b.revoke("g")
            [before] = await b.wait_settled("g")
            b.lose("g")
            [after] = await b.wait_settled("g")
            assert before != after

    run(main)


def test_wait_settled_waits_for_who_holds_what_it_no_longer_has() -> None:
    """A static member slept while its partition went, and does not know yet."""

    async def main() -> None:
        b = broker()
        static = settings(client={"group_instance_id": "s", "max_poll_interval_ms": 5000})
        listener = Recorder()
        other = settings(client={"max_poll_interval_ms": 5000})
        async with b.connect(static, listener) as one, b.connect(other, Recorder()) as two:
            await one.subscribe(TOPICS)
            await two.subscribe(TOPICS)
            members = await b.wait_members("g", 2)
            assert members[one.member_id] == {T0, T1}
            b.freeze(one.member_id)
            b.revoke("g", T0)
            await b.wait_settled("g")
            assert listener.held == {T0, T1}
            b.thaw(one.member_id)
            members = await b.wait_settled("g")
            assert members[one.member_id] == listener.held == {T1}

    run(main)


def test_wait_lets_a_crashed_member_expire() -> None:
    """No session of the group is left to let its time pass, so the wait does."""

    async def main() -> None:
        b = broker()
        async with b.connect(settings(), Recorder()) as session:
            await session.subscribe(TOPICS)
            await b.wait_members("g", 1)
            b.freeze(session.member_id)
        assert len(b.members("g")) == 1
        assert await b.wait_members("g", 0) == {}
        assert 40 < trio.current_time() < 50

    run(main)


def test_wait_begun_before_the_crash_lets_the_member_expire() -> None:
    """The last session goes during the wait, and with it who drove the timers."""

    async def main() -> None:
        b = broker()

        async def crash() -> None:
            async with b.connect(settings(), Recorder()) as session:
                await session.subscribe(TOPICS)
                await b.wait_members("g", 1)
                b.freeze(session.member_id)
                await trio.sleep(5)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(crash)
            await b.wait_members("g", 1)
            await b.wait_members("g", 0, timeout=100)
            assert 40 < trio.current_time() < 50

    run(main)


def test_cancelled_wait_leaves_nothing_behind(
    run_any: Callable[[Callable[[], Awaitable[Any]]], Any],
) -> None:
    """It is gone from the broker, on either event loop."""

    async def main() -> None:
        b = broker(1)
        with anyio.move_on_after(0.01) as scope:
            await b.wait_committed("g", T0, 1)
        assert scope.cancelled_caught
        assert b._cluster.watchers._all == []

    run_any(main)


def test_asyncio_task_that_waits_can_be_cancelled() -> None:
    """By asyncio's own means, too."""

    async def main() -> None:
        b = broker(1)
        task = asyncio.create_task(b.wait_committed("g", T0, 1))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert len(b._cluster.watchers._all) == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert b._cluster.watchers._all == []
        with pytest.raises(TimeoutError, match=r"is not committed at 1 within 0 s"):
            await b.wait_committed("g", T0, 1, timeout=0)

    asyncio.run(main())


def test_wait_is_woken_from_another_thread(
    run_any: Callable[[Callable[[], Awaitable[Any]]], Any],
) -> None:
    """The broker's owner works in a thread of its own, the test waits in another."""
    b = broker(1, records=3)

    async def consume() -> None:
        async with b.connect(settings(), Recorder()) as session:
            await session.subscribe(TOPICS)
            await session.poll()
            await session.commit({T0: at(3)})
            await b.wait_lag("g", T0)
            await trio.to_thread.run_sync(release.wait)

    release = threading.Event()
    thread = threading.Thread(target=trio.run, args=(consume,))

    async def main() -> None:
        thread.start()
        try:
            assert len(await b.wait_members("g", 1)) == 1
            assert await b.wait_committed("g", T0, 3) == at(3)
            await b.wait_lag("g", "t")
        finally:
            release.set()
        await b.wait_members("g", 0)

    try:
        run_any(main)
    finally:
        thread.join()


def test_change_after_the_event_loop_has_ended_is_harmless() -> None:
    """A wait that its loop left behind wakes nobody, and hurts nobody."""
    b = broker(1)

    async def abandon() -> None:
        wait = b.wait_committed("g", T0, 1)
        wait.send(None)  # the checkpoint
        left.append(wait)

    left: list[Any] = []
    loop = asyncio.new_event_loop()
    loop.run_until_complete(abandon())
    loop.close()
    b.set_committed("g", T0, 1)
    left[0].close()


def test_timeout_is_checked() -> None:
    """Seconds, not below 0."""

    async def main() -> None:
        for bad in (-1.0, float("nan")):
            with pytest.raises(ConfigurationError, match=r"^timeout is in seconds, at least 0"):
                await MemoryBroker().wait_settled("g", timeout=bad)

    run(main)
