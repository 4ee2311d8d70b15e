"""What commands print for people and for programs.

On a terminal a table has colours (without them if ``NO_COLOR`` is set) and folds
what is too wide; elsewhere each row is one line, whatever its width, for ``grep``
and ``awk``.
"""

from __future__ import annotations

import io
from collections.abc import Iterable

import click
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = ["TextTable", "counted", "number", "print_json", "printable"]


def print_json(document: object) -> None:
    """Print a document on stdout; the same whether or not it is a terminal."""
    click.echo(msgspec.json.format(msgspec.json.encode(document), indent=2))


def printable(text: str) -> str:
    """A text from the cluster without what a terminal would obey."""
    return "".join(c if c.isprintable() else " " for c in text)


def number(value: int | None) -> str:
    """A number, "-" for none.

    >>> number(0), number(None)
    ('0', '-')
    """
    return "-" if value is None else str(value)


def counted(count: int, noun: str) -> str:
    """A number of things.

    >>> counted(1, "member"), counted(0, "member")
    ('1 member', '0 members')
    """
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


class TextTable:
    """Rows under headings.

    Args:
        columns: Headings; one that begins with ">" is of numbers.
    """

    def __init__(self, *columns: str) -> None:
        self._table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        for column in columns:
            right = column.startswith(">")
            self._table.add_column(
                column.removeprefix(">"),
                justify="right" if right else "left",
                no_wrap=right,
                overflow="fold",
            )
        self._empty = [True for _ in columns]

    def add(self, *cells: str | Text) -> None:
        """One more row."""
        shown = [Text(printable(cell)) if isinstance(cell, str) else cell for cell in cells]
        self._table.add_row(*shown)
        self._empty = [
            empty and cell.plain in ("", "-")
            for empty, cell in zip(self._empty, shown, strict=True)
        ]

    def drop_empty(self, *columns: str) -> None:
        """Leave these columns out if no row has anything there."""
        kept = [
            column
            for column, empty in zip(self._table.columns, self._empty, strict=True)
            if not (empty and column.header in columns)
        ]
        self._table.columns[:] = kept

    def show(self, console: Console) -> None:
        """Print it."""
        if console.is_terminal:
            console.print(self._table)
            return
        for line in self.lines():
            click.echo(line, file=console.file)

    def lines(self) -> Iterable[str]:
        """Each row as one line."""
        wide = Console(file=io.StringIO(), width=100_000, color_system=None)
        with wide.capture() as captured:
            wide.print(self._table)
        return [line.rstrip() for line in captured.get().splitlines()]
