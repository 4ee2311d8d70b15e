"""The ledger against a brute-force model, and its rules one at a time."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from trio_consumer._core.ledger import (
    FIRST_STREAM_BIT,
    DeliveredBatch,
    Ledger,
    Snapshot,
    as_offsets,
)
from trio_consumer._types import TopicPartition

from .strategies import (
    HUGE_GAP,
    STREAM_COUNTS,
    leads,
    many_picks,
    picks,
    starts,
    steps,
    stream_counts,
)

TP = TopicPartition("orders", 3)
A, B, C, D = (FIRST_STREAM_BIT << n for n in range(4))


def bit_of(stream: int) -> int:
    """The bit of a stream by its number."""
    return FIRST_STREAM_BIT << stream


def mask_of(streams: Sequence[int] | set[int]) -> int:
    """The bits of several streams."""
    return sum(bit_of(stream) for stream in set(streams))


def observe(ledger: Ledger) -> tuple[object, ...]:
    """Everything that can be seen of a ledger."""
    return (
        ledger.position,
        ledger.committed,
        ledger.closed,
        ledger.snapshot(),
        ledger.in_hand,
        ledger.unfinished_count,
        ledger.unfinished(),
        ledger.oldest_unfinished,
        ledger.owed(),
        ledger.replay,
        repr(ledger),
    )


# -- the model ---------------------------------------------------------------------


@dataclass(eq=False)
class Entry:
    """One delivery of one record, as a set of stream names and nothing clever."""

    offset: int
    awaited: set[int]
    processed: bool = False
    lost_for_good: bool = False
    """Withdrawn from a stream, or given back by all of them."""
    left_behind: dict[int, bool] = field(default_factory=dict)
    """Abandoned by these, and whether another stream may get the record."""
    dead: bool = False

    @property
    def unfinished(self) -> bool:
        return bool(self.awaited or self.left_behind or self.lost_for_good)

    @property
    def free(self) -> bool:
        return (self.lost_for_good or bool(self.left_behind)) and all(self.left_behind.values())

    def supersede(self) -> None:
        """Another entry has the record now; who is awaited stays awaited."""
        self.left_behind.clear()
        self.lost_for_good = False
        self.processed = True

    def finish(self, stream: int) -> bool:
        if stream in self.awaited:
            self.awaited.remove(stream)
        elif stream in self.left_behind:
            del self.left_behind[stream]
        else:
            return False
        self.processed = True
        return True

    def release(self, stream: int) -> None:
        if stream in self.awaited:
            self.awaited.remove(stream)
            if not self.awaited and not self.processed and not self.left_behind:
                self.lost_for_good = True

    def withdraw(self, stream: int) -> None:
        if stream in self.awaited:
            self.awaited.remove(stream)
            self.left_behind.clear()
            self.lost_for_good = True

    def forfeit(self, stream: int) -> None:
        if stream in self.left_behind:
            self.left_behind.clear()
            self.lost_for_good = True
        self.withdraw(stream)

    def abandon(self, stream: int, *, again: bool) -> None:
        if stream in self.left_behind:
            self.left_behind[stream] |= again
        elif stream in self.awaited:
            self.awaited.remove(stream)
            if not self.lost_for_good:
                self.left_behind[stream] = again

    def kill(self) -> None:
        self.awaited.clear()
        self.left_behind.clear()
        self.lost_for_good = False
        self.dead = True


class Account:
    """What a ledger ought to say, computed from scratch each time."""

    def __init__(self) -> None:
        self.start: int | None = None
        self.position: int | None = None
        self.committed: int | None = None
        self.entries: dict[int, list[Entry]] = {}
        self.redelivered = False
        self.last_committable: int | None = None

    @property
    def all_entries(self) -> list[Entry]:
        return [entry for entries in self.entries.values() for entry in entries]

    @property
    def unfinished(self) -> list[int]:
        return sorted({entry.offset for entry in self.all_entries if entry.unfinished})

    @property
    def committable(self) -> int | None:
        return min(self.unfinished, default=self.position)

    @property
    def free(self) -> list[int]:
        return sorted({entry.offset for entry in self.all_entries if entry.free})

    @property
    def in_hand(self) -> int:
        return sum(1 for entry in self.all_entries if entry.awaited)

    @property
    def replay(self) -> int:
        return sum(1 for o in self.entries if self.committed is None or o >= self.committed)


@dataclass
class Delivery:
    """A batch of the ledger beside the model's entries of it."""

    batch: DeliveredBatch
    entries: list[Entry]
    account: Account


