"""What does a consumer cost that has nothing to do, and what does it keep?

CPU of a process whose topic is silent, seconds to start (until the first message
of a topic that has some) and to stop, and resident memory while one process reads
the same million messages over and over.

    python -m benchmarks.idle
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import click
import msgspec
import trio

from tests.kafka import Cluster, produce_numbered
from trio_consumer import TopicPartition, open_consumer

from .contenders import FASTEST, TUNED
from .report import Bar, Chart, Report, common_options, publish, spread
from .running import in_rounds, run_alone


class Idleness(msgspec.Struct):
    """What an idle consumer took.

    Attributes:
        start: Seconds from nothing to the first message.
        stop: Seconds to leave in order.
        cpu: Part of one core while nothing came.
        threads: Threads of the process meanwhile.
    """

    start: float
    stop: float
    cpu: float
    threads: int


class Growth(msgspec.Struct):
    """Resident megabytes after each pass over the topic."""

    megabytes: list[float]


class Watch:
    """Notes when things began and ended."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._began = time.perf_counter()
        self._first = self._left = 0.0
        self._cpu = 0.0
        self._threads = 0

    def first(self) -> None:
        """The first message is there; idling begins."""
        self._first = time.perf_counter()

    def settle(self) -> None:
        """What the start left to do is done."""
        self._cpu = time.process_time()

    def leaving(self) -> None:
        """The time is over."""
        self._cpu = (time.process_time() - self._cpu) / self.seconds
        self._threads = threading.active_count()
        self._left = time.perf_counter()

    def result(self) -> Idleness:
        """Everything has ended."""
        end = time.perf_counter()
        return Idleness(self._first - self._began, end - self._left, self._cpu, self._threads)


SETTLE = 3.0
"""Seconds after the first message that do not count."""


def kafka_python(bootstrap: str, topic: str, watch: Watch) -> None:
    """The bare client, polling in steps of half a second."""
    from kafka import KafkaConsumer

    client = KafkaConsumer(
        topic,
        bootstrap_servers=bootstrap,
        group_id=f"idle-{os.getpid()}",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        **TUNED,
    )

    def poll(seconds: float) -> None:
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            client.poll(timeout_ms=500)

    while not client.poll(timeout_ms=500):
        pass
    watch.first()
    poll(SETTLE)
    watch.settle()
    poll(watch.seconds)
    watch.leaving()
    client.close()


def _ours(scheme: str) -> Callable[[str, str, Watch], None]:
    def run(bootstrap: str, topic: str, watch: Watch) -> None:
        async def read(stream: Any) -> None:
            async for _ in stream:
                pass

        async def main() -> None:
            url = f"{scheme}://{bootstrap}"
            async with (
                open_consumer(url, group=f"idle-{os.getpid()}") as consumer,
                consumer.stream(topic) as stream,
                trio.open_nursery() as nursery,
            ):
                async for _ in stream:
                    break
                watch.first()
                nursery.start_soon(read, stream)
                await trio.sleep(SETTLE)
                watch.settle()
                await trio.sleep(watch.seconds)
                watch.leaving()
                nursery.cancel_scope.cancel()

        trio.run(main)

    return run


def aiokafka(bootstrap: str, topic: str, watch: Watch) -> None:
    """aiokafka: waiting in ``getmany``."""
    from aiokafka import AIOKafkaConsumer

    async def main() -> None:
        client = AIOKafkaConsumer(
            topic,
            bootstrap_servers=bootstrap,
            group_id=f"idle-{os.getpid()}",
            auto_offset_reset="earliest",
            enable_auto_commit=False,
        )
        await client.start()
        await client.getone()
        watch.first()

        async def read() -> None:
            while True:
                await client.getmany(timeout_ms=500)

        reading = asyncio.create_task(read())
        await asyncio.sleep(SETTLE)
        watch.settle()
        await asyncio.sleep(watch.seconds)
        watch.leaving()
        reading.cancel()
        await client.stop()

    asyncio.run(main())


def confluent(bootstrap: str, topic: str, watch: Watch) -> None:
    """confluent-kafka, tuned: consuming in steps of half a second."""
    from confluent_kafka import Consumer

    client = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": f"idle-{os.getpid()}",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            **FASTEST,
        }
    )
    client.subscribe([topic])

    def consume(seconds: float) -> None:
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            client.consume(500, 0.5)

    while not client.consume(1, 0.5):
        pass
    watch.first()
    consume(SETTLE)
    watch.settle()
    consume(watch.seconds)
    watch.leaving()
    client.close()


CONTENDERS: dict[str, Callable[[str, str, Watch], None]] = {
    "kafka-python poll loop": kafka_python,
    "trio_consumer": _ours("kafka"),
    "trio_consumer over confluent": _ours("confluent"),
    "aiokafka getmany": aiokafka,
    "confluent-kafka consume, tuned": confluent,
}


def resident() -> float:
    """Megabytes that this process has in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def read_over_and_over(bootstrap: str, topic: str, count: int, passes: int) -> Growth:
    """Read the topic, seek to its beginning, read it again."""
    megabytes: list[float] = []

    async def main() -> None:
        async with (
            open_consumer(f"kafka://{bootstrap}", group=f"memory-{os.getpid()}") as consumer,
            consumer.stream(topic) as stream,
        ):
            seen = 0
            async for _ in stream:
                seen += 1
                if seen % count == 0:
                    megabytes.append(resident())
                    if len(megabytes) == passes:
                        break
                    await consumer.seek(TopicPartition(topic, 0), 0)

    trio.run(main)
    return Growth(megabytes)


def measure(rounds: int, quick: bool) -> Report:
    """Idling, starting, stopping; and memory."""
    seconds = 5.0 if quick else 20.0
    count, passes = (100_000, 4) if quick else (1_000_000, 10)
    with Cluster() as cluster:
        cluster.create_topic("silent", 4)
        produce_numbered(cluster.bootstrap, "silent", 4, 4)
        cluster.create_topic("again", 1)
        produce_numbered(cluster.bootstrap, "again", count, 1)

        def run(name: str) -> Idleness:
            order = ("consume", name, cluster.bootstrap, "silent", seconds)
            return run_alone("idle", order, Idleness, seconds + 60)

        results = in_rounds(list(CONTENDERS), rounds, run)
        growth = run_alone(
            "idle", ("memory", cluster.bootstrap, "again", count, passes), Growth, 600
        )
    rows: list[list[str]] = []
    chart = Chart("% of a core while idle", [], [], [], [])
    for name in CONTENDERS:
        middle, low, high = spread(r[name].cpu * 100 for r in results)
        rows.append(
            [
                name,
                f"{middle:.2f}",
                f"{low:.2f} .. {high:.2f}",
                f"{median(r[name].start for r in results):.2f}",
                f"{median(r[name].stop for r in results):.2f}",
                f"{median(r[name].threads for r in results):.0f}",
            ]
        )
        chart.labels.append(name)
        chart.values.append(middle)
        chart.low.append(low)
        chart.high.append(high)
    later = growth.megabytes[1:]  # the first pass fills buffers and caches
    rows.append(
        [
            f"memory over {count * passes:,} messages",
            f"{later[0]:.0f} MB .. {later[-1]:.0f} MB",
            *("", "", "", ""),
        ]
    )
    cpu = median(r["trio_consumer"].cpu for r in results) * 100
    bars = [
        Bar("idle CPU, % of a core", cpu, 2.0, 1.0, at_most=True),
        Bar("memory after the last pass / second pass", later[-1] / later[0], 1.1, 1.02, True),
    ]
    columns = ["what", "CPU %", "lowest .. highest", "start s", "stop s", "threads"]
    title = f"idle for {seconds:.0f} s, {rounds} rounds"
    runs = {"rounds": results, "memory": growth}
    return Report("idle", title, columns, rows, chart, bars, runs)


@click.group(invoke_without_command=True)
@click.pass_context
@common_options
def main(context: click.Context, folder: Path | None, quick: bool, rounds: int) -> None:
    """Measure what doing nothing costs."""
    if context.invoked_subcommand is None:
        publish([measure(rounds, quick)], folder)


@main.command("consume", hidden=True)
@click.argument("name")
@click.argument("bootstrap")
@click.argument("topic")
@click.argument("seconds", type=float)
def consume_command(name: str, bootstrap: str, topic: str, seconds: float) -> None:
    """Be one contender."""
    watch = Watch(seconds)
    CONTENDERS[name](bootstrap, topic, watch)
    sys.stdout.write(msgspec.json.encode(watch.result()).decode() + "\n")


@main.command("memory", hidden=True)
@click.argument("bootstrap")
@click.argument("topic")
@click.argument("count", type=int)
@click.argument("passes", type=int)
def memory_command(bootstrap: str, topic: str, count: int, passes: int) -> None:
    """Read over and over."""
    growth = read_over_and_over(bootstrap, topic, count, passes)
    sys.stdout.write(msgspec.json.encode(growth).decode() + "\n")


if __name__ == "__main__":
    main()
