"""What the demonstration shows: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import trio
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from .journal import Place, Verdict

__all__ = ["PartitionRow", "View"]

BAR = 30
PLAIN_EVERY = 0.8
"""Seconds between two plain lines."""


@dataclass(frozen=True, slots=True)
class PartitionRow:
    """One partition at one moment.

    Attributes:
        partition: Its number.
        end: The next offset to be written.
        position: Offset after the last message given to the streams.
        unfinished: Messages given to the streams and not finished by both.
        oldest_unfinished: The lowest of their offsets.
        committed: What the broker has for the group.
    """

    partition: int
    end: int
    position: int
    unfinished: int
    oldest_unfinished: int | None
    committed: int


class View:
    """Prints the demonstration.

    Args:
        console: Where to.
        live: Redraw a table in place, instead of printing lines.
    """

    def __init__(self, console: Console, *, live: bool) -> None:
        self._console = console
        self._is_live = live
        self._live: Live | None = None
        self._title = ""
        self._next_line = 0.0

    def say(self, text: str, *, style: str = "") -> None:
        """Print a paragraph, wrapped to the terminal."""
        self._console.print(Text(text, style=style))

    def heading(self, text: str) -> None:
        """Print the title of a part."""
        self._console.print()
        self._console.print(Text(text, style="bold"))

    @contextmanager
    def watching(self, title: str) -> Generator[None, None, None]:
        """Show :meth:`rows` inside the block; the last ones stay on the screen."""
        self._title = title
        self._next_line = 0.0
        if not self._is_live:
            yield
            return
        # No thread of rich's own: each refresh comes from the task that samples.
        with Live(console=self._console, auto_refresh=False) as self._live:
            try:
                yield
            finally:
                self._live.refresh()
        self._live = None

    def rows(self, rows: Sequence[PartitionRow], progress: str) -> None:
        """Show the partitions as they are now."""
        if self._live is not None:
            self._live.update(self._picture(rows, progress), refresh=True)
        elif not self._is_live and trio.current_time() >= self._next_line:
            self._next_line = trio.current_time() + PLAIN_EVERY
            self._console.print(Text(_plain(rows, progress)), soft_wrap=True)

    def _picture(self, rows: Sequence[PartitionRow], progress: str) -> RenderableType:
        table = Table(title=None, expand=False)
        table.add_column("partition", justify="right")
        for name in ("end", "position", "unfinished"):
            table.add_column(name, justify="right", min_width=5)
        table.add_column("oldest\nunfinished", justify="right", style="yellow")
        table.add_column("committed\n(broker)", justify="right", style="green")
        # A picture for those who have the room.
        pictured = self._console.width >= 70 + BAR
        if pictured:
            table.add_column("committed, given out, to be read", min_width=BAR, no_wrap=True)
        for row in rows:
            cells: list[RenderableType] = [
                str(row.partition),
                str(row.end),
                str(row.position),
                str(row.unfinished),
                "-" if row.oldest_unfinished is None else str(row.oldest_unfinished),
                str(row.committed),
            ]
            if pictured:
                cells.append(_bar(row))
            table.add_row(*cells)
        return Group(table, Text(f"{self._title}: {progress}", style="dim"))

    def in_hand(self, rows: Sequence[tuple[int, int, Sequence[tuple[str, list[Place]]]]]) -> None:
        """Show what was committed at the cancel, and what was in hand."""
        for partition, committed, streams in rows:
            held = "; ".join(
                f"{stream} {', '.join(str(place.offset) for place in places)}"
                for stream, places in streams
                if places
            )
            self._console.print(
                Text(f"  partition {partition}: committed {committed}, in hand: {held or 'none'}")
            )

    def verdict(self, verdict: Verdict) -> None:
        """Print the table of the check, and the result."""
        table = Table(title=None)
        table.add_column("checked with the demo's own journal")
        for each in verdict.streams:
            table.add_column(each.stream, justify="right")
        table.add_column("", justify="center")
        per_stream = [
            (f"processed at least once, of {verdict.messages}", "processed", verdict.messages),
            ("lost", "lost", 0),
            ("in hand at the cancel, handed out again", "resumed", None),
            ("processed before the cancel, handed out again", "replayed", None),
            ("  of these, below the committed offset", "unexplained", 0),
            ("handed out twice within one run", "repeated", 0),
        ]
        for label, name, wanted in per_stream:
            counts = [getattr(each, name) for each in verdict.streams]
            good = wanted is None or all(count == wanted for count in counts)
            table.add_row(label, *map(str, counts), "" if wanted is None else _mark(good))
        # One figure for both streams stands under the first of them.
        rest = [""] * (len(verdict.streams) - 1)
        table.add_row(
            f"commits past an unprocessed message, in {verdict.looks} looks",
            str(len(verdict.too_high)),
            *rest,
            _mark(not verdict.too_high),
        )
        table.add_row(
            f"partitions committed to their end, of {len(verdict.ends)}",
            str(len(verdict.ends) - len(verdict.behind)),
            *rest,
            _mark(not verdict.behind),
        )
        self._console.print(table)
        if verdict.complaints:
            self._console.print(
                Text(f"FAILED: {'; '.join(verdict.complaints)}", style="bold red"), soft_wrap=True
            )
        else:
            self._console.print(
                Text(
                    "PASSED: nothing lost, and nothing came again but what the last commit"
                    " could not cover.",
                    style="bold green",
                )
            )


def _mark(good: bool) -> Text:
    return Text("ok", style="green") if good else Text("NO", style="bold red")


def _plain(rows: Sequence[PartitionRow], progress: str) -> str:
    parts = [
        f"[{row.partition}] committed {row.committed}"
        + (f" oldest unfinished {row.oldest_unfinished}" if row.unfinished else "")
        + f" position {row.position}/{row.end}"
        for row in rows
    ]
    return f"  {progress}: " + "; ".join(parts)


def _bar(row: PartitionRow) -> Text:
    """Committed, given to the streams, and not read yet, to scale."""
    scale = BAR / row.end if row.end else 0.0
    committed = round(row.committed * scale)
    given = max(0, round(row.position * scale) - committed)
    return Text.assemble(
        ("█" * committed, "green"),
        ("▒" * given, "yellow"),
        ("·" * (BAR - committed - given), "dim"),
    )
