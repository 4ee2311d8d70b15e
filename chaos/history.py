"""The judge: what members journaled, what their groups had committed, what had happened.

It knows offsets, times and names of lives, and shares no code with the library.  Times
are those of the machine's monotonic clock, which all processes share.  What it holds:

- **journaled**: at no observed moment is an offset committed past a message that no
  member of the group has journaled;
- **backwards**: the committed offset never goes back (a member that was thrown out and
  wakes up must not commit over the new owner);
- **rewound**: an assignment begins at or after what was seen committed before it;
- **repeated**: within one assignment no message comes twice;
- **replayed**: a message comes again only if what happened to the member, to the nodes
  or to the network explains that its commit did not arrive: see :class:`Window`;
- **lost**: in the end every message is journaled, and committed;
- **error**: no member ended by an error that nothing explains;
- **wrong**: the message at an offset is the one that was written there.

How many messages come again is bounded by :meth:`History.replay_bound`.  When they may,
follows from the windows: what comes again had not been committed when its member lost it,
so it was journaled at most ``before`` seconds (a commit interval, and what a commit
takes) before something happened, or while its consequences lasted.
"""

from __future__ import annotations

import enum
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate

__all__ = ["History", "Life", "Rule", "Violation", "Window"]


class Rule(enum.Enum):
    """What can be violated."""

    JOURNALED = "committed past a message that nobody journaled"
    BACKWARDS = "the committed offset went back"
    REWOUND = "an assignment began below what was committed"
    REPEATED = "a message came twice in one assignment"
    REPLAYED = "a message came again and nothing explains it"
    LOST = "a message was not processed, or not committed, in time"
    ERROR = "a member ended in a way that nothing explains"
    WRONG = "a message is not the one that was written there"
    GROWTH = "a member's memory, threads, files or tasks grow"


@dataclass(frozen=True, slots=True)
class Violation:
    """One rule broken."""

    rule: Rule
    text: str

    def __str__(self) -> str:
        return f"{self.rule.value}: {self.text}"


@dataclass(slots=True)
class Window:
    """A time in which commits may not arrive.

    Attributes:
        what: For people.
        begin: When it began.
        life: Which life of a member it hit, None if it may have hit all.
        end: When its consequences were over, infinite while it lasts.
        fences: Whether it may end that life with ``FencedError``.
    """

    what: str
    begin: float
    life: str | None = None
    end: float = float("inf")
    fences: bool = False


@dataclass(slots=True)
class _Run:
    """Offsets that follow each other, journaled in one line."""

    time: float
    life: str
    epoch: int
    first: int
    last: int


@dataclass(slots=True)
class _Partition:
    """What one group did with one partition."""

    seen: bytearray = field(default_factory=bytearray)
    # The latest run that has an offset, from 1; 0 is none.
    latest: array[int] = field(default_factory=lambda: array("I"))
    runs: list[_Run] = field(default_factory=list)
    pairs: list[tuple[int, int, int, int]] = field(default_factory=list)
    frontier: int = 0  # everything below is journaled
    committed: int = 0
    # When an offset was first seen committed, for `rewound`.
    times: list[float] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    replays: int = 0

    def committed_before(self, time: float) -> int:
        place = bisect_right(self.times, time)
        return self.offsets[place - 1] if place else 0

    def grow(self, size: int) -> None:
        missing = size - len(self.seen)
        if missing > 0:
            missing += 4096
            self.seen.extend(bytes(missing))
            self.latest.extend(array("I", bytes(4 * missing)))


@dataclass(slots=True)
class Life:
    """One process of a member.

    Attributes:
        name: Unique, as in the names of the journals.
        group: Its group.
        epochs: When each assignment began, by partition and number.
        lost, handed_over: Partitions that it lost and handed over, counted.
        ended: How it ended, by its own journal: ``""`` in order, an error's name and
            text, None if it said nothing.
        unfinished: The last number of messages that the library held unfinished.
        tasks: The last number of Trio tasks.
    """

    name: str
    group: str
    epochs: dict[tuple[int, int], float] = field(default_factory=dict)
    lost: int = 0
    handed_over: int = 0
    ended: str | None = None
    unfinished: int = 0
    tasks: int = 0


