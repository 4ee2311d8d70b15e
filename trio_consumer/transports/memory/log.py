"""The log of one partition: records at growing offsets, with holes.

A :class:`PartitionLog` owns the records of one partition and everything that
decides which of them a reader sees.  It knows no topic, no time, no Trio.

* An offset is used once.  What takes one without leaving a record (a
  transaction's marker, a record that was compacted away) is a hole: nothing is
  stored for it, readers step over it.
* ``start <= last_stable <= end``.  ``end`` is the high watermark: the next
  offset to be written (a single replica has nothing that is not yet
  replicated).  ``last_stable`` is the first offset of the oldest transaction
  still open, or ``end`` if there is none.
* A reader at ``last_stable`` or ``end`` has seen everything it may see; a read
  that gets there says so in the position it returns, so that a position ends
  *beyond* a trailing marker.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Sequence
from operator import attrgetter
from typing import NamedTuple

__all__ = ["Headers", "MemoryRecord", "PartitionLog", "Read"]

Headers = Sequence[tuple[str, bytes | None]]

_by_offset = attrgetter("offset")


class MemoryRecord(NamedTuple):
    """One record; satisfies :class:`~trio_consumer.transports.base.Record`.

    A named tuple because a benchmark appends a million of them: a frozen
    dataclass takes three times as long to create.
    """

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers


class Read(NamedTuple):
    """What a reader gets from one read: the visible records, the next position."""

    records: Sequence[MemoryRecord]
    next_offset: int


class PartitionLog:
    """Records, holes, transactions and bounds of one partition.

    Attributes:
        start: The first offset that can be read ("log start offset").
        end: The next offset to be written (high watermark).
    """

    __slots__ = ("_aborted", "_corrupt", "_open", "_records", "end", "partition", "start", "topic")

    def __init__(self, topic: str, partition: int) -> None:
        self.topic: str = topic
        self.partition: int = partition
        self.start: int = 0
        self.end: int = 0
        self._records: list[MemoryRecord] = []
        # Offsets written by each transaction that is still open; the first one
        # bounds `last_stable`.
        self._open: dict[int, list[int]] = {}
        self._aborted: set[int] = set()
        self._corrupt: set[int] = set()

    def __len__(self) -> int:
        return len(self._records)

    def __repr__(self) -> str:
        return (
            f"<PartitionLog {self.topic}[{self.partition}] {self.start}..{self.end}"
            f" records={len(self._records)}>"
        )

    @property
    def last_stable(self) -> int:
        """The first offset of the oldest open transaction, or ``end``."""
        if not self._open:
            return self.end
        return min(offsets[0] for offsets in self._open.values())

    def limit(self, *, committed_only: bool) -> int:
        """The offset at which a reader of this isolation level stops."""
        return self.last_stable if committed_only else self.end

    def append(
        self,
        value: bytes | None,
        *,
        key: bytes | None,
        headers: Headers,
        timestamp: int,
        transaction: int | None = None,
    ) -> int:
        """Append one record and return its offset.

        Args:
            value: The value; None is a tombstone.
            key: The key, or None.
            headers: Pairs of name and value.
            timestamp: Milliseconds since the epoch, -1 if unknown.
            transaction: Number of the transaction that writes it, or None.
        """
        offset = self.end
        self._records.append(
            MemoryRecord(self.topic, self.partition, offset, timestamp, key, value, headers)
        )
        self.end = offset + 1
        if transaction is not None:
            self._open.setdefault(transaction, []).append(offset)
        return offset

    def extend(
        self, items: Iterable[tuple[bytes | None, bytes | None]], *, timestamp: int
    ) -> range:
        """Append records without headers, given as (key, value); return their offsets."""
        first, topic, partition = self.end, self.topic, self.partition
        # A list first: an iterable that fails half way must not leave records behind.
        new = [
            MemoryRecord(topic, partition, offset, timestamp, key, value, ())
            for offset, (key, value) in enumerate(items, first)
        ]
        self._records.extend(new)
        self.end = first + len(new)
        return range(first, self.end)

    def end_transaction(self, transaction: int, *, commit: bool) -> int | None:
        """Write the marker that ends a transaction.

        Returns:
            The marker's offset, or None if the transaction wrote nothing here.
        """
        offsets = self._open.pop(transaction, None)
        if offsets is None:
            return None
        if not commit:
            self._aborted.update(offsets)
        return self.append_marker()

    def append_marker(self) -> int:
        """Take one offset that no reader ever sees (a control record); return it."""
        offset = self.end
        self.end = offset + 1
        return offset

    def read(self, position: int, max_records: int, *, committed_only: bool = False) -> Read:
        """Read from a position that lies within ``start .. end``.

        Args:
            position: The first offset wanted.
            max_records: How many records to look at; aborted ones count, so a
                read may be empty and still move the position.
            committed_only: Hide aborted records, stop at ``last_stable``.
        """
        limit = self.limit(committed_only=committed_only)
        if position >= limit:
            return Read((), position)
        records = self._records
        low = self._index(position)
        high = min(low + max_records, self._index(limit))
        found: Sequence[MemoryRecord] = records[low:high]
        # Everything below the limit was seen only if nothing was left out.
        at_limit = high == len(records) or records[high].offset >= limit
        next_offset = limit if at_limit else found[-1].offset + 1
        if self._corrupt:
            bad = min((o for o in self._corrupt if position <= o < next_offset), default=None)
            if bad is not None:
                found, next_offset = [r for r in found if r.offset < bad], bad
        if committed_only and self._aborted:
            found = [record for record in found if record.offset not in self._aborted]
        return Read(found, next_offset)

    def is_corrupt(self, offset: int) -> bool:
        """Whether reading stops at this offset for damage (see :meth:`corrupt`)."""
        return offset in self._corrupt

    def corrupt(self, offset: int) -> None:
        """Damage the record at this offset: reads stop in front of it."""
        self._corrupt.add(offset)

    def repair(self, offset: int) -> None:
        """Undo :meth:`corrupt`."""
        self._corrupt.discard(offset)

    def delete_offsets(self, offsets: Collection[int]) -> None:
        """Turn the records at these offsets into holes; no bound moves."""
        gone = frozenset(offsets)
        self._records = [record for record in self._records if record.offset not in gone]

    def compact(self) -> None:
        """Keep the last record of each key, as a compacting broker may at any time.

        Records without a key stay, and so does everything that an open
        transaction may still change (``last_stable`` and after).
        """
        stable = self.last_stable
        last = {
            record.key: record.offset
            for record in self._records
            if record.offset < stable and record.offset not in self._aborted
        }
        self._records = [
            record
            for record in self._records
            if record.offset >= stable
            or record.key is None
            or last.get(record.key) == record.offset
        ]

    def delete_before(self, offset: int) -> None:
        """Move ``start`` up to this offset (at most to ``end``); never down."""
        self.start = max(self.start, min(offset, self.end))
        del self._records[: self._index(self.start)]
        self._aborted = {o for o in self._aborted if o >= self.start}
        self._corrupt = {o for o in self._corrupt if o >= self.start}

    def truncate(self, offset: int) -> None:
        """Drop this offset and all after it, as an unclean leader election does.

        Offsets dropped are used again; a reader beyond ``end`` is out of range.
        """
        self.end = max(self.start, min(offset, self.end))
        del self._records[self._index(self.end) :]
        kept = {n: [o for o in offsets if o < self.end] for n, offsets in self._open.items()}
        self._open = {n: offsets for n, offsets in kept.items() if offsets}
        self._aborted = {o for o in self._aborted if o < self.end}
        self._corrupt = {o for o in self._corrupt if o < self.end}

    def records(self, *, committed_only: bool = False) -> list[MemoryRecord]:
        """Everything that a reader from the start would be given."""
        return list(
            self.read(self.start, len(self._records) + 1, committed_only=committed_only).records
        )

    def _index(self, offset: int) -> int:
        """Index of the first record at or after this offset."""
        records = self._records
        if not records or offset > records[-1].offset:
            return len(records)
        # Without a hole in front of it the index is the distance from the first
        # record, which spares the usual log the search.
        guess = offset - records[0].offset
        if 0 <= guess < len(records) and records[guess].offset == offset:
            return guess
        return bisect_left(records, offset, key=_by_offset)
