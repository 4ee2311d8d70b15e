"""The figures of the pages are those of the files that the benchmarks wrote."""

from __future__ import annotations

import re

import msgspec
import pytest

from benchmarks.page import FOLDER, PAGE, filled, shown
from benchmarks.report import Bar, Chart, Report

from .blocks import ROOT

TEXT = PAGE.read_text(encoding="utf-8")


def test_page_has_the_tables_of_the_files() -> None:
    """If not, `python -m benchmarks.page` writes them."""
    assert filled(TEXT) == TEXT


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.json")))
def test_every_file_is_on_the_page(name: str) -> None:
    """With its plot."""
    assert f"<!-- {name} -->" in TEXT
    assert f"(benchmarks/{name}.png)" in TEXT


def test_figures_of_the_readme_are_those_of_the_file() -> None:
    """Messages a second to the hundred, with the ratio of the same contender."""
    report = msgspec.json.decode((FOLDER / "throughput.json").read_bytes(), type=Report)
    known = [(float(row[1].replace(",", "")), row[3]) for row in report.rows]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    told = re.findall(r"^\| .* \| ([\d,]+) \| ([\d.]+) \|$", readme, re.MULTILINE)
    assert len(told) > 5
    for speed, ratio in told:
        rounded = float(speed.replace(",", ""))
        assert any(abs(rounded - each) <= 50 and ratio == other for each, other in known), speed


def test_missed_bar_is_told() -> None:
    """And one that is reached, and the aim."""
    bars = [Bar("a / b", figure, 0.5, 0.9) for figure in (0.2, 0.6, 1.0)]
    chart = Chart("seconds", [], [], [], [])
    text = shown(Report("x", "x", ["what", "s"], [["a|b", "1"]], chart, bars), has_plot=False)
    assert "| a\\|b | 1 |" in text
    assert "| a / b | 0.2 | at least 0.5 | 0.9 | **missed** |" in text
    assert "| a / b | 0.6 | at least 0.5 | 0.9 | yes |" in text
    assert "| a / b | 1 | at least 0.5 | 0.9 | yes, the aim too |" in text
