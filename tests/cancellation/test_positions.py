"""Seeks, messages given back and late answers: the committed offset passes nothing unprocessed.

Nobody seeks forwards, so nothing may be left out; a seek back may let the
committed offset fall.
"""

from __future__ import annotations

import itertools
import os
from random import Random

import pytest
import trio

from trio_consumer import (
    TP,
    CommitFailedError,
    ConfigurationError,
    Consumer,
    Stream,
    TransportError,
)
from trio_consumer.testing import Faults, MemoryBroker
from trio_consumer.transports.memory import CommitFault

from ..runtime.support import COOPERATIVE, GROUP, Journal, add_topic, chance, consuming, run

SEEDS = int(os.environ.get("SEEDS", "200"))

FAULTS = (
    CommitFault.COORDINATOR_UNAVAILABLE,
    CommitFault.TIMEOUT,
    CommitFault.ANSWER_LOST,
    CommitFault.REBALANCE_IN_PROGRESS,
)


class Members:
    """Members that process, seek and give back, drawn from a seed."""

    def __init__(self, seed: int) -> None:
        self.random = random = Random(seed)
        self.broker = MemoryBroker(seed=seed)
        add_topic(self.broker, "t", random.randint(1, 60), random.randint(1, 4))
        self.journal = Journal(self.broker)
        self.client = dict(COOPERATIVE) if chance(random, 0.5) else {}
        self.patient = False

    async def member(self) -> None:
        """One life of one member."""
        random = self.random
        async with (
            consuming(
                self.broker,
                commit_interval=random.choice([0.05, 0.5, 2.8]),
                commit_timeout=random.choice([0.5, 5.0]),
                drain_timeout=random.choice([0.0, 2.0]),
                on_partitions_revoked=self.revoked,
                client_options={"max_poll_records": random.choice([1, 7, 50]), **self.client},
            ) as consumer,
            consumer.stream("t", ack="manual", max_buffered=random.choice([3, 50])) as stream,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(self.seek, consumer)
            for _ in range(random.randint(1, 3)):
                nursery.start_soon(self.process, stream)

    async def pause(self, share: float, most: float) -> None:
        """Take some time, now and then."""
        if chance(self.random, share) and not self.patient:
            await trio.sleep(self.random.uniform(0, most))

    async def revoked(self, _: object) -> None:
        """Partitions go slowly."""
        await self.pause(0.2, 3.0)

    async def process(self, stream: Stream) -> None:
        """Late, out of order, and now and then in vain."""
        async for message in stream:
            await self.pause(0.3, 1.0)
            if chance(self.random, 0.1) and not self.patient:
                message.nack()
                continue
            self.journal.add(message)
            message.ack()

    async def seek(self, consumer: Consumer) -> None:
        """Back, to a place that was read, or to what is committed; and commit meanwhile."""
        random = self.random
        while not self.patient:
            await trio.sleep(random.uniform(0, 3))
            try:
                action = random.randrange(4)
                if action == 0:
                    await consumer.seek_to_committed()
                elif action == 1:
                    await consumer.commit()
                elif action == 2:
                    await consumer.on_restart()
                elif assigned := sorted(consumer.assignment):
                    tp = random.choice(assigned)
                    await consumer.seek(tp, random.randint(0, self.processed(tp)))
            except (ConfigurationError, CommitFailedError, TransportError):
                pass  # gone meanwhile, or no answer

    def processed(self, tp: TP) -> int:
        """How far a partition was processed without a gap: beyond it a seek would leave out."""
        return next(
            (n for n in itertools.count() if self.journal.processed_at(tp, n) is None),
        )

    async def lives(self) -> None:
        """One after another, each cancelled."""
        while True:
            with trio.move_on_after(self.random.uniform(0, 15)):
                await self.member()
            await trio.sleep(self.random.uniform(0, 1))

    async def meddle(self) -> None:
        """What happens to a cluster."""
        random = self.random
        while True:
            await trio.sleep(random.uniform(0, 3))
            action = random.randrange(4)
            if action == 0:
                self.broker.rebalance(GROUP)
            elif action == 1 and (members := sorted(self.broker.members(GROUP))):
                self.broker.expire(random.choice(members))
            elif action == 2:
                self.broker.pause_answers()
                await trio.sleep(random.uniform(0, 4))
                self.broker.resume_answers()


@pytest.mark.parametrize("seed", range(SEEDS))
def test_no_commit_passes_what_nobody_has_processed(seed: int) -> None:
    """Whatever is sought, given back, revoked or late; and in the end all is processed."""
    members = Members(seed)
    random = members.random

    async def main() -> None:
        members.broker.faults = Faults(
            latency=random.choice([0.0, (0.0, 0.3), (0.1, 1.0)]),
            commit_failure_rate=random.choice([0.0, 0.3]),
            commit_faults=FAULTS,
        )
        with trio.move_on_after(random.uniform(10, 60)):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(members.meddle)
                for _ in range(random.randint(1, 3)):
                    nursery.start_soon(members.lives)
        members.journal.check_commits(monotonic=False)
        members.broker.resume_answers()
        members.broker.faults = Faults()
        members.patient = True
        for number in itertools.count():
            assert number < 20, "it does not come to an end"
            with trio.move_on_after(60):
                await members.member()
            if members.journal.is_complete():
                break
        members.journal.check_commits(monotonic=False)

    run(main, seed=seed)