class LedgerMachine(RuleBasedStateMachine):
    """Any sequence of deliveries, ends of messages, commits and assignments."""

    @initialize(count=stream_counts, counted=st.booleans(), start=starts, pinned=st.booleans())
    def prepare(self, count: int, counted: bool, start: int, pinned: bool) -> None:
        self.streams = count
        self.counted = counted
        self.acks = 0
        self.reported = 0
        self.settled = 0
        self.pinned = pinned
        self.deliveries: list[Delivery] = []
        self.in_flight: list[Snapshot] = []
        self.old: list[tuple[Ledger, tuple[object, ...]]] = []
        self.new_ledger(start)

    def new_ledger(self, start: int) -> None:
        self.ledger = Ledger(
            TP, on_count=self.on_count if self.counted else None, pin_start=self.pinned
        )
        self.ledger.on_settled = self.on_settled
        self.account = Account()
        self.next_start = start

    def on_count(self, count: int) -> None:
        self.reported += count

    def on_settled(self) -> None:
        assert self.ledger.in_hand == 0
        self.settled += 1

    def some(self, numbers: list[int], everyone: bool) -> set[int]:
        if everyone:
            return set(range(self.streams))
        return {number % self.streams for number in numbers}

    # -- what happens

    @precondition(lambda self: self.account.start is None)
    @rule()
    def begin(self) -> None:
        self.ledger.begin(self.next_start)
        self.ledger.begin(self.next_start + 5)
        self.account.start = self.account.position = self.next_start

    @rule(lead=leads, distances=steps, streams=many_picks, everyone=st.booleans())
    def deliver(self, lead: int, distances: list[int], streams: list[int], everyone: bool) -> None:
        account = self.account
        first = (self.next_start if account.position is None else account.position) + lead
        offsets = [first]
        for distance in distances:
            offsets.append(offsets[-1] + distance)
        self.enter(offsets, self.some(streams, everyone))
        if account.start is None:
            account.start = first
        account.position = offsets[-1] + 1

    def enter(self, offsets: list[int], streams: set[int]) -> Delivery:
        batch = self.ledger.deliver(offsets, mask_of(streams))
        assert list(batch.offsets) == offsets
        assert len(batch) == len(offsets)
        delivery = Delivery(batch, [Entry(o, set(streams)) for o in offsets], self.account)
        for entry in delivery.entries:
            self.account.entries.setdefault(entry.offset, []).append(entry)
        self.deliveries.append(delivery)
        return delivery

    @precondition(lambda self: self.account.free)
    @rule(chosen=many_picks, everything=st.booleans(), streams=many_picks)
    def redeliver(self, chosen: list[int], everything: bool, streams: list[int]) -> None:
        free = self.account.free
        offsets = free if everything else sorted({free[pick % len(free)] for pick in chosen})
        for offset in offsets:
            for entry in self.account.entries[offset]:
                if entry.free:
                    entry.supersede()
        self.account.redelivered = True
        self.enter(offsets, self.some(streams, False))

    @precondition(lambda self: self.account.position is not None)
    @rule(pick=picks, with_free=st.booleans())
    def deliver_what_is_not_owed(self, pick: int, with_free: bool) -> None:
        account = self.account
        assert account.position is not None
        known = [o for o in {*account.entries, account.position - 1} if o not in account.free]
        if not known:
            return
        offsets = {sorted(known)[pick % len(known)]}
        if with_free:
            offsets.update(account.free)
        before = observe(self.ledger)
        with pytest.raises(ValueError, match=r"was delivered already and is not owed$"):
            self.ledger.deliver(sorted(offsets), A)
        assert observe(self.ledger) == before

    @precondition(lambda self: self.deliveries)
    @rule(pick=picks, index=picks, stream=picks)
    def finish(self, pick: int, index: int, stream: int) -> None:
        delivery = self.deliveries[pick % len(self.deliveries)]
        index %= len(delivery.entries)
        stream %= self.streams
        expected = delivery.entries[index].finish(stream)
        self.acks += expected
        assert delivery.batch.finish(index, bit_of(stream)) is expected
        # I4: once more is nothing.
        before = observe(self.ledger)
        assert delivery.batch.finish(index, bit_of(stream)) is False
        assert observe(self.ledger) == before

    @precondition(lambda self: self.deliveries)
    @rule(pick=picks, start=picks, stop=picks, stream=picks, whole=st.booleans())
    def finish_range(self, pick: int, start: int, stop: int, stream: int, whole: bool) -> None:
        delivery, start, stop, stream = self.span(pick, start, stop, stream, whole)
        expected = sum(entry.finish(stream) for entry in delivery.entries[start:stop])
        self.acks += expected
        assert delivery.batch.finish_range(start, stop, bit_of(stream)) == expected
        assert delivery.batch.finish_range(start, stop, bit_of(stream)) == 0

    def span(
        self, pick: int, start: int, stop: int, stream: int, whole: bool
    ) -> tuple[Delivery, int, int, int]:
        delivery = self.deliveries[pick % len(self.deliveries)]
        size = len(delivery.entries)
        if whole:
            return delivery, 0, size, stream % self.streams
        start, stop = sorted((start % (size + 1), stop % (size + 1)))
        return delivery, start, stop, stream % self.streams

    @precondition(lambda self: self.deliveries)
    @rule(pick=picks, start=picks, stop=picks, stream=picks, whole=st.booleans())
    def release(self, pick: int, start: int, stop: int, stream: int, whole: bool) -> None:
        delivery, start, stop, stream = self.span(pick, start, stop, stream, whole)
        for entry in delivery.entries[start:stop]:
            entry.release(stream)
        delivery.batch.release(start, stop, bit_of(stream))

    @precondition(lambda self: self.deliveries)
    @rule(pick=picks, start=picks, stop=picks, stream=picks, whole=st.booleans())
    def withdraw(self, pick: int, start: int, stop: int, stream: int, whole: bool) -> None:
        delivery, start, stop, stream = self.span(pick, start, stop, stream, whole)
        for entry in delivery.entries[start:stop]:
            entry.withdraw(stream)
        delivery.batch.withdraw(start, stop, bit_of(stream))

    @precondition(lambda self: self.deliveries)
    @rule(pick=picks, index=picks, stream=picks)
    def forfeit(self, pick: int, index: int, stream: int) -> None:
        delivery = self.deliveries[pick % len(self.deliveries)]
        index %= len(delivery.entries)
        stream %= self.streams
        delivery.entries[index].forfeit(stream)
        delivery.batch.forfeit(index, bit_of(stream))

    @precondition(lambda self: self.deliveries)
    @rule(pick=picks, index=picks, stream=picks, again=st.booleans())
    def abandon(self, pick: int, index: int, stream: int, again: bool) -> None:
        delivery = self.deliveries[pick % len(self.deliveries)]
        index %= len(delivery.entries)
        stream %= self.streams
        delivery.entries[index].abandon(stream, again=again)
        delivery.batch.abandon(index, bit_of(stream), again=again)

    @rule(stream=picks)
    def close_stream(self, stream: int) -> None:
        stream %= self.streams
        for entry in self.account.all_entries:
            entry.abandon(stream, again=True)
        self.ledger.close_stream(bit_of(stream))

    @rule(by=st.integers(-3, 3) | st.just(HUGE_GAP))
    def advance(self, by: int) -> None:
        position = self.account.position
        if position is None:
            self.ledger.advance(self.next_start + by)
        else:
            self.ledger.advance(position + by)
            self.account.position = max(position, position + by)

    # -- commits

    @rule()
    def send_commit(self) -> None:
        snapshot = self.ledger.snapshot()
        if snapshot is not None:
            self.in_flight.append(snapshot)

    @precondition(lambda self: self.in_flight)
    @rule(pick=picks)
    def confirm_commit(self, pick: int) -> None:
        """The answers come in the order of the commits; those in between failed."""
        pick %= len(self.in_flight)
        snapshot = self.in_flight[pick]
        del self.in_flight[: pick + 1]
        self.ledger.confirm(snapshot)
        self.account.committed = snapshot.offset

    # -- assignments

    @rule(start=starts, pick=picks, overlapping=st.booleans())
    def end_assignment(self, start: int, pick: int, overlapping: bool) -> None:
        """A rebalance or a seek: a new ledger, often over the same offsets."""
        snapshot = self.ledger.snapshot()
        settled = self.settled
        self.ledger.close()
        assert self.settled == settled
        for entry in self.account.all_entries:
            entry.kill()
        position = self.ledger.position
        self.ledger.advance(start + HUGE_GAP)
        if snapshot is not None:
            self.ledger.confirm(snapshot)
        assert self.ledger.position == position
        with pytest.raises(ValueError, match=r"deliver after the assignment ended$"):
            self.ledger.deliver([start], A)
        self.old.append((self.ledger, observe(self.ledger)))
        self.in_flight.clear()
        offsets = sorted(self.account.entries)
        if overlapping and offsets:
            start = offsets[pick % len(offsets)]
        self.new_ledger(start)

    # -- what has to hold

    @invariant()
    def it_agrees_with_the_model(self) -> None:
        ledger, account = self.ledger, self.account
        unfinished = account.unfinished
        assert ledger.unfinished() == unfinished
        assert ledger.unfinished_count == len(unfinished)
        assert ledger.oldest_unfinished == (unfinished[0] if unfinished else None)
        assert ledger.owed() == account.free
        assert ledger.in_hand == account.in_hand
        assert ledger.position == account.position
        assert ledger.committed == account.committed
        if account.redelivered:
            # Ranks of records that came again are lower bounds if not all of a
            # stretch came again, so this is an upper bound.
            assert account.replay <= ledger.replay <= len(account.entries)
        else:
            assert ledger.replay == account.replay
        assert self.reported == (self.acks if self.counted else 0)

    @invariant()
    def the_committable_offset_is_right(self) -> None:
        account = self.account
        snapshot = self.ledger.snapshot()
        assert self.ledger.snapshot() == snapshot
        committable = account.committable
        known = account.committed
        if known is None and not self.pinned:
            known = account.start
        if committable is None or committable == known:
            assert snapshot is None
        else:
            assert snapshot is not None
            assert snapshot.offset == committable
            for offset in account.unfinished:  # I1
                assert snapshot.offset <= offset
        if account.last_committable is not None:  # I2
            assert committable is not None
            assert committable >= account.last_committable
        account.last_committable = committable

    @invariant()
    def closed_ledgers_stay_as_they_were(self) -> None:
        for ledger, seen in self.old:
            assert observe(ledger) == seen
            assert ledger.snapshot() is None
            assert ledger.in_hand == ledger.unfinished_count == 0

    @invariant()
    def settling_is_told(self) -> None:
        now = self.account.in_hand
        before = getattr(self, "in_hand_before", (None, 0, 0))
        if before[0] is self.ledger and before[1] and not now:
            assert self.settled > before[2]
        if now:
            assert self.settled == before[2] or before[0] is not self.ledger
        self.in_hand_before = (self.ledger, now, self.settled)

    def teardown(self) -> None:
        """I3: once all is finished, one commit reaches the position."""
        if not hasattr(self, "ledger"):
            return
        for delivery in self.deliveries:
            if delivery.account is self.account:
                for stream in range(self.streams):
                    delivery.batch.finish_range(0, len(delivery.entries), bit_of(stream))
                    for entry in delivery.entries:
                        entry.finish(stream)
        owed = self.ledger.owed()
        assert owed == self.account.free == self.account.unfinished
        if owed:
            batch = self.ledger.deliver(owed, bit_of(69))
            assert batch.finish_range(0, len(owed), bit_of(69)) == len(owed)
        assert self.ledger.unfinished() == []
        snapshot = self.ledger.snapshot()
        if snapshot is not None:
            assert snapshot.offset == self.ledger.position
            self.ledger.confirm(snapshot)
        assert self.ledger.snapshot() is None
        if self.ledger.committed is not None:
            assert self.ledger.committed == self.ledger.position
            assert self.ledger.replay == 0


