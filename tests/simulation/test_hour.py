"""An hour of a busy group, in virtual time: nothing grows."""

from __future__ import annotations

import gc
import logging
import threading
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from typing import Any

import pytest
import trio

from trio_consumer import TP, CommitFailedError, Consumer, Stream
from trio_consumer.testing import Faults, MemoryBroker

from ..runtime.support import COOPERATIVE, GROUP, committed, consuming, run, tasks_living, values

HOUR = 3600
SAMPLE = 180
PARTITIONS = [TP("t", n) for n in range(3)]
RATE = 4
"""Records a second in each partition: 43,200 in the hour."""


@dataclass(frozen=True)
class Sample:
    """What could grow, at one moment."""

    memory: int
    tasks: int
    threads: int
    entries: int
    replay: int
    buffered: int
    scopes: int


class Group:
    """Members that go on, one that comes and goes, and what they are measured by."""

    def __init__(self) -> None:
        self.broker = MemoryBroker(
            faults=Faults(latency=(0.0, 0.05), commit_failure_rate=0.1, answer_lost_rate=0.1)
        )
        self.broker.create_topic("t", len(PARTITIONS))
        self.consumers: list[Consumer] = []
        self.random = Random(1)
        self.processed = 0
        self.produced = 0
        self.samples: list[Sample] = []

    async def produce(self) -> None:
        """Records, a hole now and then, and retention that forgets what is old."""
        for second in range(HOUR):
            for tp in PARTITIONS:
                added = self.broker.produce_many("t", values(RATE), partition=tp.partition)[tp]
                self.produced += len(added)
                if second % 7 == 0:
                    self.broker.append_marker(tp)
                if second % 60 == 0 and (stored := committed(self.broker, tp)):
                    self.broker.delete_records(tp, stored)
            if second % 60 == 0:
                self.broker.forget_commit_history(GROUP)
            if second % 200 == 0:
                self.broker.rebalance(GROUP)
            await trio.sleep(1)

    async def member(self, seconds: float) -> None:
        """Four workers on one stream, a batch reader on the other, for a while."""
        options: dict[str, Any] = {"client_options": COOPERATIVE, "max_buffered": 200}
        # A guest's last commit may be the one that the broker does not answer.
        with suppress(CommitFailedError):
            await self.live(seconds, options)

    async def live(self, seconds: float, options: dict[str, Any]) -> None:
        """One consumer for so long."""
        async with consuming(self.broker, **options) as consumer:
            self.consumers.append(consumer)
            with trio.move_on_after(seconds):
                async with (
                    consumer.stream("t") as one,
                    consumer.stream("t", ack="manual") as two,
                    trio.open_nursery() as nursery,
                ):
                    for _ in range(4):
                        nursery.start_soon(self.work, one)
                    nursery.start_soon(self.batches, two)
            self.consumers.remove(consumer)

    async def work(self, stream: Stream) -> None:
        """Quick, but for some; in a scope, but for some; some are given back."""
        async for message in stream:
            if message.offset % 50 == 0:
                with message.while_assigned() as scope:
                    await trio.sleep(2)
                if scope.cancelled_caught:
                    continue
            if message.offset % 97 == 0 and self.random.random() < 0.5:
                message.nack()
                continue
            self.processed += 1

    async def batches(self, stream: Stream) -> None:
        """By hand, a little late."""
        async for batch in stream.batches(100, 0.5):
            await trio.sleep(0.1)
            batch.ack()

    async def guests(self) -> None:
        """A member for a minute in each five."""
        while True:
            await trio.sleep(240)
            await self.member(60)

    async def measure(self) -> None:
        """The first ten minutes fill what is meant to be full."""
        await trio.sleep(600)
        while True:
            await trio.sleep(SAMPLE)
            # Just before the samples the log is cut, so that it weighs the same.
            for tp in PARTITIONS:
                self.broker.delete_records(tp, self.broker.end_offset(tp) - 500)
            self.broker.forget_commit_history(GROUP)
            gc.collect()
            accounts = [a for c in self.consumers for a in c._partitions]
            self.samples.append(
                Sample(
                    memory=tracemalloc.get_traced_memory()[0],
                    tasks=tasks_living(),
                    threads=threading.active_count(),
                    entries=sum(len(b) for a in accounts for b in a.ledger._batches),
                    replay=sum(c.statistics().replay for c in self.consumers),
                    buffered=sum(
                        s.buffered for c in self.consumers for s in c.statistics().streams
                    ),
                    scopes=sum(len(a._scopes) for a in accounts),
                )
            )


def highest(samples: list[Sample], what: Callable[[Sample], int]) -> int:
    """The most that there was of something."""
    return max(map(what, samples))


def test_nothing_grows_in_an_hour(caplog: pytest.LogCaptureFixture) -> None:
    """Memory, tasks, ledger entries, buffers: no more in the last third than in the first."""
    group = Group()
    # pytest keeps every line that is logged.
    caplog.set_level(logging.CRITICAL, "trio_consumer")

    async def main() -> None:
        before = tasks_living()
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(group.member, HOUR + 60)
            nursery.start_soon(group.guests)
            nursery.start_soon(group.measure)
            await group.produce()
            with suppress(trio.TooSlowError), trio.fail_after(300):
                while any(
                    (committed(group.broker, tp) or 0) < group.broker.end_offset(tp)
                    for tp in PARTITIONS
                ):
                    await trio.sleep(1)
            nursery.cancel_scope.cancel()
        assert tasks_living() == before

    tracemalloc.start()
    try:
        run(main, seed=1)
    finally:
        tracemalloc.stop()
    for tp in PARTITIONS:
        assert committed(group.broker, tp) == group.broker.end_offset(tp)
    assert group.produced == HOUR * RATE * len(PARTITIONS)
    assert group.processed >= group.produced
    third = len(group.samples) // 3
    assert third >= 5
    first, last = group.samples[:third], group.samples[-third:]
    for sample in group.samples:
        print(sample)
    # 40 bytes of garbage a message would be 2 MB in the time between the two.
    assert highest(last, lambda s: s.memory) <= highest(first, lambda s: s.memory) + 400_000
    assert highest(last, lambda s: s.tasks) <= highest(first, lambda s: s.tasks)
    assert highest(last, lambda s: s.threads) == highest(first, lambda s: s.threads)
    assert highest(last, lambda s: s.entries) <= 2 * highest(first, lambda s: s.entries) + 500
    assert highest(group.samples, lambda s: s.replay) < 3000
    assert highest(group.samples, lambda s: s.buffered) <= 3 * 2 * (200 + 500)
    assert highest(group.samples, lambda s: s.scopes) <= 3 * 4
