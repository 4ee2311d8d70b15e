"""Writes the tables of ``docs/benchmarks.md`` from the files that the benchmarks wrote.

What stands between ``<!-- throughput -->`` and ``<!-- end -->`` comes from
``docs/benchmarks/throughput.json``; a test holds the page to the files.

    python -m benchmarks.page
"""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from .report import Bar, Report

__all__ = ["FOLDER", "PAGE", "filled", "shown"]

FOLDER = Path(__file__).parents[1] / "docs" / "benchmarks"
PAGE = FOLDER.with_suffix(".md")
REACHED = {"aim": "yes, the aim too", "bar": "yes", "missed": "**missed**"}


def shown(report: Report, *, has_plot: bool) -> str:
    """A report as Markdown: its table, its plot, its bars."""
    lines = [f"*{report.title}*", "", *_table(report.columns, report.rows), ""]
    if has_plot:
        lines += [f"![{report.chart.unit}](benchmarks/{report.name}.png)", ""]
    if report.bars:
        head = ["bar", "measured", "has to be", "aim", "reached"]
        lines += [*_table(head, map(_bar, report.bars)), ""]
    return "\n".join(lines)


def _bar(bar: Bar) -> list[str]:
    sign = "at most " if bar.at_most else "at least "
    measured = f"{bar.figure:.3g} {bar.unit}".strip()
    return [bar.what, measured, f"{sign}{bar.bar:g}", f"{bar.aim:g}", REACHED[bar.verdict]]


def _table(head: list[str], rows: object) -> list[str]:
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]  # type: ignore[attr-defined]
    rule = ["---", *["---:"] * (len(head) - 1)]
    return [f"| {' | '.join(row)} |" for row in ([c or " " for c in head], rule, *cells)]


def filled(page: str) -> str:
    """A page with what stands between its marks written anew.

    Where there is no file of that name there is nothing between them.
    """

    def fill(match: re.Match[str]) -> str:
        path = FOLDER / f"{match[1]}.json"
        if not path.exists():
            return f"<!-- {match[1]} -->\n<!-- end -->"
        report = msgspec.json.decode(path.read_bytes(), type=Report)
        text = shown(report, has_plot=path.with_suffix(".png").exists())
        return f"<!-- {match[1]} -->\n\n{text}\n<!-- end -->"

    return re.sub(r"<!-- ([a-z0-9-]+) -->\n.*?<!-- end -->", fill, page, flags=re.DOTALL)


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
