"""Which stream gets which record of a batch, exactly once within an assignment.

A :class:`Taker` is one stream's view of one assignment: the half-open interval
of offsets it has been given, and what it was given again below that.  Almost
always every taker continues where the batch begins, and the batch goes to all
of them as one :class:`Run`.  Only after a rewind, when a stream left records
that nobody processed, does a batch reach back behind the position; then each
owed record goes to the acknowledging takers that have not had it.  An observer
only ever goes on where it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from .ledger import Ledger

__all__ = ["Run", "Taker", "plan_runs", "rewind_to"]

S = TypeVar("S")


class Taker(Generic[S]):
    """One stream's part in one assignment.

    Attributes:
        stream: The stream, which this layer only passes on.
        bit: Its bit in the ledger, 0 for an observer.
        since: Where it began, None before that: set it to None to begin anew.
        seen: Offset after the last one that it was given.
    """

    __slots__ = ("_again", "bit", "seen", "since", "stream")

    def __init__(self, stream: S, bit: int) -> None:
        self.stream = stream
        self.bit = bit
        self.since: int | None = None
        self.seen = 0
        # Owed records of others, as half-open intervals.  They do not widen the
        # interval of its own: what lies between was never given to it.
        self._again: list[tuple[int, int]] = []

    def __repr__(self) -> str:
        return f"<Taker {self.stream!r} bit={self.bit:#x} [{self.since}, {self.seen})>"

    def begin(self, offset: int) -> None:
        """Begin at an offset, if it has not begun."""
        if self.since is None:
            self.since = self.seen = offset
            self._again = []

    def had(self, offset: int) -> bool:
        """Whether this stream was given the record already."""
        if self.since is None:
            return False
        if offset >= self.since:
            return offset < self.seen
        return any(first <= offset < end for first, end in self._again)

    def give(self, first: int, end: int) -> None:
        """Note that it was given the records from ``first`` up to ``end``."""
        self.begin(first)
        if first >= self.seen:
            self.seen = end
        else:
            self._again.append((first, end))


@dataclass(frozen=True)
class Run(Generic[S]):
    """Records ``start`` up to ``stop`` of a batch, and the streams that get them."""

    start: int
    stop: int
    takers: tuple[Taker[S], ...]

    @property
    def mask(self) -> int:
        """The bits of the takers that have to finish these records."""
        mask = 0
        for taker in self.takers:
            mask |= taker.bit
        return mask


def plan_runs(
    offsets: Sequence[int], ledger: Ledger, takers: Sequence[Taker[S]]
) -> Iterator[Run[S]]:
    """Divide a batch into runs that go to the same streams.

    Args:
        offsets: Offsets of the batch, ascending, not empty.
        ledger: The account of the partition.
        takers: The streams that take this partition now.

    Yields:
        Runs with at least one taker, in offset order.  Act on each before
        asking for the next one.
    """
    first = offsets[0]
    position = ledger.position
    if (position is None or first >= position) and all(t.seen <= first for t in takers):
        if takers:
            yield Run(0, len(offsets), tuple(takers))
        return
    if position is not None:
        # From here on an acknowledging stream gets whatever is new.
        for taker in takers:
            if taker.bit:
                taker.begin(position)
    owed = frozenset(ledger.owed())
    start = 0
    while start < len(offsets):
        chosen = _takers_of(offsets[start], position, owed, takers)
        stop = start + 1
        while stop < len(offsets) and chosen == _takers_of(offsets[stop], position, owed, takers):
            # A run lies on one side of the position: the ledger takes it so.
            if position is not None and offsets[start] < position <= offsets[stop]:
                break
            stop += 1
        if chosen:
            yield Run(start, stop, chosen)
        start = stop


def _takers_of(
    offset: int, position: int | None, owed: frozenset[int], takers: Sequence[Taker[S]]
) -> tuple[Taker[S], ...]:
    due = position is None or offset >= position or offset in owed
    return tuple(t for t in takers if (due and not t.had(offset) if t.bit else offset >= t.seen))


def rewind_to(ledger: Ledger, takers: Iterable[Taker[S]], read: int | None) -> int | None:
    """Where to read again so that no record is left without a stream.

    Args:
        ledger: The account of the partition.
        takers: The streams that take this partition now.
        read: Offset up to which the client's records were taken in, None if
            nothing was.

    Returns:
        The lowest offset that an acknowledging stream still has to get although
        it was read already; None if there is none.
    """
    acknowledging = [taker for taker in takers if taker.bit]
    if not acknowledging:
        return None
    for offset in ledger.owed():
        if any(not taker.had(offset) for taker in acknowledging):
            return offset
    # Only observers read on: the account ends before the place of reading.
    if read is not None and ledger.position is not None and ledger.position < read:
        return ledger.position
    return None
