"""The rules of the watchdog, by example and against a history kept in full."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from trio_consumer._core.watchdog import (
    Change,
    Observation,
    PartitionWatch,
    Symptom,
    Watch,
)

T = 300.0
IDLE = Observation(cursor=10, end=10, committed=10)


def watch() -> PartitionWatch:
    return PartitionWatch(T, T)


def test_idle_partition_is_no_symptom_however_long() -> None:
    """And neither is the first message after a day."""
    it = watch()
    for time in range(0, 90_000, 7):
        assert it.observe(time, IDLE) == []
    assert it.observe(90_000, replace(IDLE, end=11)) == []
    late = replace(IDLE, cursor=11, end=11, oldest_unfinished=10)
    assert it.observe(90_007, late) == []
    assert it.observe(90_007 + T - 1, late) == []


@pytest.mark.parametrize(
    ("seen", "symptom"),
    [
        (Observation(), Symptom.NEVER_FETCHED),
        (replace(IDLE, end=12), Symptom.NOT_ARRIVING),
        (replace(IDLE, end=None, end_refused=True), Symptom.END_UNKNOWN),
        (replace(IDLE, oldest_unfinished=9), Symptom.NOT_FINISHED),
        (replace(IDLE, committed=None, committable=0), Symptom.NOT_COMMITTED),
    ],
)
def test_each_symptom_shows_once_and_goes_away(seen: Observation, symptom: Symptom) -> None:
    """After the timeout, one change; when it moves, the other one."""
    it = watch()
    assert it.observe(0.0, IDLE) == []
    assert it.observe(5.0, seen) == []
    assert it.observe(5.0 + T - 0.5, seen) == []
    assert it.observe(5.0 + T, seen) == [Change(symptom, True, T)]
    assert it.showing == {symptom}
    assert it.observe(900.0, seen) == []
    assert it.observe(1000.0, IDLE) == [Change(symptom, False, 995.0)]
    assert it.showing == frozenset()


@pytest.mark.parametrize(
    ("seen", "moved"),
    [
        (replace(IDLE, end=12), replace(IDLE, cursor=11, end=12)),
        (replace(IDLE, oldest_unfinished=8), replace(IDLE, oldest_unfinished=9)),
        (replace(IDLE, committable=11), replace(IDLE, committed=11, committable=12)),
    ],
)
def test_progress_begins_the_time_anew(seen: Observation, moved: Observation) -> None:
    """Slow is not stuck: the condition holds all along, but its mark moves."""
    it = watch()
    it.observe(0.0, seen)
    assert it.observe(T - 1, moved) == []
    assert it.observe(2 * T - 2, moved) == []
    assert len(it.observe(2 * T - 1, moved)) == 1
    assert [change.begins for change in it.observe(2 * T, seen)] == [False]


def test_held_on_purpose_is_no_symptom() -> None:
    """Paused by the user, or with flow stopped and nothing in hand."""
    it = watch()
    held = Observation(fetching=False, consuming=False, cursor=5, end=9, oldest_unfinished=4)
    for time in (0.0, T, 2 * T):
        assert it.observe(time, held) == []


def test_commits_have_a_patience_of_their_own() -> None:
    """A long commit interval is no failure to commit."""
    it = PartitionWatch(T, 3 * T)
    seen = replace(IDLE, committable=11)
    it.observe(0.0, seen)
    assert it.observe(2 * T, seen) == []
    assert it.observe(3 * T, seen) == [Change(Symptom.NOT_COMMITTED, True, 3 * T)]


def test_what_would_show_is_told_without_a_change() -> None:
    """Someone may look between two looks of the watchdog."""
    it = watch()
    stuck = replace(IDLE, oldest_unfinished=9)
    it.observe(0.0, stuck)
    assert it.showing_at(T - 1, stuck) == {}
    assert it.showing_at(T, stuck) == {Symptom.NOT_FINISHED: T}
    assert it.showing_at(T, replace(IDLE, oldest_unfinished=8)) == {}
    assert it.showing == frozenset()
    assert it.observe(T, stuck) == [Change(Symptom.NOT_FINISHED, True, T)]


def test_gap_between_looks_counts_as_two_intervals() -> None:
    """A machine that was suspended for a day has not watched for a day."""
    it = Watch(7.0, now=100.0)
    assert it.look(107.0) == 7.0
    assert it.look(90_000.0) == 21.0
    assert it.look(90_007.0, blind=True) == 21.0
    assert it.look(90_000.0) == 21.0
    assert it.look(90_001.0) == 22.0


class WatchMachine(RuleBasedStateMachine):
    """Any sequence of looks; the whole history says what ought to show."""

    def __init__(self) -> None:
        super().__init__()
        self.it = PartitionWatch(10.0, 15.0)
        self.time = 0.0
        self.history: list[tuple[float, Observation]] = []
        self.episodes: dict[Symptom, bool] = {}

    @rule(
        step=st.sampled_from([0.0, 1.0, 4.0, 9.0, 11.0]),
        seen=st.builds(
            Observation,
            fetching=st.booleans(),
            consuming=st.booleans(),
            cursor=st.none() | st.integers(0, 2),
            end=st.none() | st.integers(0, 3),
            end_refused=st.booleans(),
            committed=st.none() | st.integers(0, 1),
            committable=st.none() | st.integers(0, 2),
            oldest_unfinished=st.none() | st.integers(0, 1),
        ),
        again=st.booleans(),
    )
    def look(self, step: float, seen: Observation, *, again: bool) -> None:
        self.time += step
        if again and self.history:
            seen = self.history[-1][1]
        self.history.append((self.time, seen))
        foreseen = self.it.showing_at(self.time, seen)
        for change in self.it.observe(self.time, seen):
            # Begins and ends take turns: one of each an episode.
            assert self.episodes.get(change.symptom, False) is not change.begins
            self.episodes[change.symptom] = change.begins
            if change.begins:
                assert foreseen[change.symptom] == change.seconds
        assert foreseen.keys() == self.it.showing

    @staticmethod
    def mark(symptom: Symptom, seen: Observation) -> tuple[object, ...] | None:
        """The rules once more, one by one."""
        behind = seen.cursor is not None and seen.end is not None and seen.end > seen.cursor
        if symptom is Symptom.NEVER_FETCHED:
            return () if seen.fetching and seen.cursor is None else None
        if symptom is Symptom.NOT_ARRIVING:
            return (seen.cursor,) if seen.fetching and behind else None
        if symptom is Symptom.END_UNKNOWN:
            refused = seen.end_refused and seen.cursor is not None and not behind
            return (seen.cursor,) if seen.fetching and refused else None
        if symptom is Symptom.NOT_FINISHED:
            held = seen.consuming and seen.oldest_unfinished is not None
            return (seen.oldest_unfinished,) if held else None
        return (seen.committed,) if seen.committable is not None else None

    @invariant()
    def shows_exactly_what_has_not_moved(self) -> None:
        for symptom in Symptom:
            since: float | None = None
            last: tuple[object, ...] | None = None
            for time, seen in self.history:
                mark = self.mark(symptom, seen)
                if mark is None or mark != last:
                    since = time
                last = mark
            patience = 15.0 if symptom is Symptom.NOT_COMMITTED else 10.0
            shows = last is not None and since is not None and self.time - since >= patience
            assert (symptom in self.it.showing) == shows
            assert self.episodes.get(symptom, False) == shows


TestWatchMachine = WatchMachine.TestCase
