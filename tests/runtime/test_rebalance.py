"""What happens when the group moves partitions: drain, commit, hand-over, fencing."""

# The blocks nest as those of a program do, an error leaves a whole block, and a
# loop that sleeps costs nothing under a virtual clock.
# ruff: noqa: SIM117

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from trio_consumer import (
    TP,
    CommitFailedError,
    Consumer,
    FencedError,
    RoundRobin,
    Stream,
    open_consumer,
)
from trio_consumer._runtime.conductor import Conductor, Parcel, Transit
from trio_consumer.testing import Faults, MemoryBroker
from trio_consumer.transports.base import (
    PolledBatch,
    RebalanceListener,
    Session,
    SessionSettings,
)
from trio_consumer.transports.memory import CommitFault
from trio_consumer.transports.memory.protocol import GroupError

from .support import (
    COOPERATIVE,
    GROUP,
    T0,
    T1,
    broker,
    committed,
    consuming,
    offsets,
    run,
    take,
    values,
)


def only_member(it: MemoryBroker) -> str:
    """The id of the one member."""
    [member] = it.members(GROUP)
    return member


def test_revocation_waits_for_what_is_in_hand_and_commits_it() -> None:
    """The message in hand is finished and committed before the partition goes."""

    async def main() -> None:
        it = broker(5)
        revoked = []

        def on_revoked(tps: frozenset[TP]) -> None:
            revoked.append((trio.current_time(), committed(it)))

        async with (
            consuming(it, on_partitions_revoked=on_revoked, commit_interval=1000) as consumer,
            consumer.stream("t") as stream,
            trio.open_nursery() as nursery,
        ):
            seen: list[int] = []

            async def work() -> None:
                async for message in stream:
                    seen.append(message.offset)
                    await trio.sleep(7)

            nursery.start_soon(work)
            await trio.sleep(1)
            it.rebalance(GROUP)
            await trio.sleep(10)
            # Learnt at 3, waited until 7; offset 1 was in nobody's hand.
            assert revoked == [(7.0, 1)]
            assert seen == [0, 1]
            nursery.cancel_scope.cancel()
        assert committed(it) == 1

    run(main)


def test_nothing_is_handed_out_while_a_revocation_waits() -> None:
    """Other workers of the stream get no message of a partition that is going."""

    async def main() -> None:
        it = broker(20)
        times: list[float] = []

        async def slow(stream: Stream) -> None:
            async for _ in stream:
                times.append(trio.current_time())
                await trio.sleep(9)

        async def quick(stream: Stream) -> None:
            async for _ in stream:
                times.append(trio.current_time())
                await trio.sleep(0.5)

        async with consuming(it) as consumer, consumer.stream("t") as stream:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(slow, stream)
                nursery.start_soon(quick, stream)
                await trio.sleep(1)
                it.rebalance(GROUP)
                await trio.sleep(9)
                nursery.cancel_scope.cancel()
        assert [time for time in times if 3.1 < time < 8.9] == []
        assert [time for time in times if time >= 9]

    run(main)


def test_revocation_gives_up_at_its_deadline(caplog: pytest.LogCaptureFixture) -> None:
    """What is not finished by then is not committed, and its late acknowledgement is False."""

    async def main() -> None:
        it = broker(5)
        async with consuming(it, drain_timeout=4) as consumer:
            async with consumer.stream("t", ack="manual") as stream:
                first, second = await take(stream, 2, ack=False)
                first.ack()
                start = trio.current_time()
                it.rebalance(GROUP)
                await trio.sleep(0.1)
                while consumer.statistics().rebalances < 2:
                    await trio.sleep(0.1)
                assert 4 <= trio.current_time() - start <= 8
                assert second.ack() is False
                assert consumer.statistics().partitions[T0].committed is None
                assert committed(it) == 1
                assert offsets(await take(stream)) == [1, 2, 3, 4]
        assert committed(it) == 5

    run(main)
    assert [r.getMessage() for r in caplog.records if r.name == "trio_consumer.rebalance"] == [
        "t[0] goes with 1 messages in hand, the oldest at offset 1: they are not committed and"
        " will be delivered again"
    ]


def test_drain_stays_below_the_rebalance_timeout_of_the_client() -> None:
    """However long ``drain_timeout`` is, the group does not throw this member out."""

    async def main() -> None:
        it = broker(5)
        lost = []
        client = {"max_poll_interval_ms": 10_000}
        async with (
            consuming(
                it, drain_timeout=1000, client_options=client, on_partitions_lost=lost.append
            ) as consumer,
            consumer.stream("t", ack="manual") as stream,
        ):
            await take(stream, 2, ack=False)
            it.rebalance(GROUP)
            await trio.sleep(30)
            assert consumer.statistics().rebalances == 2
        assert lost == []

    run(main)


