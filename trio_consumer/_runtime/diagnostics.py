"""What a consumer is doing at this moment."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager

__all__ = ["Activity", "Diagnostics"]


class Activity(enum.Enum):
    """Something that takes a consumer time; the names are Faust's."""

    FETCHING = "FETCHING"
    """Records are fetched, waited for, or on their way to the streams."""
    PARTITIONS_ASSIGNED = "PARTITIONS_ASSIGNED"
    """New partitions are taken in, ``on_partitions_assigned`` included."""
    PARTITIONS_REVOKED = "PARTITIONS_REVOKED"
    """Partitions are given up, with drain, last commit and ``on_partitions_revoked``."""
    COMMITTING = "COMMITTING"
    """A commit is on its way to the broker or back."""
    SEEKING = "SEEKING"
    """A position is being looked up and moved."""
    WAIT_EMPTY = "WAIT_EMPTY"
    """``wait_empty`` waits for messages to be finished."""


class Diagnostics:
    """Flags of what a consumer is doing; reading them costs nothing."""

    def __init__(self) -> None:
        self._going_on: Counter[Activity] = Counter()

    def __repr__(self) -> str:
        flags = " ".join(sorted(activity.value for activity in self.flags))
        return f"<Diagnostics {flags or 'idle'}>"

    @property
    def flags(self) -> frozenset[Activity]:
        """What is going on now."""
        return frozenset(+self._going_on)

    def _begin(self, activity: Activity) -> None:
        self._going_on[activity] += 1

    def _end(self, activity: Activity) -> None:
        self._going_on[activity] -= 1

    @contextmanager
    def _doing(self, activity: Activity) -> Generator[None, None, None]:
        self._begin(activity)
        try:
            yield
        finally:
            self._end(activity)
