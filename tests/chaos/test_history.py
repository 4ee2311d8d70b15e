"""The judge of the chaos runs bites: each broken rule is found, and a good history passes."""

from __future__ import annotations

import pytest

from chaos.history import History, Rule

GROUP = "group"
EVERYTHING = {0: 10}


def told(*lines: str, partitions: int = 1) -> History:
    """A history with lives ``a``, ``b`` and so on; each line begins with one of them."""
    history = History([GROUP], partitions, before=1.0)
    for line in lines:
        name, _, rest = line.partition(" ")
        if name not in history.lives:
            history.begins(name, GROUP)
        history.journaled(name, rest)
    return history


def rules(history: History) -> list[Rule]:
    return [violation.rule for violation in history.violations]


def test_good_history_breaks_no_rule() -> None:
    """A handover in order, each message once, everything committed."""
    history = told("a A 1 0:1", "a M 2 0 1 0 4", "a R 3 0", "a Q 3.5")
    history.observed(GROUP, {0: 5}, 3.2)
    history.ended("a", 0, killed=False, time=3.6)
    history.begins("b", GROUP)
    for line in ("A 4 0:1", "M 5 0 1 5 9", "Z 6 3 4"):
        history.journaled("b", line)
    history.observed(GROUP, {0: 10}, 6)
    assert history.is_done(EVERYTHING)
    assert history.missing(EVERYTHING) == 0
    history.conclude(EVERYTHING, within=1)
    assert rules(history) == []
    assert history.replays == 0
    assert history.lives["a"].handed_over == 1
    assert (history.lives["b"].unfinished, history.lives["b"].tasks) == (3, 4)


def test_commit_past_an_unjournaled_message_is_found() -> None:
    """Offset 2 is in no journal, and 3 is committed."""
    history = told("a A 1 0:1", "a M 2 0 1 0 1", "a M 2 0 1 3 4")
    history.observed(GROUP, {0: 2}, 3)
    assert rules(history) == []
    history.observed(GROUP, {0: 3}, 4)
    assert rules(history) == [Rule.JOURNALED]
    assert "committed at 3, but 2 is in no journal" in str(history.violations[0])


def test_commit_that_goes_back_is_found() -> None:
    """As a member that was thrown out does when it commits over the new owner."""
    history = told("a A 1 0:1", "a M 2 0 1 0 9")
    history.observed(GROUP, {0: 8}, 3)
    history.observed(GROUP, {0: 8}, 4)
    assert rules(history) == []
    history.observed(GROUP, {0: 5}, 5)
    assert rules(history) == [Rule.BACKWARDS]


def test_assignment_below_the_commit_is_found() -> None:
    """What was committed before an assignment is never delivered in it."""
    history = told("a A 1 0:1", "a M 2 0 1 0 9")
    history.observed(GROUP, {0: 6}, 3)
    history.happens("kill", 2.5, "a").end = 3
    history.begins("b", GROUP)
    history.journaled("b", "A 4 0:1")
    history.journaled("b", "M 5 0 1 6 7")
    assert rules(history) == []
    history.begins("c", GROUP)
    history.journaled("c", "A 6 0:1")
    history.journaled("c", "M 7 0 1 5 5")
    assert rules(history) == [Rule.REWOUND]


def test_message_that_comes_twice_in_one_assignment_is_found() -> None:
    """The same member, the same assignment."""
    history = told("a A 1 0:1", "a M 2 0 1 0 5", "a M 3 0 1 4 7")
    assert rules(history) == [Rule.REPEATED]


def test_member_may_get_a_message_again_in_another_assignment() -> None:
    """If something explains it."""
    history = told("a A 1 0:1", "a M 2 0 1 0 9", "a L 3 0", "a A 4 0:2", "a M 5 0 2 4 9")
    history.observed(GROUP, {0: 10}, 6)
    history.happens("network", 2.5).end = 4
    history.conclude(EVERYTHING, within=1)
    assert rules(history) == []
    assert history.replays == 6
    assert history.lives["a"].lost == 1


REPLAY = ("a A 1 0:1", "a M 2 0 1 0 6", "b A 4 0:1", "b M 5 0 1 5 9")


@pytest.mark.parametrize(
    ("life", "begin", "end", "good"),
    [
        ("a", 2.5, 3.0, True),  # killed before its commit
        ("a", 3.5, 4.0, False),  # killed when it had had the time to commit
        ("a", 0.0, 1.5, False),  # well again before
        ("b", 2.0, 3.0, False),  # nothing happened to the one that had it
        (None, 2.5, 3.0, True),  # nobody could commit
        ("b", 4.5, 5.0, True),  # the second had it before it was frozen, and did not know
    ],
)
def test_replay_has_to_be_explained(life: str | None, begin: float, end: float, good: bool) -> None:
    """By something that happened to the member that could not commit, at that time."""
    history = told(*REPLAY)
    history.observed(GROUP, {0: 10}, 6)
    history.happens("it", begin, life).end = end
    history.conclude(EVERYTHING, within=1)
    assert rules(history) == ([] if good else [Rule.REPLAYED])
    assert history.replays == 2
    assert history.replay_bound() == 7


def test_calm_is_when_everything_is_over() -> None:
    """A window that is open, or has just ended, is none."""
    history = told()
    assert history.is_calm(0)
    window = history.happens("it", 1)
    assert not history.is_calm(99)
    window.end = 5
    assert not history.is_calm(5)
    assert history.is_calm(6)


