"""Who calls: a Trio task, or a task of another event loop that a Trio task works for."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

import trio

__all__ = ["caller_name", "current_caller", "working_for"]

working_for: ContextVar[Any] = ContextVar("working_for", default=None)
"""The task of another event loop for which this Trio task was started; it has a ``get_name``."""


def current_caller() -> object:
    """The task that runs now, or the one that it works for."""
    return working_for.get() or trio.lowlevel.current_task()


def caller_name() -> str:
    """Name of the task that runs now, "" outside of Trio."""
    other = working_for.get()
    if other is not None:
        return str(other.get_name())
    try:
        return trio.lowlevel.current_task().name
    except RuntimeError:
        return ""