def test_late_ack_changes_nothing_for_the_next_assignment() -> None:
    """After revocation the old message is dead, whatever offset the new one has (I5)."""

    async def main() -> None:
        it = broker(3)
        async with consuming(it, drain_timeout=0) as consumer:
            async with consumer.stream("t", ack="manual") as stream:
                old = await take(stream, 3, ack=False)
                it.rebalance(GROUP)
                await trio.sleep(10)
                new = await take(stream, 3, ack=False)
                assert offsets(new) == offsets(old) == [0, 1, 2]
                assert [message.ack() for message in old] == [False] * 3
                assert await consumer.commit() is False
                new[0].ack()
                await consumer.commit()
                assert committed(it) == 1
                assert [message.ack() for message in new] == [False, True, True]
        assert committed(it) == 3

    run(main)


def test_lost_partitions_are_neither_drained_nor_committed() -> None:
    """Lost is not revoked: no wait, no commit, its own callback, then everything again."""

    async def main() -> None:
        it = broker(3)
        calls: list[tuple[str, frozenset[TP], float]] = []

        def note(name: str) -> Any:
            return lambda tps: calls.append((name, tps, trio.current_time()))

        async with (
            consuming(
                it,
                commit_interval=1000,
                on_partitions_assigned=note("assigned"),
                on_partitions_revoked=note("revoked"),
                on_partitions_lost=note("lost"),
            ) as consumer,
            consumer.stream("t", ack="manual") as stream,
        ):
            first, second, _ = await take(stream, 3, ack=False)
            first.ack()
            it.expire(only_member(it))
            await trio.sleep(10)
            assert second.ack() is False
            assert committed(it) is None
            assert offsets(await take(stream)) == [0, 1, 2]
        assert [(name, tps) for name, tps, _ in calls] == [
            ("assigned", {T0}),
            ("lost", {T0}),
            ("assigned", {T0}),
        ]
        assert calls[1][2] == calls[2][2]
        assert committed(it) == 3

    run(main)


def test_callbacks_come_in_order_and_see_the_committed_offsets() -> None:
    """Async callbacks are awaited: the partitions go when they have returned."""

    async def main() -> None:
        it = broker(2)
        calls: list[object] = []
        consumer: Consumer

        async def on_assigned(tps: frozenset[TP]) -> None:
            calls.append(("assigned", sorted(tps), sorted(consumer.assignment)))

        async def on_revoked(tps: frozenset[TP]) -> None:
            await trio.sleep(1)
            calls.append(("revoked", await consumer.committed(tps)))
            assert await consumer.commit() is False

        async with (
            consuming(
                it,
                commit_interval=1000,
                on_partitions_assigned=on_assigned,
                on_partitions_revoked=on_revoked,
            ) as consumer,
            consumer.stream("t") as stream,
        ):
            await take(stream, 2)
            it.rebalance(GROUP)
            await trio.sleep(10)
        assert calls == [
            ("assigned", [T0], [T0]),
            ("revoked", {T0: (2, "", -1)}),
            ("assigned", [T0], [T0]),
        ]

    run(main)


@pytest.mark.parametrize("kind", ["plain", "async"])
@pytest.mark.parametrize("event", ["assigned", "revoked", "lost"])
def test_callback_that_raises_stops_the_consumer(event: str, kind: str) -> None:
    """The error of a callback leaves ``open_consumer`` as itself."""

    def plain(tps: frozenset[TP]) -> None:
        raise KeyError(event)

    async def later(tps: frozenset[TP]) -> None:
        await trio.sleep(0.1)
        raise KeyError(event)

    async def main() -> None:
        it = broker(2)
        callback = plain if kind == "plain" else later
        options: dict[str, Any] = {f"on_partitions_{event}": callback}
        with pytest.raises(KeyError, match=f"^'{event}'$"):
            async with consuming(it, **options) as consumer:
                async with consumer.stream("t") as stream:
                    await take(stream, 1)
                    if event == "lost":
                        it.expire(only_member(it))
                    else:
                        it.rebalance(GROUP)
                    await trio.sleep_forever()

    run(main)