def test_replay_without_any_fault_is_found() -> None:
    """Nothing happened, so nothing comes twice."""
    history = told(*REPLAY)
    history.observed(GROUP, {0: 10}, 6)
    history.conclude(EVERYTHING, within=1)
    assert rules(history) == [Rule.REPLAYED]
    assert "2 messages from 0@5" in str(history.violations[0])


def test_bound_of_replays_is_what_was_not_committed_at_each_hand_over() -> None:
    """And what a member did for a partition that was another's already."""
    history = told(*REPLAY[:2])
    assert history.replay_bound() == 0
    history.observed(GROUP, {0: 4}, 3)
    history.begins("b", GROUP)
    history.journaled("b", "A 4 0:1")
    assert history.replay_bound() == 3  # 4, 5 and 6
    history.journaled("b", "M 5 0 1 4 9")
    assert history.replay_bound() == history.replays == 3
    history.journaled("a", "M 6 0 1 7 8")
    assert history.replay_bound() == history.replays == 5
    history.observed(GROUP, {0: 10}, 7)
    history.begins("c", GROUP)
    history.journaled("c", "A 8 0:1")
    assert history.replay_bound() == 5


def test_replay_is_judged_by_time_and_not_by_the_order_of_reading() -> None:
    """The journal of the one that was first may be read last."""
    history = told("b A 4 0:1", "b M 5 0 1 5 9", "a A 1 0:1", "a M 2 0 1 0 6")
    history.observed(GROUP, {0: 10}, 6)
    history.happens("kill", 2.5, "a").end = 3
    history.conclude(EVERYTHING, within=1)
    assert rules(history) == []


def test_lost_message_is_found() -> None:
    """One in the middle was never delivered; one at the end neither."""
    history = told("a A 1 0:1", "a M 2 0 1 0 3", "a M 2 0 1 5 8")
    history.observed(GROUP, {0: 4}, 3)
    assert not history.is_done(EVERYTHING)
    assert history.missing(EVERYTHING) == 2
    history.conclude(EVERYTHING, within=1)
    assert rules(history) == [Rule.LOST]


def test_what_is_processed_and_not_committed_in_the_end_is_found() -> None:
    """Everything is journaled, and the commit stands still."""
    history = told("a A 1 0:1", "a M 2 0 1 0 9")
    history.observed(GROUP, {0: 9}, 3)
    assert not history.is_done(EVERYTHING)
    history.conclude(EVERYTHING, within=1)
    assert rules(history) == [Rule.LOST]


def test_each_partition_is_judged_by_itself() -> None:
    """One that nobody read is lost, whatever became of the others."""
    history = told("a A 1 0:1 1:1", "a M 2 0 1 0 9", partitions=2)
    history.observed(GROUP, {0: 10}, 3)
    history.conclude({0: 10, 1: 1}, within=1)
    assert rules(history) == [Rule.LOST]
    assert "partition 1" in str(history.violations[0])


def test_message_without_an_assignment_is_found() -> None:
    """Nothing is handed out before ``on_partitions_assigned``."""
    history = told("a M 2 0 1 0 9")
    assert rules(history) == [Rule.ERROR]


def test_wrong_content_is_found() -> None:
    """The number in a message is its offset."""
    history = told("a A 1 0:1", "a W 2 0 7 8")
    assert rules(history) == [Rule.WRONG]


def test_line_that_nobody_knows_is_refused() -> None:
    """Or a journal of a newer kind would pass unread."""
    with pytest.raises(ValueError, match=r"^no such line in a journal: 'X 1'"):
        told("a X 1")


@pytest.mark.parametrize(
    ("lines", "status", "killed", "good"),
    [
        (["a Q 2"], 0, False, True),
        ([], 0, False, False),  # it did not say that it left
        ([], -9, True, True),
        ([], -9, False, False),  # by somebody else: out of memory?
        ([], -11, True, False),
        (["a E 2 ValueError 'it is broken'"], 1, False, False),
        (["a E 2 FencedError 'no twin of it was started'"], 1, False, False),
        (["a E 2 BrokerUnavailableError 'at the start'"], 1, False, True),
        (["a A 1 0:1", "a E 2 BrokerUnavailableError 'later'"], 1, False, False),
    ],
)
def test_end_of_a_member_has_to_be_explained(
    lines: list[str], status: int, killed: bool, good: bool
) -> None:
    """In order, killed on purpose, or by an error that what happened explains."""
    history = told("a Z 0 0 0", *lines)
    history.happens("network", 1.5).end = 3
    history.ended("a", status, killed=killed, time=2)
    assert rules(history) == ([] if good else [Rule.ERROR])


def test_member_may_be_fenced_by_its_twin_only() -> None:
    """The one whose name another process took, and no other."""
    history = told("a E 2 FencedError 'x'", "b E 2 FencedError 'x'")
    history.happens("twin", 1, "a").fences = True
    history.ended("a", 1, killed=False, time=2)
    assert rules(history) == []
    history.ended("b", 1, killed=False, time=2)
    assert rules(history) == [Rule.ERROR]


def test_unreachable_cluster_needs_a_reason() -> None:
    """With a healthy network it is an error to find nobody."""
    history = told("a E 9 BrokerUnavailableError 'x'")
    history.happens("network", 1).end = 3
    history.ended("a", 1, killed=False, time=9)
    assert rules(history) == [Rule.ERROR]
