"""docs/testing.md is a test suite: each block is the file that its first line names."""

from __future__ import annotations

import re
from pathlib import Path

from .suites import CONFIGURATION, run_suite

PAGE = Path(__file__).parents[2] / "docs" / "testing.md"


def files() -> dict[str, str]:
    """The files of the page by their names."""
    blocks = re.findall(
        r"^```python\n(# (\w+\.py)\n.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    return {name: source for source, name in blocks}


def test_suite_of_the_page_passes(tmp_path: Path) -> None:
    """With all plugins loaded at once, and warnings as errors."""
    suite = files()
    tests = sum(len(re.findall(r"^(?:async )?def test_", each, re.M)) for each in suite.values())
    both = 1  # AnyIO runs one on each of its backends.
    assert run_suite(tmp_path, suite) == {"passed": tests + both}


def test_page_shows_the_configuration_that_its_suite_has() -> None:
    """Who makes warnings errors has to leave out one, of the client's import."""
    assert f"```ini\n{CONFIGURATION}```\n" in PAGE.read_text("utf-8")


def test_each_block_is_a_file_of_its_own() -> None:
    """None is left out, and none takes the place of another."""
    assert PAGE.read_text("utf-8").count("```python\n") == len(files())
