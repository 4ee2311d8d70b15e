"""The entries of records that were delivered together.

An entry is one small integer in a row, addressed by its place in the batch.  It
is a set of bits: one for each stream that has not finished the record yet, and
two flags.  What the ends of an entry mean for the committable offset is told in
:mod:`.ledger`.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator, MutableSequence, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .ledger import Ledger

__all__ = ["FIRST_STREAM_BIT", "OWED", "CountedBatch", "DeliveredBatch", "as_offsets"]

OWED = 1
TOUCHED = 2
FIRST_STREAM_BIT = 4
"""Bits below this one are flags; stream number ``n`` owns ``FIRST_STREAM_BIT << n``."""

NOBODY = 0
"""Among those who abandoned an entry: a part of it was withdrawn, so no late
acknowledgement of theirs can finish it."""

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


class DeliveredBatch:
    """The entries of records that were delivered together.

    Attributes:
        offsets: Offsets of the records, ascending.
        left: How many entries some stream can still finish.  When it falls to
            zero the ledger is told, once.
        owed: How many entries are owed.
        rank: How many records of the assignment lie below the first one.
        delivered_at: When they were delivered, on the caller's clock.
    """

    __slots__ = (
        "_abandoned",
        "_ledger",
        "_low",
        "_row",
        "delivered_at",
        "left",
        "offsets",
        "owed",
        "rank",
    )

    def __init__(
        self, ledger: Ledger, offsets: Sequence[int], mask: int, rank: int, delivered_at: float
    ) -> None:
        self._ledger = ledger
        self._row: MutableSequence[int] | bytes = _row(mask, len(offsets))
        self._low = 0
        # Entries in hand when their stream or iterator went: index, bit, and
        # whether they may be delivered to another stream.  An owed entry that
        # is not in here, or there with NOBODY too, is owed whatever the others do.
        self._abandoned: dict[int, dict[int, bool]] | None = None
        self.offsets: Sequence[int] = offsets
        self.left: int = len(offsets)
        self.owed: int = 0
        self.rank: int = rank
        self.delivered_at: float = delivered_at

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
        if entry == bit:  # nearly always: one stream, nothing has happened
            row[index] = 0  # type: ignore[index]  # bytes only when closed: no bit set
        elif not entry & bit:
            return self._abandoned is not None and self._finish_abandoned(index, bit)
        else:
            entry ^= bit
            if entry >= FIRST_STREAM_BIT:
                row[index] = entry | TOUCHED  # type: ignore[index]
                return True
            row[index] = entry & OWED  # type: ignore[index]
        self.left = left = self.left - 1
        if not left:
            self._ledger._settle(self)
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
        if NOBODY in holders or holders.pop(bit, None) is None:
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
        if not row[index] & bit:
            self._finish_abandoned(index, bit)
            return
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
        holders = (self._abandoned or {}).get(index, {})
        return self.awaits(index, bit) or (bit in holders and NOBODY not in holders)

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
            if force and self._abandoned and index in self._abandoned:
                # Nobody's late acknowledgement makes up for this stream's part, and
                # nobody who gets it makes up for what those are still to get.
                self._abandoned[index][NOBODY] = True
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
            self._abandoned[index][NOBODY] = True
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
        else:  # withdrawn from another stream
            abandoned[index] = {NOBODY: True, bit: again}
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
        if self._low < size and row[self._low]:
            return self._low  # as when it was asked last time
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

    def waiting_for(self, bit: int) -> list[int]:
        """Indices of the entries that wait for a stream, ascending."""
        row = self._row
        return [index for index in range(self._low, len(row)) if row[index] & bit]

    def waits_for_others(self, end: int, bits: int) -> bool:
        """Whether no entry below an offset is owed, or waits for one of these streams."""
        row = self._row
        stop = bisect_left(self.offsets, end)
        return not any(row[index] & (OWED | bits) for index in range(self._low, stop))

    def owed_offsets(self) -> list[int]:
        """Offsets of the entries of which a part waits for nobody, ascending."""
        if not self.owed:
            return []
        return [
            offset for offset, entry in zip(self.offsets, self._row, strict=True) if entry & OWED
        ]

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