TestLedgerMachine = LedgerMachine.TestCase


# -- one rule at a time --------------------------------------------------------------


@pytest.fixture
def ledger() -> Ledger:
    """A ledger that has seen nothing."""
    return Ledger(TP)


def test_ledger_knows_nothing_at_first(ledger: Ledger) -> None:
    """Before anything is read there is neither a position nor anything to commit."""
    assert ledger.position is None
    assert ledger.snapshot() is None
    assert ledger.oldest_unfinished is None
    assert ledger.replay == 0
    ledger.advance(5)
    assert ledger.position is None


def test_ledger_treats_offset_zero_as_an_offset(ledger: Ledger) -> None:
    """Offset 0 is an offset: it is held back by itself and followed by 1."""
    batch = ledger.deliver([0], A)
    assert ledger.position == 1
    assert ledger.snapshot() is None
    assert ledger.oldest_unfinished == 0
    assert batch.finish(0, A)
    assert ledger.snapshot() == Snapshot(1, 1)
    ledger.confirm(Snapshot(1, 1))
    assert ledger.committed == 1
    assert ledger.snapshot() is None


def test_ledger_has_nothing_to_commit_where_reading_started(ledger: Ledger) -> None:
    """The place where reading starts is committed already, 0 as well."""
    ledger.begin(0)
    assert ledger.position == 0
    assert ledger.snapshot() is None
    ledger.deliver([0, 1], A)
    assert ledger.snapshot() is None


