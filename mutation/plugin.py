"""What pytest does otherwise while a mutant is on trial.

A mutant that hangs stops soon: a test gets `TEST_SECONDS`, after that its process ends with the
status that mutmut reads as a timeout.  mutmut's own limit is a multiple of what all tests take.
Hypothesis draws the same examples each time, and fewer of them.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Generator
from types import FrameType

import pytest
from hypothesis import HealthCheck, Phase, settings

TEST_SECONDS = 20
"""Arbitrary; the longest test takes a tenth of it."""
TIMEOUT_STATUS = 36
"""What mutmut takes for a timeout."""

settings.register_profile(
    "mutants",
    derandomize=True,
    max_examples=40,
    deadline=None,
    # Without the search for a shorter example, which takes longer than to find one.
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("mutants")


def _give_up(_signal: int, _frame: FrameType | None) -> None:
    os._exit(TIMEOUT_STATUS)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Generator[None, object, object]:
    """Limit the time of one test."""
    signal.signal(signal.SIGALRM, _give_up)
    signal.alarm(TEST_SECONDS)
    try:
        return (yield)
    finally:
        signal.alarm(0)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Name every test as mutmut looks it up; machines of Hypothesis lack that name."""
    for item in items:
        if not hasattr(item, "_nodeid"):
            item._nodeid = item.nodeid
