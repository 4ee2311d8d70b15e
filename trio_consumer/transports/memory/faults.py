"""What goes wrong, and when: faults on order and faults by chance.

A :class:`CommitFault` names one way in which a commit fails; there is one for
each answer that Kafka gives and for each way of losing an answer.  They are
ordered one by one (:meth:`FaultInjector.fail_next_commits`) or drawn at the
rates of a :class:`Faults` object.  The random numbers come from the session
that asks, which has a generator of its own: what one session draws does not
depend on how the tasks of the others interleave.

An injected fault is an answer and nothing more: the coordinator's own view of
the member does not change.  For a session that really expires see
``MemoryBroker.expire`` and ``MemoryBroker.freeze``.
"""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass
from random import Random

from ..._errors import ConfigurationError

__all__ = ["CommitFault", "FaultInjector", "Faults"]


class CommitFault(enum.Enum):
    """One way in which a commit fails."""

    COORDINATOR_UNAVAILABLE = "coordinator unavailable"
    """Not applied, retriable, because the coordinator has moved or loads."""
    TIMEOUT = "timeout"
    """Not applied, because the request is lost; retriable after ``commit_timeout``."""
    ANSWER_LOST = "answer lost"
    """Applied, but the answer is lost; retriable after ``commit_timeout``."""
    UNKNOWN_MEMBER = "unknown member"
    """Not applied, stale."""
    ILLEGAL_GENERATION = "illegal generation"
    """Not applied, stale."""
    REBALANCE_IN_PROGRESS = "rebalance in progress"
    """Not applied, stale."""
    METADATA_TOO_LARGE = "metadata too large"
    """Not applied, neither retriable nor stale."""
    UNAUTHORIZED = "unauthorized"
    """Not applied, :class:`~trio_consumer.AuthorizationError`."""
    FENCED = "fenced"
    """Not applied, :class:`~trio_consumer.FencedError`."""


@dataclass(frozen=True, slots=True)
class Faults:
    """Faults by chance.

    Attributes:
        commit_failure_rate: Share of the commits (0 to 1) that fail with one of
            ``commit_faults``.
        commit_faults: What to choose from.
        answer_lost_rate: Share of the commits (0 to 1) that are applied while
            the answer is lost.
        latency: Seconds that each request takes, half of them on the way there;
            a pair is a range to draw from.
        commit_latency: Seconds that a commit takes beyond that before it arrives,
            so that other things happen while it is under way; likewise.
    """

    commit_failure_rate: float = 0.0
    commit_faults: tuple[CommitFault, ...] = (
        CommitFault.COORDINATOR_UNAVAILABLE,
        CommitFault.TIMEOUT,
    )
    answer_lost_rate: float = 0.0
    latency: float | tuple[float, float] = 0.0
    commit_latency: float | tuple[float, float] = 0.0

    def __post_init__(self) -> None:
        for name in ("commit_failure_rate", "answer_lost_rate"):
            rate = getattr(self, name)
            if not 0.0 <= rate <= 1.0:
                raise ConfigurationError(f"{name} is a share from 0 to 1, not {rate!r}")
        for name in ("latency", "commit_latency"):
            given = getattr(self, name)
            low, high = _range(given)
            if not 0.0 <= low <= high:
                raise ConfigurationError(
                    f"{name} is in seconds, at least 0, or a growing pair; not {given!r}"
                )

    @property
    def latency_range(self) -> tuple[float, float]:
        """The latency as a pair, lowest and highest."""
        return _range(self.latency)


def _range(seconds: float | tuple[float, float]) -> tuple[float, float]:
    return seconds if isinstance(seconds, tuple) else (seconds, seconds)


def _draw(seconds: float | tuple[float, float], random: Random) -> float:
    low, high = _range(seconds)
    return low if low == high else random.uniform(low, high)


class FaultInjector:
    """Decides the fate of each commit and the duration of each request."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self._ordered: deque[CommitFault] = deque()

    @property
    def ordered(self) -> int:
        """How many ordered faults have not been met by a commit yet."""
        return len(self._ordered)

    def fail_next_commits(self, n: int, fault: CommitFault) -> None:
        """Let the next ``n`` commits fail, after those already ordered."""
        self._ordered.extend([fault] * n)

    def clear(self) -> None:
        """Forget the ordered faults."""
        self._ordered.clear()

    def for_commit(self, random: Random) -> CommitFault | None:
        """The fault that meets the commit arriving now, or None."""
        if self._ordered:
            return self._ordered.popleft()
        faults = self.faults
        if faults.commit_failure_rate and random.random() < faults.commit_failure_rate:
            return random.choice(faults.commit_faults)
        if faults.answer_lost_rate and random.random() < faults.answer_lost_rate:
            return CommitFault.ANSWER_LOST
        return None

    def latency(self, random: Random) -> float:
        """Seconds that the next request takes."""
        return _draw(self.faults.latency, random)

    def commit_latency(self, random: Random) -> float:
        """Seconds that the next commit takes beyond that."""
        return _draw(self.faults.commit_latency, random)
