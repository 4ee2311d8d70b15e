"""Positions of one session, and what a poll returns: decided without I/O.

A :class:`Fetcher` owns the partitions that the session holds, with the position
of each and whether it is paused.  Reading and moving the position is one step
without a checkpoint, taken when the poll returns; so there is nothing in
between that a cancellation, a revocation or a seek could lose.

A partition is fetched from if it is *ready* (the listener's ``assigned`` has
returned, and neither ``revoked`` nor ``lost`` was called since) and not paused.
Pausing belongs to one assignment: a partition that comes back is not paused.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass

from ..._errors import CorruptRecordError, OffsetOutOfRangeError, TransportError
from ..._types import OffsetAndMetadata, TopicPartition
from ..base import PolledBatch, SessionSettings
from .cluster import Cluster
from .log import PartitionLog

__all__ = ["Fetcher"]


@dataclass(slots=True)
class _Held:
    """One partition of the assignment; the position is None until first needed.

    The first batch tells where reading starts, even if there is nothing to read.
    The log is the one last read from.
    """

    tp: TopicPartition
    position: int | None = None
    paused: bool = False
    ready: bool = False
    reported: bool = False
    log: PartitionLog | None = None


class Fetcher:
    """The partitions of one session.

    Args:
        cluster: Where the logs are.
        settings: Group, reset policy and isolation level.
        max_records: Records in one poll, all partitions together.
    """

    def __init__(self, cluster: Cluster, settings: SessionSettings, max_records: int) -> None:
        self._cluster = cluster
        self._settings = settings
        self._max_records = max_records
        self._committed_only = settings.isolation_level == "read_committed"
        self._held: dict[TopicPartition, _Held] = {}
        self._turn = 0

    @property
    def held(self) -> frozenset[TopicPartition]:
        """What the member owns, ready or not."""
        return frozenset(self._held)

    # The membership's side

    def add(self, tps: Iterable[TopicPartition]) -> None:
        """Take new partitions, not ready yet, so that they can be paused and sought."""
        self._held.update((tp, _Held(tp)) for tp in sorted(tps))

    def make_ready(self, tps: Iterable[TopicPartition]) -> None:
        """Begin to fetch these, from where the group was now if nobody sought.

        Settling the position here and not at the next poll makes ``latest`` mean
        the end of the log at the time of the assignment.
        """
        for tp in tps:
            held = self._held[tp]
            held.ready = True
            log = self._cluster.find_log(tp)
            if held.position is None and log is not None and self._is_stable(tp):
                # Left to the next poll, which is the one that raises.
                with suppress(OffsetOutOfRangeError):
                    held.position = self._initial_position(tp, None, log)

    def hide(self, tps: Iterable[TopicPartition]) -> None:
        """Return no more records of these."""
        for tp in tps:
            self._held[tp].ready = False

    def drop(self, tps: Iterable[TopicPartition]) -> None:
        """Forget these."""
        for tp in tps:
            del self._held[tp]

    # The user's side

    def pause(self, tps: Collection[TopicPartition], paused: bool) -> None:
        """Pause or resume; partitions that are not held are left out."""
        for tp in tps:
            if (held := self._held.get(tp)) is not None:
                held.paused = paused

    def seek(self, tp: TopicPartition, offset: int) -> None:
        """Set the position; nothing if the partition is not held."""
        if (held := self._held.get(tp)) is not None:
            held.position = offset

    def collect(self) -> list[PolledBatch]:
        """Read what there is and move the positions over it.

        Partitions take turns being the first, and the first may fill the poll.

        Raises:
            OffsetOutOfRangeError: A partition has no position and no reset
                policy says where it should be.
            CorruptRecordError: A damaged record is next.
        """
        batches: list[PolledBatch] = []
        budget = self._max_records
        order = list(self._held.values())
        if not order:
            return batches
        first = self._turn % len(order)
        for held in order[first:] + order[:first]:
            if held.paused or not held.ready:
                continue
            try:
                batch = self._read(held, budget)
            except TransportError:
                # What was read before must be handed over; the error is still
                # there at the next poll.
                if batches:
                    break
                raise
            if batch is not None:
                batches.append(batch)
                budget -= len(batch.records)
                if budget <= 0:
                    break
        if batches:
            self._turn = first + len(batches)
        return batches

    def _read(self, held: _Held, budget: int) -> PolledBatch | None:
        log = self._cluster.find_log(held.tp)
        if log is None:
            return None
        position = held.position
        if position is None and not self._is_stable(held.tp):
            return None
        made_anew = held.log not in (None, log)
        held.log = log
        if position is not None and made_anew:
            # An offset of the topic that was deleted means nothing in this one.
            position = held.position = self._reset_position(held.tp, position, log)
        if position is None or not log.start <= position <= log.end:
            position = held.position = self._initial_position(held.tp, position, log)
        found = log.read(position, budget, committed_only=self._committed_only)
        if found.next_offset == position:
            if log.is_corrupt(position):
                raise CorruptRecordError(
                    held.tp,
                    position,
                    f"cannot read {held.tp} offset {position}: the record is corrupt."
                    f" Everything below it was delivered; seek to {position + 1} to leave it out",
                )
            if held.reported:
                return None
        held.reported = True
        held.position = found.next_offset
        return PolledBatch(held.tp, found.records, found.next_offset, log.end, position)

    def _initial_position(self, tp: TopicPartition, position: int | None, log: PartitionLog) -> int:
        """Where to read from: the committed offset, or what the reset policy says."""
        if position is None:
            stored = self._committed(tp)
            if stored is not None:
                position = stored.offset
                if log.start <= position <= log.end:
                    return position
        return self._reset_position(tp, position, log)

    def _reset_position(self, tp: TopicPartition, position: int | None, log: PartitionLog) -> int:
        policy = self._settings.auto_offset_reset
        if policy == "earliest":
            return log.start
        if policy == "latest":
            return log.limit(committed_only=self._committed_only)
        if position is None:
            raise OffsetOutOfRangeError(
                tp,
                None,
                f"cannot start reading {tp}: the group {self._settings.group!r} has no committed"
                f" offset and auto_offset_reset is 'none'. Seek, commit an offset, or choose"
                f" 'earliest' or 'latest'",
            )
        raise OffsetOutOfRangeError(
            tp,
            position,
            f"cannot read {tp} at offset {position}: the log has {log.start} to {log.end}"
            f" and auto_offset_reset is 'none'. Seek, or choose 'earliest' or 'latest'",
        )

    def _is_stable(self, tp: TopicPartition) -> bool:
        """Whether no transaction is about to move the committed offset (KIP-447)."""
        pending = self._cluster.group(self._settings.group).pending
        return not (self._committed_only and pending.get(tp))

    def _committed(self, tp: TopicPartition) -> OffsetAndMetadata | None:
        return self._cluster.group(self._settings.group).offsets.get(tp)