def test_seek_in_the_assigned_callback_decides_where_reading_starts() -> None:
    """No message of a new partition is delivered before the callback has returned."""

    async def main() -> None:
        it = broker(5)
        consumer: Consumer

        async def on_assigned(tps: frozenset[TP]) -> None:
            await trio.sleep(1)
            for tp in tps:
                await consumer.seek(tp, 3)

        async with consuming(it, on_partitions_assigned=on_assigned) as consumer:
            async with consumer.stream("t") as stream:
                assert offsets(await take(stream, wait=3)) == [3, 4]
        assert committed(it) == 5

    run(main)


def test_cooperative_hand_over_leaves_other_partitions_alone() -> None:
    """A partition that stays keeps its buffer, its messages in hand and its account."""

    async def main() -> None:
        it = broker(10, 2)
        async with consuming(it, client_options=COOPERATIVE) as consumer:
            async with consumer.stream("t", ack="manual") as stream:
                taken = await take(stream, 20, ack=False)
                assert len(taken) == 20
                for message in taken[:-1]:
                    if message.tp == T0 or message.offset < 5:
                        message.ack()
                async with consuming(it, topics=["t"], client_options=COOPERATIVE) as other:
                    async with other.stream("t") as second:
                        await trio.sleep(60)
                        [stays] = consumer.assignment
                        [goes] = other.assignment
                        assert {stays, goes} == {T0, T1}
                        held = [m for m in taken if m.tp == stays and not m.ack()]
                        assert len(held) + sum(m.ack() for m in taken) <= 10
                        assert [m for m in await take(second) if m.tp != goes] == []
                        assert await take(stream, ack=False) == []
        for tp in (T0, T1):
            assert committed(it, tp) in (5, 10)

    run(main)


def test_cooperative_hand_over_keeps_the_buffer_of_what_stays() -> None:
    """Records that lie in the buffer of a partition that stays are handed out once."""

    async def main() -> None:
        it = broker(10, 2)
        async with consuming(it, client_options=COOPERATIVE, drain_timeout=1) as consumer:
            async with consumer.stream("t") as stream:
                await trio.sleep(5)
                first = await take(stream, 1)
                assert stream.buffered > 0
                async with consuming(it, topics=["t"], client_options=COOPERATIVE) as other:
                    async with other.stream("t") as second:
                        await trio.sleep(60)
                        mine = first + await take(stream)
                        yours = await take(second)
                [stays] = {m.tp for m in mine if m.offset > 0}
                assert offsets(mine, stays) == list(range(10))
                [goes] = {m.tp for m in yours}
                assert offsets(yours, goes) in (list(range(10)), list(range(1, 10)))
        assert (committed(it, T0), committed(it, T1)) == (10, 10)

    run(main)


def test_hand_over_to_a_second_member_replays_the_unfinished_only() -> None:
    """What is committed in the revocation is not delivered to the next owner."""

    async def main() -> None:
        it = broker(10, 2)
        got: dict[str, list[tuple[TP, int]]] = {"one": [], "two": []}

        async def member(name: str) -> None:
            async with consuming(it, commit_interval=1000) as consumer:
                async with consumer.stream("t") as stream:
                    async for message in stream:
                        got[name].append((message.tp, message.offset))
                        await trio.sleep(0.7)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(member, "one")
            await trio.sleep(4)
            nursery.start_soon(member, "two")
            await trio.sleep(60)
            nursery.cancel_scope.cancel()
        together = got["one"] + got["two"]
        assert len(together) == len(set(together)) == 20
        assert got["two"]
        assert (committed(it, T0), committed(it, T1)) == (10, 10)

    run(main)


def test_failed_commit_in_a_revocation_lets_the_group_go_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What could not be committed is delivered again to the next owner, and said so."""

    async def main() -> None:
        it = broker(2)
        async with consuming(it, commit_interval=1000) as consumer:
            async with consumer.stream("t") as stream:
                await take(stream, 2)
                it.fail_next_commits(1, CommitFault.METADATA_TOO_LARGE)
                it.rebalance(GROUP)
                await trio.sleep(10)
                assert offsets(await take(stream)) == [0, 1]
        assert committed(it) == 2

    run(main)
    assert [r.getMessage()[:41] for r in caplog.records if r.name == "trio_consumer.rebalance"] == [
        "the commit before giving up t[0] failed, "
    ]


def test_commit_in_a_revocation_is_repeated_while_there_is_time() -> None:
    """Failures that may pass do not cost a replay."""

    async def main() -> None:
        it = broker(2)
        async with consuming(it, commit_interval=1000) as consumer:
            async with consumer.stream("t") as stream:
                await take(stream, 2)
                it.fail_next_commits(3, CommitFault.COORDINATOR_UNAVAILABLE)
                it.rebalance(GROUP)
                await trio.sleep(10)
                assert await take(stream) == []
                assert committed(it) == 2

    run(main)


def test_fencing_in_a_revocation_stops_the_consumer() -> None:
    """A fatal refusal leaves as itself from there, too."""

    async def main() -> None:
        it = broker(2)
        with pytest.raises(FencedError, match=r"^cannot commit"):
            async with consuming(it, commit_interval=1000) as consumer:
                async with consumer.stream("t") as stream:
                    await take(stream, 2)
                    it.fail_next_commits(1, CommitFault.FENCED)
                    it.rebalance(GROUP)
                    await trio.sleep_forever()

    run(main)


class Watched:
    """A session that knows how many of its commits are under way."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.under_way = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    async def commit(self, offsets: Any) -> None:
        """Count it."""
        self.under_way += 1
        try:
            await self._session.commit(offsets)
        finally:
            self.under_way -= 1


