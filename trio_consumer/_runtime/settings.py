"""What a consumer was opened with."""

from __future__ import annotations

from dataclasses import dataclass

from .._core.scheduling import SchedulingStrategy

__all__ = ["ConsumerSettings"]


@dataclass(frozen=True, slots=True)
class ConsumerSettings:
    """The arguments of :func:`~trio_consumer.open_consumer` that matter later."""

    group: str
    topics: frozenset[str]
    commit_interval: float
    commit_every: int | None
    commit_timeout: float
    drain_timeout: float
    max_buffered: int
    randomly_assigned_topics: frozenset[str]
    scheduler: SchedulingStrategy
