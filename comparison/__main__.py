"""What do Faust's consumer and this one do with the same schedule?

    python -m comparison
    python -m comparison --only "gap in a fresh group" --only "a forward seek"
    python -m comparison --write docs/faust-table.md
    python -m comparison --kafka

With ``--kafka`` everything below both is real, and a Kafka is started for it (Java 17 and
Maven).  Needs faust-streaming; ``nox -s faust`` installs it into an environment of its
own.  The exit code is 1 if this consumer is wrong anywhere; what Faust does
never decides it.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType

import click
import trio
from rich.console import Console
from rich.progress import track

from . import ours
from .observed import Observed, Outcome, Verdict, judge
from .schedules import SCHEDULES, Schedule
from .table import Row, as_markdown, print_table

WIDTH = 150
"""Columns of the table where the terminal does not say; four columns of prose need them."""


def _silence() -> None:
    """Both sides log what they think of the schedules; the table says it."""
    logging.getLogger().addHandler(logging.NullHandler())
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)


def _verdict(run: Callable[[], Observed]) -> Verdict:
    """What a side does; an exception that it ends with is not right either."""
    try:
        return judge(run())
    except Exception as error:
        return Verdict(Outcome.FAILS, repr(error))


def _in_memory(schedule: Schedule, theirs: ModuleType) -> Row:
    return Row(
        schedule,
        _verdict(lambda: theirs.run(schedule)),
        _verdict(lambda: ours.run(schedule)),
    )


def _on_kafka(chosen: Sequence[Schedule], theirs: ModuleType) -> list[Row]:
    from tests.kafka import Cluster

    from .on_kafka import KafkaWorld, is_possible

    rows = []
    with Cluster(1) as cluster:
        for schedule in track(list(filter(is_possible, chosen)), "on Kafka", transient=True):
            world = KafkaWorld(cluster, schedule)
            faust = _verdict(partial(theirs.run_on_kafka, schedule, world))
            world = KafkaWorld(cluster, schedule)
            rows.append(
                Row(schedule, faust, _verdict(partial(ours.run, schedule, trio.run, world)))
            )
    return rows


@click.command()
@click.option("--only", multiple=True, metavar="NAME", help="Only these schedules.")
@click.option("--write", type=click.Path(path_type=Path), help="Also write the table as Markdown.")
@click.option("--kafka", is_flag=True, help="On a real Kafka, those schedules that can be.")
def main(only: tuple[str, ...], write: Path | None, kafka: bool) -> None:
    """Put both consumers through the schedules and print what came of it."""
    chosen = [schedule for schedule in SCHEDULES if not only or schedule.name in only]
    if unknown := set(only) - {schedule.name for schedule in chosen}:
        raise click.BadParameter(f"no such schedule: {', '.join(sorted(unknown))}")
    if write is not None and (only or kafka):
        raise click.UsageError("--write takes all schedules: not --only some, nor --kafka")
    try:
        from . import theirs
    except ImportError as error:
        raise click.ClickException(f"Faust is not here ({error}); run `nox -s faust`") from None
    _silence()
    if kafka:
        rows = _on_kafka(chosen, theirs)
    else:
        rows = [_in_memory(schedule, theirs) for schedule in chosen]
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    print_table(rows, theirs.VERSION, console)
    if write is not None:
        write.write_text(as_markdown(rows, theirs.VERSION), encoding="utf-8")
    sys.exit(any(row.ours.outcome is not Outcome.RIGHT for row in rows))


if __name__ == "__main__":
    main()
