"""Whole programs, drawn from a seed, cancelled at random (I1, I2, I7, I8, I11).

Each lives several lives, cancelled at a random virtual moment, among faults and
rebalances.  An observer with a journal of its own is the judge.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any, Literal

import pytest
import trio

from trio_consumer import TP, CommitFailedError, Consumer, Message, Stream
from trio_consumer.testing import Faults, MemoryBroker

from ..runtime.support import (
    COOPERATIVE,
    GROUP,
    Journal,
    add_topic,
    chance,
    committed,
    consuming,
    run,
    tasks_living,
    values,
)

AckMode = Literal["auto", "manual", "none"]
Received = Callable[[object, Message], None]

SEEDS = int(os.environ.get("SEEDS", "300"))
"""Programs that are drawn; set the variable to hunt with more."""


class Program:
    """A consumer program drawn from a seed, with everything it does on record."""

    def __init__(self, seed: int) -> None:
        self.random = random = Random(seed)
        self.broker = MemoryBroker(seed=seed)
        self.topics = ["t", "u"][: random.randint(1, 2)]
        for topic in self.topics:
            add_topic(self.broker, topic, 0, random.randint(1, 3))
        self.produce()
        self.patient = False
        self.reopening = chance(random, 0.4)
        # The same streams in each life, or none could take the place of another.
        self.streams: dict[str, list[AckMode]] = {
            topic: [
                random.choice(["auto", "manual"]),
                *random.choices(["auto", "manual", "none"], k=random.randint(0, 2)),
            ]
            for topic in self.topics
        }
        acknowledging = {
            topic: sum(mode != "none" for mode in modes) for topic, modes in self.streams.items()
        }
        # Streams that end by themselves leave the decision to the others.
        self.journal = Journal(self.broker, None if self.reopening else acknowledging)

    def produce(self) -> None:
        """Records in each partition, and a few holes."""
        random = self.random
        for topic in self.topics:
            for n in range(self.broker.topics[topic]):
                tp = TP(topic, n)
                added = self.broker.produce_many(
                    topic, values(random.randint(1, 40)), partition=n
                ).get(tp, range(0))
                stored = committed(self.broker, tp) or 0
                holes = [o for o in added if o >= stored and chance(random, 0.15)]
                self.broker.delete_offsets(tp, holes[: len(added) - 1])
                if chance(random, 0.3):
                    self.broker.append_marker(tp)

    def disturb(self) -> None:
        """Latency and faults for the next run."""
        random = self.random
        self.broker.faults = Faults(
            latency=random.choice([0.0, (0.0, 0.3), (0.1, 2.0)]),
            commit_failure_rate=random.choice([0.0, 0.3]),
            answer_lost_rate=random.choice([0.0, 0.2]),
        )

    def options(self) -> dict[str, Any]:
        """Arguments of a consumer."""
        random = self.random
        client: dict[str, Any] = {"max_poll_records": random.choice([1, 3, 10, 500])}
        # One protocol for the group, whoever is the member.
        if self.broker.topics[self.topics[0]] == 2:
            client |= COOPERATIVE
        return {
            "client_options": client,
            "commit_interval": random.choice([0.5, 2.8]),
            "commit_every": random.choice([None, 1, 7]),
            "drain_timeout": random.choice([0.0, 2.0]),
            "max_buffered": random.choice([1, 5, 50]),
        }

    async def consume(self) -> None:
        """One life of one member; ends when everything is processed, or cancelled."""
        floor: dict[TP, int] = {}
        had: dict[tuple[object, TP], list[int]] = {}

        def assigned(tps: frozenset[TP]) -> None:
            for tp in tps:
                floor[tp] = committed(self.broker, tp) or 0
                for key in [key for key in had if key[1] == tp]:
                    del had[key]

        def received(stream: object, message: Message) -> None:
            tp, offset = message.tp, message.offset
            assert offset >= floor[tp], f"{tp}: {offset} was committed already"
            before = had.setdefault((stream, tp), [])
            assert offset not in before, f"{tp}: {offset} came twice"
            # A stream that was opened late gets what another one leaves behind
            # when it closes, and then goes back.
            assert self.reopening or not before or offset > before[-1], f"{tp}: out of order"
            before.append(offset)

        async with (
            consuming(self.broker, on_partitions_assigned=assigned, **self.options()) as consumer,
            trio.open_nursery() as nursery,
        ):
            for topic, modes in self.streams.items():
                for number, ack in enumerate(modes):
                    nursery.start_soon(self._stream, consumer, topic, number, ack, received)
            while not (self.patient and self.journal.is_complete()):
                await trio.sleep(1)
                if not self.patient:
                    await self._meddle(consumer)
            nursery.cancel_scope.cancel()

    async def _stream(
        self,
        consumer: Consumer,
        topic: str,
        number: int,
        ack: AckMode,
        received: Received,
    ) -> None:
        random = self.random
        while True:
            again = self.reopening and not self.patient
            async with consumer.stream(topic, ack=ack) as stream:
                with trio.move_on_after(random.uniform(0, 4) if again else math.inf):
                    async with trio.open_nursery() as nursery:
                        for _ in range(random.randint(1, 3)):
                            worker = self._batches if chance(random, 0.3) else self._messages
                            nursery.start_soon(worker, number, stream, received)

    async def _meddle(self, consumer: Consumer) -> None:
        """Something that should change nothing of what has to hold."""
        random = self.random
        action = random.randrange(12)
        if action == 0:
            paused = consumer.assignment
            consumer.pause_partitions(paused)
            await trio.sleep(random.uniform(0, 1))
            consumer.resume_partitions(paused)
        elif action == 1:
            consumer.stop_flow()
            await trio.sleep(random.uniform(0, 1))
            consumer.resume_flow()
        elif action in (2, 3):
            with suppress(CommitFailedError), trio.move_on_after(random.uniform(0, 3)):
                await consumer.commit()
        elif action == 4:
            self.broker.rebalance(GROUP)
        elif action == 5 and (members := sorted(self.broker.members(GROUP))):
            self.broker.expire(random.choice(members))
        elif action in (6, 7):
            self.produce()

    async def _messages(self, number: int, stream: Stream, received: Received) -> None:
        random = self.random
        while True:
            async for message in stream:
                received(stream, message)
                if chance(random, 0.5):
                    with message.while_assigned() as scope:
                        await self._work()
                    if scope.cancelled_caught:
                        continue  # not processed, so nothing may come of it
                else:
                    await self._work()
                if not self.patient and chance(random, 0.03):
                    break
                if stream.ack_mode.value == "none":
                    continue
                self.journal.add(message, number)
                if stream.ack_mode.value == "manual":
                    if chance(random, 0.5):
                        message.ack()
                    else:
                        async with message:
                            pass
            else:
                return

    async def _batches(self, number: int, stream: Stream, received: Received) -> None:
        random = self.random
        async for batch in stream.batches(random.randint(1, 20), random.choice([0.0, 0.5])):
            for message in batch:
                received(stream, message)
            await self._work()
            if stream.ack_mode.value == "none":
                continue
            for message in batch:
                self.journal.add(message, number)
            if stream.ack_mode.value == "manual":
                batch.ack()

    async def _work(self) -> None:
        if chance(self.random, 0.4):
            await trio.sleep(self.random.uniform(0, 0.6))


@pytest.mark.parametrize("seed", range(SEEDS))
def test_program_cancelled_at_any_moment_loses_nothing(seed: int) -> None:
    """Cancelled and restarted several times, a program processes and commits everything."""
    program = Program(seed)

    async def main() -> None:
        before = tasks_living()
        for _ in range(program.random.randint(1, 4)):
            program.disturb()
            with trio.move_on_after(program.random.uniform(0, 12)):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(program.consume)
                    if chance(program.random, 0.4):
                        await trio.sleep(program.random.uniform(0, 6))
                        with trio.move_on_after(program.random.uniform(0, 12)):
                            await program.consume()
            assert tasks_living() == before
            program.journal.check_commits()
            if chance(program.random, 0.3):
                program.produce()
        program.broker.faults = Faults()
        program.patient = True
        with trio.move_on_after(10_000):
            await program.consume()
        assert tasks_living() == before
        program.journal.check_commits()
        program.journal.check_complete()

    run(main, seed=seed)
