"""How much of the client's speed is left when a stream keeps account of each message?

A topic of numbered messages is read to its end by each contender in turn.  The
table gives the median over the rounds, the spread, and the ratio to the baseline
of the *same* round (median of the ratios): the bare kafka-python poll loop with
the options that the library gives the client.

    python -m benchmarks.throughput
    python -m benchmarks.throughput --size 1000 --compression zstd --only trio_consumer
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from random import Random
from statistics import median

import click

from tests.kafka import Cluster, produce_numbered

from .contenders import CONTENDERS, Result
from .report import Bar, Chart, Report, common_options, publish, spread
from .running import Rounds, in_rounds, run_alone, temporary_topic

BASELINE = "kafka-python poll loop"
AUTO = "trio_consumer async for, auto"
BATCHES = "trio_consumer batches"
TWO = "trio_consumer two streams"
CONFLUENT = "trio_consumer over confluent, async for"
CONFLUENT_BATCHES = "trio_consumer over confluent, batches"

ASYNCIO = "trio_consumer on asyncio, async for"

BARS = (
    ("on asyncio / on Trio, async for", ASYNCIO, AUTO, 0.9, 1.0),
    ("async for, automatic acks / bare poll loop", AUTO, BASELINE, 0.95, 1.0),
    ("batches / bare poll loop", BATCHES, BASELINE, 0.98, 1.0),
    ("over kafka-python / faust-streaming", AUTO, "faust-streaming agent", 12.0, 15.0),
    ("over confluent, async for / aiokafka getmany", CONFLUENT, "aiokafka getmany", 1.0, 1.3),
    ("over confluent, async for / aiokafka async for", CONFLUENT, "aiokafka async for", 3.5, 5.0),
    (
        "over confluent, batches / bare tuned consume",
        CONFLUENT_BATCHES,
        "confluent-kafka consume, tuned",
        0.85,
        0.95,
    ),
)


def speed_ratio(results: Rounds[Result], one: str, other: str) -> float:
    """How many times as fast one is as the other: median of the rounds."""
    return median(
        (r[one].count / r[one].seconds) / (r[other].count / r[other].seconds) for r in results
    )


def report_of(results: Rounds[Result], names: list[str], title: str) -> Report:
    """Medians, spread and ratios to the baseline of the same round."""
    rows = []
    chart = Chart("messages a second", [], [], [], [])
    for name in names:
        speed, low, high = spread(r[name].count / r[name].seconds for r in results)
        cpu = median(r[name].cpu / r[name].count for r in results)
        rows.append(
            [
                name,
                f"{speed:,.0f}",
                f"{low:,.0f} .. {high:,.0f}",
                f"{speed_ratio(results, name, BASELINE):.2f}",
                f"{cpu * 1e6:.2f}" if cpu else "",
            ]
        )
        chart.labels.append(name)
        chart.values.append(speed)
        chart.low.append(low)
        chart.high.append(high)
    columns = ["contender", "messages/s", "slowest .. fastest", "ratio", "CPU µs each"]
    bars = [
        Bar(what, speed_ratio(results, one, other), bar, aim)
        for what, one, other, bar, aim in BARS
        if one in names and other in names
    ]
    if AUTO in names and TWO in names:
        ratio = median(r[TWO].seconds / r[AUTO].seconds for r in results)
        bars.append(Bar("a second stream: its time / that of one", ratio, 1.25, 1.1, at_most=True))
    return Report("throughput", title, columns, rows, chart, bars, results)


ELSEWHERE = ("one slow partition", "eight streams", "sixteen streams")
"""Contenders that other benchmarks are about."""


def chosen(only: tuple[str, ...]) -> list[str]:
    """Names of the contenders to run, the baseline always."""
    return [
        name
        for name in CONTENDERS
        if name == BASELINE
        or (any(part in name for part in only) if only else not name.endswith(ELSEWHERE))
    ]


def measure(
    messages: int,
    size: int,
    partitions: int,
    compression: str,
    rounds: int,
    names: list[str],
    bootstrap: str | None = None,
    timeout: float = 300.0,
) -> Report:
    """Produce a topic and have it read; on a broker of its own unless one is named."""
    own: AbstractContextManager[Cluster | None] = Cluster() if bootstrap is None else nullcontext()
    with own as cluster:
        address = cluster.bootstrap if cluster is not None else bootstrap
        assert address is not None
        with temporary_topic(address, partitions) as topic:
            options = {"compression.type": compression}
            # Hexadecimal digits by chance: compressible by half, as text is.
            filler = b"" if compression == "none" else Random(1).randbytes(1 << 19).hex().encode()
            produce_numbered(
                address, topic, messages, partitions, size=size, options=options, filler=filler
            )

            def run(name: str) -> Result:
                count = CONTENDERS[name].share(messages)
                return run_alone("contenders", (name, address, topic, count), Result, timeout)

            results = in_rounds(names, rounds, run)
    packed = "" if compression == "none" else f", {compression}"
    return report_of(
        results,
        names,
        f"{messages:,} messages of {size} bytes{packed}, {partitions} partitions, {rounds} rounds",
    )


@click.command()
@common_options
@click.option("--messages", default=1_000_000, show_default=True, help="In the topic.")
@click.option("--size", default=100, show_default=True, help="Bytes of each value.")
@click.option("--partitions", default=4, show_default=True, help="Of the topic.")
@click.option("--compression", default="none", show_default=True, help="Of the batches.")
@click.option("--only", multiple=True, help="Contenders whose name contains this.")
@click.option("--timeout", default=300.0, show_default=True, help="Seconds for each run.")
@click.option("--bootstrap", help="A broker that runs already: HOST:PORT.  Default: its own.")
def main(
    folder: Path | None,
    quick: bool,
    rounds: int,
    messages: int,
    size: int,
    partitions: int,
    compression: str,
    only: tuple[str, ...],
    timeout: float,
    bootstrap: str | None,
) -> None:
    """Measure the throughput of each contender on one topic, as ratios."""
    if quick:
        messages, rounds = min(messages, 100_000), min(rounds, 2)
    names = chosen(only)
    report = measure(messages, size, partitions, compression, rounds, names, bootstrap, timeout)
    publish([report], folder)


if __name__ == "__main__":
    main()
