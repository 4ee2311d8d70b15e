"""In which order the records of one poll are handed on.

Round robin over topics, then over partitions inside a topic; a partition or
topic that is exhausted drops out.  A topic with one partition is therefore
served as often as one with a thousand.

The unit is a slice of at most ``quantum`` records of one partition: crossing a
layer costs microseconds, so it happens once a slice and not once a record.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import NamedTuple, Protocol

from .._types import TopicPartition

__all__ = ["RoundRobin", "SchedulingStrategy", "Slice"]


class Slice(NamedTuple):
    """The records ``start`` up to ``stop`` of a partition's polled batch."""

    tp: TopicPartition
    start: int
    stop: int


class SchedulingStrategy(Protocol):
    """Decides the order of delivery out of one poll."""

    def slices(self, sizes: Mapping[TopicPartition, int]) -> Iterator[Slice]:
        """Cut a poll into slices.

        Args:
            sizes: How many records the poll has for each partition.

        Returns:
            Slices that cover every record once, ascending inside a partition.
            What does not is a :class:`ConfigurationError` that stops the
            consumer: a record that is left out would be committed past.
        """
        ...


class RoundRobin:
    """Serve topics in turn, and inside a topic its partitions in turn.

    Args:
        quantum: Largest slice, in records.
    """

    def __init__(self, quantum: int = 1000) -> None:
        if quantum < 1:
            raise ValueError(f"the quantum must be at least one record, not {quantum}")
        self.quantum = quantum

    def slices(self, sizes: Mapping[TopicPartition, int]) -> Iterator[Slice]:
        """Cut a poll into slices, see :class:`SchedulingStrategy`."""
        topics: dict[str, deque[Slice]] = {}
        for tp, size in sizes.items():
            if size:
                topics.setdefault(tp.topic, deque()).append(Slice(tp, 0, size))
        turns = deque(topics.values())
        while turns:
            partitions = turns.popleft()
            tp, start, size = partitions.popleft()
            stop = min(start + self.quantum, size)
            yield Slice(tp, start, stop)
            if stop < size:
                partitions.append(Slice(tp, stop, size))
            if partitions:
                turns.append(partitions)
