"""Consume, transform, produce, killed and rebalanced: each message exactly once."""

from __future__ import annotations

import itertools
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest
import trio
from confluent_kafka import Consumer, KafkaError

from trio_consumer import open_consumer

from ..kafka.cluster import Cluster
from ..kafka.fixtures import TopicFactory
from ..kafka.produce import number_of, produce_numbered
from .test_crash import committed, wait_until

pytestmark = pytest.mark.kafka

TRANSFORMER = Path(__file__).with_name("transformer.py")
PARTITIONS = 4

_serial = itertools.count(1)


class Member:
    """A transforming process under a name of its own; may be killed and started again."""

    def __init__(self, name: str, ready: Path, *arguments: str) -> None:
        self.ready = ready
        self._command = [sys.executable, str(TRANSFORMER), *arguments, name, str(ready)]
        self.process = subprocess.Popen(self._command)

    def kill(self) -> None:
        """``kill -9``, and a new one at once."""
        self.process.kill()
        self.process.wait()
        self.process = subprocess.Popen(self._command)

    def end(self) -> None:
        """Let it leave in order."""
        wait_until(self.ready.exists)
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(60) == 0

    def __enter__(self) -> Member:
        return self

    def __exit__(self, *exc: object) -> None:
        self.process.kill()
        self.process.wait()


def read_committed(bootstrap: str, topic: str) -> Counter[int]:
    """The numbers that another client's reader of committed records sees."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": f"reader-{next(_serial)}",
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
        }
    )
    consumer.subscribe([topic])
    seen: Counter[int] = Counter()
    ended: set[int] = set()
    try:
        while len(ended) < PARTITIONS:
            for message in consumer.consume(1000, 1.0):
                error = message.error()
                if error is None:
                    value = message.value()
                    assert value is not None
                    seen[number_of(value)] += 1
                else:
                    assert error.code() == KafkaError._PARTITION_EOF, error
                    ended.add(message.partition())  # type: ignore[arg-type]
    finally:
        consumer.close()
    return seen


def test_hundred_thousand_messages_exactly_once(
    kafka_cluster: Cluster, topic: TopicFactory, tmp_path: Path
) -> None:
    """Six times ``kill -9``, one that joins and leaves, and no message lost or doubled."""
    count = 100_000
    source, target = topic(PARTITIONS), topic(PARTITIONS)
    group = f"exactly-once-{next(_serial)}"
    produce_numbered(kafka_cluster.bootstrap, source, count, PARTITIONS)
    ends = kafka_cluster.end_offsets(source)
    seed = random.randrange(1_000_000)
    chance = random.Random(seed)

    def progress() -> int:
        return sum(committed(kafka_cluster, group, source, PARTITIONS))

    def member(number: int) -> Member:
        name = f"{group}-{number}"
        return Member(name, tmp_path / name, kafka_cluster.bootstrap, group, source, target)

    with ExitStack() as stack:
        members = [stack.enter_context(member(number)) for number in range(2)]
        killed = 0
        for _ in range(6):
            before = progress()
            wait_until(lambda before=before: progress() > before or progress() == count)
            if progress() == count:
                break
            time.sleep(chance.uniform(0.0, 1.0))
            members[killed % 2].kill()
            killed += 1
            if killed == 3:
                third = stack.enter_context(member(2))
            if killed == 5:
                third.end()
        wait_until(lambda: progress() == count)
        for each in members:
            each.end()
    assert killed >= 5, f"seed {seed}: it was done after {killed} kills"
    assert committed(kafka_cluster, group, source, PARTITIONS) == [
        ends[p] for p in range(PARTITIONS)
    ]
    seen = read_committed(kafka_cluster.bootstrap, target)
    doubled = {number: times for number, times in seen.items() if times > 1}
    assert not doubled, f"seed {seed}: {len(doubled)} doubled"
    assert len(seen) == count, f"seed {seed}: {count - len(seen)} lost"
    print(f"seed {seed}: {count:,} transformed, {killed} kills, lost 0, doubled 0")


def test_cancelled_transactions_leave_nothing_behind(
    kafka_cluster: Cluster, topic: TopicFactory
) -> None:
    """Ten programs cancelled in the middle of transactions: no thread is left, nothing doubled."""
    count = 2_000
    source, target = topic(PARTITIONS), topic(PARTITIONS)
    group = f"cancelled-transactions-{next(_serial)}"
    produce_numbered(kafka_cluster.bootstrap, source, count, PARTITIONS)
    seed = random.randrange(1_000_000)
    chance = random.Random(seed)

    async def transform(limit: float) -> None:
        with trio.move_on_after(limit):
            async with (
                open_consumer(
                    f"kafka://{kafka_cluster.bootstrap}", group=group, transactional_id=group
                ) as consumer,
                consumer.stream(source, ack="manual") as stream,
            ):
                async for batch in stream.batches(20):
                    async with consumer.transaction() as transaction:
                        for message in batch:
                            await transaction.send(
                                target, message.value, partition=message.partition
                            )
                        await transaction.flush()
                        batch.ack()

    async def main() -> None:
        for _ in range(10):
            await transform(chance.uniform(0.1, 2.0))
        with trio.fail_after(60):
            while sum(committed(kafka_cluster, group, source, PARTITIONS)) < count:
                await transform(5.0)

    trio.run(main)
    seen = read_committed(kafka_cluster.bootstrap, target)
    assert seen == Counter(range(count)), f"seed {seed}"
    # Trio keeps idle workers for ten seconds; the clients' own threads must be gone.
    left = [t.name for t in threading.enumerate() if "kafka" in t.name.lower()]
    assert not left, f"seed {seed}"
