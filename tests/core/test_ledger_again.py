"""The rules of the ledger: who is told of what, and records that come once more."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterator
from itertools import pairwise
from random import Random

import pytest

from trio_consumer._core.delivered_batch import DeliveredBatch, as_offsets
from trio_consumer._core.ledger import Ledger, Snapshot

from .ledgers import TP, A, B, D, bit_of
from .strategies import (
    HUGE_GAP,
)


@pytest.fixture
def ledger() -> Ledger:
    """A ledger that has seen nothing."""
    return Ledger(TP)


@pytest.mark.parametrize(
    "way", ["finish", "range", "release", "withdraw", "abandon", "forfeit", "close"]
)
def test_on_settled_is_called_when_nobody_has_a_batch_in_hand(ledger: Ledger, way: str) -> None:
    """Every way in which its last entry can end wakes whoever waits."""
    ledger.deliver([0], A).finish(0, A)
    first, last = ledger.deliver([1], A), ledger.deliver([2], A)
    calls: list[int] = []
    ledger.on_settled = lambda: calls.append(ledger.in_hand)
    first.finish(0, A)
    assert calls == [1]
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
    assert calls == [1, 0]
    last.release(0, 1, A)
    assert calls == [1, 0]


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
    batch = ledger.deliver([3, 7, 9], A)
    batch.abandon(0, A, again=True)
    assert repr(batch) == "<DeliveredBatch orders[3] 3..9 left=2 owed=1>"
    assert repr(ledger) == "<Ledger orders[3] open position=10 committed=None unfinished=3>"


def test_as_offsets_packs_only_what_has_holes() -> None:
    """A stretch without a hole is a range, else it takes eight bytes an offset."""
    assert as_offsets([4]) == range(4, 5)
    assert as_offsets([4, 5, 6]) == range(4, 7)
    assert as_offsets([4, 6]) == array("q", [4, 6])


def test_offsets_of_a_batch_ascend(ledger: Ledger) -> None:
    """The offsets of a batch stay as they were delivered."""
    batch = ledger.deliver([0, 3, 4, HUGE_GAP], A | D)
    assert all(a < b for a, b in pairwise(batch.offsets))


# -- once more


def test_record_entered_again_is_finished_under_its_new_entry_only(ledger: Ledger) -> None:
    """The stream's part moves; the entry of others and what they decide stay."""
    settled: list[int] = []
    batch = ledger.deliver([5, 6], A | B)
    ledger.on_settled = lambda: settled.append(ledger.in_hand)
    again = ledger.enter_again(batch, 0, A)
    assert again is not None
    assert not batch.finish(0, A)
    assert ledger.enter_again(batch, 0, A) is None
    # The other one may leave without having seen it: whoever has it decides.
    batch.release(0, 2, B)
    assert ledger.owed() == []
    batch.finish(1, A)
    assert ledger.unfinished() == [5]
    assert again.finish(0, A)
    assert ledger.snapshot() == Snapshot(7, 2)


def test_record_entered_again_by_its_only_stream_leaves_nothing_behind(ledger: Ledger) -> None:
    """The old entry is over with that, and whoever waits is told."""
    settled: list[int] = []
    batch = ledger.deliver([5], A)
    ledger.on_settled = lambda: settled.append(ledger.in_hand)
    again = ledger.enter_again(batch, 0, A)
    assert again is not None
    assert settled == [1]
    assert (ledger.in_hand, ledger.unfinished_count) == (1, 1)
    assert again.finish(0, A)
    assert settled == [1, 0]
    assert ledger.start == 5


def test_record_entered_again_leaves_the_part_of_the_first_stream(ledger: Ledger) -> None:
    """Whichever stream it is that wants it once more, the others are waited for."""
    batch = ledger.deliver([0], A | B)
    again = ledger.enter_again(batch, 0, B)
    assert again is not None
    assert again.finish(0, B)
    assert ledger.snapshot() is None
    assert batch.finish(0, A)
    assert ledger.snapshot() == Snapshot(1, 1)


