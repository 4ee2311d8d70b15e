"""The demonstration's own account, and the check made from it.

The journal knows which messages the producer wrote and where, and is told by the
workers what they took and what they processed; messages are known by the number
in their value.  It asks the library nothing, so its verdict is worth something.

Offsets of the topic begin at 0 and have no gaps: it is new, and its producer
uses no transactions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = ["Journal", "Place", "Sighting", "StreamVerdict", "Verdict", "judge"]


class Place(NamedTuple):
    """Where the producer put a message."""

    partition: int
    offset: int


class Sighting(NamedTuple):
    """A committed offset that lay beyond a message that was not processed."""

    partition: int
    committed: int
    unprocessed: int


class Journal:
    """What was produced, taken and processed.

    Args:
        streams: Names of the streams, each of which has to process everything.
        placement: Where each message is, by its number.
    """

    def __init__(self, streams: Sequence[str], placement: Mapping[int, Place]) -> None:
        self.streams: tuple[str, ...] = tuple(streams)
        self.placement: dict[int, Place] = dict(placement)
        self.ends: Counter[int] = Counter(place.partition for place in placement.values())
        self.number_at: dict[Place, int] = {place: number for number, place in placement.items()}
        self.run = 0
        self.taken: Counter[tuple[int, str, int]] = Counter()
        self.processed: Counter[tuple[int, str, int]] = Counter()
        self.strangers: list[str] = []
        self._streams_done: Counter[int] = Counter()
        self._counts: Counter[tuple[int, str]] = Counter()
        self._fronts: dict[int, int] = dict.fromkeys(self.ends, 0)

    def take(self, stream: str, value: bytes | None, place: Place) -> int:
        """A worker was handed a message; its number."""
        number = number_of(value)
        if self.placement.get(number) != place:
            self.strangers.append(f"{value!r} at offset {place.offset} of {place.partition}")
        self.taken[self.run, stream, number] += 1
        return number

    def finish(self, stream: str, number: int) -> None:
        """A worker has processed a message; call it before acknowledging."""
        if not any(self.processed[run, stream, number] for run in range(1, self.run + 1)):
            self._streams_done[number] += 1
        if not self.processed[self.run, stream, number]:
            self._counts[self.run, stream] += 1
        self.processed[self.run, stream, number] += 1

    def front(self, partition: int) -> int:
        """The lowest offset that not every stream has processed: no commit may exceed it."""
        front = self._fronts.get(partition, 0)
        while self._done_at(Place(partition, front)):
            front += 1
        self._fronts[partition] = front
        return front

    def _done_at(self, place: Place) -> bool:
        number = self.number_at.get(place)
        return number is not None and self._streams_done[number] == len(self.streams)

    def beyond_front(self, committed: Mapping[int, int]) -> list[Sighting]:
        """Committed offsets that are too high.  Read them from the broker first, then ask."""
        return [
            Sighting(partition, offset, front)
            for partition, offset in committed.items()
            if offset > (front := self.front(partition))
        ]

    def count_processed(self, run: int, stream: str) -> int:
        """How many different messages a stream processed in a run."""
        return self._counts[run, stream]

    def in_hand(self, run: int, stream: str) -> list[Place]:
        """What a stream took in a run and did not process in it, in order."""
        return sorted(
            self.placement[number]
            for r, s, number in self.taken
            if (r, s) == (run, stream) and not self.processed[r, s, number]
        )


def number_of(value: bytes | None) -> int:
    """The number in a message's value, -1 if it is none of ours.

    >>> number_of(b"message 17")
    17
    """
    word, _, digits = (value or b"").partition(b" ")
    return int(digits) if word == b"message" and digits.isdigit() else -1


@dataclass(frozen=True, slots=True)
class StreamVerdict:
    """What one stream did.

    Attributes:
        stream: Its name.
        processed: Messages processed at least once.
        lost: Messages never processed.
        resumed: Messages that were in hand at the cancel, and were handed out again.
        replayed: Messages processed before the cancel and handed out again.
        unexplained: Of those replayed, how many had been committed.
        repeated: Messages handed out more than once within one run.
    """

    stream: str
    processed: int
    lost: int
    resumed: int
    replayed: int
    unexplained: int
    repeated: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """The check of the whole demonstration.

    Attributes:
        messages: How many were produced.
        streams: Each stream.
        looks: How often the committed offsets were compared with the journal.
        too_high: Committed offsets that lay beyond an unprocessed message.
        ends: End of each partition.
        committed: What the broker has for the group at the end.
        strangers: Messages that nobody produced, or from another place.
    """

    messages: int
    streams: tuple[StreamVerdict, ...]
    looks: int
    too_high: tuple[Sighting, ...]
    ends: dict[int, int]
    committed: dict[int, int]
    strangers: tuple[str, ...] = field(default=())

    @property
    def behind(self) -> dict[int, int]:
        """Partitions whose committed offset is not their end, and by how much."""
        return {
            partition: end - self.committed.get(partition, 0)
            for partition, end in self.ends.items()
            if self.committed.get(partition, 0) != end
        }

    @property
    def complaints(self) -> list[str]:
        """What is wrong, in words; empty if the check passes."""
        found = []
        for each in self.streams:
            if each.lost:
                found.append(f"{each.stream} never processed {each.lost} messages")
            if each.unexplained:
                found.append(f"{each.stream} got {each.unexplained} messages again after a commit")
            if each.repeated:
                found.append(f"{each.stream} got {each.repeated} messages twice within one run")
        for partition, committed, unprocessed in self.too_high[:1]:
            found.append(
                f"offset {committed} of partition {partition} was committed while {unprocessed}"
                " was not processed"
            )
        for partition, missing in self.behind.items():
            found.append(f"the end of partition {partition} is {missing} offsets from committed")
        if self.strangers:
            found.append(f"a message came that nobody produced: {self.strangers[0]}")
        return found


def judge(
    journal: Journal,
    *,
    at_cancel: Mapping[int, int],
    at_end: Mapping[int, int],
    looks: int,
    too_high: Sequence[Sighting],
) -> Verdict:
    """Check the two runs of the demonstration.

    Args:
        journal: What the workers did.
        at_cancel: What the broker had for the group after the cancel.
        at_end: What it has at the end.
        looks: How often :meth:`Journal.beyond_front` was asked.
        too_high: What it found.
    """
    return Verdict(
        messages=len(journal.placement),
        streams=tuple(_judge_stream(journal, name, at_cancel) for name in journal.streams),
        looks=looks,
        too_high=tuple(too_high),
        ends=dict(journal.ends),
        committed=dict(at_end),
        strangers=tuple(journal.strangers),
    )


def _judge_stream(journal: Journal, stream: str, at_cancel: Mapping[int, int]) -> StreamVerdict:
    processed = {
        number
        for number in journal.placement
        if any(journal.processed[run, stream, number] for run in (1, 2))
    }
    again = {
        number
        for number in journal.placement
        if journal.taken[1, stream, number] and journal.taken[2, stream, number]
    }
    replayed = {number for number in again if journal.processed[1, stream, number]}
    # From the committed offset on, a message was unfinished, or lay behind an
    # unfinished one, or was finished after the last commit: it may come again.
    unexplained = {
        number
        for number in again
        if (place := journal.placement[number]).offset < at_cancel.get(place.partition, 0)
    }
    repeated = sum(1 for (_, s, _), times in journal.taken.items() if s == stream and times > 1)
    return StreamVerdict(
        stream=stream,
        processed=len(processed),
        lost=len(journal.placement) - len(processed),
        resumed=len(again - replayed),
        replayed=len(replayed),
        unexplained=len(unexplained),
        repeated=repeated,
    )