class Watching:
    """A transport that notes the commits under way when a revocation returns."""

    closed_errors = MemoryBroker.closed_errors

    def __init__(self, it: MemoryBroker) -> None:
        self.broker = it
        self.found: list[int] = []
        self.session: Watched

    @asynccontextmanager
    async def connect(
        self, settings: SessionSettings, listener: RebalanceListener
    ) -> AsyncIterator[Any]:
        """Open a session of the broker and look over its shoulder."""
        self.listener = listener
        async with self.broker.connect(settings, self) as session:
            self.session = Watched(session)
            yield self.session

    async def assigned(self, tps: frozenset[TP], generation: int) -> None:
        """Pass it on."""
        await self.listener.assigned(tps, generation)

    async def lost(self, tps: frozenset[TP]) -> None:
        """Pass it on."""
        await self.listener.lost(tps)
        self.found.append(self.session.under_way)

    async def revoked(self, tps: frozenset[TP]) -> None:
        """Pass it on, and look."""
        await self.listener.revoked(tps)
        self.found.append(self.session.under_way)


def test_no_commit_for_a_partition_is_in_flight_when_its_revocation_returns() -> None:
    """A tick during the user's callback is waited for before the partitions go."""

    async def main() -> None:
        it = broker(5)
        transport = Watching(it)

        async def on_revoked(tps: frozenset[TP]) -> None:
            held.ack()
            await trio.sleep(1.3)

        async with (
            open_consumer(
                transport,
                group=GROUP,
                commit_interval=1.0,
                drain_timeout=0.5,
                on_partitions_revoked=on_revoked,
            ) as consumer,
            consumer.stream("t", ack="manual") as stream,
        ):
            [held] = await take(stream, 1, ack=False)
            it.faults = Faults(latency=2.5)
            it.rebalance(GROUP)
            await trio.sleep(30)
            assert consumer.statistics().rebalances == 2
        assert transport.found == [0]
        assert committed(it) == 1

    run(main)


def test_no_commit_is_in_flight_when_the_loss_of_partitions_was_told() -> None:
    """The answer to a commit is waited for before the member joins again."""

    async def main() -> None:
        it = broker(5)
        transport = Watching(it)
        async with open_consumer(transport, group=GROUP, commit_interval=1000) as consumer:
            async with consumer.stream("t") as stream, trio.open_nursery() as nursery:
                await take(stream, 2)
                it.pause_answers()

                async def commit() -> None:
                    with pytest.raises(CommitFailedError, match=r"^cannot tell whether"):
                        await consumer.commit()

                nursery.start_soon(commit)
                await trio.sleep(1)
                consumer._session._session._membership._follow(GroupError.UNKNOWN_MEMBER_ID)
                await trio.sleep(10)
                it.resume_answers()
                await trio.sleep(10)
        assert transport.found == [0]

    run(main)


def test_stream_that_closes_while_a_revocation_waits_ends_the_wait() -> None:
    """What its loop had in hand is waited for no longer; it is not finished either."""

    async def main() -> None:
        it = broker(3, 1)
        async with consuming(it, drain_timeout=30) as consumer:
            async with consumer.stream("t", ack="none"):
                async with consumer.stream("t", ack="manual") as stream:
                    await take(stream, 2, ack=False)
                    it.rebalance(GROUP)
                    await trio.sleep(5)
                    assert consumer.assignment == frozenset()
                await trio.sleep(1)
                assert consumer.assignment == {T0}
                assert consumer.statistics().rebalances == 2
            async with consumer.stream("t") as stream:
                assert offsets(await take(stream)) == [0, 1, 2]
        assert committed(it) == 3

    run(main)


