"""The rules of the ledger, one at a time."""

from __future__ import annotations

from array import array

import pytest

from trio_consumer._core.ledger import Ledger, Snapshot

from .ledgers import TP, A, B, C, bit_of, mask_of, observe
from .strategies import (
    HUGE_GAP,
    STREAM_COUNTS,
)


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
    assert (batch.left, batch.owed) == (0, 0)
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


def test_finish_range_looks_at_its_own_records_only(ledger: Ledger) -> None:
    """As many unfinished ones before it do not stand for those that it finishes."""
    batch = ledger.deliver([0, 1], A)
    batch.finish(1, A)
    assert batch.finish_range(1, 2, A) == 0
    assert ledger.in_hand == 1
    assert ledger.snapshot() is None


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
    assert batch.can_finish(0, A)
    assert batch.finish(0, A)
    assert not batch.can_finish(0, A)
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
    assert not batch.can_finish(0, A)
    assert ledger.unfinished() == [0]
    assert ledger.snapshot() is None
    # While the one who left it is open, somebody else's copy would finish it for both.
    assert ledger.owed() == ([0] if again else [])
    ledger.close_stream(A)
    assert ledger.owed() == [0]
    assert ledger.deliver([0], C).finish(0, C)
    assert ledger.unfinished() == []


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
    assert ledger.unfinished() == [1, 2]
    assert ledger.owed() == [1]
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
