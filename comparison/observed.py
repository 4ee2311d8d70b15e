"""What was seen of a consumer, and what to call it.

A driver writes down what its programs were given and have done, and what the
broker has stored: nothing that a consumer says of itself.  :func:`judge` holds
that against the rule.
"""

from __future__ import annotations

import enum
from collections import Counter
from dataclasses import dataclass

from .rule import Bounds, Ideal, ideal, ranges
from .schedules import HandOver, Pause, Schedule, StopFlow, WaitForStoppedFlow

__all__ = ["BOUND", "QUIET", "Observed", "Outcome", "Verdict", "judge", "right"]

BOUND = 600.0
"""Seconds, of a virtual clock, after which something that has not returned hangs: ten times
the time that Faust gives a rebalance (`broker_rebalance_timeout`)."""

QUIET = 30.0
"""Seconds, likewise, without a message after which no more is waited for."""


class Outcome(enum.Enum):
    """What to call what was seen."""

    RIGHT = "right"
    LOSES = "loses"
    DOUBLES = "doubles"
    STALLS = "stalls"
    LATE = "late"
    HANGS = "hangs"
    DOES_NOT_WAIT = "does not wait"
    NO_ALARM = "no alarm"
    FALSE_ALARM = "false alarm"
    FAILS = "fails"


@dataclass(frozen=True)
class Verdict:
    """An outcome, and what it was seen by."""

    outcome: Outcome
    seen: str


