"""A snapshot of a consumer, for people and for metrics."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from .._core.flow import Flow, FullBuffer, PauseReason
from .._types import TopicPartition
from .diagnostics import Activity
from .holding import OldestUnfinished, oldest_unfinished
from .partitions import Assignment
from .stream import Stream

__all__ = [
    "ConsumerStatistics",
    "PartitionStatistics",
    "StreamStatistics",
    "UnackedMessage",
    "of_partition",
    "of_stream",
]


class UnackedMessage(NamedTuple):
    """A message that was delivered and that some stream has not finished."""

    tp: TopicPartition
    offset: int


@dataclass(frozen=True, slots=True)
class PartitionStatistics:
    """One partition that this member has.

    Offsets are those of Kafka: a position, a committed offset and an end name
    the next message, not the last one.

    Attributes:
        position: Offset after the last message given to the streams, None
            before the first.
        start: Where reading began after the partition was assigned or sought:
            as a rule what the group had committed.  None until it is known.
        committed: The offset that the broker has confirmed since then, None
            before the first commit.
        committable: What a commit would carry now, None if nothing new.
        high_watermark: End of the partition as the broker told with the last
            fetch, or None.  Nobody asks for it, so it stands still while the
            partition is not fetched.
        unfinished: Messages delivered and not finished.
        oldest_unfinished: The lowest of their offsets: it holds the commit back.
        oldest: The same message with its age in seconds, and who has it.
        replay: Messages that would be delivered again if the process died now:
            everything delivered from the committed offset on, finished or not.
        pause_reasons: What keeps it from being fetched; empty if nothing does.
        state: ``"open"``, or ``"revoking"`` and ``"drained"`` while it is
            handed over to another member.
    """

    position: int | None
    start: int | None
    committed: int | None
    committable: int | None
    high_watermark: int | None
    unfinished: int
    oldest_unfinished: int | None
    oldest: OldestUnfinished | None
    replay: int
    pause_reasons: tuple[str, ...]
    state: str

    @property
    def lag(self) -> int | None:
        """What is to be read, in offsets from the position to the end, or None if unknown."""
        return _distance(self.position, self.high_watermark)

    @property
    def commit_lag(self) -> int | None:
        """Offsets between the committed offset and the end, or None if unknown.

        It is the lag of the group, as other tools tell it.  Before the first
        commit it is counted from the start of reading.
        """
        return _distance(
            self.start if self.committed is None else self.committed, self.high_watermark
        )

    @property
    def finished_uncommitted(self) -> int:
        """Messages that are finished and would be processed again after a crash now."""
        return max(0, self.replay - self.unfinished)

    @property
    def held_back_by(self) -> str:
        """What keeps the committed offset from the position, in words; "" if nothing does."""
        if self.oldest is not None:
            return str(self.oldest)
        if self.committable is not None:
            return "nothing, the next commit carries it all"
        return ""


def _distance(offset: int | None, end: int | None) -> int | None:
    return None if offset is None or end is None else max(0, end - offset)


@dataclass(frozen=True, slots=True)
class StreamStatistics:
    """One open stream.

    Attributes:
        topics: What it is subscribed to.
        ack: ``"auto"``, ``"manual"`` or ``"none"``.
        buffered: Messages in its buffer, not handed out yet.
        is_full: Whether its buffer keeps its partitions from being fetched.
    """

    topics: frozenset[str]
    ack: str
    buffered: int
    is_full: bool


@dataclass(frozen=True, slots=True)
class ConsumerStatistics:
    """The whole consumer at one moment.

    Attributes:
        group: The consumer group.
        generation: The group's generation at the last assignment, -1 before it.
        rebalances: Assignments so far.
        commits: Commits that the broker confirmed.
        commit_failures: Commits that failed.
        commit_error: Why the last commit failed, None if it succeeded (or
            there was none).
        seconds_since_commit: Since a commit was confirmed, None before the first.
        activities: What it is doing at this moment.
        partitions: Each assigned partition.
        streams: Each open stream, in the order of opening.
    """

    group: str
    generation: int
    rebalances: int
    commits: int
    commit_failures: int
    commit_error: str | None
    seconds_since_commit: float | None
    activities: frozenset[Activity]
    partitions: dict[TopicPartition, PartitionStatistics]
    streams: tuple[StreamStatistics, ...]

    @property
    def unfinished(self) -> int:
        """Messages delivered and not finished, over all partitions."""
        return sum(p.unfinished for p in self.partitions.values())

    @property
    def replay(self) -> int:
        """Messages that would be delivered again if the process died now."""
        return sum(p.replay for p in self.partitions.values())

    @property
    def lag(self) -> int | None:
        """Offsets to be read, over the partitions of which it is known; None if of none."""
        return _total(p.lag for p in self.partitions.values())

    @property
    def commit_lag(self) -> int | None:
        """Offsets behind the ends that are not committed, likewise."""
        return _total(p.commit_lag for p in self.partitions.values())

    def what_holds_back(self) -> list[str]:
        """What keeps each committed offset from its position, the oldest first; for people.

        orders[3]: offset 17 unfinished for 12.4 s, in hand of worker-2; 811 come again
        after a crash now
        """
        held = [
            (-p.oldest.seconds, tp, p) for tp, p in self.partitions.items() if p.oldest is not None
        ]
        lines = [
            f"{tp}: {p.held_back_by}; {p.replay} come again after a crash now"
            for _, tp, p in sorted(held, key=lambda each: each[:2])
        ]
        if self.commit_error is not None:
            lines.insert(0, f"the last commit failed: {self.commit_error}")
        return lines


def _total(lags: Iterable[int | None]) -> int | None:
    known = [lag for lag in lags if lag is not None]
    return sum(known) if known else None


def of_partition(assignment: Assignment, flow: Flow) -> PartitionStatistics:
    """The numbers of one partition."""
    ledger = assignment.ledger
    snapshot = ledger.snapshot()
    oldest = oldest_unfinished(assignment)
    return PartitionStatistics(
        position=ledger.position,
        start=ledger.start,
        committed=ledger.committed,
        committable=None if snapshot is None else snapshot.offset,
        high_watermark=assignment.high_watermark,
        unfinished=ledger.unfinished_count,
        oldest_unfinished=None if oldest is None else oldest.offset,
        oldest=oldest,
        replay=ledger.replay,
        pause_reasons=tuple(_name(reason) for reason in flow.reasons(assignment.tp)),
        state=assignment.state.value,
    )


def _name(reason: object) -> str:
    if isinstance(reason, PauseReason):
        return reason.value
    return f"full: {(reason.buffer if isinstance(reason, FullBuffer) else reason)!r}"


def of_stream(stream: Stream) -> StreamStatistics:
    """The numbers of one stream."""
    return StreamStatistics(stream.topics, stream.ack_mode.value, stream.buffered, stream.is_full)