def test_record_entered_again_by_a_stream_that_abandoned_it(ledger: Ledger) -> None:
    """What a cancelled task left is given back like what is in hand."""
    batch = ledger.deliver([0], A | B)
    batch.abandon(0, A, again=False)
    again = ledger.enter_again(batch, 0, A)
    assert again is not None
    assert not batch.finish(0, A)
    assert batch.finish(0, B)
    assert ledger.snapshot() is None
    assert again.finish(0, A)
    assert ledger.snapshot() == Snapshot(1, 1)


def test_record_entered_again_keeps_its_place_and_its_age(ledger: Ledger) -> None:
    """It counts as delivered where and when it was delivered first."""
    ledger.deliver([0, 1], A).finish_range(0, 2, A)
    batch = ledger.deliver([2, 3], A, at=7.5)
    again = ledger.enter_again(batch, 1, A)
    assert again is not None
    assert again.delivered_at == 7.5
    assert batch.finish(0, A)
    assert ledger.snapshot() == Snapshot(3, 3)


def test_what_is_unfinished_is_listed_by_whom_it_waits_for(ledger: Ledger) -> None:
    """For one stream, for nobody, and by age whatever came in between."""
    first, second = ledger.deliver([0, 1], A | B), ledger.deliver([2, 3], A)
    first.finish(0, B)
    second.withdraw(1, 2, A)
    assert (first.waiting_for(A), first.waiting_for(B)) == ([0, 1], [1])
    assert (first.owed_offsets(), second.owed_offsets()) == ([], [3])
    again = ledger.enter_again(first, 1, A)
    assert ledger.oldest_batches() == [first, again, second]
    first.finish(0, A)
    first.finish(1, B)
    assert ledger.oldest_batches() == [again, second]


def test_record_in_two_entries_is_counted_once(ledger: Ledger) -> None:
    """Also if the second entry begins where the batch of the first one ends."""
    batch = ledger.deliver([0, 1], A | B)
    batch.abandon(1, A, again=True)
    ledger.deliver([1], D)
    # Enough that are over for the batches to be looked at.
    ledger.deliver([2], A).finish(0, A)
    ledger.deliver([3], A).finish(0, A)
    assert ledger.unfinished() == [0, 1]
    assert ledger.unfinished_count == 2
    assert batch.finish(0, A)
    assert batch.finish(0, B)
    assert ledger.snapshot() == Snapshot(1, 1)


@pytest.mark.parametrize("stream", [6, 14, 30, 62])
def test_last_stream_of_a_width_may_be_alone(ledger: Ledger, stream: int) -> None:
    """Its bit is the first that a narrower row does not hold; nobody said when it was delivered."""
    batch = ledger.deliver([0], bit_of(stream))
    assert batch.delivered_at == 0.0
    assert batch.finish(0, bit_of(stream))
    assert ledger.snapshot() == Snapshot(1, 1)


def test_in_hand_below_an_offset(ledger: Ledger) -> None:
    """A record at the offset is not below it."""
    batch = ledger.deliver([3, 4], A)
    assert not ledger.in_hand_below(3)
    assert ledger.in_hand_below(4)
    batch.finish_range(0, 2, A)
    assert not ledger.in_hand_below(4)


def test_record_entered_again_holds_back_after_finished_batches_were_dropped(
    ledger: Ledger,
) -> None:
    """Its batch stands behind others with higher offsets, however often they are looked at."""
    batch = ledger.deliver([0, 1, 2], A)
    again = ledger.enter_again(batch, 0, A)
    assert again is not None
    batch.finish(1, A)
    for offset in (3, 4):
        ledger.deliver([offset], A).finish(0, A)
    assert ledger.snapshot() is None
    again.finish(0, A)
    assert ledger.snapshot() == Snapshot(2, 2)


def test_give_back_passes_over_what_is_finished(ledger: Ledger) -> None:
    """A record in the middle that the stream is done with changes nothing for those behind."""
    batch = ledger.deliver([0, 1, 2], A)
    batch.finish(1, A)
    batch.withdraw(0, 3, A)
    assert ledger.owed() == [0, 2]


