"""``run --live``: what a consumer is doing, partition by partition, from its statistics.

:func:`picture` makes of a snapshot what fits the terminal: the partitions that
are held back the longest come first, and those without room are summed in one
line.  :func:`line` is the same in one line, for where there is no terminal.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass

import trio
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from .. import ConsumerStatistics, PartitionStatistics, TopicPartition
from .output import counted, number, printable
from .runner import Progress

__all__ = ["line", "picture", "showing", "worst_first"]

PLAIN_EVERY = 5.0
"""Seconds between two lines where there is no terminal.  Arbitrary."""

HEADER = 3
"""Lines of the title and of the table's head."""

HELD_LINES = 3
"""How many of what holds commits back are told in words; the table has them all."""

LEAST_ROWS = 3
"""Partitions that are shown on the lowest of terminals."""


@contextmanager
def showing(
    console: Console, title: str, *, redirect_stdout: bool
) -> Generator[Callable[[Progress], None], None, None]:
    """A table that is kept up to date on a terminal; elsewhere a line every five seconds.

    The last table stays on the screen.
    """
    if not console.is_terminal:
        yield Lines(console).show
        return
    # No thread of rich's own: each refresh comes from the task that samples.
    with Live(console=console, auto_refresh=False, redirect_stdout=redirect_stdout) as live:

        def show(progress: Progress) -> None:
            live.update(
                picture(progress, title, width=console.width, height=console.height), refresh=True
            )

        yield show


