"""What pytest does otherwise while a mutant is on trial.

A mutant that hangs stops soon: a test gets `TEST_SECONDS` of the processor and `REAL_SECONDS` by
the clock, after that its process ends with the status that mutmut reads as a timeout.  mutmut's own
limit is a multiple of what all tests take.  Hypothesis draws the same examples each time, and
fewer of them.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Generator
from types import FrameType

import pytest
from hypothesis import HealthCheck, Phase, settings

TEST_SECONDS = 20
REAL_SECONDS = 120
"""Both arbitrary; the longest test takes a fifth of the first, and a busy machine is no failure."""
TIMEOUT_STATUS = 36
"""What mutmut takes for a timeout."""

SEARCHES = ("runtime/test_watchdog.py", "test_late_answers.py", "_at_every_step_", "_at_random_")
"""Nine tenths of the time of all tests of the runtime: examples have to notice a mutant."""

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
    signal.signal(signal.SIGVTALRM, _give_up)
    signal.signal(signal.SIGALRM, _give_up)
    signal.setitimer(signal.ITIMER_VIRTUAL, TEST_SECONDS)
    signal.setitimer(signal.ITIMER_REAL, REAL_SECONDS)
    try:
        return (yield)
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what searches by seed or by step, and name every test as mutmut looks it up."""
    left_out = [item for item in items if any(part in item.nodeid for part in SEARCHES)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
    for item in items:  # machines of Hypothesis lack that name
        if not hasattr(item, "_nodeid"):
            item._nodeid = item.nodeid
