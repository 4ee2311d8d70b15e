"""How much of the client's speed is left when a stream keeps account of each message?

A topic of numbered messages is read to its end by each contender in turn, round
after round, so that what else happens on the machine meets all of them alike.
Each run is a process of its own.  The table gives the median over the rounds, the
spread, and the ratio to the baseline of the *same* round (median of the ratios):
the bare kafka-python poll loop with the options that the library gives the client.

    python -m benchmarks.throughput
    python -m benchmarks.throughput --messages 200000 --rounds 3 --only trio_consumer
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from statistics import median

import click
import msgspec
from confluent_kafka.admin import AdminClient, NewTopic
from rich.console import Console
from rich.progress import track
from rich.table import Table

from tests.kafka import Cluster, produce_numbered

from .contenders import CONTENDERS, Result

BASELINE = "kafka-python poll loop"

Rounds = list[dict[str, Result]]


@contextmanager
def temporary_topic(bootstrap: str, partitions: int) -> Generator[str, None, None]:
    """A new topic, deleted at the end."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    topic = f"bench-{time.time_ns()}"
    admin.create_topics([NewTopic(topic, partitions, 1)])[topic].result(30)
    try:
        yield topic
    finally:
        admin.delete_topics([topic])[topic].result(30)


def run_alone(name: str, bootstrap: str, topic: str, count: int, timeout: float) -> Result:
    """One contender in a fresh interpreter.

    Raises:
        click.ClickException: It failed, or took too long.
    """
    command = [sys.executable, "-m", "benchmarks.contenders", name, bootstrap, topic, str(count)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=timeout, check=True)
    except subprocess.CalledProcessError as error:
        raise click.ClickException(f"{name} failed:\n{error.stderr.decode()}") from error
    except subprocess.TimeoutExpired as error:
        raise click.ClickException(f"{name} did not end in {timeout:.0f} s") from error
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=Result)


def measure(
    names: list[str], bootstrap: str, topic: str, count: int, rounds: int, timeout: float
) -> Rounds:
    """Every contender once a round, each round beginning with another one."""
    results: Rounds = []
    steps = [(r, names[(i + r) % len(names)]) for r in range(rounds) for i in range(len(names))]
    for number, name in track(steps, "measuring", transient=True, console=Console(stderr=True)):
        if number == len(results):
            results.append({})
        results[number][name] = run_alone(name, bootstrap, topic, count, timeout)
    return results


def summary(results: Rounds, names: list[str], title: str) -> Table:
    """Medians, spread and ratios to the baseline of the same round."""
    table = Table(title=title)
    for column in ("contender", "messages/s", "slowest .. fastest", "ratio", "CPU µs each"):
        table.add_column(column, justify="left" if column == "contender" else "right")
    for name in names:
        runs = [r[name] for r in results]
        speeds = [run.count / run.seconds for run in runs]
        ratios = [r[BASELINE].seconds / r[name].seconds for r in results]
        cpu = median(run.cpu / run.count for run in runs)
        table.add_row(
            name,
            f"{median(speeds):,.0f}",
            f"{min(speeds):,.0f} .. {max(speeds):,.0f}",
            f"{median(ratios):.2f}",
            f"{cpu * 1e6:.2f}",
        )
    return table


@click.command()
@click.option("--messages", default=1_000_000, show_default=True, help="In the topic.")
@click.option("--size", default=100, show_default=True, help="Bytes of each value.")
@click.option("--partitions", default=4, show_default=True, help="Of the topic.")
@click.option("--rounds", default=5, show_default=True, help="How often each contender runs.")
@click.option("--compression", default="none", show_default=True, help="Of the batches.")
@click.option("--only", multiple=True, help="Contenders whose name contains this.")
@click.option("--timeout", default=300.0, show_default=True, help="Seconds for each run.")
@click.option("--bootstrap", help="A broker that runs already: HOST:PORT.  Default: its own.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write every run here.")
def main(
    messages: int,
    size: int,
    partitions: int,
    rounds: int,
    compression: str,
    only: tuple[str, ...],
    timeout: float,
    bootstrap: str | None,
    json_file: Path | None,
) -> None:
    """Measure the throughput of each contender on one topic, as ratios."""
    names = [
        name
        for name in CONTENDERS
        if name == BASELINE or not only or any(part in name for part in only)
    ]
    own: AbstractContextManager[Cluster | None] = Cluster() if bootstrap is None else nullcontext()
    with own as cluster:
        if cluster is not None:
            bootstrap = cluster.bootstrap
        assert bootstrap is not None
        with temporary_topic(bootstrap, partitions) as topic:
            produce_numbered(
                bootstrap,
                topic,
                messages,
                partitions,
                size=size,
                options={"compression.type": compression},
            )
            results = measure(names, bootstrap, topic, messages, rounds, timeout)
    title = f"{messages:,} messages of {size} bytes, {partitions} partitions, {rounds} rounds"
    Console().print(summary(results, names, title))
    if json_file is not None:
        json_file.write_bytes(msgspec.json.format(msgspec.json.encode(results)))


if __name__ == "__main__":
    main()
