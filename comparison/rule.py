"""What is right, computed from a schedule alone.

One rule for offsets: *the committed offset is the lowest one that is not
finished, or the end if there is none.*  Where records were compacted away, any
offset between the last finished record and the next unfinished one means the
same, so a :class:`Bounds` is a range.  One rule for messages: *each comes to
each of its readers once*, and once more if the program broke off in the middle
of it, or sought back.

:func:`ideal` walks through the steps of a schedule with these two rules and
nothing else; neither consumer takes part in it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from .schedules import (
    Background,
    Commit,
    CommitMeanwhile,
    Finish,
    HandOver,
    Pause,
    Produce,
    RefuseCommit,
    Resume,
    ResumeFlow,
    Schedule,
    Seek,
    Step,
    StopFlow,
    Take,
    Wait,
    WaitForStoppedFlow,
    Watch,
    Work,
)

__all__ = ["Bounds", "Ideal", "ideal", "ranges"]


def ranges(offsets: Iterable[int]) -> str:
    """Offsets in words: ``0-2, 5``."""
    parts: list[list[int]] = []
    for offset in sorted(set(offsets)):
        if parts and offset == parts[-1][-1] + 1:
            parts[-1][1:] = [offset]
        else:
            parts.append([offset])
    return ", ".join("-".join(map(str, part)) for part in parts)


@dataclass(frozen=True)
class Bounds:
    """What may be committed: at least so much, at most so much."""

    low: int
    high: int

    def __str__(self) -> str:
        return f"{self.high}" if self.low == self.high else f"{self.low} to {self.high}"


@dataclass
class Ideal:
    """What comes out if everything is right.

    Attributes:
        checkpoints: After each step that commits, what is committed for each topic.
        final: The same after one commit more at the end.
        delivered: How often each reader gets each offset, as far as it takes them.
        excused: Offsets that a reader does not have to finish.
        alarm: Whether the livelock detector has a reason; None if nobody listens.
        takes_all: Whether the programs take everything there is.
    """

    checkpoints: list[dict[str, Bounds]] = field(default_factory=list)
    final: dict[str, Bounds] = field(default_factory=dict)
    delivered: Counter[tuple[int, int]] = field(default_factory=Counter)
    excused: set[tuple[int, int]] = field(default_factory=set)
    alarm: bool | None = None
    takes_all: bool = False


class _Walk:
    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.ideal = Ideal()
        self.records = {topic: sorted(offsets) for topic, offsets in schedule.topics.items()}
        self.begin = dict.fromkeys(self.records, 0)
        self.begin["t"] = schedule.committed or 0
        self.committed = {topic: Bounds(n, n) for topic, n in self.begin.items()}
        self.position = [self.begin[reader.topic] for reader in schedule.readers]
        self.done: set[tuple[int, int]] = set()
        self.refused = False

    def end(self, topic: str) -> int:
        return self.records[topic][-1] + 1

    def finished(self, topic: str, offset: int) -> bool:
        return all(
            (number, offset) in self.done | self.ideal.excused
            for number, reader in enumerate(self.schedule.readers)
            if reader.topic == topic
        )

    def take(self, number: int, count: int | None) -> list[int]:
        reader = self.schedule.readers[number]
        waiting = [n for n in self.records[reader.topic] if n >= self.position[number]][:count]
        if waiting:
            self.position[number] = waiting[-1] + 1
        taken = []
        for offset in waiting:
            if reader.json and offset in self.schedule.not_json:
                self.ideal.excused.add((number, offset))
                continue
            taken.append(offset)
            self.ideal.delivered[number, offset] += 2 if offset == reader.fails_at else 1
        return taken

    def finish(self, step: Finish) -> None:
        self.done.update((step.reader, offset) for offset in step.offsets)

    def commit(self, topics: tuple[str, ...] | None = None) -> None:
        if self.refused:
            self.refused = False
            return
        for topic, offsets in self.records.items():
            if topics is not None and topic not in topics:
                continue
            later = [n for n in offsets if n >= self.begin[topic]]
            unfinished = [n for n in later if not self.finished(topic, n)]
            high = unfinished[0] if unfinished else self.end(topic)
            below = [n for n in later if n < high]
            if below:
                self.committed[topic] = Bounds(below[-1] + 1, high)

    def step(self, step: Step) -> None:
        match step:
            case Background(work):
                self.step(work)
            case Take(count, number):
                self.take(number, count)
            case Work(count, number):
                taken = self.take(number, count)
                self.done.update((number, offset) for offset in taken)
                self.ideal.takes_all |= count is None
            case Finish():
                self.finish(step)
            case Commit(topics):
                self.commit(topics)
            case CommitMeanwhile(finish):
                self.finish(finish)
                self.commit()
            case HandOver(finishes):
                for finish in finishes:
                    self.finish(finish)
                self.commit()
            case RefuseCommit():
                self.refused = True
            case Seek(offset):
                self.begin["t"] = offset
                for number, reader in enumerate(self.schedule.readers):
                    if reader.topic == "t":
                        self.position[number] = offset
            case Produce(count):
                self.records["t"] += range(self.end("t"), self.end("t") + count)
            case Watch():
                self.ideal.alarm = not all(
                    self.finished(topic, n)
                    for topic, offsets in self.records.items()
                    for n in offsets
                )
            case Pause() | Resume() | StopFlow() | ResumeFlow() | WaitForStoppedFlow() | Wait():
                pass
        if isinstance(step, (Commit, CommitMeanwhile, HandOver)):
            self.ideal.checkpoints.append(dict(self.committed))


def ideal(schedule: Schedule) -> Ideal:
    """What a schedule comes to if everything is right."""
    walk = _Walk(schedule)
    for step in schedule.steps:
        walk.step(step)
    walk.commit()
    walk.ideal.final = dict(walk.committed)
    return walk.ideal
