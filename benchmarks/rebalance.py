"""What does the arrival of a second member cost?

One member reads eight partitions that are produced to at a steady rate; a second
one joins.  Measured: seconds from its start to its first message, how many
messages were delivered twice, and the longest silence of a partition that stayed
where it was.

Handlers do nothing, and then a rebalance is over so soon that the silence is that
of the machine; or work on each message for :data:`WORK` seconds, many at a time, and
then a partition is handed over when what is in hand is done.  The others wait for
nothing of the kind: what they have in hand is committed already.

    python -m benchmarks.rebalance
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import click
import msgspec
import trio
from confluent_kafka import Producer

from tests.kafka import Cluster
from trio_consumer import Message, open_consumer

from .contenders import FASTEST
from .report import Bar, Chart, Report, common_options, publish, spread
from .running import in_rounds, temporary_topic

PARTITIONS = 8
RATE = 1_000
WORK = 1.0
"""Seconds that a message is in hand, for members that work."""

BEFORE, AFTER = 5.0, 8.0
"""Seconds that the first member has the partitions alone, and that both have them, both
counted from the youngest member's first message."""

Note = Callable[[int, int], None]


class Outcome(msgspec.Struct):
    """What one join did.

    Attributes:
        first_message: Seconds from the start of the second member to its first message.
        doubles: Messages that both members, or one of them twice, were given.
        silence: Longest gap, in seconds, between messages of a partition that stayed.
        moved: How many partitions moved.
    """

    first_message: float
    doubles: int
    silence: float
    moved: int


def ours(strategy: str, work: float = 0.0) -> Callable[[str, str, str, Note], None]:
    """A member of ours, which works on each message for ``work`` seconds."""
    name = {"eager": "roundrobin", "cooperative": "cooperative-sticky"}[strategy]

    async def work_on(message: Message) -> None:
        async with message:
            await trio.sleep(work)

    def run(bootstrap: str, topic: str, group: str, note: Note) -> None:
        async def main() -> None:
            options = {"partition_assignment_strategy": name}
            async with (
                open_consumer(
                    f"kafka://{bootstrap}", group=group, client_options=options
                ) as consumer,
                consumer.stream(topic, ack="manual" if work else "auto") as stream,
                trio.open_nursery() as nursery,
            ):
                async for message in stream:
                    note(message.partition, message.offset)
                    if work:
                        nursery.start_soon(work_on, message)

        trio.run(main)

    return run


def aiokafka(bootstrap: str, topic: str, group: str, note: Note) -> None:
    """A member of aiokafka, which has eager assignment only; it commits by itself."""
    from aiokafka import AIOKafkaConsumer
    from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor

    async def main() -> None:
        client = AIOKafkaConsumer(
            topic,
            bootstrap_servers=bootstrap,
            group_id=group,
            auto_offset_reset="earliest",
            partition_assignment_strategy=[RoundRobinPartitionAssignor],
        )
        await client.start()
        async for record in client:
            note(record.partition, record.offset)

    asyncio.run(main())


def confluent(strategy: str) -> Callable[[str, str, str, Note], None]:
    """A member of confluent-kafka; it commits by itself."""
    name = {"eager": "roundrobin", "cooperative": "cooperative-sticky"}[strategy]

    def run(bootstrap: str, topic: str, group: str, note: Note) -> None:
        from confluent_kafka import Consumer

        client = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": group,
                "auto.offset.reset": "earliest",
                "partition.assignment.strategy": name,
                **FASTEST,
            }
        )
        client.subscribe([topic])
        while True:
            message = client.poll(0.5)
            if message is not None and message.error() is None:
                note(message.partition(), message.offset())

    return run


MEMBERS: dict[str, Callable[[str, str, str, Note], None]] = {
    "trio_consumer, eager": ours("eager"),
    "trio_consumer, cooperative": ours("cooperative"),
    "trio_consumer, eager, at work": ours("eager", WORK),
    "trio_consumer, cooperative, at work": ours("cooperative", WORK),
    "aiokafka, eager": aiokafka,
    "confluent-kafka, eager": confluent("eager"),
    "confluent-kafka, cooperative": confluent("cooperative"),
}


def be_member(name: str, bootstrap: str, topic: str, group: str) -> None:
    """Read and print a line for each message, until the process is ended."""
    out = sys.stdout.buffer

    def note(partition: int, offset: int) -> None:
        out.write(b"%d %d %d\n" % (time.monotonic_ns(), partition, offset))
        out.flush()

    MEMBERS[name](bootstrap, topic, group, note)


