"""What do Faust's consumer and this one do with the same schedule?

    python -m comparison
    python -m comparison --only "gap in a fresh group" --only "a forward seek"
    python -m comparison --write docs/faust-table.md

Needs faust-streaming; ``nox -s faust`` installs it into an environment of its
own.  The exit code is 1 if this consumer is wrong anywhere; what Faust does
never decides it.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path

import click
from rich.console import Console

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


def _verdict(run: Callable[[Schedule], Observed], schedule: Schedule) -> Verdict:
    """What a side does; an exception that it ends with is not right either."""
    try:
        return judge(run(schedule))
    except Exception as error:
        return Verdict(Outcome.FAILS, repr(error))


@click.command()
@click.option("--only", multiple=True, metavar="NAME", help="Only these schedules.")
@click.option("--write", type=click.Path(path_type=Path), help="Also write the table as Markdown.")
def main(only: tuple[str, ...], write: Path | None) -> None:
    """Put both consumers through the schedules and print what came of it."""
    chosen = [schedule for schedule in SCHEDULES if not only or schedule.name in only]
    if unknown := set(only) - {schedule.name for schedule in chosen}:
        raise click.BadParameter(f"no such schedule: {', '.join(sorted(unknown))}")
    if only and write is not None:
        raise click.UsageError("--write takes all schedules, not --only some")
    try:
        from . import theirs
    except ImportError as error:
        raise click.ClickException(f"Faust is not here ({error}); run `nox -s faust`") from None
    _silence()
    rows = [
        Row(schedule, _verdict(theirs.run, schedule), _verdict(ours.run, schedule))
        for schedule in chosen
    ]
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    print_table(rows, theirs.VERSION, console)
    if write is not None:
        write.write_text(as_markdown(rows, theirs.VERSION), encoding="utf-8")
    sys.exit(any(row.ours.outcome is not Outcome.RIGHT for row in rows))


if __name__ == "__main__":
    main()