class Lines:
    """Prints :func:`line` now and then."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._next = 0.0

    def show(self, progress: Progress) -> None:
        """Print it if it is time to."""
        now = trio.current_time()
        if now >= self._next:
            self._next = now + PLAIN_EVERY
            self._console.print(Text(line(progress)), soft_wrap=True)


def worst_first(
    partitions: Iterable[tuple[TopicPartition, PartitionStatistics]],
) -> list[tuple[TopicPartition, PartitionStatistics]]:
    """Those that are held back the longest, then those with the most lag, then by name."""

    def badness(each: tuple[TopicPartition, PartitionStatistics]) -> tuple[float, int, object]:
        tp, found = each
        return (
            0.0 if found.oldest is None else -found.oldest.seconds,
            -(found.commit_lag or 0),
            tp,
        )

    return sorted(partitions, key=badness)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    cells: tuple[str, ...]
    style: str = ""


COLUMNS = (
    *("partition", ">committed", ">position", ">end", ">lag", ">unfinished", ">oldest", ">age"),
    *("held by", "paused", ">replay"),
)
GAP = 2

DROPPED_FIRST = (
    *(">end", ">oldest", ">position", "paused", "held by", ">committed", ">replay"),
    ">unfinished",
)
"""What a narrow terminal goes without: first what other columns, or the words below, tell."""


def picture(progress: Progress, title: str, *, width: int, height: int) -> RenderableType:
    """The table with what belongs to it, as high as the terminal at most."""
    statistics = progress.statistics
    if statistics is None:
        return Text(f"{title}: connecting", style="dim")
    below = _below(statistics)
    room = max(LEAST_ROWS, height - HEADER - len(below) - 1)
    rows = _rows(statistics, room)
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
    kept = _fitting(rows, width)
    for index in kept:
        right = COLUMNS[index].startswith(">")
        table.add_column(
            COLUMNS[index].removeprefix(">"),
            justify="right" if right else "left",
            no_wrap=True,
            overflow="ellipsis",
            max_width=None if right else _widest_text(width),
        )
    for row in rows:
        table.add_row(*(Text(printable(row.cells[index])) for index in kept), style=row.style)
    heading = Text(
        f"{title}   {progress.returned:,} messages   {progress.rate:,.0f}/s"
        f"   {statistics.unfinished:,} unfinished   lag {number(statistics.commit_lag)}"
        f"   after a crash {statistics.replay:,} again",
        style="bold",
        no_wrap=True,
        overflow="ellipsis",
    )
    return Group(heading, Text(""), table, *below)


def _fitting(rows: list[Row], width: int) -> list[int]:
    """The columns for which there is room; figures are never cut."""
    widths = [
        max([len(name.removeprefix(">")), *(len(row.cells[index]) for row in rows)])
        for index, name in enumerate(COLUMNS)
    ]
    for index, name in enumerate(COLUMNS):
        if not name.startswith(">"):
            widths[index] = min(widths[index], _widest_text(width))
    kept = list(range(len(COLUMNS)))
    for name in DROPPED_FIRST:
        if sum(widths[index] + GAP for index in kept) - GAP <= width:
            break
        kept.remove(COLUMNS.index(name))
    return kept


def _widest_text(width: int) -> int:
    return max(12, width // 4)


def _rows(statistics: ConsumerStatistics, room: int) -> list[Row]:
    ordered = worst_first(statistics.partitions.items())
    if len(ordered) > room:
        shown, rest = ordered[: room - 1], ordered[room - 1 :]
    else:
        shown, rest = ordered, []
    rows = [_row(tp, found) for tp, found in shown]
    if rest:
        rows.append(_sum(found for _, found in rest))
    return rows


def _row(tp: TopicPartition, found: PartitionStatistics) -> Row:
    oldest = found.oldest
    holder = age = "-"
    if oldest is not None:
        holder = " or ".join(oldest.tasks) or oldest.whereabouts.value
        age = _duration(oldest.seconds)
    paused = ", ".join(found.pause_reasons) if found.state == "open" else found.state
    return Row(
        (
            str(tp),
            number(found.committed),
            number(found.position),
            number(found.high_watermark),
            number(found.commit_lag),
            str(found.unfinished),
            number(found.oldest_unfinished),
            age,
            holder,
            paused or "-",
            str(found.replay),
        ),
        "" if oldest is None else "yellow",
    )


def _sum(rest: Iterable[PartitionStatistics]) -> Row:
    """Those for which there is no room, in one line."""
    found = list(rest)
    lags = [each.commit_lag for each in found if each.commit_lag is not None]
    paused = sum(bool(each.pause_reasons) for each in found)
    return Row(
        (
            f"{len(found)} more",
            *("", "", ""),
            number(sum(lags) if lags else None),
            str(sum(each.unfinished for each in found)),
            *("", "", ""),
            f"{paused} of them" if paused else "-",
            str(sum(each.replay for each in found)),
        ),
        "dim",
    )


def _below(statistics: ConsumerStatistics) -> list[Text]:
    """What is under the table: what holds commits back, commits, streams."""
    held = statistics.what_holds_back()
    lines = [Text("")]
    lines += [_cut(text, "yellow") for text in held[:HELD_LINES]]
    if len(held) > HELD_LINES:
        lines.append(_cut(f"and {len(held) - HELD_LINES} more", "yellow"))
    since = statistics.seconds_since_commit
    ago = "" if since is None else f", the last {_duration(since)} ago"
    lines.append(
        _cut(
            f"{counted(statistics.commits, 'commit')}{ago}, {statistics.commit_failures} failed;"
            f" {counted(statistics.rebalances, 'rebalance')}"
        )
    )
    for stream in statistics.streams:
        full = ", full" if stream.is_full else ""
        topics = ", ".join(sorted(stream.topics))
        lines.append(_cut(f"stream {topics} ({stream.ack}): {stream.buffered} buffered{full}"))
    return lines


def _cut(text: str, style: str = "dim") -> Text:
    return Text(printable(text), style=style, no_wrap=True, overflow="ellipsis")


def line(progress: Progress) -> str:
    """One line for a log: the totals, and what holds the commits back the longest."""
    statistics = progress.statistics
    if statistics is None:
        return "connecting"
    text = (
        f"{_duration(progress.elapsed)}: {progress.returned} messages, {progress.rate:.0f}/s,"
        f" {statistics.unfinished} unfinished, lag {number(statistics.commit_lag)},"
        f" {statistics.replay} again after a crash, {counted(statistics.commits, 'commit')},"
        f" {statistics.commit_failures} failed"
    )
    held = statistics.what_holds_back()
    return text + (f"; {printable(held[0])}" if held else "")


def _duration(seconds: float) -> str:
    """A duration for people.

    >>> [_duration(s) for s in (0.04, 59.94, 61, 7325)]
    ['0.0s', '59.9s', '1m01s', '2h02m']
    """
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02}s"
    return f"{minutes // 60}h{minutes % 60:02}m"
