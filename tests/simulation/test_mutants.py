"""Each check bites: every rule that is broken on purpose is found."""

from __future__ import annotations

import pytest

from trio_consumer.testing._observer import CHECKS
from trio_consumer.testing._simulate import outcome_of

from .mutants import MUTANTS

WITHIN = 200
"""Seeds within which a mutant has to be found: as many as each run of the tests makes."""


@pytest.mark.parametrize("name", MUTANTS)
def test_broken_rule_is_found(name: str) -> None:
    """By a check that is about this rule, within the seeds that every run makes."""
    make, checks = MUTANTS[name]
    for seed in range(WITHIN):
        with make():
            violation = outcome_of(seed).violation
        if violation is not None:
            assert violation.check in checks, f"seed {seed}: {violation}"
            return
    pytest.fail(f"{name} is not found within {WITHIN} seeds")


def test_each_check_has_a_mutant() -> None:
    """No check without a rule that it was seen to hold; I6 by name, see the observer."""
    held = frozenset().union(*(checks for _, checks in MUTANTS.values()))
    assert held == set(CHECKS) - {"I6"}
    assert "failed_commit_counts" in MUTANTS
