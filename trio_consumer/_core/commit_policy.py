"""When to commit, and what to make of a failure.

Commits are due each ``interval`` seconds, and as soon as ``every``
acknowledgements have come since the last one.  After a failure that may pass,
the next attempt waits for the next tick, twice as long after each further
failure up to ``max_backoff``; acknowledgements do not shorten that wait, or a
busy consumer would hammer a broker that is down.

A run of failures is one *episode*: it is reported when it begins and when it
ends, not at every tick.
"""

from __future__ import annotations

import enum

__all__ = ["CommitPolicy", "Report"]


class Report(enum.Enum):
    """What is worth telling a human after a commit."""

    NOTHING = enum.auto()
    FAILING = enum.auto()
    """The first failure of an episode."""
    RECOVERED = enum.auto()
    """The first success after an episode."""


class CommitPolicy:
    """The timetable of commits.

    Args:
        interval: Seconds between commits.
        every: Commit after so many acknowledgements too; None for never.
        now: The time at the start, in seconds.
        max_backoff: Longest wait after failures, in seconds.
    """

    __slots__ = ("_acks", "_due_at", "_failures", "_wait_until", "every", "interval", "max_backoff")

    def __init__(
        self, interval: float, every: int | None, *, now: float, max_backoff: float = 30.0
    ) -> None:
        if not interval > 0:
            raise ValueError(f"commit_interval must be positive, not {interval}")
        if every is not None and every < 1:
            raise ValueError(f"commit_every must be at least 1, not {every}")
        self.interval: float = interval
        self.every: int | None = every
        self.max_backoff: float = max(max_backoff, interval)
        self._acks = 0
        self._failures = 0
        self._due_at = now + interval
        self._wait_until = now

    @property
    def due_at(self) -> float:
        """When the next commit is due if nothing more happens."""
        return self._due_at

    @property
    def failures(self) -> int:
        """How many attempts have failed in a row."""
        return self._failures

    def acknowledged(self, count: int) -> bool:
        """Count acknowledgements; True if that makes a commit due.

        Call :meth:`should_commit` with the time to know whether it may go now.
        """
        self._acks += count
        return self._enough_acks()

    def _enough_acks(self) -> bool:
        return self.every is not None and self._acks >= self.every

    def should_commit(self, now: float) -> bool:
        """Whether a commit is due and no back-off forbids it."""
        if now < self._wait_until:
            return False
        return now >= self._due_at or self._enough_acks()

    def wake_at(self) -> float:
        """When to look again: the earliest time a commit can be due."""
        if self._enough_acks():
            return self._wait_until
        return max(self._due_at, self._wait_until)

    def started(self) -> None:
        """A commit takes its snapshot: what was acknowledged so far is in it."""
        self._acks = 0

    def succeeded(self, now: float) -> Report:
        """The broker confirmed, or there was nothing to commit."""
        report = Report.RECOVERED if self._failures else Report.NOTHING
        self._failures = 0
        self._wait_until = now
        self._due_at = now + self.interval
        return report

    def put_off(self, now: float) -> None:
        """Somebody else will commit; look again after the interval."""
        self._acks = 0
        self._due_at = now + self.interval

    def failed(self, now: float) -> Report:
        """The attempt failed and may be repeated."""
        self._failures += 1
        delay = min(self.interval * 2 ** min(self._failures - 1, 32), self.max_backoff)
        self._wait_until = self._due_at = now + delay
        return Report.FAILING if self._failures == 1 else Report.NOTHING