class Observed:
    """The journal of one run of a schedule."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.delivered: Counter[tuple[int, int]] = Counter()
        self.done: set[tuple[int, int]] = set()
        self.committed: dict[str, int | None] = dict.fromkeys(schedule.topics)
        self.committed["t"] = schedule.committed
        self.checkpoints: list[dict[str, int | None]] = []
        self.final: dict[str, int | None] = {}
        self.lost: dict[tuple[str, int], int] = {}
        """By topic and offset: the committed offset that passed it, unfinished."""
        self.hung: list[str] = []
        self.alarms: list[str] = []
        self.fetched_while_stopped = 0
        self._records = {topic: set(offsets) for topic, offsets in schedule.topics.items()}
        self._begin: dict[str, int] = {"t": schedule.committed or 0}
        self._excused = ideal(schedule).excused

    def give(self, reader: int, offset: int) -> None:
        """A program has been given a message."""
        self.delivered[reader, offset] += 1

    def do(self, reader: int, offset: int) -> None:
        """A program has done what it does with a message; before it says so."""
        self.done.add((reader, offset))

    def produce(self, topic: str, offset: int) -> None:
        """There is one record more."""
        self._records[topic].add(offset)

    def seek(self, topic: str, offset: int) -> None:
        """The program wants nothing below this offset any more."""
        self._begin[topic] = offset

    def store(self, topic: str, offset: int) -> None:
        """The broker has stored a commit."""
        self.committed[topic] = offset
        begin = self._begin.get(topic, 0)
        readers = [n for n, reader in enumerate(self.schedule.readers) if reader.topic == topic]
        for record in self._records[topic]:
            if begin <= record < offset and not all(
                (number, record) in self.done | self._excused for number in readers
            ):
                self.lost.setdefault((topic, record), offset)

    def checkpoint(self) -> None:
        """A step that commits is over."""
        self.checkpoints.append(dict(self.committed))

    def close(self) -> None:
        """The schedule, and one commit more, is over."""
        self.final = dict(self.committed)


def right(schedule: Schedule) -> str:
    """What is right, in words."""
    wanted = ideal(schedule)
    parts: list[str] = []
    if wanted.checkpoints:
        last = wanted.checkpoints[-1]
        if len(last) == 1:
            (bounds,) = last.values()
            parts.append(f"commits {bounds}" if bounds.high else "commits nothing, or 0")
        else:
            parts += [
                f"commits {bounds} of {topic}" if bounds.high else f"nothing of {topic}"
                for topic, bounds in last.items()
            ]
    if any(isinstance(step, HandOver) for step in schedule.steps):
        parts.append("hands over in time")
    elif any(isinstance(step, WaitForStoppedFlow) for step in schedule.steps):
        parts.append("nothing is fetched after the return")
    elif any(isinstance(step, (Pause, StopFlow)) for step in schedule.steps):
        parts.append("each comes once")
    if any(count > 1 for count in wanted.delivered.values()):
        again = [offset for (_, offset), count in wanted.delivered.items() if count > 1]
        parts.append(
            f"{ranges(again)} comes again" if len(again) == 1 else f"{ranges(again)} come again"
        )
    if wanted.alarm is not None:
        parts.append("an alarm" if wanted.alarm else "no alarm")
    return ", ".join(parts)


def judge(observed: Observed) -> Verdict:
    """What to call it; the worst thing first."""
    schedule = observed.schedule
    wanted = ideal(schedule)
    if observed.lost:
        offsets: dict[tuple[str, int], list[int]] = {}
        for (topic, record), passing in observed.lost.items():
            offsets.setdefault((topic, passing), []).append(record)
        (topic, passing), records = max(offsets.items(), key=lambda item: item[0][1])
        return Verdict(Outcome.LOSES, f"commits {passing}, {ranges(records)} not processed")
    dropped = _missing(wanted, observed)
    if observed.hung:
        return Verdict(Outcome.HANGS, f"{observed.hung[0]} has not returned after {BOUND:.0f} s")
    if wanted.alarm is not None and bool(observed.alarms) != wanted.alarm:
        if wanted.alarm:
            return Verdict(Outcome.NO_ALARM, "nothing is logged in 20 minutes")
        return Verdict(Outcome.FALSE_ALARM, observed.alarms[0])
    twice = [n for n, count in observed.delivered.items() if count > wanted.delivered[n]]
    if wanted.takes_all and twice:
        return Verdict(Outcome.DOUBLES, f"{ranges(n for _, n in twice)} come too often")
    if dropped:
        return Verdict(Outcome.STALLS, f"{ranges(n for _, n in dropped)} never come")
    if observed.fetched_while_stopped:
        return Verdict(Outcome.DOES_NOT_WAIT, "a record is fetched after the return")
    return _commits(schedule, wanted, observed)


def _missing(wanted: Ideal, observed: Observed) -> list[tuple[int, int]]:
    if not wanted.takes_all:
        return []
    return [n for n, count in wanted.delivered.items() if observed.delivered[n] < count]


def _commits(schedule: Schedule, wanted: Ideal, observed: Observed) -> Verdict:
    """Whether what is committed lies within the bounds, each time."""
    if len(observed.checkpoints) != len(wanted.checkpoints):
        raise RuntimeError(f"{schedule.name!r} was not run to its end")
    for expected, seen in zip(wanted.checkpoints, observed.checkpoints, strict=True):
        for topic, bounds in expected.items():
            offset = seen[topic] or 0
            if offset > bounds.high:
                return Verdict(Outcome.LOSES, f"commits {offset} of {topic}, not asked for")
            if offset < bounds.low:
                return _too_low(schedule, topic, bounds, offset, wanted, observed)
    return Verdict(Outcome.RIGHT, _committed(observed, wanted))


def _too_low(
    schedule: Schedule, topic: str, bounds: Bounds, offset: int, wanted: Ideal, observed: Observed
) -> Verdict:
    stored = f"commits {offset}" if offset else "commits nothing"
    if any(isinstance(step, HandOver) for step in schedule.steps):
        return Verdict(
            Outcome.DOUBLES,
            f"{stored}, {ranges(range(offset, bounds.low))} come again at the next owner",
        )
    final = observed.final[topic] or 0
    if final < wanted.final[topic].low:
        return Verdict(Outcome.STALLS, f"{stored}, and the next commit {final or 'nothing'}")
    return Verdict(Outcome.LATE, f"{stored}; the next commit makes up for it")


def _committed(observed: Observed, wanted: Ideal) -> str:
    if wanted.alarm is not None:
        return "an alarm" if observed.alarms else "no alarm"
    if not observed.checkpoints:
        return "nothing is fetched after the return"
    last = observed.checkpoints[-1]
    if len(last) == 1:
        (offset,) = last.values()
        return "commits nothing" if offset is None else f"commits {offset}"
    return ", ".join(
        f"nothing of {topic}" if offset is None else f"commits {offset} of {topic}"
        for topic, offset in last.items()
    )