def test_what_was_given_back_comes_again_beside_what_was_abandoned(ledger: Ledger) -> None:
    """Only the latter has somebody who could still acknowledge it."""
    batch = ledger.deliver([0, 1], A)
    batch.abandon(0, A, again=False)
    batch.withdraw(1, 2, A)
    assert ledger.deliver([1], B).finish(0, B)
    assert batch.finish(0, A)
    assert ledger.snapshot() == Snapshot(2, 2)


def test_record_entered_again_beside_others_of_its_batch(ledger: Ledger) -> None:
    """Their entries stay in hand, so nobody is told anything."""
    batch = ledger.deliver([5, 6], A)
    ledger.on_settled = lambda: pytest.fail("nothing was settled")
    again = ledger.enter_again(batch, 0, A)
    assert again is not None
    assert (list(again.offsets), ledger.in_hand) == ([5], 2)
    assert ledger.unfinished() == [5, 6]
    ledger.on_settled = None
    assert again.finish(0, A)
    assert ledger.unfinished() == [6]
    assert ledger.snapshot() == Snapshot(6, 1)


def test_ledger_covers_what_may_be_committed(ledger: Ledger) -> None:
    """Up to the lowest unfinished record, committed before or not; nothing once it is closed."""
    assert not ledger.covers(0)
    batch = ledger.deliver([3, 5, 6], A)
    assert ledger.covers(3)
    assert not ledger.covers(4)
    batch.finish(1, A)
    assert not ledger.covers(6)
    batch.finish(0, A)
    assert ledger.covers(6)
    ledger.confirm(Snapshot(6, 2))
    assert ledger.covers(6)
    assert not ledger.covers(7)
    ledger.close()
    assert not ledger.covers(3)


def test_ledger_tells_whether_other_streams_alone_hold_back(ledger: Ledger) -> None:
    """Neither a stream of those that ask, nor a record that is owed."""
    batch = ledger.deliver([0, 1, 2], A | B)
    later = ledger.deliver([3], B)
    assert not ledger.waits_for_others(3, A)
    batch.finish(0, A)
    batch.finish(1, A)
    assert ledger.waits_for_others(2, A)
    assert not ledger.waits_for_others(2, A | B)
    assert not ledger.waits_for_others(3, A)
    batch.finish(2, A)
    assert ledger.waits_for_others(4, A)
    later.abandon(0, B, again=True)
    assert ledger.waits_for_others(3, A)
    assert not ledger.waits_for_others(4, A)
    ledger.close()
    assert not ledger.waits_for_others(3, A)


class Counted(deque[DeliveredBatch]):
    """A row of batches that counts how many of them were looked at."""

    looks = 0

    def __iter__(self) -> Iterator[DeliveredBatch]:
        for batch in super().__iter__():
            self.looks += 1
            yield batch


@pytest.mark.parametrize("order", ["ascending", "descending", "shuffled"])
@pytest.mark.parametrize("again", ["by the stream that has it", "to another stream"])
def test_many_records_that_come_again_cost_a_few_looks_each(
    ledger: Ledger, order: str, again: str
) -> None:
    """However many there are, and in whichever order they are finished."""
    count = 2_000
    offsets = list(range(count))
    if order == "descending":
        offsets.reverse()
    elif order == "shuffled":
        Random(7).shuffle(offsets)
    batch = ledger.deliver(range(count), A)
    ledger._batches = looked_at = Counted(ledger._batches)
    entered = {offset: ledger.enter_again(batch, offset, A) for offset in offsets}
    stream, index = A, 0
    if again == "to another stream":
        for one in entered.values():
            assert one is not None
            one.withdraw(0, 1, A)
        stream = B
        entered = dict.fromkeys(range(count), ledger.deliver(range(count), B))
    for offset in offsets:
        one = entered[offset]
        assert one is not None
        index = offset if stream == B else 0
        assert one.finish(index, stream)
    assert ledger.snapshot() == Snapshot(count, count)
    assert looked_at.looks < 10 * count
