"""Much at once: a million messages, many cancellations, many pauses."""

from __future__ import annotations

import itertools
import os
import random
import re
import threading
import time
from collections import Counter
from contextlib import suppress

import pytest
import trio
from confluent_kafka import Producer

from trio_consumer import Stream, open_consumer

from ..kafka.cluster import Cluster
from ..kafka.fixtures import TopicFactory
from ..kafka.produce import number_of, produce_numbered

pytestmark = pytest.mark.kafka

_serial = itertools.count(1)


def committed(cluster: Cluster, group: str, topic: str) -> dict[int, int]:
    offsets = cluster.group_offsets(group)
    return {p: offset for (name, p), (offset, _) in offsets.items() if name == topic}


def threads() -> set[threading.Thread]:
    """Those with something to do: Trio keeps idle workers for ten seconds."""
    return {t for t in threading.enumerate() if not re.fullmatch(r"Trio thread \d+", t.name)}


def open_sockets() -> int:
    """How many sockets the process has, of whatever object."""
    count = 0
    for each in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # that of the listing itself
            count += os.readlink(f"/proc/self/fd/{each}").startswith("socket:")
    return count


def test_a_million_messages_reach_two_streams_once_each(
    kafka_cluster: Cluster, topic: TopicFactory
) -> None:
    """1,000,000 messages in 4 partitions, two streams: each exactly once, the end committed."""
    count, group = 1_000_000, f"million-{next(_serial)}"
    name = topic(4)
    produce_numbered(kafka_cluster.bootstrap, name, count, 4)
    seen = [bytearray(count), bytearray(count)]
    doubled = [0, 0]

    async def main() -> None:
        async with (
            open_consumer(f"kafka://{kafka_cluster.bootstrap}", group=group) as consumer,
            consumer.stream(name) as one,
            consumer.stream(name) as two,
        ):

            async def read(index: int, stream: Stream) -> None:
                marks = seen[index]
                last = [-1] * 4
                left = count
                async for message in stream:
                    assert message.offset > last[message.partition]
                    last[message.partition] = message.offset
                    number = number_of(message.value)
                    doubled[index] += marks[number]
                    marks[number] = 1
                    left -= 1
                    if not left:
                        message.ack()
                        break

            with trio.fail_after(240):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(read, 0, one)
                    nursery.start_soon(read, 1, two)

    trio.run(main)
    assert [sum(marks) for marks in seen] == [count, count]
    assert doubled == [0, 0]
    assert committed(kafka_cluster, group, name) == kafka_cluster.end_offsets(name)
    print(f"{count:,} messages to 2 streams, each once, lost 0")


def test_program_cancelled_twenty_times_loses_nothing(
    kafka_cluster: Cluster, topic: TopicFactory
) -> None:
    """Cancelled at random moments: nothing lost, nothing finished that was not, no thread left."""
    # More than 8 tasks can do in the time of 20 runs, so that each run has work to be torn from.
    count, pause, group = 60_000, 0.002, f"cancelled-{next(_serial)}"
    name = topic(4)
    produce_numbered(kafka_cluster.bootstrap, name, count, 4)
    seed = random.randrange(1_000_000)
    chance = random.Random(seed)
    finished: Counter[int] = Counter()

    async def consume(seconds: float) -> bool:
        with trio.move_on_after(seconds):
            async with (
                open_consumer(
                    f"kafka://{kafka_cluster.bootstrap}",
                    group=group,
                    commit_interval=chance.uniform(0.05, 0.5),
                    client_options={"max_poll_records": 300},
                ) as consumer,
                consumer.stream(name, ack="manual") as stream,
                trio.open_nursery() as nursery,
            ):

                async def work() -> None:
                    async for message in stream:
                        await trio.sleep(pause)
                        async with message:
                            finished[number_of(message.value)] += 1
                        if len(finished) == count:
                            nursery.cancel_scope.cancel()

                for _ in range(8):
                    nursery.start_soon(work)
        return len(finished) == count

    def check() -> None:
        for partition, offset in committed(kafka_cluster, group, name).items():
            unfinished = [o for o in range(offset) if not finished[o * 4 + partition]]
            assert not unfinished, f"seed {seed}: {partition}@{offset} passes {unfinished[:5]}"

    check()
    threads_before, sockets_before = threads(), open_sockets()
    for _ in range(20):
        trio.run(consume, chance.uniform(0.05, 1.5))
        assert threads() <= threads_before, f"seed {seed}"
        assert open_sockets() <= sockets_before, f"seed {seed}"
        check()
    assert len(finished) < count, "nothing was left to cancel: the test has lost its bite"
    assert trio.run(consume, 120.0), f"seed {seed}: {len(finished)} of {count}"
    check()
    assert committed(kafka_cluster, group, name) == kafka_cluster.end_offsets(name)
    assert threads() <= threads_before
    again = sum(finished.values()) - count
    print(f"seed {seed}: 20 cancellations, {count:,} messages, lost 0, replayed {again}")


def test_three_hundred_pauses_stall_no_partition(
    kafka_cluster: Cluster, topic: TopicFactory
) -> None:
    """Back-pressure pauses and resumes while other partitions run dry, again and again."""
    rounds, group = 300, f"pauses-{next(_serial)}"
    busy, dry = topic(4), topic(2)
    count = rounds * 260
    produce_numbered(kafka_cluster.bootstrap, busy, count, 4)
    pauses = 0

    async def main() -> None:
        nonlocal pauses
        async with (
            open_consumer(
                f"kafka://{kafka_cluster.bootstrap}",
                group=group,
                client_options={"max_poll_records": 40},
            ) as consumer,
            consumer.stream(busy, max_buffered=60) as stream,
            consumer.stream(dry) as idle,
            trio.open_nursery() as nursery,
        ):
            small = 0
            producer = Producer({"bootstrap.servers": kafka_cluster.bootstrap, "linger.ms": 0})

            async def read_idle() -> None:
                nonlocal small
                async for _ in idle:
                    small += 1

            def trickle() -> None:
                # Runs dry after each record: the state in which parked records
                # were forgotten.
                producer.produce(dry, b"%d" % pauses, partition=pauses % 2)
                producer.poll(0)

            nursery.start_soon(read_idle)
            left, was_full = count, False
            last_progress = time.monotonic()
            async for _ in stream:
                left -= 1
                if stream.is_full and not was_full:
                    trickle()
                    pauses += 1
                was_full = stream.is_full
                if left % 20 == 0:
                    await trio.sleep(0.002)
                now = time.monotonic()
                assert now - last_progress < 20, f"stalled with {left} left after {pauses} pauses"
                last_progress = now
                if not left:
                    break
            with trio.fail_after(120):
                await trio.to_thread.run_sync(producer.flush, 30)
                while small < pauses:
                    await trio.sleep(0.05)
            nursery.cancel_scope.cancel()

    async def limited() -> None:
        with trio.fail_after(200):
            await main()

    trio.run(limited)
    assert pauses >= rounds, f"only {pauses} pauses: the test has lost its bite"
    print(f"{pauses} pauses, {count:,} messages, none stalled")