class History:
    """Everything that was seen, and what of it breaks a rule.

    Args:
        groups: The names of the groups.
        partitions: How many each reads.
        before: Seconds before a window in which what was journaled may not have been
            committed: the commit interval, the time of a commit, and some patience for
            a machine with other things to do.
    """

    def __init__(self, groups: Iterable[str], partitions: int, *, before: float = 3.0) -> None:
        self.before = before
        self.violations: list[Violation] = []
        self.windows: list[Window] = []
        self.lives: dict[str, Life] = {}
        self.observations = 0
        self._of = {group: [_Partition() for _ in range(partitions)] for group in groups}

    # --- what is told to it -------------------------------------------------------------

    def begins(self, name: str, group: str) -> Life:
        """A process of a member was started."""
        self.lives[name] = Life(name, group)
        return self.lives[name]

    def happens(self, what: str, begin: float, life: str | None = None) -> Window:
        """Something happens that may keep commits from arriving; set its end later."""
        window = Window(what, begin, life)
        self.windows.append(window)
        return window

    def journaled(self, name: str, line: str) -> None:
        """A whole line of a journal was read."""
        life = self.lives[name]
        kind, when, *words = line.split(" ", 3 if line.startswith("E") else -1)
        time = float(when)
        if kind == "M":
            partition, epoch, first, last = map(int, words)
            self._worked(life, partition, _Run(time, name, epoch, first, last))
        elif kind == "A":
            for word in words:
                partition, epoch = map(int, word.split(":"))
                life.epochs[partition, epoch] = time
        elif kind == "R":
            life.handed_over += len(words)
        elif kind == "L":
            life.lost += len(words)
        elif kind == "W":
            self._violated(Rule.WRONG, f"{name}: partition, offset, number {' '.join(words)}")
        elif kind == "Z":
            life.unfinished, life.tasks = map(int, words)
        elif kind == "Q":
            life.ended = ""
        elif kind == "E":
            life.ended = " ".join(words)
        else:
            raise ValueError(f"no such line in a journal: {line!r}")

    def observed(self, group: str, offsets: Mapping[int, int], time: float) -> None:
        """Offsets were read as committed; the journals were read after that.

        Args:
            group: Whose.
            offsets: By partition; those without a committed offset are missing.
            time: When the answer had arrived.
        """
        self.observations += 1
        for number, offset in offsets.items():
            partition = self._of[group][number]
            if offset > partition.frontier:
                self._violated(
                    Rule.JOURNALED,
                    f"{group}: partition {number} committed at {offset}, but"
                    f" {partition.frontier} is in no journal",
                )
            if offset < partition.committed:
                self._violated(
                    Rule.BACKWARDS,
                    f"{group}: partition {number} committed at {offset}, after"
                    f" {partition.committed}",
                )
            if offset > partition.committed:
                partition.committed = offset
                partition.times.append(time)
                partition.offsets.append(offset)

    def ended(self, name: str, status: int, *, killed: bool, time: float) -> None:
        """A process has ended and its journal was read to its end.

        Args:
            name: Which life.
            status: Its exit status, negative for a signal.
            killed: Whether it was killed on purpose.
            time: When.
        """
        life = self.lives[name]
        if (status == 0 and life.ended == "") or (killed and status == -9):
            return
        error = (life.ended or "").partition(" ")[0]
        mine = [w for w in self.windows if w.life == name]
        if error == "FencedError" and any(w.fences for w in mine):
            return
        around = [w for w in self.windows if w.life is None and w.begin <= time <= w.end]
        # Nobody to be reached: said at the start, when nothing is owned yet.
        if error == "BrokerUnavailableError" and not life.epochs and around:
            return
        what = life.ended or "without a word"
        self._violated(Rule.ERROR, f"{name} ended with status {status}: {what}")

    # --- what it says -------------------------------------------------------------------

    @property
    def replays(self) -> int:
        """Messages that came again, in all groups."""
        return sum(p.replays for group in self._of.values() for p in group)

    def is_calm(self, time: float) -> bool:
        """Whether nothing explains a replay of what is journaled from now on."""
        return all(window.end < time for window in self.windows)

    def frontiers(self, group: str) -> list[int]:
        """For each partition the lowest offset that no member has journaled."""
        return [partition.frontier for partition in self._of[group]]

    def committed(self, group: str) -> list[int]:
        """For each partition the highest offset that was seen committed."""
        return [partition.committed for partition in self._of[group]]

    def is_done(self, ends: Mapping[int, int]) -> bool:
        """Whether every group has processed and committed everything."""
        return all(
            partition.frontier >= ends[number] and partition.committed >= ends[number]
            for group in self._of.values()
            for number, partition in enumerate(group)
        )

    def missing(self, ends: Mapping[int, int]) -> int:
        """Messages that were written and that some group has not journaled."""
        return sum(
            partition.seen[: ends[number]].count(0) + max(0, ends[number] - len(partition.seen))
            for group in self._of.values()
            for number, partition in enumerate(group)
        )

    def conclude(self, ends: Mapping[int, int], *, within: float) -> None:
        """Judge what can be judged at the end only.

        Args:
            ends: How many messages were written to each partition.
            within: The seconds that the groups had after the last fault.
        """
        for group, partitions in self._of.items():
            for number, partition in enumerate(partitions):
                if min(partition.frontier, partition.committed) < ends[number]:
                    self._violated(
                        Rule.LOST,
                        f"{group}: {within:g} s after the last fault partition {number} is"
                        f" processed up to {partition.frontier} and committed up to"
                        f" {partition.committed} of {ends[number]}",
                    )
                self._judge_replays(group, number, partition)

    def replay_bound(self) -> int:
        """How many messages can have come again at most, if no rule is broken.

        For each assignment: what was journaled and had not been seen committed when it
        began, as it begins at the commit and has each message once.  And what a member
        journaled of a partition that already belonged to another one.
        """
        return sum(
            self._bound(group, number, partition)
            for group, partitions in self._of.items()
            for number, partition in enumerate(partitions)
        )

    def _bound(self, group: str, number: int, partition: _Partition) -> int:
        starts = sorted(
            (time, life.name, epoch)
            for life in self.lives.values()
            if life.group == group
            for (of, epoch), time in life.epochs.items()
            if of == number
        )
        begun = [time for time, _, _ in starts]
        runs = sorted(partition.runs, key=lambda run: run.time)
        times = [run.time for run in runs]
        highest = list(accumulate((run.last + 1 for run in runs), max, initial=0))
        bound = 0
        for time in begun:
            journaled = highest[bisect_right(times, time)]
            bound += max(0, journaled - partition.committed_before(time))
        for run in runs:
            owner = bisect_right(begun, run.time) - 1
            if owner >= 0 and starts[owner][1:] != (run.life, run.epoch):
                bound += run.last - run.first + 1
        return bound

    # --- inside -------------------------------------------------------------------------

    def _violated(self, rule: Rule, text: str) -> None:
        self.violations.append(Violation(rule, text))

    def _worked(self, life: Life, number: int, run: _Run) -> None:
        partition = self._of[life.group][number]
        partition.grow(run.last + 1)
        seen, latest = partition.seen, partition.latest
        size = run.last - run.first + 1
        old = latest[run.first : run.last + 1]
        partition.runs.append(run)
        mine = len(partition.runs)
        if any(old):
            times = Counter(index for index in old if index)
            for index, count in times.items():
                earlier = partition.runs[index - 1]
                partition.replays += count
                at = run.first + old.index(index)
                if (earlier.life, earlier.epoch) == (run.life, run.epoch):
                    self._violated(
                        Rule.REPEATED,
                        f"{life.group}: {run.life} got {number}@{at} twice in assignment"
                        f" {run.epoch}",
                    )
                else:
                    partition.pairs.append((index - 1, mine - 1, at, count))
        seen[run.first : run.last + 1] = b"\x01" * size
        latest[run.first : run.last + 1] = array("I", [mine]) * size
        if partition.frontier >= run.first:
            place = seen.find(0, partition.frontier)
            partition.frontier = place if place >= 0 else len(seen)
        began = life.epochs.get((number, run.epoch))
        if began is None:
            self._violated(Rule.ERROR, f"{run.life} got {number}@{run.first} without an assignment")
        elif run.first < partition.committed_before(began):
            self._violated(
                Rule.REWOUND,
                f"{life.group}: {run.life} got {number}@{run.first}, though"
                f" {partition.committed_before(began)} was committed before its assignment"
                f" {run.epoch}",
            )

    def _judge_replays(self, group: str, number: int, partition: _Partition) -> None:
        for earlier, later, at, count in partition.pairs:
            first, again = partition.runs[earlier], partition.runs[later]
            if again.time < first.time:  # its journal was read later
                first, again = again, first
            # Either the one who was first could not commit, or the one who came later
            # had it from before, and did not know yet that it was not its own any more.
            late = again.life != first.life and self._excused(again)
            if not (self._excused(first) or late):
                self._violated(
                    Rule.REPLAYED,
                    f"{group}: {count} messages from {number}@{at}, journaled by {first.life}"
                    f" at {first.time:.3f} and by {again.life} at {again.time:.3f}",
                )

    def _excused(self, run: _Run) -> bool:
        return any(
            window.begin - self.before <= run.time <= window.end
            for window in self.windows
            if window.life is None or window.life == run.life
        )
