"""How long to fuzz: some seconds a test, the same each time, or for as long as it takes.

``HYPOTHESIS_PROFILE=long pytest tests/fuzz`` draws a hundred times as many, never the same twice.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings

__all__ = ["LONG", "fuzzed"]

LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"


def fuzzed(examples: int) -> Callable[[Any], Any]:
    """Draw so many examples, in CI always the same ones."""
    return settings(
        max_examples=examples * (100 if LONG else 1),
        derandomize=not LONG,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )
