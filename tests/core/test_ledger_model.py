"""The ledger against a brute-force model."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from trio_consumer._core.delivered_batch import DeliveredBatch
from trio_consumer._core.ledger import Ledger, Snapshot

from .ledgers import TP, A, bit_of, mask_of, observe
from .strategies import (
    HUGE_GAP,
    leads,
    many_picks,
    picks,
    starts,
    steps,
    stream_counts,
)


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
        elif stream in self.left_behind and not self.lost_for_good:
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
            self.lost_for_good = True

    def forfeit(self, stream: int) -> None:
        if stream in self.left_behind:
            self.lost_for_good = True
        self.withdraw(stream)

    def abandon(self, stream: int, *, again: bool) -> None:
        if stream in self.left_behind:
            self.left_behind[stream] |= again
        elif stream in self.awaited:
            self.awaited.remove(stream)
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
        assert delivery.batch.can_finish(index, bit_of(stream)) is expected
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

    @precondition(lambda self: self.deliveries)
    @rule(pick=picks, index=picks, stream=picks)
    def enter_again(self, pick: int, index: int, stream: int) -> None:
        delivery = self.deliveries[pick % len(self.deliveries)]
        if delivery.account is not self.account:
            assert self.ledger.enter_again(delivery.batch, 0, bit_of(stream % self.streams)) is None
            return
        index %= len(delivery.entries)
        stream %= self.streams
        entry = delivery.entries[index]
        again = self.ledger.enter_again(delivery.batch, index, bit_of(stream))
        if not entry.finish(stream):
            assert again is None
            return
        assert again is not None
        new = Entry(entry.offset, {stream})
        self.account.entries[entry.offset].append(new)
        self.account.redelivered = True
        self.deliveries.append(Delivery(again, [new], self.account))

    @rule(stream=picks)
    def close_stream(self, stream: int) -> None:
        self.leave(stream % self.streams)

    def leave(self, stream: int) -> None:
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
        awaited = [entry.offset for entry in account.all_entries if entry.awaited]
        for offset in {0, *account.entries}:
            # A batch counts as a whole.
            below = any(o < offset for o in awaited)
            assert ledger.in_hand_below(offset) >= below
        assert sorted(o for b in ledger.oldest_batches() for o in b.owed_offsets()) == sorted(
            entry.offset
            for entry in account.all_entries
            if entry.lost_for_good or entry.left_behind
        )
        assert ledger.in_hand_below(1 << 60) == bool(awaited)
        waiting = [
            (batch.offsets[index], stream)
            for batch in ledger.oldest_batches()
            for stream in range(self.streams)
            for index in batch.waiting_for(bit_of(stream))
        ]
        assert sorted(waiting) == sorted(
            (entry.offset, stream) for entry in account.all_entries for stream in entry.awaited
        )
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
        for stream in range(self.streams):  # what one left behind nobody else got while it was open
            self.leave(stream)
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
