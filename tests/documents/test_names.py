"""Names in the pages for those who come from another client, and the tests of each guarantee."""

from __future__ import annotations

import inspect
import re
from typing import Any

import confluent_kafka
import pytest

import trio_consumer

from .blocks import ROOT

COMING_FROM = {"docs/from-aiokafka.md": "aiokafka", "docs/from-confluent.md": "confluent-kafka"}


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def rows(page: str) -> list[tuple[str, str]]:
    """The first two cells of each row of the table of names."""
    cells = [line.strip("| ").split(" | ") for line in read(page).splitlines() if line[:2] == "| "]
    return [(row[0], row[1]) for row in cells[1:]]


@pytest.mark.parametrize("page", COMING_FROM)
def test_every_name_given_as_ours_exists(page: str) -> None:
    """Members and parameters, in the table and in what it says."""
    pattern = r"`((?:Consumer|Stream|Message)\.\w+|open_consumer)(?:\((\w+)=\))?`"
    found = re.findall(pattern, read(page))
    assert len(found) > 20
    for name, argument in found:
        member: Any = trio_consumer
        for part in name.split("."):
            member = getattr(member, part)
        if argument:
            assert argument in inspect.signature(member).parameters, f"{name}({argument}=)"


@pytest.mark.parametrize("page", COMING_FROM)
def test_page_is_about_the_version_that_is_locked(page: str) -> None:
    """A newer one has to be looked at."""
    (version,) = re.findall(rf"(?m)^{COMING_FROM[page]}==([\d.]+)", read("constraints.txt"))
    assert f"looked up in version {version}" in read(page).replace("\n", " ")


def test_members_given_as_those_of_confluent_exist() -> None:
    """Those that are names of methods; options have dots."""
    names = {
        name for cell, _ in rows("docs/from-confluent.md") for name in re.findall(r"`(\w+)`", cell)
    }
    members = names - {"DeserializingConsumer"}
    assert len(members) > 10
    for name in members:
        assert hasattr(confluent_kafka.Consumer, name), name


def test_every_invariant_has_its_section_with_tests() -> None:
    """The numbers are those of DESIGN.md; that the tests exist is checked with all pages."""
    numbers = re.findall(r"(?m)^\| (I\d+) \|", read("DESIGN.md"))
    assert numbers == [f"I{n}" for n in range(1, 13)]
    sections = re.split(r"(?m)^## ", read("docs/guarantees.md"))
    for number in numbers:
        (section,) = (each for each in sections if each.startswith(f"{number}: "))
        assert "*For you:*" in section
        assert re.search(r"(?s)\*Held by:\*.*`test_\w+`", section), number