def test_ledger_commits_a_pinned_start_once() -> None:
    """A start that nobody has committed yet is committed without any record."""
    ledger = Ledger(TP, pin_start=True)
    assert ledger.snapshot() is None
    ledger.begin(0)
    assert ledger.snapshot() == Snapshot(0, 0)
    ledger.confirm(Snapshot(0, 0))
    assert ledger.committed == 0
    assert ledger.snapshot() is None


def test_ledger_never_passes_an_unfinished_record(ledger: Ledger) -> None:
    """Finishing out of order moves the committable offset only over a full stretch."""
    first, second = ledger.deliver([4, 5, 6], A), ledger.deliver([7, 8], A)
    for batch, index, committable in [
        (second, 0, None),
        (first, 1, None),
        (first, 0, 6),
        (second, 1, 6),
        (first, 2, 9),
    ]:
        assert batch.finish(index, A)
        snapshot = ledger.snapshot()
        assert (snapshot and snapshot.offset) == committable


@pytest.mark.parametrize("count", STREAM_COUNTS)
def test_entry_waits_for_each_of_its_streams(ledger: Ledger, count: int) -> None:
    """Whatever row the number of streams needs, the last one to finish decides."""
    batch = ledger.deliver([0, 1], mask_of(range(count)))
    for stream in reversed(range(count)):
        assert ledger.snapshot() is None
        assert batch.finish(0, bit_of(stream))
        assert not batch.finish(0, bit_of(stream))
    assert ledger.snapshot() == Snapshot(1, 1)
    for stream in range(count):
        assert batch.finish_range(0, 2, bit_of(stream)) == 1
    assert ledger.snapshot() == Snapshot(2, 2)


