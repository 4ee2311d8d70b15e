"""A snapshot of a consumer, for people and for metrics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from .._core.flow import Flow, FullBuffer, PauseReason
from .._types import TopicPartition
from .diagnostics import Activity
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

    Attributes:
        position: Offset after the last message given to the streams, None
            before the first.
        committed: The offset that the broker has confirmed since the partition
            was assigned (or sought), None before the first commit.
        committable: What a commit would carry now, None if nothing new.
        high_watermark: End of the partition as the broker last said, or None.
        unfinished: Messages delivered and not finished.
        oldest_unfinished: The lowest of their offsets: it holds the commit back.
        replay: Messages that would be delivered again if the process died now.
        pause_reasons: What keeps it from being fetched; empty if nothing does.
    """

    position: int | None
    committed: int | None
    committable: int | None
    high_watermark: int | None
    unfinished: int
    oldest_unfinished: int | None
    replay: int
    pause_reasons: tuple[str, ...]

    @property
    def lag(self) -> int | None:
        """Offsets between the position and the end, or None if unknown."""
        if self.position is None or self.high_watermark is None:
            return None
        return max(0, self.high_watermark - self.position)


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
        activities: What it is doing at this moment.
        partitions: Each assigned partition.
        streams: Each open stream, in the order of opening.
    """

    group: str
    generation: int
    rebalances: int
    commits: int
    commit_failures: int
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


def of_partition(assignment: Assignment, flow: Flow) -> PartitionStatistics:
    """The numbers of one partition."""
    ledger = assignment.ledger
    snapshot = ledger.snapshot()
    return PartitionStatistics(
        position=ledger.position,
        committed=ledger.committed,
        committable=None if snapshot is None else snapshot.offset,
        high_watermark=assignment.high_watermark,
        unfinished=ledger.unfinished_count,
        oldest_unfinished=ledger.oldest_unfinished,
        replay=ledger.replay,
        pause_reasons=tuple(_name(reason) for reason in flow.reasons(assignment.tp)),
    )


def _name(reason: object) -> str:
    if isinstance(reason, PauseReason):
        return reason.value
    return f"full: {(reason.buffer if isinstance(reason, FullBuffer) else reason)!r}"


def of_stream(stream: Stream) -> StreamStatistics:
    """The numbers of one stream."""
    return StreamStatistics(stream.topics, stream.ack_mode.value, stream.buffered, stream.is_full)
