"""The command ``python -m trio_consumer.testing``: a handler, or the library, simulated by seed.

Without a handler it hunts for mistakes of the library itself, with handlers that
misbehave in every way.  Each failure is printed with its seed and the shortest
schedule that was found for it, and written to a file that ``--schedule`` runs.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Literal

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ..cli.loading import load_handler
from ..cli.options import Seconds
from ._schedule import Schedule
from ._simulate import SimulationFailedError, SimulationReport, Subject, outcome_of, run_seed

__all__ = ["main"]

CHUNK = 20
"""Seeds that a process takes at once; arbitrary, a second or two of work."""


@dataclass(frozen=True)
class Plan:
    """What to simulate; plain enough to be sent to another process."""

    handler: str | None
    ack: Literal["auto", "manual"]

    def subject(self) -> Subject | None:
        """The handler with how it is used, None for the library's own."""
        return None if self.handler is None else Subject(load_handler(self.handler), self.ack)

    def again(self, option: str) -> str:
        """The command that repeats something."""
        handler = "" if self.handler is None else f" {self.handler} --ack {self.ack}"
        return f"python -m trio_consumer.testing{handler} {option}"


Result = tuple[SimulationReport, list[SimulationFailedError]]


def run_chunk(plan: Plan, seeds: range) -> Result:
    """Run some seeds, each to its end; called in another process."""
    subject = plan.subject()
    report = SimulationReport()
    failures = []
    for seed in seeds:
        try:
            report += run_seed(seed, subject=subject, again=plan.again(f"--seed {seed}"))
        except SimulationFailedError as failure:
            failures.append(failure)
    return report, failures


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.argument("handler", required=False)
@click.option("--ack", type=click.Choice(["auto", "manual"]), default="auto", help="Of its stream.")
@click.option("--seeds", type=click.IntRange(1), default=1000, help="How many schedules.")
@click.option("--first", type=click.IntRange(0), default=0, help="The first of them.")
@click.option("--minutes", type=Seconds(), help="For so long instead.")
@click.option("--seed", type=click.IntRange(0), help="This one alone, with what happened.")
@click.option(
    "--schedule",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A schedule from a file alone.",
)
@click.option("--trace", is_flag=True, help="With --seed or --schedule: everything that happened.")
@click.option("--jobs", type=click.IntRange(1), default=os.cpu_count() or 1, help="Processes.")
@click.option(
    "--save",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".simulation"),
    help="Where the schedules of failures go.",
)
@click.option("--keep-going", is_flag=True, help="Do not stop at the first failure.")
def main(
    handler: str | None,
    ack: Literal["auto", "manual"],
    seeds: int,
    first: int,
    minutes: float | None,
    seed: int | None,
    schedule: Path | None,
    trace: bool,
    jobs: int,
    save: Path,
    keep_going: bool,
) -> None:
    """Simulate consumers of one group among faults, and check that nothing is lost.

    HANDLER is an async function of one message, as module:function; without one the
    library's own handlers are used.  Exit code 1 means that something was violated.
    """
    console = Console(highlight=False, soft_wrap=True)
    plan = Plan(handler, ack)
    subject = plan.subject()

    def tell(failure: SimulationFailedError) -> None:
        save.mkdir(parents=True, exist_ok=True)
        path = save / f"{failure.seed}-{failure.check}.json"
        path.write_text(failure.schedule, encoding="utf-8")
        console.print(f"{failure}\n", markup=False)
        console.print(f"shortened: {plan.again(f'--schedule {path}')}\n", markup=False)

    if seed is not None or schedule is not None:
        chosen = None if schedule is None else Schedule.from_json(schedule.read_text("utf-8"))
        again = plan.again(f"--seed {seed}" if schedule is None else f"--schedule {schedule}")
        if trace:
            _show_trace(console, subject, seed or 0, chosen)
        failed = _one(console, subject, seed or 0, chosen, again, tell)
    else:
        end = time.monotonic() + minutes * 60 if minutes else None
        total = None if minutes else seeds
        results = _results(plan, _ranges(first, total), jobs, end, keep_going)
        failed = _many(console, results, total, tell)
    sys.exit(failed)


Tell = Callable[[SimulationFailedError], None]


def _show_trace(
    console: Console, subject: Subject | None, seed: int, schedule: Schedule | None
) -> None:
    outcome = outcome_of(seed, subject=subject, schedule=schedule)
    console.print(str(outcome.schedule), markup=False)
    console.print("\n".join(outcome.trace), markup=False)


def _one(
    console: Console,
    subject: Subject | None,
    seed: int,
    schedule: Schedule | None,
    again: str,
    tell: Tell,
) -> bool:
    outcome = outcome_of(seed, subject=subject, schedule=schedule)
    console.print(f"digest {outcome.digest:08x}: the same in each run of this schedule")
    try:
        console.print(str(run_seed(seed, subject=subject, again=again, schedule=schedule)))
    except SimulationFailedError as failure:
        tell(failure)
        return True
    return False


def _ranges(first: int, seeds: int | None) -> Iterator[range]:
    for start in count(first, CHUNK):
        stop = start + CHUNK if seeds is None else min(start + CHUNK, first + seeds)
        if start >= stop:
            return
        yield range(start, stop)


def _many(console: Console, results: Iterator[Result], total: int | None, tell: Tell) -> bool:
    """Add the results up, with a bar for people; True if something failed."""
    report = SimulationReport()
    failed = 0
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    with progress:
        task = progress.add_task("schedules", total=total)
        for done, failures in results:
            report += done
            failed += len(failures)
            for failure in failures:
                tell(failure)
            progress.update(task, advance=done.simulations + len(failures))
    console.print(f"{report}; {failed} schedules have failed" if failed else str(report))
    return failed > 0


def _results(
    plan: Plan, ranges: Iterator[range], jobs: int, end: float | None, keep_going: bool
) -> Iterator[Result]:
    """What the chunks come to, each as soon as it is done."""
    over = False
    if jobs == 1:
        for chunk in ranges:
            report, failures = run_chunk(plan, chunk)
            yield report, failures
            if _is_over(end, failures, keep_going):
                return
        return
    context = multiprocessing.get_context("spawn")
    # What was imported lives as long as the process: the collector need not look.
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=gc.freeze) as pool:
        running: set[Future[Result]] = set()
        while True:
            while len(running) < 2 * jobs and not over:
                following = next(ranges, None)
                if following is None:
                    break
                running.add(pool.submit(run_chunk, plan, following))
            if not running:
                return
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                report, failures = future.result()
                over = over or _is_over(end, failures, keep_going)
                yield report, failures


def _is_over(end: float | None, failures: list[SimulationFailedError], keep_going: bool) -> bool:
    late = end is not None and time.monotonic() >= end
    return late or (bool(failures) and not keep_going)
