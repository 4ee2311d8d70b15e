"""What a run showed, for people."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from .resources import ENOUGH, quarters
from .run import Outcome, Settings
from .schedule import draw

__all__ = ["print_outcome"]

SHOWN = 20
"""Violations that are printed; the file has all of them."""


def print_outcome(console: Console, outcome: Outcome, settings: Settings, command: str) -> None:
    """Print tables of what happened and what came of it; and what is wrong, if something is."""
    console.print(_happened(outcome))
    console.print(_figures(outcome))
    console.print(_resources(outcome))
    if not outcome.violations:
        console.print(f"lost {outcome.missing}: every rule holds, seed {settings.options.seed}")
        return
    console.print("[bold]the schedule was[/bold]")
    for step in draw(settings.options) if settings.faults else ():
        console.print(str(step), markup=False)
    console.print(f"[bold red]{len(outcome.violations)} violations[/bold red]")
    for violation in outcome.violations[:SHOWN]:
        console.print(f"- {violation}", markup=False)
    console.print(f"seed {settings.options.seed}; again with: {command}", markup=False)


def _happened(outcome: Outcome) -> Table:
    table = Table("what happened", "times", title="Faults")
    for kind, times in sorted(outcome.happened.items()):
        table.add_row(kind, str(times))
    table.add_section()
    table.add_row("all", str(sum(outcome.happened.values())))
    table.add_row("did not fit in", str(outcome.skipped))
    return table


def _figures(outcome: Outcome) -> Table:
    table = Table("figure", "", title="What came of it")
    rows = {
        "messages written": f"{outcome.messages:,}",
        "read by groups": str(outcome.groups),
        "lost": str(outcome.missing),
        "delivered again": f"{outcome.replays:,}",
        "could have been": f"{outcome.bound:,}",
        "looks at committed offsets": f"{outcome.observations:,}",
        "all committed after": f"{outcome.settled:.1f} s",
        "seconds": f"{outcome.seconds:.0f}",
        **{name: f"{count:,}" for name, count in sorted(outcome.counted.items())},
    }
    for name, figure in rows.items():
        table.add_row(name, figure)
    return table


def _resources(outcome: Outcome) -> Table:
    table = Table(
        *("member", "seconds", "memory, MiB", "files", "threads", "tasks", "most unfinished"),
        title="Members that lived long: second and last quarter of their lives",
    )
    for name, samples in outcome.samples.items():
        if len(samples) < ENOUGH:
            continue
        memory = " → ".join(f"{each / 2**20:.0f}" for each in quarters(samples, "rss"))
        others = (
            " → ".join(f"{each:g}" for each in quarters(samples, what))
            for what in ("fds", "threads", "tasks")
        )
        most = max(each.unfinished for each in samples)
        table.add_row(name, str(2 * len(samples)), memory, *others, f"{most:,}")
    return table
