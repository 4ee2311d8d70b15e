"""What do many partitions, many streams and one slow partition cost?

The same number of messages is read from 1, 10, 100 and 1,000 partitions; by 1 to
16 streams, each of which reads all of them; and from 100 partitions while the
messages of one of them are held for as long as the rest takes.

    python -m benchmarks.scale
"""

from __future__ import annotations

from pathlib import Path
from statistics import median

import click

from tests.kafka import Cluster, produce_numbered

from .contenders import Result
from .report import Bar, Chart, Report, common_options, publish, spread
from .running import in_rounds, run_alone

AUTO = "trio_consumer async for, auto"
STREAMS = {
    "1 stream": AUTO,
    "2 streams": "trio_consumer two streams",
    "4 streams": "trio_consumer four streams",
    "8 streams": "trio_consumer eight streams",
    "16 streams": "trio_consumer sixteen streams",
}


def measure(rounds: int, quick: bool) -> Report:
    """Everything above, as a report."""
    messages = 100_000 if quick else 500_000
    partitions = (1, 10, 100) if quick else (1, 10, 100, 1000)
    with Cluster(properties={"log.segment.bytes": 16_777_216}) as cluster:
        address = cluster.bootstrap
        topics: dict[str, str] = {}
        jobs: dict[str, tuple[str, int]] = {}
        for number in partitions:
            label = f"{number:,} partitions" if number > 1 else "1 partition"
            topics[label] = cluster_topic(cluster, number, messages)
            jobs[label] = (AUTO, number)
        for label, name in STREAMS.items():
            if name != AUTO:
                topics[label] = topics["10 partitions"]
                jobs[label] = (name, 10)
        hundred = topics["100 partitions"]
        jobs["100 partitions, one slow"] = ("trio_consumer one slow partition", 100)
        topics["100 partitions, one slow"] = hundred
        jobs["100 partitions, manual acks"] = ("trio_consumer async for, manual", 100)
        topics["100 partitions, manual acks"] = hundred

        def run(label: str) -> Result:
            arguments = (jobs[label][0], address, topics[label], messages)
            return run_alone("contenders", arguments, Result, 600)

        results = in_rounds(list(jobs), rounds, run)
    rows = []
    chart = Chart("µs a message", [], [], [], [])
    for label in jobs:
        base = "10 partitions" if "stream" in label else "1 partition"
        middle, low, high = spread(r[label].seconds / r[label].count * 1e6 for r in results)
        ratio = median(r[label].seconds / r[base].seconds for r in results)
        cpu = median(r[label].cpu / r[label].count for r in results) * 1e6
        rows.append(
            [label, f"{middle:.2f}", f"{low:.2f} .. {high:.2f}", f"{cpu:.2f}", f"{ratio:.2f}"]
        )
        chart.labels.append(label)
        chart.values.append(middle)
        chart.low.append(low)
        chart.high.append(high)

    def ratio(one: str, other: str) -> float:
        return median(r[one].seconds / r[other].seconds for r in results)

    most = f"{partitions[-1]:,} partitions"
    bars = [
        Bar(f"{most} / 1 partition", ratio(most, "1 partition"), 1.3, 1.1, at_most=True),
        Bar("2 streams / 1 stream", ratio("2 streams", "10 partitions"), 1.25, 1.1, at_most=True),
    ]
    columns = ["what", "µs a message", "lowest .. highest", "CPU µs", "/ 1 partition or stream"]
    title = f"{messages:,} messages of 100 bytes, {rounds} rounds"
    return Report("scale", title, columns, rows, chart, bars, results)


def cluster_topic(cluster: Cluster, partitions: int, messages: int) -> str:
    """A topic of so many partitions and messages."""
    name = f"scale-{partitions}"
    cluster.create_topic(name, partitions)
    produce_numbered(cluster.bootstrap, name, messages, partitions)
    return name


@click.command()
@common_options
def main(folder: Path | None, quick: bool, rounds: int) -> None:
    """Measure how the time a message takes grows with partitions and streams."""
    publish([measure(rounds, quick)], folder)


if __name__ == "__main__":
    main()
