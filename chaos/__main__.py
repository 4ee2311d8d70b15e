"""Is anything lost when nodes, members and the network between them fail?

    python -m chaos --minutes 10 --seed 7
    python -m chaos --plan --seed 7
    python -m chaos --rate 0 --no-faults --members 4

Starts three Kafka nodes (Java 17 and Maven), two groups of member processes, one with the
eager and one with the cooperative protocol, and producers; lets happen what the seed draws,
and judges what the members journaled and their groups committed.  The exit code is 1 if a
rule is broken; journals, logs and figures are kept then.  ``docs/chaos.md`` tells more.
"""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
from pathlib import Path

import click
import trio
from rich.console import Console

from .report import print_outcome
from .run import Settings, run, write_figures
from .schedule import Options, draw, draw_members


@click.command()
@click.option("--seed", type=int, help="Draws the schedule; random unless given.")
@click.option("--minutes", default=10.0, show_default=True, help="Length of the schedule.")
@click.option("--members", default=8, show_default=True, type=click.IntRange(4, 40))
@click.option("--partitions", default=8, show_default=True, type=click.IntRange(1, 200))
@click.option("--producers", default=2, show_default=True, type=click.IntRange(1, 8))
@click.option(
    "--rate",
    default=400.0,
    show_default=True,
    help="Messages a second; 0 for as many as the members can read.",
)
@click.option("--pace", default=3.0, show_default=True, help="Seconds between two faults.")
@click.option("--settle", default=120.0, show_default=True, help="Seconds to recover at the end.")
@click.option("--faults/--no-faults", default=True, help="Let things happen, or just run.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where to keep journals.")
@click.option("--plan", is_flag=True, help="Print the schedule of the seed, and end.")
def main(
    seed: int | None,
    minutes: float,
    members: int,
    partitions: int,
    producers: int,
    rate: float,
    pace: float,
    settle: float,
    faults: bool,
    folder: Path | None,
    plan: bool,
) -> None:
    """Let nodes, members and the network fail, and see whether a message is lost."""
    console = Console(width=None if sys.stdout.isatty() else 100, highlight=False)
    seed = random.randrange(1_000_000) if seed is None else seed
    options = Options(seed, minutes=minutes, members=members, pace=pace)
    if plan:
        for member in draw_members(options):
            console.print(str(member), markup=False)
        for step in draw(options):
            console.print(str(step), markup=False)
        return
    if folder is not None and folder.exists() and any(folder.iterdir()):
        raise click.UsageError(f"{folder} has files of another run")
    kept = folder or Path(tempfile.mkdtemp(prefix="trio-consumer-chaos-"))
    kept.mkdir(parents=True, exist_ok=True)
    settings = Settings(
        options,
        kept.absolute(),
        partitions=partitions,
        producers=producers,
        rate=rate,
        settle=settle,
        faults=faults,
        say=lambda line: console.print(line, markup=False),
    )
    arguments = " ".join(sys.argv[1:]) + ("" if "--seed" in sys.argv else f" --seed {seed}")
    command = f"nox -s chaos -- {arguments.strip()}"
    console.print(f"seed {seed}; again with: {command}", markup=False)
    outcome = trio.run(run, settings)
    write_figures(outcome, settings)
    print_outcome(console, outcome, settings, command)
    if outcome.violations:
        console.print(f"journals, logs and figures are in {settings.folder}", markup=False)
        sys.exit(1)
    if folder is None:
        shutil.rmtree(kept)


if __name__ == "__main__":
    main()
