"""What is owed and has gone from the log is waited for no longer."""

from __future__ import annotations

from trio_consumer._core.ledger import Ledger, Snapshot

from .ledgers import TP, A, B


def owing(*offsets: int) -> Ledger:
    """A ledger that was read up to 5 and owes these."""
    ledger = Ledger(TP)
    batch = ledger.deliver([0, 1, 2, 3, 4], A)
    for offset in range(5):
        if offset in offsets:
            batch.withdraw(offset, offset + 1, A)
        else:
            batch.finish(offset, A)
    return ledger


def test_vanished_record_holds_no_commit_back() -> None:
    """It was read past without being found, so it cannot come again."""
    ledger = owing(1, 3)
    ledger.vanish(1, 5, [2, 4])
    assert ledger.owed() == []
    assert ledger.snapshot() == Snapshot(5, 5)


def test_vanish_leaves_what_was_found_or_not_read() -> None:
    """A record that is there is still to come, and so is one beyond the reading."""
    ledger = owing(1, 2, 3)
    ledger.vanish(1, 3, [1])
    assert ledger.owed() == [1, 3]
    assert ledger.snapshot() == Snapshot(1, 1)


def test_vanish_leaves_all_that_is_there() -> None:
    """A second reading that finds everything changes nothing."""
    ledger = owing(1, 2)
    ledger.vanish(0, 5, [0, 1, 2, 3, 4])
    assert ledger.owed() == [1, 2]
    assert ledger.snapshot() == Snapshot(1, 1)


def test_vanish_means_nothing_while_reading_goes_on() -> None:
    """What is owed lies below the position: a batch at it, or a first one, says nothing."""
    Ledger(TP).vanish(0, 9, [])
    ledger = owing(1)
    ledger.vanish(5, 9, [])
    assert ledger.owed() == [1]


def test_vanished_record_in_the_hand_of_another_stream_is_waited_for() -> None:
    """The other stream had it before it went, and may finish it."""
    ledger = Ledger(TP)
    batch = ledger.deliver([0, 1], A | B)
    batch.finish_range(0, 2, A)
    batch.finish(1, B)
    batch.abandon(0, B, again=True)
    again = ledger.deliver([0], A)
    again.withdraw(0, 1, A)
    other = ledger.deliver([2], B)
    other.finish(0, B)
    ledger.vanish(0, 3, [2])
    assert ledger.snapshot() == Snapshot(3, 3)

    ledger = Ledger(TP)
    batch = ledger.deliver([0], A | B)
    batch.withdraw(0, 1, A)
    ledger.deliver([1], B).finish(0, B)
    ledger.vanish(0, 2, [1])
    assert ledger.snapshot() is None
    assert batch.finish(0, B)
    assert ledger.snapshot() == Snapshot(2, 2)
