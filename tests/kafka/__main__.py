"""Run a cluster by hand: `python -m tests.kafka --nodes 3 --topic orders:4`."""

from __future__ import annotations

import signal
import sys
from contextlib import suppress
from types import FrameType

import click

from .cluster import Cluster
from .install import KafkaUnavailable
from .nodes import ClusterError


def _topics(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> list[tuple[str, int]]:
    """Split NAME or NAME:PARTITIONS; one partition when no number is given."""
    found = []
    for value in values:
        name, _, partitions = value.partition(":")
        partitions = partitions or "1"
        if not name or not partitions.isdecimal() or int(partitions) < 1:
            raise click.BadParameter(f"{value!r} is not NAME or NAME:PARTITIONS")
        found.append((name, int(partitions)))
    return found


@click.command()
@click.option("--nodes", default=1, show_default=True, type=click.IntRange(1, 9), help="How many.")
@click.option("--heap", default="768m", show_default=True, help="Java heap of each node.")
@click.option(
    "topics",
    "--topic",
    multiple=True,
    metavar="NAME[:PARTITIONS]",
    callback=_topics,
    help="A topic to create.",
)
def main(nodes: int, heap: str, topics: list[tuple[str, int]]) -> None:
    """Run a Kafka cluster and print its bootstrap address.

    It ends, and its data vanish, when standard input ends, or at SIGINT or SIGTERM.
    """
    # SIGINT too: a shell has its background jobs, and all that they start, ignore it.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        with suppress(KeyboardInterrupt), Cluster(nodes, heap=heap) as cluster:
            for name, partitions in topics:
                cluster.create_topic(name, partitions)
            click.echo(cluster.bootstrap)
            click.echo("Ends with standard input, or at Ctrl-C.", err=True)
            while sys.stdin.buffer.readline():
                pass
    except (KafkaUnavailable, ClusterError) as error:
        raise click.ClickException(str(error)) from error


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