@pytest.mark.parametrize("count", STREAM_COUNTS)
def test_close_voids_rows_of_every_width(count: int) -> None:
    """A late acknowledgement is False, and the next ledger on the offsets is untouched."""
    old, new = Ledger(TP), Ledger(TP)
    mask = mask_of(range(count))
    batch = old.deliver([0, 1], mask)
    batch.abandon(1, bit_of(count - 1), again=True)
    old.close()
    new.deliver([0, 1], mask)
    before = observe(new)
    for stream in range(count):
        assert not batch.finish(0, bit_of(stream))
        assert batch.finish_range(0, 2, bit_of(stream)) == 0
        batch.abandon(0, bit_of(stream), again=True)
        batch.release(0, 2, bit_of(stream))
    old.close_stream(A)
    assert observe(new) == before
    assert batch.lowest() is None
    assert repr(old).startswith("<Ledger orders[3] closed ")


def test_finish_of_a_stream_that_did_not_get_the_record_is_nothing(ledger: Ledger) -> None:
    """A stream cannot spend the reference of another one."""
    batch = ledger.deliver([0], A)
    assert not batch.finish(0, B)
    assert not batch.finish(0, bit_of(69))
    assert batch.finish_range(0, 1, bit_of(69)) == 0
    assert ledger.unfinished() == [0]


def test_finish_range_of_nothing_is_nothing(ledger: Ledger) -> None:
    """An empty range finishes no record and tells nobody."""
    batch = ledger.deliver([0, 1], A)
    ledger.on_settled = lambda: pytest.fail("nothing was settled")
    assert batch.finish_range(1, 1, A) == 0
    assert batch.finish_range(0, 1, A) == 1
    assert batch.finish_range(0, 1, A) == 0


def test_huge_gap_costs_nothing(ledger: Ledger) -> None:
    """A hole of ten million offsets has neither an entry nor a place in any row."""
    batch = ledger.deliver([0, HUGE_GAP], A)
    assert len(batch) == 2
    assert isinstance(batch.offsets, array)
    assert batch.offsets.itemsize * len(batch.offsets) == 16
    assert len(batch._row) == 2
    assert ledger.unfinished_count == 2
    batch.finish(0, A)
    assert ledger.snapshot() == Snapshot(HUGE_GAP, 1)
    batch.finish(1, A)
    ledger.advance(3 * HUGE_GAP)
    assert ledger.snapshot() == Snapshot(3 * HUGE_GAP, 2)
    assert not ledger._batches


def test_advance_does_not_pass_an_unfinished_record(ledger: Ledger) -> None:
    """A hole behind an unfinished record moves the position and nothing else."""
    batch = ledger.deliver([0], A)
    ledger.advance(9)
    ledger.advance(4)
    assert ledger.position == 9
    assert ledger.snapshot() is None
    batch.finish(0, A)
    assert ledger.snapshot() == Snapshot(9, 1)


def test_finished_batches_drop_off(ledger: Ledger) -> None:
    """The ledger keeps nothing of what is finished up to the lowest unfinished batch."""
    batches = [ledger.deliver([n], A) for n in range(5)]
    for batch in batches[1:]:
        batch.finish(0, A)
    assert len(ledger._batches) == 5
    batches[0].finish(0, A)
    assert len(ledger._batches) == 0


@pytest.mark.parametrize("count", [1, 8])
def test_lowest_goes_on_where_it_stopped(ledger: Ledger, count: int) -> None:
    """Narrow and wide rows both find the first unfinished entry, again and again."""
    mask = mask_of(range(count))
    batch = ledger.deliver(range(6), mask)
    for index in range(6):
        assert batch.lowest() == index
        for stream in range(count):
            batch.finish(index, bit_of(stream))
    assert batch.lowest() is None


# -- illegal input


def test_deliver_refuses_a_mask_without_a_stream(ledger: Ledger) -> None:
    """A record that no stream has to finish would never be committed, or at once."""
    before = observe(ledger)
    for mask in (0, 1, 2, 3, A | 1, B | 2, -A):
        with pytest.raises(ValueError, match=r"^orders\[3\]: no stream has to finish these"):
            ledger.deliver([0], mask)
    assert observe(ledger) == before


