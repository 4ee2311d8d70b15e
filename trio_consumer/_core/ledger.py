"""Who still owes what: the account of one assignment of one partition.

A :class:`Ledger` learns which records were *delivered* (a batch at a time) and
which were *finished*, and answers one question: which offset may be committed?
It is the lowest delivered record that is not finished, or the position if there
is none.  What was never delivered (compacted away, a transaction marker, an
aborted record) has no entry, so a hole of any size costs nothing.

An entry is one small integer in a row of a :class:`DeliveredBatch`, addressed
by its place in the batch.  It is a set of bits: one for each stream that has
not finished the record yet, and two flags.  A row of all zero is a finished
batch; finished batches drop off the front.  Because a stream can only clear
its own bit, acknowledging twice is nothing and cannot spend the reference of
another stream.

Closing the ledger zeroes every row.  A late acknowledgement for a partition
that has gone then finds its bit clear, returns False and changes nothing,
whatever offsets the next assignment reuses: no epoch has to be compared.

Four things may happen to an entry besides being finished:

* *released*: the stream closes before it handed the record out.  If other
  streams had it too, theirs is the decision; if nobody processed it, it is
  *owed*.
* *abandoned*: the stream closes (or its iterator is gone) with the record in
  hand.  Nobody is waited for any more and the record is owed, but whoever still
  holds the message may acknowledge it, until it is delivered again.
* *withdrawn*: the partition goes away, or the stream fails, before the record
  was handed out.  It is owed, whatever other streams do, and messages of it that
  were abandoned can no longer be acknowledged.
* *forfeited*: the same for a record in hand, or abandoned, whose time is over.

An owed record is unfinished: it holds the committable offset back until it is
delivered again (:meth:`Ledger.deliver` accepts exactly the owed records a
second time) or the assignment ends.  Streams that still have it keep their part
in the first entry; the record is finished once all of its entries are.  In the
same way a stream that has a record in hand may have it entered once more
(:meth:`Ledger.enter_again`).

The ledger holds offsets, never records: keeping records alive until their
commit costs a fifth of the throughput in garbage collection alone.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterator, MutableSequence, Sequence
from itertools import pairwise
from typing import NamedTuple

from .._types import TopicPartition

__all__ = ["FIRST_STREAM_BIT", "DeliveredBatch", "Ledger", "Snapshot", "as_offsets"]

OWED = 1
TOUCHED = 2
FIRST_STREAM_BIT = 4
"""Bits below this one are flags; stream number ``n`` owns ``FIRST_STREAM_BIT << n``."""

# The narrowest row that holds the highest bit: 6, 14, 30 and 62 streams; a list
# of unbounded integers takes any number more.
_ROW_TYPES = ((1 << 16, "H"), (1 << 32, "I"), (1 << 64, "Q"))


def as_offsets(offsets: Sequence[int]) -> Sequence[int]:
    """Store ascending offsets as a range if they have no hole, else packed."""
    if offsets[-1] - offsets[0] + 1 == len(offsets):
        return range(offsets[0], offsets[-1] + 1)
    return array("q", offsets)


def _row(mask: int, length: int) -> MutableSequence[int]:
    if mask < 256:
        return bytearray((mask,)) * length
    for limit, code in _ROW_TYPES:
        if mask < limit:
            return array(code, (mask,)) * length
    return [mask] * length


class Snapshot(NamedTuple):
    """What one commit carries for a partition, read at one moment.

    Attributes:
        offset: The offset to commit.
        delivered_below: How many records had been delivered below it.
    """

    offset: int
    delivered_below: int


class DeliveredBatch:
    """The entries of records that were delivered together.

    Attributes:
        offsets: Offsets of the records, ascending.
        left: How many entries some stream can still finish.  When it falls to
            zero the ledger is told, once.
        owed: How many entries are owed.
        rank: How many records of the assignment lie below the first one.
    """

    __slots__ = ("_abandoned", "_ledger", "_low", "_row", "left", "offsets", "owed", "rank")

    def __init__(self, ledger: Ledger, offsets: Sequence[int], mask: int, rank: int) -> None:
        self._ledger = ledger
        self._row: MutableSequence[int] | bytes = _row(mask, len(offsets))
        self._low = 0
        # Entries in hand when their stream or iterator went: index, bit, and
        # whether they may be delivered to another stream.  An owed entry that
        # is not in here is owed whatever the others do.
        self._abandoned: dict[int, dict[int, bool]] | None = None
        self.offsets = offsets
        self.left = len(offsets)
        self.owed = 0
        self.rank = rank

    def __repr__(self) -> str:
        return (
            f"<DeliveredBatch {self._ledger.tp} {self.offsets[0]}..{self.offsets[-1]}"
            f" left={self.left} owed={self.owed}>"
        )

    def __len__(self) -> int:
        return len(self.offsets)

    def finish(self, index: int, bit: int) -> bool:
        """Clear a stream's bit of one entry; True only the first time."""
        row = self._row
        entry = row[index]
        if not entry & bit:
            return self._abandoned is not None and self._finish_abandoned(index, bit)
        entry ^= bit
        if entry < FIRST_STREAM_BIT:
            row[index] = entry & OWED  # type: ignore[index]  # bytes only when closed: no bit set
            self.left = left = self.left - 1
            if not left:
                self._ledger._settle(self)
        else:
            row[index] = entry | TOUCHED  # type: ignore[index]
        return True

    def finish_range(self, start: int, stop: int, bit: int) -> int:
        """Finish the entries from ``start`` up to ``stop``; how many were new."""
        row = self._row
        count = stop - start
        if type(row) is bytearray and bit < 256 and row.count(bit, start, stop) == count:
            self._finish_even(start, stop)
            return count
        return sum(self.finish(index, bit) for index in range(start, stop))

    def _finish_even(self, start: int, stop: int) -> None:
        count = stop - start
        self._row[start:stop] = bytes(count)  # type: ignore[index]
        self.left = left = self.left - count
        if count and not left:
            self._ledger._settle(self)

    def _finish_abandoned(self, index: int, bit: int) -> bool:
        abandoned = self._abandoned
        assert abandoned is not None  # finish() looked
        holders = abandoned.get(index, {})
        if holders.pop(bit, None) is None:
            return False
        entry = self._row[index]
        if entry >= FIRST_STREAM_BIT:
            entry |= TOUCHED
        if not holders:
            del abandoned[index]
            entry &= ~OWED
            self.owed -= 1
        self._row[index] = entry  # type: ignore[index]
        if not self.left:
            self._ledger._settle(self)
        return True

    def hand_over(self, index: int, bit: int) -> None:
        """Take a stream's part out of an entry, because a new entry has it.

        The new one has to be there before, or the record would look finished.
        """
        row = self._row
        entry = row[index] ^ bit
        if entry < FIRST_STREAM_BIT:
            row[index] = entry & OWED  # type: ignore[index]
            self.left -= 1
            if not self.left:
                self._ledger._settle(self)
        else:
            row[index] = entry | TOUCHED  # type: ignore[index]  # the new entry decides

    def awaits(self, index: int, bit: int) -> bool:
        """Whether an entry waits for a stream."""
        return bool(self._row[index] & bit)

    def can_finish(self, index: int, bit: int) -> bool:
        """Whether an acknowledgement by a stream would count."""
        abandoned = self._abandoned or {}
        return self.awaits(index, bit) or bit in abandoned.get(index, {})

    def release(self, start: int, stop: int, bit: int) -> None:
        """Give back entries that a closing stream never handed out."""
        self._give_back(start, stop, bit, force=False)

    def withdraw(self, start: int, stop: int, bit: int) -> None:
        """Give back entries never handed out that some stream still has to get."""
        self._give_back(start, stop, bit, force=True)

    def _give_back(self, start: int, stop: int, bit: int, *, force: bool) -> None:
        row = self._row
        changed = False
        for index in range(start, stop):
            entry = row[index]
            if not entry & bit:
                continue
            changed = True
            entry ^= bit
            if force and self._abandoned:
                # Nobody's late acknowledgement makes up for this stream's part.
                self._abandoned.pop(index, None)
            last = entry < FIRST_STREAM_BIT
            if not entry & OWED and (force or (last and not entry & TOUCHED)):
                entry |= OWED
                self.owed += 1
            if last:
                entry &= OWED
                self.left -= 1
            row[index] = entry  # type: ignore[index]
        if changed and not self.left:
            self._ledger._settle(self)

    def forfeit(self, index: int, bit: int) -> None:
        """Owe an entry that a stream has in hand, or abandoned: it cannot finish it any more."""
        if self._abandoned and bit in self._abandoned.get(index, {}):
            del self._abandoned[index]
        self.withdraw(index, index + 1, bit)

    def abandon(self, index: int, bit: int, *, again: bool) -> None:
        """Wait no longer for an entry in hand.

        Args:
            index: The entry.
            bit: The stream that had it in hand.
            again: Whether another stream may get the record.
        """
        row = self._row
        entry = row[index]
        abandoned = self._abandoned = self._abandoned or {}
        holders = abandoned.get(index, {})
        if bit in holders:
            holders[bit] |= again
            return
        if not entry & bit:
            return
        entry ^= bit
        if not entry & OWED:
            entry |= OWED
            self.owed += 1
            abandoned[index] = {bit: again}
        elif holders:
            holders[bit] = again
        if entry < FIRST_STREAM_BIT:
            entry &= OWED
            self.left -= 1
        row[index] = entry  # type: ignore[index]
        if not self.left:
            self._ledger._settle(self)

    def abandon_all(self, bit: int) -> None:
        """Abandon every entry that the closing stream still has in hand."""
        for holders in (self._abandoned or {}).values():
            if bit in holders:
                holders[bit] = True
        for index in range(self._low, len(self._row)):
            if self._row[index] & bit:
                self.abandon(index, bit, again=True)

    def lowest(self) -> int | None:
        """Index of the lowest unfinished entry, or None."""
        row = self._row
        size = len(row)
        if isinstance(row, bytearray):
            self._low = size - len(row[self._low :].lstrip(b"\0"))
        else:
            low = self._low
            while low < size and not row[low]:
                low += 1
            self._low = low
        return self._low if self._low < size else None

    def owed_again(self, index: int) -> bool:
        """Whether an entry is owed, and another stream may get the record."""
        if not self._row[index] & OWED:
            return False
        return self._abandoned is None or all(self._abandoned.get(index, {}).values())

    def supersede(self, index: int) -> None:
        """Owe an entry no longer: the record is delivered again under a new one.

        Whoever abandoned it can no longer acknowledge it: somebody else has the
        message now.  Streams that still have it keep their bits.
        """
        if self._abandoned:
            self._abandoned.pop(index, None)
        entry = self._row[index] & ~OWED
        if entry:
            entry |= TOUCHED  # the new entry decides what happens to the record
        self._row[index] = entry  # type: ignore[index]
        self.owed -= 1

    def unfinished(self) -> Iterator[int]:
        """Offsets of the unfinished entries, ascending."""
        row = self._row
        return (self.offsets[i] for i in range(self._low, len(row)) if row[i])

    def count_unfinished(self) -> int:
        """Number of unfinished entries."""
        row = self._row
        if isinstance(row, (bytearray, bytes)):
            return len(row) - row.count(0)
        return sum(1 for entry in row if entry)

    def void(self) -> None:
        """Zero the row: no acknowledgement can find a bit any more."""
        self._row = bytes(len(self._row))
        self._abandoned = None
        self._low = len(self._row)
        self.left = 0
        self.owed = 0


