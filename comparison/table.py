"""The result as a table: for a terminal, and as Markdown for the documentation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .observed import Outcome, Verdict, right
from .schedules import Schedule

__all__ = ["Row", "as_markdown", "print_table", "summary"]


@dataclass(frozen=True)
class Row:
    """One schedule and what came of it.

    Attributes:
        schedule: The schedule.
        theirs: Faust's verdict, None if it was not asked.
        ours: This consumer's.
    """

    schedule: Schedule
    theirs: Verdict | None
    ours: Verdict

    @property
    def note(self) -> str:
        """Where in Faust it is decided, if Faust is not right."""
        if self.theirs is None or self.theirs.outcome is Outcome.RIGHT:
            return ""
        return self.schedule.where


def _notes(rows: Sequence[Row]) -> list[str]:
    """The notes, each once, in the order of the rows."""
    return list(dict.fromkeys(row.note for row in rows if row.note))


def _text(verdict: Verdict | None) -> Text:
    if verdict is None:
        return Text("-")
    style = "green" if verdict.outcome is Outcome.RIGHT else "bold red"
    return Text.assemble((verdict.outcome.value, style), f": {verdict.seen}")


def print_table(rows: Sequence[Row], version: str | None, console: Console) -> None:
    """Print it, with the notes below."""
    table = Table(title="The same schedules, two consumers", show_lines=True)
    table.add_column("schedule", ratio=6)
    table.add_column("what is right", ratio=3)
    table.add_column(f"Faust {version}" if version else "Faust", ratio=4)
    table.add_column("trio_consumer", ratio=3)
    table.add_column("note", justify="right")
    notes = _notes(rows)
    for row in rows:
        table.add_row(
            Text.assemble((row.schedule.name, "bold"), f"\n{row.schedule.text}"),
            right(row.schedule),
            _text(row.theirs),
            _text(row.ours),
            str(notes.index(row.note) + 1) if row.note else "",
        )
    console.print(table)
    for number, note in enumerate(notes, 1):
        console.print(Text(f"{number:>2}  faust/{note.replace('`', '')}"))
    console.print(summary(rows))


def summary(rows: Sequence[Row]) -> str:
    """How many each of them has right."""
    ours = sum(row.ours.outcome is Outcome.RIGHT for row in rows)
    text = f"{len(rows)} schedules: trio_consumer is right in {ours}"
    asked = [row.theirs for row in rows if row.theirs is not None]
    if asked:
        text += f", Faust in {sum(v.outcome is Outcome.RIGHT for v in asked)}"
    return text


def _markdown(verdict: Verdict | None) -> str:
    if verdict is None:
        return "-"
    if verdict.outcome is Outcome.RIGHT:
        return f"right: {verdict.seen}"
    return f"**{verdict.outcome.value}**: {verdict.seen}"


def as_markdown(rows: Sequence[Row], version: str) -> str:
    """A page of its own; :func:`summary`, the table, and the notes."""
    notes = _notes(rows)
    lines = [
        "# Faust and trio_consumer, put through the same schedules",
        "",
        "<!-- Written by `nox -s faust -- --write docs/faust-table.md`; changes get lost. -->",
        "",
        f"Faust is faust-streaming {version}. {summary(rows)}. How it is measured, and what the",
        "words mean: [Beside Faust](faust.md#how-it-is-measured).",
        "",
        "| schedule | what is right | Faust | trio_consumer | note |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| **{row.schedule.name}**<br>{row.schedule.text} | {right(row.schedule)}"
        f" | {_markdown(row.theirs)} | {_markdown(row.ours)}"
        f" | {notes.index(row.note) + 1 if row.note else ''} |"
        for row in rows
    ]
    lines += ["", "Where in Faust it is decided (paths in the installed package `faust/`):", ""]
    lines += [f"{number}. {note}" for number, note in enumerate(notes, 1)]
    return "\n".join(lines) + "\n"