def join(name: str, bootstrap: str, topic: str) -> Outcome:
    """Let one member read, then start the second one."""
    stop = threading.Event()
    producing = threading.Thread(target=produce_until, args=(stop, bootstrap, topic))
    command = [sys.executable, "-m", "benchmarks.rebalance", "member", name, bootstrap, topic]
    with tempfile.TemporaryDirectory(prefix="bench-rebalance-") as folder:
        journals = [Path(folder, "first"), Path(folder, "second")]
        members: list[subprocess.Popen[bytes]] = []
        producing.start()
        try:
            with journals[0].open("wb") as out:
                members.append(subprocess.Popen([*command, f"g-{topic}"], stdout=out))
            wait_for_delivery(journals[0])
            time.sleep(BEFORE)
            joined = time.monotonic_ns()
            with journals[1].open("wb") as out:
                members.append(subprocess.Popen([*command, f"g-{topic}"], stdout=out))
            wait_for_delivery(journals[1])
            time.sleep(AFTER)
        finally:
            stop.set()
            for member in members:
                member.kill()
                member.wait()
            producing.join()
        first, second = (read(journal) for journal in journals)
    return judge(joined, first, second)


def wait_for_delivery(journal: Path, patience: float = 90.0) -> None:
    """Wait until a member has noted its first message.

    Raises:
        click.ClickException: None came within ``patience`` seconds.
    """
    deadline = time.monotonic() + patience
    while not journal.stat().st_size:
        if time.monotonic() > deadline:
            raise click.ClickException(f"no message reached the {journal.name} member")
        time.sleep(0.01)


Delivery = tuple[int, int, int]


def read(journal: Path) -> list[Delivery]:
    """Time, partition and offset of each delivery; a torn last line is left out."""
    lines = journal.read_bytes().split(b"\n")[:-1]
    return [(int(a), int(b), int(c)) for a, b, c in (line.split() for line in lines)]


def judge(joined: int, first: list[Delivery], second: list[Delivery]) -> Outcome:
    """What the journals say."""
    moved = {partition for _, partition, _ in second}
    times = defaultdict(list)
    for at, partition, _ in first:
        if partition not in moved and at > joined - 1_000_000_000:
            times[partition].append(at)
    silence = max((b - a for of in times.values() for a, b in pairwise(of)), default=0)
    deliveries = [(partition, offset) for _, partition, offset in first + second]
    begins = min(at for at, _, _ in second)
    return Outcome(
        (begins - joined) / 1e9,
        len(deliveries) - len(set(deliveries)),
        silence / 1e9,
        len(moved),
    )


def produce_until(stop: threading.Event, bootstrap: str, topic: str) -> None:
    """Send :data:`RATE` messages a second, over all partitions."""
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 1})
    began, number = time.monotonic(), 0
    while not stop.is_set():
        while number < (time.monotonic() - began) * RATE:
            producer.produce(topic, b"x" * 100, partition=number % PARTITIONS)
            number += 1
        producer.poll(0)
        time.sleep(0.002)
    producer.flush(30)


def measure(rounds: int, quick: bool) -> Report:
    """Every kind of member."""
    names = [name for name in MEMBERS if not quick or name.startswith("trio_consumer")]
    with Cluster() as cluster:

        def run(name: str) -> Outcome:
            with temporary_topic(cluster.bootstrap, PARTITIONS) as topic:
                return join(name, cluster.bootstrap, topic)

        results = in_rounds(names, rounds, run)
    rows: list[list[str]] = []
    chart = Chart("s of silence of a partition that stayed", [], [], [], [])
    for name in names:
        outcomes = [r[name] for r in results]
        middle, low, high = spread(o.silence for o in outcomes)
        rows.append(
            [
                name,
                f"{median(o.first_message for o in outcomes):.2f}",
                f"{median(o.doubles for o in outcomes):,.0f}",
                f"{middle:.3f}",
                f"{low:.3f} .. {high:.3f}",
                f"{median(o.moved for o in outcomes):.0f}",
            ]
        )
        chart.labels.append(name)
        chart.values.append(middle)
        chart.low.append(low)
        chart.high.append(high)
    bars = [
        Bar(
            f"longest silence of untouched partitions, cooperative / eager{what}",
            median(r[cooperative].silence / r[eager].silence for r in results),
            0.2,
            0.0,
            at_most=True,
        )
        for eager, cooperative, what in [
            ("trio_consumer, eager, at work", "trio_consumer, cooperative, at work", ", at work"),
            ("trio_consumer, eager", "trio_consumer, cooperative", ", nothing to do"),
        ]
    ]
    columns = ["members", "first message s", "doubles", "silence s", "lowest .. highest", "moved"]
    title = f"a second member joins, {RATE:,} messages/s, {rounds} rounds"
    return Report("rebalance", title, columns, rows, chart, bars, results)


@click.group(invoke_without_command=True)
@click.pass_context
@common_options
def main(context: click.Context, folder: Path | None, quick: bool, rounds: int) -> None:
    """Measure what a rebalance costs those who stay and those who come."""
    if context.invoked_subcommand is None:
        publish([measure(rounds, quick)], folder)


@main.command("member", hidden=True)
@click.argument("name")
@click.argument("bootstrap")
@click.argument("topic")
@click.argument("group")
def member_command(name: str, bootstrap: str, topic: str, group: str) -> Any:
    """Be one member."""
    be_member(name, bootstrap, topic, group)


if __name__ == "__main__":
    main()