def test_deliver_refuses_nothing(ledger: Ledger) -> None:
    """A batch without a record is a mistake of the caller."""
    before = observe(ledger)
    with pytest.raises(ValueError, match=r"^orders\[3\]: deliver without a record$"):
        ledger.deliver([], A)
    assert observe(ledger) == before


def test_deliver_refuses_what_was_delivered(ledger: Ledger) -> None:
    """Unfinished, finished, never delivered or on both sides of the position: all refused."""
    batch = ledger.deliver([0, 2, 3], A)
    batch.finish(0, A)
    batch.abandon(1, A, again=True)
    before = observe(ledger)
    for offsets in ([0], [1], [3], [2, 3], [2, 4], [0, 2]):
        with pytest.raises(ValueError, match=r"^orders\[3\]: offset \d was delivered already"):
            ledger.deliver(offsets, A)
    assert observe(ledger) == before
    assert ledger.owed() == [2]


def test_deliver_refuses_a_closed_ledger(ledger: Ledger) -> None:
    """An assignment that has ended takes no record."""
    ledger.close()
    with pytest.raises(ValueError, match=r"^orders\[3\]: deliver after the assignment ended$"):
        ledger.deliver([0], A)


# -- released, abandoned, withdrawn


def test_release_leaves_the_decision_to_the_others(ledger: Ledger) -> None:
    """What another stream finishes is finished, before the release or after it."""
    batch = ledger.deliver([0, 1], A | B)
    batch.finish(0, A)
    batch.release(0, 2, B)
    assert ledger.snapshot() == Snapshot(1, 1)
    batch.finish(1, A)
    assert ledger.snapshot() == Snapshot(2, 2)
    assert ledger.owed() == []


def test_release_by_everybody_owes_the_record(ledger: Ledger) -> None:
    """What nobody processed holds the committable offset back and may come again."""
    batch = ledger.deliver([0], A | B)
    batch.release(0, 1, A)
    assert ledger.owed() == []
    batch.release(0, 1, B)
    assert ledger.owed() == [0]
    assert ledger.in_hand == 0
    assert not batch.finish(0, A)
    assert ledger.snapshot() is None


def test_abandoned_record_may_be_acknowledged_late(ledger: Ledger) -> None:
    """Whoever holds the message finishes it, as long as nobody else got it."""
    batch = ledger.deliver([0], A)
    batch.abandon(0, A, again=True)
    assert ledger.in_hand == 0
    assert ledger.owed() == [0]
    assert batch.finish(0, A)
    assert not batch.finish(0, A)
    assert ledger.owed() == []
    assert ledger.snapshot() == Snapshot(1, 1)


def test_abandoned_record_is_not_acknowledged_once_it_came_again(ledger: Ledger) -> None:
    """After the redelivery the old message is nobody's, even of a stream with the same bit."""
    old = ledger.deliver([0], A)
    ledger.close_stream(A)
    new = ledger.deliver([0], A)
    assert not old.finish(0, A)
    old.abandon(0, A, again=False)
    old.release(0, 1, A)
    assert ledger.unfinished() == [0]
    assert ledger.snapshot() is None
    assert new.finish(0, A)
    assert ledger.snapshot() == Snapshot(1, 1)


def test_abandoned_record_of_a_dead_iterator_waits_for_its_stream(ledger: Ledger) -> None:
    """The record may not go to another stream before the one that had it closes."""
    batch = ledger.deliver([0, 1], A | B)
    batch.abandon(0, A, again=False)
    batch.release(0, 1, B)
    assert ledger.owed() == []
    assert ledger.unfinished() == [0, 1]
    batch.abandon(0, B, again=True)
    assert ledger.owed() == []
    ledger.close_stream(A)
    assert ledger.owed() == [0, 1]
    batch.abandon(0, A, again=False)
    assert ledger.owed() == [0, 1]


def test_abandoned_entry_becomes_free_and_stays_free(ledger: Ledger) -> None:
    """A finalizer that comes late does not take back what the closing stream gave."""
    batch = ledger.deliver([0], A)
    for again, owed in ((False, []), (True, [0]), (False, [0])):
        batch.abandon(0, A, again=again)
        assert ledger.owed() == owed


def test_abandoned_twice_takes_two_late_acks(ledger: Ledger) -> None:
    """Each stream that had the record in hand has to finish it."""
    batch = ledger.deliver([0], A | B)
    batch.abandon(0, A, again=True)
    batch.abandon(0, B, again=True)
    assert batch.finish(0, A)
    assert ledger.owed() == [0]
    assert batch.finish(0, B)
    assert ledger.owed() == []
    assert ledger.snapshot() == Snapshot(1, 1)


