"""Commits around a rebalance: the last one, refused ones, none in flight afterwards."""

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
    FencedError,
    open_consumer,
)
from trio_consumer.testing import Faults, MemoryBroker
from trio_consumer.transports.base import (
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
    broker,
    committed,
    consuming,
    offsets,
    run,
    take,
)


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
    [told] = [r.getMessage() for r in caplog.records if r.name == "trio_consumer.rebalance"]
    assert told.startswith(
        "the commit before giving up t[0] failed, their next owner gets what was finished since the"
        " last commit again: cannot commit t[0]=2"
    )


def test_last_commit_is_of_what_goes_alone() -> None:
    """What stays in a cooperative hand-over is committed on its own timetable."""

    async def main() -> None:
        it = broker(2, 2)
        options: dict[str, Any] = {"commit_interval": 1000, "client_options": COOPERATIVE}
        async with consuming(it, **options) as consumer, consumer.stream("t") as stream:
            await take(stream)
            async with consuming(it, topics=["t"], **options) as other, other.stream("t"):
                await trio.sleep(60)
                [stays] = consumer.assignment
                assert [set(c.offsets) for c in it.commit_history(GROUP)] == [set(other.assignment)]
                assert committed(it, stays) is None

    run(main)


def test_commit_in_a_revocation_is_repeated_while_there_is_time() -> None:
    """Failures that may pass do not cost a replay; it waits twice as long after each."""

    async def main() -> None:
        it = broker(2)
        revoked = []
        async with consuming(
            it,
            commit_interval=1000,
            on_partitions_revoked=lambda _: revoked.append(trio.current_time()),
        ) as consumer:
            assert consumer.statistics().commit_error is None
            async with consumer.stream("t", ack="manual") as stream:
                await take(stream, 2)
                it.fail_next_commits(3, CommitFault.COORDINATOR_UNAVAILABLE)
                it.rebalance(GROUP)
                for _ in range(1000):
                    if consumer.statistics().partitions[T0].state != "open":
                        break
                    await trio.sleep(0.01)
                started = trio.current_time()
                await trio.sleep(10)
                assert revoked[0] - started == pytest.approx(0.05 + 0.1 + 0.2, abs=0.02)
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
