"""A simulation can be repeated, written down and shortened."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from trio_consumer.testing._schedule import Action, Schedule, draw
from trio_consumer.testing._shrink import shrink
from trio_consumer.testing._simulate import outcome_of

from .mutants import MUTANTS

DIGESTS = """
from trio_consumer.testing._simulate import outcome_of
print(*(f"{outcome_of(seed).digest:08x}" for seed in range(30)))
"""


def digests(hash_seed: str) -> list[str]:
    """The digests of some seeds in a process of its own."""
    environment = os.environ | {"PYTHONHASHSEED": hash_seed}
    command = [sys.executable, "-c", DIGESTS]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_seed_means_the_same_in_each_process() -> None:
    """Down to each step of each task, whatever order sets have there."""
    once = digests("1")
    assert len(once) == 30
    assert len(set(once)) == 30
    assert digests("2") == once
    assert digests("random") == once


def test_seed_means_the_same_after_others() -> None:
    """What a process has simulated before makes no difference."""
    first = outcome_of(7)
    outcome_of(8)
    again = outcome_of(7)
    assert again.trace == first.trace
    assert again.digest == first.digest


@pytest.mark.parametrize("seed", range(50))
def test_schedule_survives_being_written(seed: int) -> None:
    """As JSON it is the same schedule."""
    schedule = draw(seed)
    assert Schedule.from_json(schedule.to_json()) == schedule
    assert str(Schedule.from_json(schedule.to_json())) == str(schedule)


def test_written_schedule_runs_the_same() -> None:
    """The digest is that of the schedule, wherever it comes from."""
    schedule = Schedule.from_json(draw(11).to_json())
    assert outcome_of(11, schedule=schedule).digest == outcome_of(11).digest


def test_shrink_finds_what_is_needed() -> None:
    """Of many actions the two that fail together are left, and plain settings."""
    schedule = draw(3)
    needed = (Action(1.0, "crash", {"member": "a"}), Action(2.0, "join", {"member": "b"}))
    actions = tuple(sorted((*schedule.actions, *needed), key=lambda action: action.at))
    schedule = replace(schedule, actions=actions)

    def fails(each: Schedule) -> bool:
        return set(map(str, needed)) <= set(map(str, each.actions))

    shortest, runs = shrink(schedule, fails)
    assert shortest.actions == needed
    assert shortest.settings.workers == 1
    assert len(shortest.settings.streams) == 1
    assert 0 < runs <= 150


def test_shrink_ends_after_its_runs() -> None:
    """What it has by then is what it gives."""
    schedule = draw(3)
    assert shrink(schedule, lambda each: False, runs=5) == (schedule, 5)


def test_shrink_shortens_a_real_failure() -> None:
    """A defect of the library that needs an action comes down to a few of them."""
    make, _ = MUTANTS["vanished_records_are_waited_for"]
    with make():
        before = outcome_of(69)
        assert before.violation is not None
        check = before.violation.check

        def fails(each: Schedule) -> bool:
            found = outcome_of(0, schedule=each).violation
            return found is not None and found.check == check

        shortest, _ = shrink(before.schedule, fails)
        assert fails(shortest)
    assert len(shortest.actions) <= 6
    assert any(action.kind == "compact" for action in shortest.actions)
    assert outcome_of(0, schedule=shortest).violation is None


def test_shrunk_schedule_makes_sense_without_the_defect() -> None:
    """No settings are made that cannot be: a topic without a stream, say."""
    make, _ = MUTANTS["commits_one_further"]
    with make():
        check = outcome_of(0).violation

        def fails(each: Schedule) -> bool:
            found = outcome_of(0, schedule=each).violation
            return found is not None and check is not None and found.check == check.check

        shortest, _ = shrink(draw(0), fails)
        assert fails(shortest)
    assert outcome_of(0, schedule=shortest).violation is None
