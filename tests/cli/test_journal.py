"""The check of the demonstration finds what it is there to find."""

from __future__ import annotations

import pytest

from trio_consumer.cli.journal import Journal, Place, Verdict, judge, number_of


def journal_of(count: int) -> Journal:
    """A journal of a topic with one partition."""
    return Journal(["a", "b"], {number: Place(0, number) for number in range(count)})


def process(journal: Journal, run: int, stream: str, *numbers: int) -> None:
    """Let a stream take and process messages."""
    journal.run = run
    for number in numbers:
        journal.take(stream, b"message %d" % number, journal.placement[number])
        journal.finish(stream, number)


def verdict_of(journal: Journal, at_cancel: int, at_end: int) -> Verdict:
    """The verdict, given the committed offsets."""
    return judge(journal, at_cancel={0: at_cancel}, at_end={0: at_end}, looks=1, too_high=[])


def good_journal() -> Journal:
    """Four messages; at the cancel message 1 is in a's hand, and 2 is finished behind it."""
    journal = journal_of(4)
    process(journal, 1, "a", 0, 2)
    process(journal, 1, "b", 0, 1, 2)
    journal.take("a", b"message 1", Place(0, 1))
    assert journal.in_hand(1, "a") == [Place(0, 1)]
    process(journal, 2, "a", 1, 2, 3)
    process(journal, 2, "b", 1, 2, 3)
    return journal


def test_judge_passes_a_replay_behind_an_unfinished_message() -> None:
    """What lay at or behind the committed offset may come again."""
    verdict = verdict_of(good_journal(), at_cancel=1, at_end=4)
    assert verdict.complaints == []
    a, b = verdict.streams
    assert (a.processed, a.lost, a.resumed, a.replayed) == (4, 0, 1, 1)
    assert (b.processed, b.lost, b.resumed, b.replayed) == (4, 0, 0, 2)


def test_judge_finds_a_replay_of_what_was_committed() -> None:
    """Below the committed offset nothing may come again."""
    verdict = verdict_of(good_journal(), at_cancel=2, at_end=4)
    assert verdict.complaints == [
        "a got 1 messages again after a commit",
        "b got 1 messages again after a commit",
    ]


def test_judge_finds_a_loss() -> None:
    """A message that one stream never processed is lost."""
    journal = journal_of(2)
    process(journal, 1, "a", 0, 1)
    process(journal, 1, "b", 0)
    assert verdict_of(journal, 1, 2).complaints == ["b never processed 1 messages"]


def test_judge_finds_an_end_that_is_not_committed() -> None:
    """At the end everything is committed."""
    journal = good_journal()
    assert verdict_of(journal, 1, 3).complaints == [
        "the end of partition 0 is 1 offsets from committed"
    ]


def test_judge_finds_a_message_handed_out_twice() -> None:
    """Within a run each stream gets each message once."""
    journal = good_journal()
    process(journal, 2, "a", 3)
    assert verdict_of(journal, 1, 4).complaints == ["a got 1 messages twice within one run"]


def test_judge_finds_a_stranger() -> None:
    """A message comes from where its number was produced to."""
    journal = good_journal()
    journal.run = 3
    journal.take("a", b"message 0", Place(0, 9))
    (complaint,) = verdict_of(journal, 1, 4).complaints
    assert complaint == "a message came that nobody produced: b'message 0' at offset 9 of 0"


def test_beyond_front_compares_with_what_both_streams_processed() -> None:
    """The front is the lowest message that one of the streams has not processed."""
    journal = journal_of(3)
    process(journal, 1, "a", 0, 1, 2)
    process(journal, 1, "b", 0, 2)
    assert journal.front(0) == 1
    assert journal.beyond_front({0: 1}) == []
    assert journal.beyond_front({0: 2}) == [(0, 2, 1)]
    process(journal, 1, "b", 1)
    assert journal.front(0) == 3
    assert verdict_of(journal, 0, 3).complaints == []


@pytest.mark.parametrize("value", [None, b"", b"message", b"message x", b"other 3"])
def test_number_of_a_foreign_message(value: bytes | None) -> None:
    """A value that the demo did not write has no number."""
    assert number_of(value) == -1
