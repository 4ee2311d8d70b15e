"""A snapshot of a consumer, for people and for metrics."""

from __future__ import annotations

from dataclasses import dataclass

from .._types import TopicPartition

__all__ = ["ConsumerStatistics", "PartitionStatistics", "StreamStatistics"]


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
        partitions: Each assigned partition.
        streams: Each open stream, in the order of opening.
    """

    group: str
    generation: int
    rebalances: int
    commits: int
    commit_failures: int
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
