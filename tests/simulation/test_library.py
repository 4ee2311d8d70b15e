"""The library itself, simulated: a few hundred seeds; `nox -s simulate` runs more."""

from __future__ import annotations

import os

import pytest

from trio_consumer.testing._observer import CHECKS
from trio_consumer.testing._schedule import KINDS, draw
from trio_consumer.testing._simulate import SimulationReport, outcome_of, run_seed

SEEDS = int(os.environ.get("SIMULATION_SEEDS", "200"))
CHUNK = 20

total = SimulationReport()


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_nothing_is_violated(first: int) -> None:
    """Twenty schedules each; the text of a failure has the seed and the shortest schedule."""
    global total
    for seed in range(first, first + CHUNK):
        total += run_seed(seed, again=f"python -m trio_consumer.testing --seed {seed}")


def test_each_check_was_made() -> None:
    """No check passes because it is never asked; I6 is looked at by others, see there."""
    if total.simulations < SEEDS:
        pytest.fail("run the whole module: this test looks at what the others did")
    made = {name for name, count in total.checked.items() if count}
    assert made == set(CHECKS) - {"I6", "error"}


def test_each_kind_of_action_is_drawn() -> None:
    """A kind that never happens would prove nothing."""
    drawn = {action.kind for seed in range(SEEDS) for action in draw(seed).actions}
    assert drawn == set(KINDS)


def test_consumers_end_as_they_should_after_fatal_refusals() -> None:
    """The faults that end a consumer were met: their errors occur among 200 seeds."""
    met: set[str] = set()
    for seed in range(0, SEEDS, 2):
        met |= set(outcome_of(seed).errors)
    assert met >= {"HandlerFailedError", "FencedError", "AuthorizationError", "CommitFailedError"}
