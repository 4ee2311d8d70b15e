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
  were abandoned can no longer be acknowledged.  It is not delivered again while a
  stream that abandoned it is open: that one has to get it again too.
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

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

from .._types import TopicPartition
from .delivered_batch import FIRST_STREAM_BIT, CountedBatch, DeliveredBatch, as_offsets

__all__ = ["Ledger", "Snapshot"]


class Snapshot(NamedTuple):
    """What one commit carries for a partition, read at one moment.

    Attributes:
        offset: The offset to commit.
        delivered_below: How many records had been delivered below it.
    """

    offset: int
    delivered_below: int


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
        on_settled: Called when the last entry of a batch that somebody has in
            hand is finished or given up.  Set while somebody waits for that.
    """

    __slots__ = (
        "_batches",
        "_confirmed_below",
        "_delivered",
        "_on_count",
        "_pin_start",
        "_scattered",
        "_settled",
        "_start",
        "closed",
        "committed",
        "on_settled",
        "position",
        "tp",
    )

    closed: bool

    def __init__(
        self,
        tp: TopicPartition,
        *,
        on_count: Callable[[int], object] | None = None,
        pin_start: bool = False,
    ) -> None:
        self.tp: TopicPartition = tp
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
        # Batches settled since finished ones were dropped.
        self._settled = 0

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

    def deliver(self, offsets: Sequence[int], mask: int, *, at: float = 0.0) -> DeliveredBatch:
        """Enter records that were handed to streams.

        Args:
            offsets: Ascending; all at or beyond the position, or all below it
                and owed.
            mask: The bits of the streams that have to finish them.
            at: The time, for those who ask how long they are unfinished.

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
        batch = kind(self, offsets, mask, rank, at)
        self._batches.append(batch)
        self._scattered = self._scattered or again
        return batch

    def enter_again(self, batch: DeliveredBatch, index: int, bit: int) -> DeliveredBatch | None:
        """Enter a record anew for a stream that has it, or abandoned it, and wants it once more.

        The stream's part moves from the entry to one of its own, so that the
        message in hand can no longer be finished and the new one can.  Nothing
        changes for other streams.

        Returns:
            A batch of this one record; None if the stream has nothing to finish
            there, and then nothing has changed.
        """
        if not batch.can_finish(index, bit):
            return None
        kind = DeliveredBatch if self._on_count is None else CountedBatch
        offsets = as_offsets([batch.offsets[index]])
        again = kind(self, offsets, bit, batch.rank + index, batch.delivered_at)
        self._batches.append(again)
        self._scattered = True
        batch.hand_over(index, bit)
        return again

    def _take_owed(self, offsets: Sequence[int]) -> int:
        places = self._find_owed(offsets)
        for offset in offsets:
            if offset not in places:
                raise ValueError(
                    f"{self.tp}: offset {offset} was delivered already and is not owed"
                )
        first, index = places[offsets[0]][0]
        self._supersede(places)
        return first.rank + index

    def _find_owed(self, offsets: Sequence[int]) -> dict[int, list[tuple[DeliveredBatch, int]]]:
        """Where each of some offsets, ascending, is owed; in one pass over the batches."""
        wanted = offsets if isinstance(offsets, range) else frozenset(offsets)
        found: dict[int, list[tuple[DeliveredBatch, int]]] = {}
        for batch in self._batches:
            if batch.owed:
                start = bisect_left(batch.offsets, offsets[0])
                for index in range(start, bisect_right(batch.offsets, offsets[-1])):
                    offset = batch.offsets[index]
                    if offset in wanted and batch.owed_again(index):
                        found.setdefault(offset, []).append((batch, index))
        return found

    def _supersede(self, places: dict[int, list[tuple[DeliveredBatch, int]]]) -> None:
        for place in places.values():
            for batch, index in place:
                batch.supersede(index)
        self._drop_finished()

    def advance(self, next_offset: int) -> None:
        """Move the position over a hole: nothing below it is to come."""
        if not self.closed and self.position is not None and next_offset > self.position:
            self.position = next_offset

    def vanish(self, first: int, end: int, there: Iterable[int]) -> None:
        """Owe no longer what the log does not have any more.

        Whoever still has such a record in hand goes on having it; nobody else can
        get it, and waiting for it would hold the commit back for ever.

        Args:
            first: Reading came from here,
            end: and went up to here,
            there: and found these offsets.
        """
        if self.position is None or first >= self.position:
            return  # the usual case: what is owed was delivered, so it lies below
        left = frozenset(there)
        gone = [offset for offset in self.owed() if first <= offset < end and offset not in left]
        if gone:
            self._supersede(self._find_owed(gone))

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

    @property
    def start(self) -> int | None:
        """Where reading started, None before anything is known."""
        return self._start

    # -- what follows from it ------------------------------------------------

    def snapshot(self) -> Snapshot | None:
        """What a commit would carry now; None if there is nothing to commit."""
        found = self._committable()
        if found is None:
            return None
        offset, below = found
        start = None if self._pin_start else self._start
        if offset == (start if self.committed is None else self.committed):
            return None
        return Snapshot(offset, below)

    def _committable(self) -> tuple[int, int] | None:
        """The offset that may be committed, and how many were delivered below it."""
        if self.closed or self.position is None:
            return None
        if not self._scattered:
            if not self._batches:
                return self.position, self._delivered
            first = self._batches[0]
            index = first.lowest()
            assert index is not None  # finished batches are dropped at once
            return first.offsets[index], first.rank + index
        return min(
            (
                (batch.offsets[index], batch.rank + index)
                for batch in self._batches
                if (index := batch.lowest()) is not None
            ),
            default=(self.position, self._delivered),
        )

    def covers(self, end: int) -> bool:
        """Whether a commit now, or one before, has everything below an offset."""
        found = self._committable()
        return found is not None and found[0] >= end

    def waits_for_others(self, end: int, bits: int) -> bool:
        """Whether what is unfinished below an offset waits for other streams than these alone."""
        return not self.closed and all(
            batch.waits_for_others(end, bits) for batch in self._batches if batch.offsets[0] < end
        )

    @property
    def in_hand(self) -> int:
        """Entries that some stream can still finish."""
        return sum(batch.left for batch in self._batches)

    def in_hand_below(self, offset: int) -> bool:
        """Whether some stream can still finish an entry below an offset."""
        return any(batch.left and batch.offsets[0] < offset for batch in self._batches)

    def oldest_batches(self) -> list[DeliveredBatch]:
        """The batches with unfinished entries, the oldest first."""
        return sorted(
            (batch for batch in self._batches if batch.lowest() is not None),
            key=lambda batch: batch.offsets[0],
        )

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
            self._settled += 1
            # All batches have to be looked at while they overlap: not for each of
            # them, or many records that come again one by one would cost a square.
            if not self._scattered or 2 * self._settled >= len(self._batches):
                self._drop_finished()
        if self.on_settled is not None:
            self.on_settled()

    def _drop_finished(self) -> None:
        batches = self._batches
        self._settled = 0
        if self._scattered:
            kept = [batch for batch in batches if batch.left or batch.owed]
            batches.clear()
            batches.extend(kept)
            self._scattered = any(
                later.offsets[0] <= earlier.offsets[-1] for earlier, later in pairwise(kept)
            )
        else:
            while batches and not (batches[0].left or batches[0].owed):
                batches.popleft()

    def _count(self, finished: int) -> None:
        assert self._on_count is not None  # else no batch counts
        self._on_count(finished)
