"""What grows is found, and what only warms up is not."""

from __future__ import annotations

import os

import pytest

from chaos.history import Rule
from chaos.resources import ENOUGH, Sample, growth, sample

MIB = 2**20
BASE = Sample(rss=60 * MIB, fds=12, threads=8, tasks=14, unfinished=0)


def grown(what: str, step: float, count: int = 4 * ENOUGH) -> list[Sample]:
    values = {name: getattr(BASE, name) for name in ("rss", "fds", "threads", "tasks")}
    return [
        Sample(**{**values, what: round(values[what] + n * step)}, unfinished=0)
        for n in range(count)
    ]


@pytest.mark.parametrize(
    ("what", "step"), [("rss", MIB), ("fds", 0.2), ("threads", 0.1), ("tasks", 0.1)]
)
def test_growth_is_found(what: str, step: float) -> None:
    """A little more with each look."""
    (found,) = growth({"a": grown(what, step)})
    assert found.rule is Rule.GROWTH
    assert what in found.text


def test_flat_life_is_not_growth() -> None:
    """Nor is a first quarter that warms up, nor a life too short to tell."""
    warm = grown("rss", 3 * MIB, ENOUGH)
    flat = [warm[-1]] * (4 * ENOUGH)
    short = grown("rss", 100 * MIB, ENOUGH - 1)
    assert list(growth({"a": warm + flat, "b": flat, "c": short})) == []


def test_process_is_measured() -> None:
    """This one has memory, files and a thread; one that has ended has nothing."""
    found = sample(os.getpid(), tasks=3, unfinished=4)
    assert found is not None
    assert found.rss > MIB
    assert found.fds > 0
    assert found.threads > 0
    assert (found.tasks, found.unfinished) == (3, 4)
    assert sample(2**22 + 1, 0, 0) is None
