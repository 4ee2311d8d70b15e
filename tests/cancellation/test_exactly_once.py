"""Transactions cancelled at any moment: each input has exactly one output.

Readers of committed records are the judge: what they see is compared with the
input after every life, and at the end it has to be complete.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections import Counter
from random import Random
from typing import Literal

import pytest
import trio

from trio_consumer import (
    CommitFailedError,
    Consumer,
    Message,
    MessageBatch,
    Stream,
    Transaction,
    TransactionAbortedError,
    TransportError,
)
from trio_consumer.testing import Faults, MemoryBroker

from ..runtime.support import (
    COOPERATIVE,
    GROUP,
    TP,
    CancelAtStep,
    add_topic,
    broker,
    chance,
    committed,
    consuming,
    run,
    tasks_living,
)
from . import kit

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

SEEDS = int(os.environ.get("SEEDS", "200"))
OUT = TP("out", 0)

ENDS = (TransportError, CommitFailedError, TransactionAbortedError)
"""What may end a member: the next one goes on."""


def outputs(it: MemoryBroker) -> Counter[bytes | None]:
    """What a reader of committed records sees."""
    return Counter(record.value for record in it.records(OUT, committed_only=True))


def inputs(it: MemoryBroker) -> Counter[bytes | None]:
    """What there is to transform, each value with its place."""
    return Counter(
        b"%d-%d" % (n, record.offset)
        for n in range(it.topics["t"])
        for record in it.records(TP("t", n), committed_only=True)
    )


def result(message: Message) -> bytes:
    """The output of one input."""
    return b"%d-%d" % (message.partition, message.offset)


class Group:
    """Members that transform, drawn from a seed."""

    def __init__(self, seed: int) -> None:
        self.random = random = Random(seed)
        self.broker = MemoryBroker(seed=seed)
        add_topic(self.broker, "t", random.randint(1, 60), random.randint(1, 4))
        self.broker.create_topic("out", 1)
        self.patient = False
        self.client = dict(COOPERATIVE) if chance(random, 0.5) else {}

    def check(self) -> None:
        """No output twice, and none without an input."""
        seen = outputs(self.broker)
        assert not {value for value, count in seen.items() if count > 1}
        assert not seen - inputs(self.broker)

    async def member(self, name: str) -> None:
        """One life of one member; a failure of the consumer ends it."""
        random = self.random
        try:
            async with (
                consuming(
                    self.broker,
                    transactional_id=name,
                    transaction_timeout=random.choice([5.0, 60.0]),
                    commit_interval=random.choice([0.5, 2.8]),
                    drain_timeout=random.choice([0.0, 2.0]),
                    on_partitions_revoked=self.revoked,
                    client_options={"max_poll_records": random.choice([1, 7, 50]), **self.client},
                ) as consumer,
                consumer.stream("t", ack="manual", max_buffered=random.choice([3, 50])) as stream,
                trio.open_nursery() as nursery,
            ):
                if chance(random, 0.3):
                    nursery.start_soon(self.follow, consumer)
                if chance(random, 0.3):
                    nursery.start_soon(self.disturb, consumer)
                for _ in range(random.choice([1, 1, 2, 3])):
                    nursery.start_soon(self.transform, consumer, stream)
        except ENDS:
            pass
        except BaseExceptionGroup as group:
            # What ends a member ends several of its tasks.
            rest = group.split(ENDS)[1]
            if rest is not None:
                raise rest from None

    async def pause(self, share: float, most: float) -> None:
        """Take some time, now and then."""
        if chance(self.random, share) and not self.patient:
            await trio.sleep(self.random.uniform(0, most))

    async def revoked(self, _: frozenset[TP]) -> None:
        """Partitions go slowly, so that transactions begin in between."""
        await self.pause(0.1, 4.0)

    async def follow(self, consumer: Consumer) -> None:
        """A stream beside it, that finishes the same messages or watches."""
        ack: Literal["manual", "none"] = "manual" if chance(self.random, 0.5) else "none"
        async with consumer.stream("t", ack=ack) as stream:
            async for message in stream:
                await self.pause(0.3, 0.5)
                message.ack()
                if chance(self.random, 0.02) and not self.patient:
                    return

    async def disturb(self, consumer: Consumer) -> None:
        """Seeks back, commits and so on by a task that has nothing to do with it."""
        random = self.random
        while not self.patient:
            await trio.sleep(random.uniform(0, 5))
            action = random.randrange(5)
            try:
                if action == 0:
                    await consumer.seek_to_committed()
                elif action == 1:
                    await consumer.on_restart()
                elif action == 2:
                    await consumer.commit()
                elif action == 3:
                    await consumer.wait_empty(1.0)
                else:
                    consumer.stop_flow()
                    await trio.sleep(1)
                    consumer.resume_flow()
            except ENDS:
                pass  # what is for good ends the others too

    async def transform(self, consumer: Consumer, stream: Stream) -> None:
        """Batch after batch, each in a transaction."""
        random = self.random
        async for batch in stream.batches(random.randint(1, 9)):
            # What was taken may be gone before it is begun with.
            await self.pause(0.2, 3.0)
            try:
                async with consumer.transaction() as transaction:
                    if chance(random, 0.3):
                        await self.together(transaction, batch)
                    else:
                        await self.one_by_one(transaction, batch)
                    if chance(random, 0.1) and not self.patient:
                        await consumer.commit()
                    if chance(random, 0.05) and not self.patient:
                        raise LookupError
            except (LookupError, TransactionAbortedError):
                pass
            except BaseExceptionGroup as group:
                if group.split((LookupError, TransactionAbortedError))[1] is not None:
                    raise

    async def one_by_one(self, transaction: Transaction, batch: MessageBatch) -> None:
        """Some of them given back, cut off when their partition goes, or flushed in vain."""
        random = self.random
        for message in batch:
            await transaction.send("out", result(message), partition=0)
            with message.while_assigned():
                await self.pause(0.2, 0.5)
            if chance(random, 0.1):
                with trio.move_on_after(0.0 if chance(random, 0.5) else 0.1):
                    await transaction.flush()
            if chance(random, 0.02) and not self.patient:
                message.nack()
            message.ack()

    async def together(self, transaction: Transaction, batch: MessageBatch) -> None:
        """A task for each."""

        async def work(message: Message) -> None:
            await self.pause(0.5, 0.5)
            await transaction.send("out", result(message), partition=0)
            await transaction.flush()
            message.ack()

        async with trio.open_nursery() as nursery:
            for message in batch:
                nursery.start_soon(work, message)

    async def meddle(self) -> None:
        """What happens to a cluster."""
        random = self.random
        while True:
            await trio.sleep(random.uniform(0, 3))
            action = random.randrange(6)
            if action == 0:
                self.broker.rebalance(GROUP)
            elif action == 1 and (members := sorted(self.broker.members(GROUP))):
                self.broker.expire(random.choice(members))
            elif action == 2:
                self.broker.down()
                await trio.sleep(random.uniform(0, 8))
                self.broker.up()
            elif action == 3:
                n = random.randrange(self.broker.topics["t"])
                self.broker.produce_many("t", [b"x"] * random.randint(1, 9), partition=n)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_group_that_transforms_does_so_exactly_once(seed: int) -> None:
    """Cancelled, fenced, expelled, cut off: each input has one output in the end."""
    group = Group(seed)
    random = group.random

    async def lives(name: str) -> None:
        while True:
            with trio.move_on_after(random.uniform(0, 15)):
                await group.member(name)
            group.check()
            await trio.sleep(random.uniform(0, 1))

    async def main() -> None:
        before = tasks_living()
        group.broker.faults = Faults(latency=random.choice([0.0, (0.0, 0.3), (0.1, 1.0)]))
        with trio.move_on_after(random.uniform(10, 60)):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(group.meddle)
                for number in range(random.randint(1, 3)):
                    nursery.start_soon(lives, f"producer-{number}")
        assert tasks_living() == before
        group.broker.up()
        group.broker.faults = Faults()
        group.patient = True
        group.check()
        for number in itertools.count():
            assert number < 20, "it does not come to an end"
            with trio.move_on_after(100):
                # Each name once more: sooner than by its timeout, it ends what was left open.
                await group.member(f"producer-{number % 3}")
            if outputs(group.broker) == inputs(group.broker):
                break
        group.check()

    run(main, seed=seed)


@pytest.mark.parametrize("latency", [0.0, 0.01])
def test_transactions_cancelled_at_every_step(latency: float) -> None:
    """Wherever it hits, the next life completes the work, and nothing is doubled."""
    step = 0
    fired = True
    while fired:
        step += 1
        it = broker(6, 2, latency=latency)
        it.create_topic("out", 1)
        cancelling = CancelAtStep(step)

        async def work(it: MemoryBroker, scope: trio.CancelScope) -> None:
            async with (
                consuming(
                    it, transactional_id="p", client_options={"max_poll_records": 3}
                ) as consumer,
                consumer.stream("t", ack="manual") as stream,
            ):
                with trio.move_on_after(1):
                    async for batch in stream.batches(2):
                        async with consumer.transaction() as transaction:
                            for message in batch:
                                await transaction.send("out", result(message), partition=0)
                                await transaction.flush()
                                message.ack()

        async def main(it: MemoryBroker = it, cancelling: CancelAtStep = cancelling) -> None:
            before = tasks_living()
            with trio.CancelScope() as scope:
                cancelling.scope = scope
                await work(it, scope)
            cancelling.scope = None
            assert tasks_living() == before
            assert it.members(GROUP) == {}
            assert max(outputs(it).values(), default=1) == 1
            with trio.CancelScope() as scope:
                await work(it, scope)
            assert outputs(it) == inputs(it)
            assert [committed(it, TP("t", n)) for n in (0, 1)] == [6, 6]

        try:
            run(main, seed=step, instruments=(cancelling,))
        except BaseException:
            print(f"cancelled at step {step}")
            raise
        fired = cancelling.fired
        kit.points_tried += fired
    assert step > 50