class CountedBatch(DeliveredBatch):
    """A batch that reports each finished record, for ``commit_every``."""

    __slots__ = ()

    def finish(self, index: int, bit: int) -> bool:
        """As the base class; tells the ledger's counter."""
        done = super().finish(index, bit)
        if done:
            self._ledger._count(1)
        return done

    def _finish_even(self, start: int, stop: int) -> None:
        super()._finish_even(start, stop)
        self._ledger._count(stop - start)


class Ledger:
    """The account of one assignment of one partition.

    Args:
        on_count: Told the number of acknowledgements, if anybody counts them.
        pin_start: Commit the place where reading starts too.  Where a reset to
            the end of the log chose it, what is produced between two
            assignments would otherwise be skipped.

    Attributes:
        tp: The partition.
        position: Offset after the last delivered record (or the hole behind
            it); None until anything is known.
        committed: The offset that the broker has confirmed within this
            assignment, or None.
        closed: True once the assignment has ended.
        on_settled: Called when the last entry that somebody has in hand is
            finished or given up.  Set while a drain waits.
    """

    __slots__ = (
        "_batches",
        "_confirmed_below",
        "_delivered",
        "_on_count",
        "_pin_start",
        "_scattered",
        "_start",
        "closed",
        "committed",
        "on_settled",
        "position",
        "tp",
    )

    def __init__(
        self,
        tp: TopicPartition,
        *,
        on_count: Callable[[int], object] | None = None,
        pin_start: bool = False,
    ) -> None:
        self.tp = tp
        self._pin_start = pin_start
        self.position: int | None = None
        self.committed: int | None = None
        self.closed = False
        self.on_settled: Callable[[], object] | None = None
        self._on_count = on_count
        self._start: int | None = None
        self._batches: deque[DeliveredBatch] = deque()
        self._delivered = 0
        self._confirmed_below = 0
        # True while the batches overlap because owed records came again: only
        # then is the lowest entry not in the first batch.
        self._scattered = False

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open"
        return (
            f"<Ledger {self.tp} {state} position={self.position} committed={self.committed}"
            f" unfinished={self.unfinished_count}>"
        )

    # -- what happened -------------------------------------------------------

    def begin(self, offset: int) -> None:
        """Say where reading starts; a second call changes nothing."""
        if self._start is None:
            self._start = offset
            self.position = offset

    def deliver(self, offsets: Sequence[int], mask: int) -> DeliveredBatch:
        """Enter records that were handed to streams.

        Args:
            offsets: Ascending; all at or beyond the position, or all below it
                and owed.
            mask: The bits of the streams that have to finish them.

        Raises:
            ValueError: The ledger is closed, there are no offsets, the mask has
                no stream, or an offset below the position is not owed.
                Nothing has changed.
        """
        if self.closed:
            raise ValueError(f"{self.tp}: deliver after the assignment ended")
        if mask < FIRST_STREAM_BIT or mask & (FIRST_STREAM_BIT - 1):
            raise ValueError(f"{self.tp}: no stream has to finish these records: {mask:#x}")
        if not offsets:
            raise ValueError(f"{self.tp}: deliver without a record")
        offsets = as_offsets(offsets)
        self.begin(offsets[0])
        position = self.position
        assert position is not None
        again = offsets[0] < position
        if again:
            rank = self._take_owed(offsets)
        else:
            rank = self._delivered
            self._delivered += len(offsets)
            self.position = offsets[-1] + 1
        kind = DeliveredBatch if self._on_count is None else CountedBatch
        batch = kind(self, offsets, mask, rank)
        self._batches.append(batch)
        self._scattered = self._scattered or again
        return batch

    def enter_again(self, batch: DeliveredBatch, index: int, bit: int) -> DeliveredBatch | None:
        """Enter a record anew for a stream that has it and wants it once more.

        The stream's part moves from the entry to one of its own, so that the
        message in hand can no longer be finished and the new one can.  Nothing
        changes for other streams.

        Returns:
            A batch of this one record; None if the stream has nothing to finish
            there, and then nothing has changed.
        """
        if not batch.awaits(index, bit):
            return None
        kind = DeliveredBatch if self._on_count is None else CountedBatch
        again = kind(self, as_offsets([batch.offsets[index]]), bit, batch.rank + index)
        self._batches.append(again)
        self._scattered = True
        batch.hand_over(index, bit)
        return again

    def _take_owed(self, offsets: Sequence[int]) -> int:
        places = [self._find_owed(offset) for offset in offsets]
        if not all(places):
            missing = offsets[places.index([])]
            raise ValueError(f"{self.tp}: offset {missing} was delivered already and is not owed")
        first, index = places[0][0]
        for place in places:
            for batch, at in place:
                batch.supersede(at)
        self._drop_finished()
        return first.rank + index

    def _find_owed(self, offset: int) -> list[tuple[DeliveredBatch, int]]:
        found = []
        for batch in self._batches:
            if batch.owed and batch.offsets[0] <= offset <= batch.offsets[-1]:
                index = bisect_left(batch.offsets, offset)
                if batch.offsets[index] == offset and batch.owed_again(index):
                    found.append((batch, index))
        return found

    def advance(self, next_offset: int) -> None:
        """Move the position over a hole: nothing below it is to come."""
        if not self.closed and self.position is not None and next_offset > self.position:
            self.position = next_offset

    def close_stream(self, bit: int) -> None:
        """Abandon what a stream has in hand.  Release the rest before."""
        for batch in list(self._batches):
            batch.abandon_all(bit)

    def confirm(self, snapshot: Snapshot) -> None:
        """The broker has the offset of this snapshot."""
        if self.closed:
            return
        self.committed = snapshot.offset
        self._confirmed_below = snapshot.delivered_below

    def close(self) -> None:
        """End the assignment: nothing can be finished any more."""
        self.closed = True
        for batch in self._batches:
            batch.void()
        self._batches.clear()
        self.on_settled = None

    # -- what follows from it ------------------------------------------------

    def snapshot(self) -> Snapshot | None:
        """What a commit would carry now; None if there is nothing to commit."""
        if self.closed or self.position is None:
            return None
        if not self._scattered:
            if not self._batches:
                offset, below = self.position, self._delivered
            else:
                first = self._batches[0]
                index = first.lowest()
                assert index is not None  # finished batches are dropped at once
                offset = first.offsets[index]
                below = first.rank + index
        else:
            offset, below = min(
                (
                    (batch.offsets[index], batch.rank + index)
                    for batch in self._batches
                    if (index := batch.lowest()) is not None
                ),
                default=(self.position, self._delivered),
            )
        start = None if self._pin_start else self._start
        if offset == (start if self.committed is None else self.committed):
            return None
        return Snapshot(offset, below)

    @property
    def in_hand(self) -> int:
        """Entries that some stream can still finish."""
        return sum(batch.left for batch in self._batches)

    @property
    def unfinished_count(self) -> int:
        """Number of delivered records that are not finished."""
        if self._scattered:
            return len(self.unfinished())
        return sum(batch.count_unfinished() for batch in self._batches)

    @property
    def oldest_unfinished(self) -> int | None:
        """The lowest delivered offset that is not finished, or None."""
        return min(
            (b.offsets[i] for b in self._batches if (i := b.lowest()) is not None), default=None
        )

    @property
    def replay(self) -> int:
        """Records that would be delivered again if this process died now.

        An upper bound after owed records came again: then it may count some
        that lie below the committed offset.
        """
        return self._delivered - self._confirmed_below

    def unfinished(self) -> list[int]:
        """Every unfinished offset, ascending."""
        return sorted({offset for batch in self._batches for offset in batch.unfinished()})

    def owed(self) -> list[int]:
        """Offsets of which a part is owed that another stream may get, ascending."""
        return sorted(
            {
                offset
                for batch in self._batches
                if batch.owed
                for index, offset in enumerate(batch.offsets)
                if batch.owed_again(index)
            }
        )

    # -- for the batches -----------------------------------------------------

    def _settle(self, batch: DeliveredBatch) -> None:
        if not batch.owed:
            self._drop_finished()
        if self.on_settled is not None and not self.in_hand:
            self.on_settled()

    def _drop_finished(self) -> None:
        batches = self._batches
        if self._scattered:
            kept = [batch for batch in batches if batch.left or batch.owed]
            batches.clear()
            batches.extend(kept)
            self._scattered = any(
                later.offsets[0] < earlier.offsets[-1] for earlier, later in pairwise(kept)
            )
        else:
            while batches and not (batches[0].left or batches[0].owed):
                batches.popleft()

    def _count(self, finished: int) -> None:
        assert self._on_count is not None  # else no batch counts
        self._on_count(finished)
