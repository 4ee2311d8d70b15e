"""Each example is on the list, and in a test."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .support import ROOT

PROGRAMS = sorted(
    path.name for path in (ROOT / "examples").glob("*.py") if path.name != "__init__.py"
)
LIST = (ROOT / "examples" / "README.md").read_text("utf-8")
TESTS = {path: path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py")}


def test_list_has_each_example_once() -> None:
    """And nothing that is not there."""
    assert sorted(re.findall(r"^\| `(\w+\.py)`", LIST, re.MULTILINE)) == PROGRAMS


@pytest.mark.parametrize("name", PROGRAMS)
def test_example_is_in_a_test(name: str) -> None:
    """One that nobody imports would rot."""
    module = name.removesuffix(".py")
    used = re.compile(rf"from examples(\.{module} import| import {module}\b)")
    assert any(used.search(text) for path, text in TESTS.items() if path != Path(__file__)), name


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)]+)\)", LIST))
def test_links_of_the_list_lead_somewhere(target: str) -> None:
    """Pages, and headings that they have."""
    page, _, anchor = target.partition("#")
    text = (ROOT / "examples" / page).read_text("utf-8")
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    assert not anchor or anchor in [h.lower().replace(" ", "-") for h in headings]
