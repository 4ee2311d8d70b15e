"""This consumer's side of the comparison: every schedule, with many seeds."""

from __future__ import annotations

from functools import partial

import pytest

from comparison import ours
from comparison.observed import Outcome, judge
from comparison.schedules import SCHEDULES, Schedule

from ..runtime.support import run

SEEDS = 20


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: schedule.name)
def test_schedule_is_right(schedule: Schedule) -> None:
    """Whatever order the tasks run in."""
    for seed in range(SEEDS):
        verdict = judge(ours.run(schedule, partial(run, seed=seed)))
        assert verdict.outcome is Outcome.RIGHT, f"seed {seed}: {verdict}"


def test_names_of_schedules_are_unique() -> None:
    """The command line and the table go by them."""
    names = [schedule.name for schedule in SCHEDULES]
    assert len(set(names)) == len(names)
