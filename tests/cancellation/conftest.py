"""Tell how many cancellations were tried."""

from __future__ import annotations

import pytest

from . import kit


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line at the end of the run."""
    if kit.points_tried:
        terminalreporter.write_line(f"cancellation points tried: {kit.points_tried:,}")