def test_late_ack_counts_when_another_stream_releases(ledger: Ledger) -> None:
    """A record that was processed by a late acknowledgement is not owed afterwards."""
    batch = ledger.deliver([0], A | B)
    batch.abandon(0, A, again=True)
    assert batch.finish(0, A)
    assert ledger.unfinished() == [0]
    batch.release(0, 1, B)
    assert ledger.owed() == []
    assert ledger.snapshot() == Snapshot(1, 1)


def test_late_ack_before_another_abandons_keeps_the_record_owed(ledger: Ledger) -> None:
    """Three streams: one late, one never, one finishing; the one that never did decides."""
    batch = ledger.deliver([0], A | B | C)
    batch.abandon(0, A, again=True)
    assert batch.finish(0, A)
    batch.abandon(0, B, again=True)
    assert batch.finish(0, C)
    assert ledger.owed() == [0]
    assert batch.finish(0, B)
    assert ledger.unfinished() == []


@pytest.mark.parametrize("withdrawn_first", [True, False])
@pytest.mark.parametrize("again", [True, False])
def test_withdrawn_record_is_owed_whatever_another_stream_does(
    ledger: Ledger, withdrawn_first: bool, again: bool
) -> None:
    """A late acknowledgement does not make up for the stream that never got the record."""
    batch = ledger.deliver([0], A | B)
    if withdrawn_first:
        batch.withdraw(0, 1, B)
        batch.abandon(0, A, again=again)
    else:
        batch.abandon(0, A, again=again)
        batch.withdraw(0, 1, B)
    assert not batch.finish(0, A)
    assert ledger.unfinished() == ledger.owed() == [0]
    assert ledger.snapshot() is None


def test_withdrawn_record_is_owed_although_another_stream_finished(ledger: Ledger) -> None:
    """The next member has to give the record to the stream that missed it."""
    batch = ledger.deliver([0, 1], A | B)
    assert batch.finish(0, A)
    batch.withdraw(0, 2, B)
    assert batch.finish(1, A)
    assert ledger.owed() == [0, 1]
    assert ledger.in_hand == 0


def test_forfeited_record_cannot_be_finished_by_its_stream(ledger: Ledger) -> None:
    """In hand, abandoned or finished: what is not finished is owed, and no late ack counts."""
    batch = ledger.deliver([0, 1, 2], A | B)
    assert batch.finish(0, A)
    batch.abandon(2, A, again=False)
    for index in range(3):
        batch.forfeit(index, A)
        batch.forfeit(index, A)
        assert not batch.finish(index, A)
        assert batch.finish(index, B)
    assert ledger.in_hand == 0
    assert ledger.owed() == ledger.unfinished() == [1, 2]
    assert ledger.snapshot() == Snapshot(1, 1)


def test_owed_record_comes_again_while_another_stream_has_it(ledger: Ledger) -> None:
    """A new stream need not wait for the others; they keep their part of it."""
    batch = ledger.deliver([0, 1], A | B)
    batch.abandon(0, A, again=True)
    assert ledger.owed() == [0]
    again = ledger.deliver([0], C)
    assert ledger.owed() == []
    assert not batch.finish(0, A)
    assert batch.finish(1, A)
    assert again.finish(0, C)
    assert ledger.unfinished() == [0, 1]
    # The entry that came again decides, not the closing of a stream with the old one.
    batch.release(0, 2, B)
    assert ledger.unfinished() == []
    assert ledger.snapshot() == Snapshot(2, 2)


def test_owed_of_many_abandoned_records_looks_at_each_once(ledger: Ledger) -> None:
    """What is owed is found by index, not by a search for each entry."""
    size = 20_000
    batch = ledger.deliver(range(size), A)
    ledger.close_stream(A)
    assert ledger.owed() == list(range(size))
    ledger.deliver(range(size), A)
    assert batch.owed == 0
    assert len(ledger._batches) == 1


def test_redelivery_scatters_and_gathers(ledger: Ledger) -> None:
    """While batches overlap the lowest is looked for; then the order is back."""
    first = ledger.deliver([0, 1, 2], A)
    second = ledger.deliver([3, 4], A)
    first.finish(1, A)
    first.abandon(0, A, again=True)
    first.abandon(2, A, again=True)
    second.abandon(0, A, again=True)
    again = ledger.deliver([2, 3], B)
    third = ledger.deliver([5], B)
    assert ledger.oldest_unfinished == 0
    assert first.finish(0, A)
    assert ledger.snapshot() == Snapshot(2, 2)
    assert again.finish_range(0, 2, B) == 2
    assert ledger.snapshot() == Snapshot(4, 4)
    assert not ledger._scattered
    assert second.finish(1, A)
    assert third.finish(0, B)
    assert ledger.snapshot() == Snapshot(6, 6)


