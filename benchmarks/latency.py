"""How long after it was produced does a message reach its handler?

Open loop: a producer in a process of its own sends at a fixed rate, whatever the
consumer does, and stamps each message with the clock that all processes of a
machine share.  The latency is counted from the moment at which a message was *to
be* sent, so that a producer that stalls does not hide it.

    python -m benchmarks.latency
"""

from __future__ import annotations

import asyncio
import os
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import click
import msgspec
import trio
from confluent_kafka import Producer

from tests.kafka import Cluster, produce_numbered
from trio_consumer import open_consumer

from .contenders import FASTEST, TUNED
from .report import Bar, Chart, Report, common_options, publish, spread
from .running import in_rounds, run_alone, temporary_topic

STAMP = struct.Struct(">q")
WARM_UP = 2.0
"""Seconds at the beginning that do not count: joins, first fetches, new connections."""


class Latencies(msgspec.Struct):
    """Milliseconds from the moment a message was to be sent to its handler."""

    count: int
    p50: float
    p99: float
    p999: float
    worst: float


class Journal:
    """Notes the latencies of one consumer.

    Args:
        count: Messages to come after the greeting.
        rate: How many of them a second.
        start: Called with the greeting, when the consumer has joined: starts the producer.
    """

    def __init__(self, count: int, rate: int, start: Callable[[], object]) -> None:
        self._skip = int(WARM_UP * rate)
        self._count = count
        self._start = start
        self._seen = -1
        self._nanoseconds: list[int] = []

    def note(self, value: bytes) -> bool:
        """One message; True when it was the last."""
        now = time.monotonic_ns()
        self._seen += 1
        if not self._seen:
            self._start()
            return False
        if self._seen > self._skip:
            self._nanoseconds.append(now - STAMP.unpack_from(value)[0])
        return self._seen >= self._count

    def result(self) -> Latencies:
        """The percentiles."""
        ordered = sorted(self._nanoseconds)

        def at(part: float) -> float:
            return ordered[min(len(ordered) - 1, int(len(ordered) * part))] / 1e6

        return Latencies(len(ordered), at(0.5), at(0.99), at(0.999), ordered[-1] / 1e6)


def _options(**more: Any) -> dict[str, Any]:
    return {"group": f"latency-{os.getpid()}", **more}


def kafka_python(bootstrap: str, topic: str, journal: Journal) -> None:
    """The bare client: poll in a loop."""
    from kafka import KafkaConsumer

    client = KafkaConsumer(
        topic,
        bootstrap_servers=bootstrap,
        group_id=_options()["group"],
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        **TUNED,
    )
    done = False
    while not done:
        for records in client.poll(timeout_ms=500).values():
            for record in records:
                done = journal.note(record.value)
    client.close()


def _ours(scheme: str) -> Callable[[str, str, Journal], None]:
    def run(bootstrap: str, topic: str, journal: Journal) -> None:
        async def main() -> None:
            url = f"{scheme}://{bootstrap}"
            async with (
                open_consumer(url, **_options()) as consumer,
                consumer.stream(topic) as stream,
            ):
                async for message in stream:
                    if journal.note(message.value):
                        break

        trio.run(main)

    return run


def aiokafka(bootstrap: str, topic: str, journal: Journal) -> None:
    """aiokafka: ``async for``."""
    from aiokafka import AIOKafkaConsumer

    async def main() -> None:
        client = AIOKafkaConsumer(
            topic,
            bootstrap_servers=bootstrap,
            group_id=_options()["group"],
            auto_offset_reset="earliest",
            enable_auto_commit=False,
        )
        await client.start()
        async for record in client:
            if journal.note(record.value):
                break
        await client.stop()

    asyncio.run(main())


def confluent(bootstrap: str, topic: str, journal: Journal) -> None:
    """The bare client, tuned: consume in a loop."""
    from confluent_kafka import Consumer

    client = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": _options()["group"],
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            **FASTEST,
        }
    )
    client.subscribe([topic])
    done = False
    while not done:
        # One at a time: consume(500) would wait for 500 of them.
        message = client.poll(0.5)
        if message is not None:
            done = journal.note(message.value())
    client.close()


