"""What a benchmark has to say: a table, its bars, the figures behind them, a plot."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import click
import msgspec
from rich.console import Console
from rich.table import Table

__all__ = ["Bar", "Chart", "Report", "bars_table", "common_options", "publish"]


class Bar(msgspec.Struct):
    """One promise about speed, and what came of it.

    Attributes:
        what: What is compared with what.
        figure: What was measured.
        bar: What it has to be.
        aim: What would be good.
        at_most: Whether less is better.
        unit: Of the three numbers; empty for a ratio.
    """

    what: str
    figure: float
    bar: float
    aim: float
    at_most: bool = False
    unit: str = ""

    @property
    def verdict(self) -> str:
        """``aim``, ``bar`` or ``missed``."""
        for name, limit in (("aim", self.aim), ("bar", self.bar)):
            if self.figure <= limit if self.at_most else self.figure >= limit:
                return name
        return "missed"


class Chart(msgspec.Struct):
    """Horizontal bars: one value a label, with the lowest and highest that were seen."""

    unit: str
    labels: list[str]
    values: list[float]
    low: list[float]
    high: list[float]


class Report(msgspec.Struct):
    """The outcome of one benchmark."""

    name: str
    title: str
    columns: list[str]
    rows: list[list[str]]
    chart: Chart
    bars: list[Bar] = msgspec.field(default_factory=list)
    runs: Any = None


def spread(values: Iterable[float]) -> tuple[float, float, float]:
    """Median, lowest and highest."""
    known = list(values)
    return median(known), min(known), max(known)


def bars_table(bars: Iterable[Bar]) -> Table:
    """All promises and whether they were kept."""
    table = Table(title="bars")
    for column in ("what", "figure", "bar", "aim", "reached"):
        table.add_column(column, justify="left" if column == "what" else "right")
    colours = {"aim": "green", "bar": "yellow", "missed": "red"}
    for bar in bars:
        sign = "at most " if bar.at_most else ""
        table.add_row(
            bar.what,
            f"{bar.figure:.3g} {bar.unit}".strip(),
            f"{sign}{bar.bar:g}",
            f"{sign}{bar.aim:g}",
            f"[{colours[bar.verdict]}]{bar.verdict}",
        )
    return table


def publish(reports: list[Report], folder: Path | None) -> None:
    """Print tables; write JSON and PNG of each into a folder."""
    console = Console()
    for report in reports:
        table = Table(title=report.title)
        for number, column in enumerate(report.columns):
            table.add_column(column, justify="right" if number else "left")
        for row in report.rows:
            table.add_row(*row)
        console.print(table)
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            encoded = msgspec.json.format(msgspec.json.encode(report))
            (folder / f"{report.name}.json").write_bytes(encoded + b"\n")
            plot(report, folder / f"{report.name}.png")
    bars = [bar for report in reports for bar in report.bars]
    if bars:
        console.print(bars_table(bars))


def plot(report: Report, path: Path) -> None:
    """Draw a report's chart into a file."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    chart = report.chart
    figure, axes = pyplot.subplots(
        figsize=(8, 1.2 + 0.36 * len(chart.labels)), layout="constrained"
    )
    errors = [
        [value - low for value, low in zip(chart.values, chart.low, strict=True)],
        [high - value for value, high in zip(chart.values, chart.high, strict=True)],
    ]
    colours = ["#2563eb" if "trio_consumer" in label else "#94a3b8" for label in chart.labels]
    axes.barh(chart.labels, chart.values, xerr=errors, color=colours, ecolor="#334155", height=0.7)
    axes.invert_yaxis()
    axes.set_xlabel(chart.unit)
    axes.set_title(report.title, fontsize=10)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


Command = TypeVar("Command", bound=Callable[..., Any])


def common_options(command: Command) -> Command:
    """Options that every benchmark has."""
    for option in (
        click.option(
            "--folder", type=click.Path(path_type=Path), help="Write JSON and PNG files here."
        ),
        click.option("--quick", is_flag=True, help="Small and rough: to see that it runs."),
        click.option("--rounds", default=5, show_default=True, help="How often each thing runs."),
    ):
        command = option(command)
    return command