def test_stream_that_opens_while_a_revocation_waits_gets_the_next_assignment() -> None:
    """A partition that is going is not handed to a new stream."""

    async def main() -> None:
        it = broker(3, 1)
        async with consuming(it, drain_timeout=8) as consumer:
            async with consumer.stream("t", ack="manual") as stream:
                [first, *_] = await take(stream, ack=False)
                it.rebalance(GROUP)
                await trio.sleep(3)
                async with consumer.stream("t") as late:
                    assert await take(late) == []
                    first.ack()
                    await trio.sleep(10)
                    assert offsets(await take(late)) == offsets(await take(stream)) == [1, 2]
        assert committed(it) == 3

    run(main)


def test_two_streams_and_a_revocation_lose_nothing_of_either() -> None:
    """A record that one stream finished and the other never got comes again to both."""

    async def main() -> None:
        it = broker(4)
        async with consuming(it) as consumer:
            async with consumer.stream("t") as ahead, consumer.stream("t") as behind:
                assert offsets(await take(ahead)) == [0, 1, 2, 3]
                assert offsets(await take(behind, 1)) == [0]
                it.rebalance(GROUP)
                await trio.sleep(10)
                assert committed(it) == 1
                assert offsets(await take(ahead)) == [1, 2, 3]
                assert offsets(await take(behind)) == [1, 2, 3]
        assert committed(it) == 4

    run(main)


def test_paused_partition_is_not_paused_after_it_came_back() -> None:
    """A user's pause ends with the assignment; a stopped flow does not."""

    async def main() -> None:
        it = broker(2)
        async with consuming(it) as consumer, consumer.stream("t") as stream:
            await take(stream)
            consumer.pause_partitions([T0])
            it.produce_many("t", values(1))
            it.rebalance(GROUP)
            await trio.sleep(10)
            assert offsets(await take(stream)) == [2]
            consumer.stop_flow()
            it.produce_many("t", values(1))
            it.rebalance(GROUP)
            await trio.sleep(10)
            assert await take(stream) == []
            consumer.resume_flow()
            assert offsets(await take(stream)) == [3]

    run(main)


def test_truncated_log_goes_back_and_makes_old_messages_stale() -> None:
    """When the log is made anew its messages are new ones, whatever their offsets."""

    async def main() -> None:
        it = broker(5)
        async with consuming(it) as consumer, consumer.stream("t", ack="manual") as stream:
            old = await take(stream, ack=False)
            it.truncate(T0, 0)
            it.produce_many("t", values(3))
            new = await take(stream, ack=False)
            assert offsets(new) == [0, 1, 2]
            assert [message.ack() for message in old] == [False] * 5
            assert [message.ack() for message in new] == [True] * 3
            await consumer.commit()
            assert committed(it) == 3

    run(main)


def test_commit_during_a_rebalance_that_is_refused_is_made_up_for() -> None:
    """A commit of a partition that stays, refused in the middle of a join, goes later."""

    async def main() -> None:
        it = broker(2)
        async with consuming(it, client_options=COOPERATIVE, commit_interval=1.0) as consumer:
            async with consumer.stream("t") as stream:
                await take(stream, 2, wait=0.5)
                it.faults = Faults(latency=4)
                it.rebalance(GROUP)
                failures = 0
                for _ in range(20):
                    try:
                        await consumer.commit()
                    except CommitFailedError:
                        failures += 1
                    await trio.sleep(0.3)
                it.faults = Faults()
                await trio.sleep(20)
                assert committed(it) == 2

    run(main)


def test_polls_noted_before_the_position_went_back_are_handed_on() -> None:
    """The fetcher may be a poll ahead of the conductor when a log is made anew: it counts."""

    async def main() -> None:
        it = broker(6)
        async with consuming(it, topics=["t"]) as consumer, consumer.stream("t") as stream:
            await take(stream)
            it.truncate(T0, 0)
            partitions = consumer._partitions
            [assignment] = partitions
            _, receive = trio.open_memory_channel[list[Parcel]](0)
            conductor = Conductor(partitions, receive, RoundRobin(), Transit())
            it.create_topic("u", 1)
            it.produce_many("u", values(6), partition=0)
            records = it.records(TP("u", 0))
            noted = [
                Parcel(assignment, assignment.reading, PolledBatch(T0, records[:3], 3)),
                Parcel(assignment, assignment.reading, PolledBatch(T0, records[3:], 6)),
            ]
            for parcel in noted:
                conductor.take([parcel])
            assert [m.offset for m in await take(stream)] == [0, 1, 2, 3, 4, 5]

    run(main)
