"""Which partitions may be fetched, and why not.

A partition is held by a set of reasons and is fetched while the set is empty.
Reasons are independent: a user's pause does not end when a buffer drains, and
two full streams both have to drain.  :class:`Flow` returns what has to change
at the client; it changes nothing there itself.

:class:`Pressure` turns the fill level of one buffer into "full" and "drained",
with hysteresis: a buffer at its bound is not drained until it has fallen to
half, or the client would be paused and resumed with each message.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Hashable, Iterable
from typing import NamedTuple

from .._types import TopicPartition

__all__ = ["Flow", "FullBuffer", "PauseReason", "Pressure"]


class PauseReason(enum.Enum):
    """Why a partition is not fetched.  A full stream is named by the stream itself."""

    USER = "user"
    """``pause_partitions`` was called."""
    FLOW = "flow"
    """``stop_flow`` was called."""
    UNWANTED = "unwanted"
    """No open stream takes this partition."""


class FullBuffer(NamedTuple):
    """A buffer outside of this library is full (``on_buffer_full``)."""

    buffer: Hashable


class Flow:
    """The pause reasons of every assigned partition."""

    __slots__ = ("_reasons",)

    def __init__(self) -> None:
        self._reasons: dict[TopicPartition, set[Hashable]] = {}

    def add(self, tps: Iterable[TopicPartition]) -> None:
        """Begin with partitions that were just assigned: no reason holds them."""
        for tp in tps:
            self._reasons.setdefault(tp, set())

    def discard(self, tps: Iterable[TopicPartition]) -> None:
        """Forget partitions that went away, with their reasons."""
        for tp in tps:
            self._reasons.pop(tp, None)

    def hold(self, tps: Iterable[TopicPartition], reason: Hashable) -> frozenset[TopicPartition]:
        """Add a reason; the partitions that have to be paused now."""
        changed = []
        for tp in tps:
            reasons = self._reasons.get(tp)
            if reasons is None:
                continue
            if not reasons:
                changed.append(tp)
            reasons.add(reason)
        return frozenset(changed)

    def release(self, tps: Iterable[TopicPartition], reason: Hashable) -> frozenset[TopicPartition]:
        """Take a reason away; the partitions that may be fetched again now."""
        changed = []
        for tp in tps:
            reasons = self._reasons.get(tp)
            if reasons and reason in reasons:
                reasons.discard(reason)
                if not reasons:
                    changed.append(tp)
        return frozenset(changed)

    def release_everywhere(self, reason: Hashable) -> frozenset[TopicPartition]:
        """Take a reason away from every partition; those that may be fetched again."""
        return self.release(self._reasons, reason)

    def is_open(self, tp: TopicPartition) -> bool:
        """Whether records of this partition may be handed on."""
        return self._reasons.get(tp) == set()

    def reasons(self, tp: TopicPartition) -> frozenset[Hashable]:
        """What holds this partition; empty if nothing does."""
        return frozenset(self._reasons.get(tp, ()))

    def held_by(self, reason: Hashable) -> frozenset[TopicPartition]:
        """The partitions that this reason holds."""
        return frozenset(tp for tp, reasons in self._reasons.items() if reason in reasons)

    @property
    def partitions(self) -> Collection[TopicPartition]:
        """Every partition that is known, held or not."""
        return self._reasons.keys()


class Pressure:
    """The fill level of one buffer.

    Args:
        bound: Records at which the buffer is full.
    """

    __slots__ = ("bound", "drained_at", "full")

    def __init__(self, bound: int) -> None:
        if bound < 1:
            raise ValueError(f"a buffer needs room for at least one record, not {bound}")
        self.bound = bound
        self.drained_at = bound // 2
        self.full = False

    def update(self, level: int) -> bool:
        """Take in the level; True if the buffer became full or drained by it."""
        full = level > self.drained_at if self.full else level >= self.bound
        changed = full != self.full
        self.full = full
        return changed
