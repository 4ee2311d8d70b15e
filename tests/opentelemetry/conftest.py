"""Telemetry that stays in the process."""

from __future__ import annotations

import pytest

from .support import Telemetry


@pytest.fixture
def telemetry() -> Telemetry:
    """Providers of a test's own; the global ones can be set once only."""
    return Telemetry()