CONTENDERS: dict[str, Callable[[str, str, Journal], None]] = {
    "kafka-python poll loop": kafka_python,
    "trio_consumer": _ours("kafka"),
    "trio_consumer over confluent": _ours("confluent"),
    "aiokafka async for": aiokafka,
    "confluent-kafka poll": confluent,
}
BARE = {
    "trio_consumer": "kafka-python poll loop",
    "trio_consumer over confluent": "confluent-kafka poll",
}


def produce(bootstrap: str, topic: str, rate: int, seconds: float) -> None:
    """Send at a fixed rate; each message bears the time at which it was to go."""
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 0, "acks": "1"})
    began = time.monotonic_ns()
    step = 1_000_000_000 // rate
    for number in range(int(rate * seconds)):
        due = began + number * step
        ahead = due - time.monotonic_ns()
        if ahead > 200_000:
            producer.poll(0)
            time.sleep(ahead / 1e9)
        producer.produce(topic, STAMP.pack(due).ljust(100), partition=number % 4)
    producer.flush(30)


def measure(rounds: int, quick: bool) -> Report:
    """Each contender at each rate."""
    rates = (1_000,) if quick else (1_000, 10_000)
    seconds = WARM_UP + (3.0 if quick else 10.0)
    jobs = {f"{name}, {rate:,}/s": (name, rate) for rate in rates for name in CONTENDERS}
    with Cluster() as cluster:

        def run(label: str) -> Latencies:
            name, rate = jobs[label]
            with temporary_topic(cluster.bootstrap, 4) as topic:
                produce_numbered(cluster.bootstrap, topic, 1, 4)
                order = ("consume", name, cluster.bootstrap, topic, rate, seconds)
                return run_alone("latency", order, Latencies, seconds + 120)

        results = in_rounds(list(jobs), rounds, run)
    rows = []
    chart = Chart("ms, p99", [], [], [], [])
    bars = []
    for label, (name, rate) in jobs.items():
        figures = [r[label] for r in results]
        middle, low, high = spread(f.p99 for f in figures)
        bare = BARE.get(name)
        ratio = ""
        if bare is not None:
            value = median(r[label].p99 / r[f"{bare}, {rate:,}/s"].p99 for r in results)
            ratio = f"{value:.2f}"
            what = f"latency p99 at {rate:,}/s / {bare}"
            bars.append(Bar(what, value, 1.3, 1.1, at_most=True))
        rows.append(
            [
                label,
                f"{median(f.p50 for f in figures):.2f}",
                f"{middle:.2f}",
                f"{median(f.p999 for f in figures):.2f}",
                f"{low:.2f} .. {high:.2f}",
                ratio,
            ]
        )
        chart.labels.append(label)
        chart.values.append(middle)
        chart.low.append(low)
        chart.high.append(high)
    columns = ["contender", "p50 ms", "p99 ms", "p99.9 ms", "p99 lowest .. highest", "p99 / bare"]
    title = f"latency of {seconds - WARM_UP:.0f} s of messages, {rounds} rounds"
    return Report("latency", title, columns, rows, chart, bars, results)


@click.group(invoke_without_command=True)
@click.pass_context
@common_options
def main(context: click.Context, folder: Path | None, quick: bool, rounds: int) -> None:
    """Measure the time from producer to handler."""
    if context.invoked_subcommand is None:
        publish([measure(rounds, quick)], folder)


@main.command("consume", hidden=True)
@click.argument("name")
@click.argument("bootstrap")
@click.argument("topic")
@click.argument("rate", type=int)
@click.argument("seconds", type=float)
def consume_command(name: str, bootstrap: str, topic: str, rate: int, seconds: float) -> None:
    """Be one contender, and start the producer."""
    command = [sys.executable, "-m", "benchmarks.latency", "produce", bootstrap, topic]
    producers: list[subprocess.Popen[bytes]] = []
    journal = Journal(
        int(rate * seconds),
        rate,
        lambda: producers.append(subprocess.Popen([*command, str(rate), str(seconds)])),
    )
    CONTENDERS[name](bootstrap, topic, journal)
    for producer in producers:
        producer.wait()
    sys.stdout.write(msgspec.json.encode(journal.result()).decode() + "\n")


@main.command("produce", hidden=True)
@click.argument("bootstrap")
@click.argument("topic")
@click.argument("rate", type=int)
@click.argument("seconds", type=float)
def produce_command(bootstrap: str, topic: str, rate: int, seconds: float) -> None:
    """Be the producer."""
    produce(bootstrap, topic, rate, seconds)


if __name__ == "__main__":
    main()
