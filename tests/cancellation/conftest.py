"""Tell how many cancellations were tried, by all processes of a run."""

from __future__ import annotations

from typing import Any

import pytest

from . import kit

POINTS = "cancellation points"


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker of pytest-xdist tells the process that started it."""
    output: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if output is not None:
        output[POINTS] = kit.points_tried


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Add up what the workers have told."""
    kit.points_tried += getattr(node, "workeroutput", {}).get(POINTS, 0)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line at the end of the run."""
    if kit.points_tried:
        terminalreporter.write_line(f"cancellation points tried: {kit.points_tried:,}")
