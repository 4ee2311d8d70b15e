"""The judge sees what is wrong: journals made by hand, one for each outcome."""

from __future__ import annotations

import pytest

from comparison.observed import Observed, Outcome, Verdict, judge, right
from comparison.rule import Bounds, ideal, ranges
from comparison.schedules import (
    Commit,
    Finish,
    HandOver,
    Reader,
    RefuseCommit,
    Schedule,
    Seek,
    StopFlow,
    Take,
    WaitForStoppedFlow,
    Watch,
    Work,
)


def observed(schedule: Schedule, done: range = range(0)) -> Observed:
    """A journal of a program that was given and has done so much."""
    journal = Observed(schedule)
    for offset in done:
        journal.give(0, offset)
        journal.do(0, offset)
    return journal


def store(journal: Observed, *offsets: int | None) -> Verdict:
    """Commits one after another, None for one that stored nothing; the last is the extra one."""
    for number, offset in enumerate(offsets, 1):
        if offset is not None:
            journal.store("t", offset)
        if number < len(offsets):
            journal.checkpoint()
    journal.close()
    return judge(journal)


ALL = Schedule("all", "", (Work(), Commit()))
GAP = Schedule("gap", "", (Take(6), Finish((0, 1, 3)), Commit()))


@pytest.mark.parametrize(
    ("stored", "outcome"),
    [
        ((6, None), Outcome.RIGHT),
        ((5, 6), Outcome.LATE),
        ((None, 6), Outcome.LATE),
        ((None, None), Outcome.STALLS),
        ((5, None), Outcome.STALLS),
    ],
)
def test_everything_finished(stored: tuple[int | None, ...], outcome: Outcome) -> None:
    """The commit reaches the end, now, later or never."""
    assert store(observed(ALL, range(6)), *stored).outcome is outcome


def test_commit_past_an_unfinished_message_loses() -> None:
    """Also if it is finished afterwards: a crash between the two would have lost it."""
    journal = observed(GAP, range(2))
    journal.do(0, 3)
    journal.store("t", 4)
    journal.do(0, 2)
    verdict = store(journal, None, None)
    assert verdict == Verdict(Outcome.LOSES, "commits 4, 2 not processed")


def test_commit_past_a_message_that_never_came_loses() -> None:
    """What was not delivered was not processed."""
    assert store(observed(ALL, range(3)), 6, None).outcome is Outcome.LOSES


def test_message_that_never_comes_and_is_not_passed_stalls() -> None:
    """It would come after a restart."""
    assert store(observed(ALL, range(3)), 3, None) == Verdict(Outcome.STALLS, "3-5 never come")


def test_message_that_comes_twice_doubles() -> None:
    """Within an assignment, without a seek."""
    journal = observed(ALL, range(6))
    journal.give(0, 4)
    assert store(journal, 6, None).outcome is Outcome.DOUBLES


def test_both_streams_have_to_finish() -> None:
    """One of two is not enough."""
    both = Schedule(
        "both",
        "",
        (Take(6), Take(6, reader=1), Finish((0, 1)), Commit()),
        readers=(Reader(), Reader()),
    )
    assert ideal(both).checkpoints == [{"t": Bounds(0, 0)}]
    assert store(observed(both, range(2)), 2, None).outcome is Outcome.LOSES
    assert store(observed(both, range(2)), None, None).outcome is Outcome.RIGHT


def test_hand_over_without_what_is_finished_doubles() -> None:
    """The next owner begins below."""
    schedule = Schedule("revoked", "", (Take(6), Finish((0, 1)), HandOver()))
    assert store(observed(schedule, range(2)), None, None).outcome is Outcome.DOUBLES
    assert store(observed(schedule, range(2)), 2, None).outcome is Outcome.RIGHT
    journal = observed(schedule, range(2))
    journal.hung.append("the hand-over")
    assert store(journal, 2, None).outcome is Outcome.HANGS


def test_refused_commit_is_not_expected() -> None:
    """The one after it is."""
    schedule = Schedule("refused", "", (Work(), RefuseCommit(), Commit(), Commit()))
    assert ideal(schedule).checkpoints == [{"t": Bounds(0, 0)}, {"t": Bounds(6, 6)}]
    assert store(observed(schedule, range(6)), None, 6, None).outcome is Outcome.RIGHT
    assert store(observed(schedule, range(6)), None, None, 6).outcome is Outcome.LATE


def test_topic_that_was_not_asked_for() -> None:
    """A filter is not passed."""
    schedule = Schedule(
        "filter",
        "",
        (Work(), Work(reader=1), Commit(("u",))),
        topics={"t": range(2), "u": range(2)},
        readers=(Reader(), Reader("u")),
    )
    journal = observed(schedule, range(2))
    for offset in range(2):
        journal.give(1, offset)
        journal.do(1, offset)
    journal.store("u", 2)
    assert store(journal, 2, None).outcome is Outcome.LOSES


def test_holes_make_a_range() -> None:
    """Every offset within a hole means the same."""
    schedule = Schedule("holes", "", (Take(2), Finish((0,)), Commit()), topics={"t": (0, 5)})
    assert ideal(schedule).checkpoints == [{"t": Bounds(1, 5)}]
    for offset, outcome in ((1, Outcome.RIGHT), (5, Outcome.RIGHT), (6, Outcome.LOSES)):
        assert store(observed(schedule, range(1)), offset, None).outcome is outcome


def test_what_a_seek_leaves_out_need_not_be_finished() -> None:
    """Forward, the commit goes on behind it; backward, messages come again."""
    forward = Schedule("forward", "", (Seek(4), Work(), Commit()))
    journal = Observed(forward)
    journal.seek("t", 4)
    for offset in (4, 5):
        journal.give(0, offset)
        journal.do(0, offset)
    assert store(journal, 6, None).outcome is Outcome.RIGHT
    back = Schedule("back", "", (Work(), Seek(4), Work()))
    assert ideal(back).delivered[0, 5] == 2
    assert right(back) == "4-5 come again"


def test_fetching_while_flow_is_stopped() -> None:
    """The wait was none."""
    schedule = Schedule("stopped", "", (StopFlow(), WaitForStoppedFlow()))
    journal = Observed(schedule)
    journal.fetched_while_stopped = 1
    assert store(journal, None).outcome is Outcome.DOES_NOT_WAIT


def test_alarms() -> None:
    """Expected as long as something that can be read is not finished."""
    hang = Schedule("hang", "", (Take(6), Finish((0,)), Commit(), Watch(1000)))
    assert store(observed(hang, range(1)), 1, None).outcome is Outcome.NO_ALARM
    quiet = Schedule("quiet", "", (Work(), Commit(), Watch(1000)))
    journal = observed(quiet, range(6))
    journal.alarms.append("help")
    assert store(journal, 6, None).outcome is Outcome.FALSE_ALARM


def test_schedule_that_was_not_run_to_its_end() -> None:
    """A fault of the driver is not a verdict on a consumer."""
    with pytest.raises(RuntimeError, match=r"^'all' was not run to its end$"):
        store(observed(ALL, range(6)), None)


def test_program_that_breaks_off_gets_its_message_again() -> None:
    """Once more, and no other one."""
    schedule = Schedule("fails", "", (Work(), Commit()), readers=(Reader(fails_at=2),))
    assert [ideal(schedule).delivered[0, n] for n in range(4)] == [1, 1, 2, 1]
    assert right(schedule) == "commits 6, 2 comes again"


def test_ranges() -> None:
    """Offsets in words."""
    assert ranges([5, 0, 1, 2, 2]) == "0-2, 5"
