"""When is a partition stuck?

Each rule is a *condition* with a *mark*: the thing that has to move.  A symptom
shows when its condition has held, with the mark unmoved, for as long as the
rule's patience.  So what counts is progress and not age: a slow stream that
finishes one message after another is not stuck, and a partition that was idle
for a day is not either when its first message comes.

Time is the time that was *watched*: a gap between two looks (a suspended
machine, a loop that was blocked) counts as two intervals at most.
"""

from __future__ import annotations

import enum
from collections.abc import Hashable, Iterator
from dataclasses import dataclass

__all__ = ["Change", "Observation", "PartitionWatch", "Symptom", "Watch"]


class Symptom(enum.Enum):
    """What is wrong with a partition."""

    NEVER_FETCHED = "nothing has been fetched since it was assigned"
    END_UNKNOWN = "nothing arrives, and the broker does not say where the partition ends"
    NOT_ARRIVING = "messages are waiting at the broker and none arrives"
    NOT_FINISHED = "its oldest unfinished message is not finished"
    NOT_COMMITTED = "messages are finished and the committed offset does not advance"


FETCHING = frozenset({Symptom.NEVER_FETCHED, Symptom.END_UNKNOWN, Symptom.NOT_ARRIVING})
"""The symptoms of the way from the broker to the buffers."""


@dataclass(frozen=True, slots=True)
class Observation:
    """A partition at one moment.

    Attributes:
        fetching: Nothing holds it back from being fetched.
        consuming: A stream takes it, and what is unfinished could be worked on.
        cursor: Offset up to which it was read, None before the first answer.
        end: End of the partition as far as is known, None if unknown.
        end_refused: The broker was asked for the end and did not answer.
        committed: The offset confirmed within this assignment, or None.
        committable: What a commit would carry now, None if nothing new.
        oldest_unfinished: The lowest delivered offset that is not finished.
    """

    fetching: bool = True
    consuming: bool = True
    cursor: int | None = None
    end: int | None = None
    end_refused: bool = False
    committed: int | None = None
    committable: int | None = None
    oldest_unfinished: int | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """A symptom that showed itself, or went away.

    Attributes:
        symptom: Which one.
        begins: True when it shows, False when the partition goes on.
        seconds: For how long nothing has moved.
    """

    symptom: Symptom
    begins: bool
    seconds: float


def marks(seen: Observation) -> Iterator[tuple[Symptom, Hashable]]:
    """The conditions that hold now, each with what has to move."""
    if seen.fetching:
        if seen.cursor is None:
            yield Symptom.NEVER_FETCHED, None
        elif seen.end is not None and seen.end > seen.cursor:
            yield Symptom.NOT_ARRIVING, seen.cursor
        elif seen.end_refused:
            yield Symptom.END_UNKNOWN, seen.cursor
    if seen.consuming and seen.oldest_unfinished is not None:
        yield Symptom.NOT_FINISHED, seen.oldest_unfinished
    if seen.committable is not None:
        yield Symptom.NOT_COMMITTED, seen.committed


class Watch:
    """The time that was watched.

    Args:
        interval: Seconds between two looks; a longer gap counts as two.
        now: Any monotonic clock.
    """

    __slots__ = ("_interval", "_seen_at", "time")

    def __init__(self, interval: float, *, now: float) -> None:
        self._interval = interval
        self._seen_at = now
        self.time = 0.0

    def look(self, now: float, *, blind: bool = False) -> float:
        """Move on to now; without counting the time if nothing could be seen."""
        elapsed = max(0.0, now - self._seen_at)
        self._seen_at = now
        if not blind:
            self.time += min(elapsed, 2 * self._interval)
        return self.time


class PartitionWatch:
    """The symptoms of one assignment of one partition.

    Args:
        timeout: Seconds without progress until a symptom shows.
        commit_timeout: The same for :attr:`Symptom.NOT_COMMITTED`.
    """

    __slots__ = ("_patience", "_showing", "_since", "_timeout")

    def __init__(self, timeout: float, commit_timeout: float) -> None:
        self._timeout = timeout
        self._patience = {Symptom.NOT_COMMITTED: commit_timeout}
        self._since: dict[Symptom, tuple[Hashable, float]] = {}
        self._showing: set[Symptom] = set()

    @property
    def showing(self) -> frozenset[Symptom]:
        """The symptoms that show now."""
        return frozenset(self._showing)

    def observe(self, time: float, seen: Observation) -> list[Change]:
        """Take in what was seen at a time; what changed by it.

        Args:
            time: Watched time, see :class:`Watch`.
            seen: The partition.
        """
        changes = []
        holding = dict(marks(seen))
        for symptom in Symptom:
            before = self._since.get(symptom)
            if before is not None and (symptom not in holding or holding[symptom] != before[0]):
                del self._since[symptom]
                if symptom in self._showing:
                    self._showing.remove(symptom)
                    changes.append(Change(symptom, False, time - before[1]))
            if symptom in holding:
                _, since = self._since.setdefault(symptom, (holding[symptom], time))
                patience = self._patience.get(symptom, self._timeout)
                if time - since >= patience and symptom not in self._showing:
                    self._showing.add(symptom)
                    changes.append(Change(symptom, True, time - since))
        return changes

    def showing_at(self, time: float, seen: Observation) -> dict[Symptom, float]:
        """What would show at a time, and for how long nothing has moved; changes nothing."""
        showing = {}
        for symptom, mark in marks(seen):
            before = self._since.get(symptom)
            since = before[1] if before is not None and before[0] == mark else time
            if time - since >= self._patience.get(symptom, self._timeout):
                showing[symptom] = time - since
        return showing
