"""Rebalances as the listener of a session sees them."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from trio_consumer._errors import TransportError
from trio_consumer._types import TopicPartition
from trio_consumer.transports.memory import MemoryBroker, MemorySession

from .support import (
    ALL,
    COOPERATIVE,
    T0,
    T1,
    T2,
    T3,
    Recorder,
    at,
    broker,
    poll_offsets,
    run,
    settings,
    settle,
)

TOPICS = frozenset({"t"})


def test_eager_revokes_everything_before_joining() -> None:
    """A newcomer makes the first member give all back and get a part anew."""

    async def main() -> None:
        b = broker()
        first, second = Recorder(), Recorder()
        async with b.connect(settings(), first) as one, b.connect(settings(), second) as two:
            await one.subscribe(TOPICS)
            await settle()
            assert first.calls == [("assigned", ALL)]
            await two.subscribe(TOPICS)
            await settle()
            assert first.calls[1:] == [("revoked", ALL), ("assigned", {T0, T1})]
            assert second.calls == [("assigned", {T2, T3})]
            assert (first.generations, second.generations) == ([1, 2], [2])
            # The newcomer is assigned when the other has given back, not before.
            assert second.times[0] >= first.times[1]
            assert b.members("g") == {one.member_id: {T0, T1}, two.member_id: {T2, T3}}
        assert b.members("g") == {}

    run(main)


def test_cooperative_revokes_only_what_moves() -> None:
    """Two partitions change hands in two rounds, the others are never touched."""

    async def main() -> None:
        # A latency, or the first may join again before the other has its assignment.
        b = broker(latency=0.01)
        first, second = Recorder(), Recorder()
        own = settings(client=COOPERATIVE)
        async with b.connect(own, first) as one, b.connect(own, second) as two:
            await one.subscribe(TOPICS)
            await settle()
            await two.subscribe(TOPICS)
            await settle()
            assert first.calls == [
                ("assigned", ALL),
                ("revoked", {T2, T3}),
                ("assigned", frozenset()),
                ("assigned", frozenset()),
            ]
            assert second.calls == [("assigned", frozenset()), ("assigned", {T2, T3})]
            assert first.generations == [1, 2, 3]
            assert second.times[1] >= first.times[1]

    run(main)


def test_cooperative_fetches_on_during_a_rebalance() -> None:
    """Records of partitions that stay come while others are being revoked."""

    async def main() -> None:
        b = broker(records=1)
        first, second = Recorder(), Recorder()
        own = settings(client=COOPERATIVE)
        revoking = trio.Event()

        async def hold(name: str, tps: object) -> None:
            if name == "revoked":
                revoking.set()
                await trio.sleep(30)

        first.hook = hold
        async with b.connect(own, first) as one, b.connect(own, second) as two:
            await one.subscribe(TOPICS)
            await poll_offsets(one)
            await two.subscribe(TOPICS)
            await revoking.wait()
            for n in range(4):
                b.produce("t", b"late", partition=n)
            assert await poll_offsets(one) == {T0: [1], T1: [1]}

    run(main)


@pytest.mark.parametrize("client", [{}, COOPERATIVE])
def test_three_members_come_and_go(client: dict[str, Any]) -> None:
    """Each change leaves every partition with exactly one of the members."""

    async def main() -> None:
        b = broker(partitions=7)
        everything = {TopicPartition("t", n) for n in range(7)}
        recorders = [Recorder() for _ in range(3)]
        async with b.connect(settings(client=client), recorders[0]) as one:
            await one.subscribe(TOPICS)
            async with b.connect(settings(client=client), recorders[1]) as two:
                await two.subscribe(TOPICS)
                async with b.connect(settings(client=client), recorders[2]) as three:
                    await three.subscribe(TOPICS)
                    await settle(40)
                    assert sorted(len(r.held) for r in recorders) == [2, 2, 3]
                    assert set().union(*(r.held for r in recorders)) == everything
                await settle(40)
                assert sorted(len(r.held) for r in recorders[:2]) == [3, 4]
                assert recorders[0].held | recorders[1].held == everything
            await settle(40)
            assert recorders[0].held == everything
        assert all("lost" not in r.names for r in recorders)

    run(main)


def test_revoked_partitions_deliver_nothing_until_assigned() -> None:
    """From the call of revoked to the return of assigned no record comes."""

    async def main() -> None:
        b = broker(partitions=1)
        listener = Recorder()
        quiet = True
        polled: list[bool] = []

        async def slow(name: str, tps: object) -> None:
            nonlocal quiet
            quiet = True
            await trio.sleep(5)
            # After a revocation the quiet lasts, the next assignment ends it.
            quiet = name == "revoked"

        listener.hook = slow
        async with b.connect(settings(), listener) as session, trio.open_nursery() as nursery:

            async def poller() -> None:
                while True:
                    await session.poll()
                    polled.append(quiet)

            async def producer() -> None:
                while True:
                    b.produce("t", b"x")
                    await trio.sleep(0.5)

            nursery.start_soon(poller)
            nursery.start_soon(producer)
            await session.subscribe(TOPICS)
            await trio.sleep(20)
            before = len(polled)
            b.rebalance("g")
            await trio.sleep(20)
            nursery.cancel_scope.cancel()
        assert listener.names == ["assigned", "revoked", "assigned"]
        assert 0 < before < len(polled)
        assert not any(polled)

    run(main)


@pytest.mark.parametrize("client", [{}, COOPERATIVE])
def test_commit_is_accepted_while_the_listener_revokes(client: dict[str, Any]) -> None:
    """The rebalance waits, heartbeats go on, and the commit inside is stored."""

    async def main() -> None:
        b = broker(latency=0.01)
        first, second = Recorder(), Recorder()
        sessions: list[MemorySession] = []

        async def drain(name: str, tps: frozenset[TopicPartition]) -> None:
            if name == "revoked":
                # Far beyond the session timeout.
                await trio.sleep(100)
                await sessions[0].commit({tp: at(7) for tp in tps})

        first.hook = drain
        async with b.connect(settings(client=client), first) as one:
            sessions.append(one)
            await one.subscribe(TOPICS)
            await settle()
            async with b.connect(settings(client=client), second) as two:
                await two.subscribe(TOPICS)
                await settle(150)
                assert second.held == {T2, T3}
                assert b.committed("g", T2) == at(7)
                assert second.times[-1] > 100
                assert "lost" not in first.names

    run(main)


def test_members_need_a_common_strategy() -> None:
    """A member with another strategy fails with the remedy, the group is unharmed."""

    async def main() -> None:
        b = broker()
        first, second = Recorder(), Recorder()
        async with (
            b.connect(settings(), first) as one,
            b.connect(settings(client=COOPERATIVE), second) as two,
        ):
            await one.subscribe(TOPICS)
            await settle()
            await two.subscribe(TOPICS)
            with pytest.raises(TransportError, match=r"^cannot join the group 'g': its members"):
                await two.poll()
            await settle()
            assert (first.names, second.names) == (["assigned"], [])

    run(main)


@pytest.mark.parametrize("client", [{}, COOPERATIVE])
def test_subscription_may_change(client: dict[str, Any]) -> None:
    """New topics come, old ones are revoked, and none at all leaves the group."""

    async def main() -> None:
        b = broker(partitions=1)
        b.create_topic("u")
        u = TopicPartition("u", 0)
        listener = Recorder()
        async with b.connect(settings(client=client), listener) as session:
            await session.subscribe(TOPICS)
            await settle()
            await session.subscribe(frozenset({"t", "u"}))
            await settle()
            assert listener.held == {T0, u}
            await session.subscribe(frozenset({"u"}))
            await settle()
            assert listener.held == {u}
            await session.subscribe(frozenset({"u"}))
            await settle()
            calls = len(listener.calls)
            await session.subscribe(frozenset())
            await settle()
            assert listener.calls[calls:] == [("revoked", {u})]
            assert b.members("g") == {}
            await session.subscribe(TOPICS)
            await settle()
            assert listener.held == {T0}
            assert "lost" not in listener.names

    run(main)


def test_subscription_may_change_while_joining() -> None:
    """A change in the middle of a join is found at the end of the round."""

    async def main() -> None:
        b = broker(partitions=1, latency=1.0)
        b.create_topic("u")
        listener = Recorder()
        async with b.connect(settings(), listener) as session:
            await session.subscribe(TOPICS)
            await trio.sleep(0.5)
            await session.subscribe(frozenset({"u"}))
            await settle()
            assert listener.held == {TopicPartition("u", 0)}

    run(main)


@pytest.mark.parametrize("client", [{}, COOPERATIVE])
def test_new_partitions_and_deleted_topics_cause_a_rebalance(client: dict[str, Any]) -> None:
    """The leader notices within a heartbeat interval."""

    async def main() -> None:
        b = broker(partitions=2)
        b.create_topic("u")
        first, second = Recorder(), Recorder()
        own = settings(client=client)
        async with b.connect(own, first) as one, b.connect(own, second) as two:
            await one.subscribe(frozenset({"t", "u"}))
            await two.subscribe(frozenset({"t", "u"}))
            await settle()
            b.add_partitions("t", 4)
            await settle()
            assert first.held | second.held == {*ALL, TopicPartition("u", 0)}
            b.delete_topic("u")
            await settle()
            assert first.held | second.held == ALL

    run(main)


def test_exception_of_the_listener_leaves_the_block() -> None:
    """It cancels the block and comes out as itself."""

    async def main() -> None:
        b = broker()
        listener = Recorder()
        error = ValueError("from the listener")

        async def fail(name: str, tps: object) -> None:
            raise error

        listener.hook = fail

        async def block() -> None:
            async with b.connect(settings(), listener) as session:
                await session.subscribe(TOPICS)
                await trio.sleep_forever()

        with pytest.raises(ValueError, match=r"^from the listener$") as caught:
            await block()
        assert caught.value is error
        assert b.members("g") == {}

    run(main)


@pytest.mark.parametrize("seed", range(5))
def test_latency_and_churn_keep_one_owner(seed: int) -> None:
    """With random latencies, members that come, go and expire never share a partition."""

    async def main() -> None:
        b = MemoryBroker(seed=seed, latency=(0.0, 2.0))
        b.create_topic("t", 6)
        recorders: list[Recorder] = []

        async def member(begin: float, end: float, client: dict[str, Any]) -> None:
            await trio.sleep(begin)
            recorder = Recorder()
            async with b.connect(settings(client=client), recorder) as session:
                recorders.append(recorder)
                await session.subscribe(TOPICS)
                await trio.sleep(end - begin)
                recorder.held.clear()
                recorders.remove(recorder)

        client = COOPERATIVE if seed % 2 else {}
        async with trio.open_nursery() as nursery:
            for n in range(4):
                nursery.start_soon(member, n * 7.0, 150.0 + 40 * n, client)
            for _ in range(300):
                await trio.sleep(0.7)
                held = [tp for r in recorders for tp in r.held]
                assert len(held) == len(set(held))
            await trio.sleep(20)
            assert len([tp for r in recorders for tp in r.held]) == 6

    run(main)