def test_redelivery_of_the_whole_leaves_one_batch(ledger: Ledger) -> None:
    """The old batch goes as soon as its last owed record has come again."""
    ledger.deliver([0, 5], A)
    ledger.close_stream(A)
    again = ledger.deliver([0, 5], B)
    assert len(ledger._batches) == 1
    assert again.finish_range(0, 2, B) == 2
    assert not ledger._batches
    assert ledger.snapshot() == Snapshot(6, 2)


# -- commits


def test_failed_commit_changes_nothing(ledger: Ledger) -> None:
    """A snapshot that is never confirmed leaves the ledger as it was."""
    batch = ledger.deliver([0, 1, 2], A)
    batch.finish_range(0, 2, A)
    before = observe(ledger)
    assert ledger.snapshot() == Snapshot(2, 2)
    assert observe(ledger) == before
    assert ledger.replay == 3


def test_confirm_moves_committed_to_the_snapshot_and_no_further(ledger: Ledger) -> None:
    """What is finished while the commit is under way waits for the next one."""
    batch = ledger.deliver([0, 1, 2], A)
    batch.finish(0, A)
    snapshot = ledger.snapshot()
    assert snapshot is not None
    batch.finish_range(1, 3, A)
    ledger.confirm(snapshot)
    assert ledger.committed == 1
    assert ledger.replay == 2
    assert ledger.snapshot() == Snapshot(3, 3)


def test_confirm_after_the_end_changes_nothing(ledger: Ledger) -> None:
    """A commit that is answered when the assignment has ended is nobody's any more."""
    ledger.deliver([0, 1], A).finish(0, A)
    ledger.close()
    before = observe(ledger)
    ledger.confirm(Snapshot(1, 1))
    assert observe(ledger) == before
    assert ledger.committed is None


def test_replay_is_the_records_not_the_offsets(ledger: Ledger) -> None:
    """Holes are not replayed."""
    batch = ledger.deliver([0, HUGE_GAP, 2 * HUGE_GAP], A)
    batch.finish(0, A)
    ledger.confirm(Snapshot(HUGE_GAP, 1))
    assert ledger.replay == 2


# -- who is told


@pytest.mark.parametrize(
    "way", ["finish", "range", "release", "withdraw", "abandon", "forfeit", "close"]
)
def test_on_settled_is_called_when_nobody_has_anything_in_hand(ledger: Ledger, way: str) -> None:
    """Every way in which the last entry can end wakes the drain."""
    ledger.deliver([0], A).finish(0, A)
    first, last = ledger.deliver([1], A), ledger.deliver([2], A)
    calls: list[int] = []
    ledger.on_settled = lambda: calls.append(ledger.in_hand)
    first.finish(0, A)
    assert calls == []
    if way == "finish":
        last.finish(0, A)
    elif way == "range":
        last.finish_range(0, 1, A)
    elif way == "release":
        last.release(0, 1, A)
    elif way == "withdraw":
        last.withdraw(0, 1, A)
    elif way == "abandon":
        last.abandon(0, A, again=False)
    elif way == "forfeit":
        last.forfeit(0, A)
    else:
        ledger.close_stream(A)
    assert calls == [0]
    last.release(0, 1, A)
    assert calls == [0]


def test_on_count_is_told_every_acknowledgement_once() -> None:
    """Late and repeated acknowledgements count as they take effect."""
    counts: list[int] = []
    ledger = Ledger(TP, on_count=counts.append)
    batch = ledger.deliver(range(5), A)
    batch.finish(0, A)
    batch.finish(0, A)
    batch.finish_range(0, 2, A)
    batch.finish_range(2, 4, A)
    batch.abandon(4, A, again=True)
    batch.finish(4, A)
    assert counts == [1, 1, 2, 1]
    ledger.close()
    assert not batch.finish(0, A)
    assert counts == [1, 1, 2, 1]


def test_reprs_say_what_is_open(ledger: Ledger) -> None:
    """The reprs carry the partition and what is unfinished."""
    batch = ledger.deliver([3, 9], A)
    batch.abandon(0, A, again=True)
    assert repr(batch) == "<DeliveredBatch orders[3] 3..9 left=1 owed=1>"
    assert repr(ledger) == "<Ledger orders[3] open position=10 committed=None unfinished=2>"


def test_as_offsets_packs_only_what_has_holes() -> None:
    """A stretch without a hole is a range, else it takes eight bytes an offset."""
    assert as_offsets([4]) == range(4, 5)
    assert as_offsets([4, 5, 6]) == range(4, 7)
    assert as_offsets([4, 6]) == array("q", [4, 6])


def test_offsets_of_a_batch_ascend(ledger: Ledger) -> None:
    """The offsets of a batch stay as they were delivered."""
    batch = ledger.deliver([0, 3, 4, HUGE_GAP], A | D)
    assert all(a < b for a, b in pairwise(batch.offsets))
