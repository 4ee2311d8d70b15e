"""The timetable of commits, over any course of time, acknowledgements and failures."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from trio_consumer._core.commit_policy import CommitPolicy, Report

from .strategies import intervals, thresholds


class CommitPolicyMachine(RuleBasedStateMachine):
    """Time goes on, messages are acknowledged, commits succeed and fail."""

    @initialize(interval=intervals, every=thresholds, cap=intervals, now=st.integers(0, 5))
    def prepare(self, interval: int, every: int | None, cap: int, now: int) -> None:
        self.policy = CommitPolicy(interval, every, now=now, max_backoff=cap)
        self.interval, self.every, self.cap = interval, every, max(cap, interval)
        self.now = now
        self.last_good = now
        self.failed_at: list[int] = []
        self.acks = 0
        self.reports: list[Report] = []

    # -- the model: from the history, nothing else

    def backing_off_until(self) -> int:
        """The end of the wait after the failures since the last success."""
        if not self.failed_at:
            return self.last_good
        delay = self.interval
        for _ in self.failed_at[1:]:
            delay = min(2 * delay, self.cap)
        return self.failed_at[-1] + delay

    def is_due(self, when: int) -> bool:
        if when < self.backing_off_until():
            return False
        enough = self.every is not None and self.acks >= self.every
        return enough or bool(self.failed_at) or when >= self.last_good + self.interval

    # -- what happens

    @rule(seconds=st.integers(0, 50))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @rule(count=st.integers(0, 4))
    def acknowledge(self, count: int) -> None:
        self.acks += count
        due = self.every is not None and self.acks >= self.every
        assert self.policy.acknowledged(count) is due

    @rule()
    def sleep_until_due(self) -> None:
        wake_at = self.policy.wake_at()
        assert wake_at == int(wake_at)
        self.now = max(self.now, int(wake_at))
        assert self.is_due(self.now)

    @rule(meanwhile=st.integers(0, 3), seconds=st.integers(0, 3))
    def commit(self, meanwhile: int, seconds: int) -> None:
        """On the timetable or by hand; acknowledgements go on while it is under way."""
        self.send(meanwhile, seconds)
        report = self.policy.succeeded(self.now)
        assert report is (Report.RECOVERED if self.failed_at else Report.NOTHING)
        self.note(report)
        self.failed_at.clear()
        self.last_good = self.now

    @precondition(lambda self: self.is_due(self.now))
    @rule(meanwhile=st.integers(0, 3), seconds=st.integers(0, 3))
    def fail(self, meanwhile: int, seconds: int) -> None:
        self.send(meanwhile, seconds)
        report = self.policy.failed(self.now)
        assert report is (Report.NOTHING if self.failed_at else Report.FAILING)
        self.note(report)
        self.failed_at.append(self.now)
        assert not self.policy.should_commit(self.now)

    def send(self, meanwhile: int, seconds: int) -> None:
        self.policy.started()
        self.acks = 0
        self.now += seconds
        self.acknowledge(meanwhile)

    def note(self, report: Report) -> None:
        if report is not Report.NOTHING:
            self.reports.append(report)

    # -- what has to hold

    @invariant()
    def it_is_due_when_the_history_says_so(self) -> None:
        for when in range(self.now, self.now + 3 * self.interval, max(1, self.interval // 3)):
            assert self.policy.should_commit(when) is self.is_due(when)

    @invariant()
    def waking_up_is_neither_too_early_nor_too_late(self) -> None:
        wake_at = int(self.policy.wake_at())
        assert self.is_due(wake_at)
        assert wake_at <= self.backing_off_until() or not self.is_due(wake_at - 1)
        assert self.policy.wake_at() <= max(self.policy.due_at, self.backing_off_until())

    @invariant()
    def an_episode_is_reported_at_both_ends(self) -> None:
        expected = [Report.FAILING, Report.RECOVERED] * len(self.reports)
        assert self.reports == expected[: len(self.reports)]
        assert bool(self.failed_at) == (len(self.reports) % 2 == 1)
        assert self.policy.failures == len(self.failed_at)


TestCommitPolicyMachine = CommitPolicyMachine.TestCase


def test_commit_is_due_each_interval() -> None:
    """Acknowledgements alone make nothing due unless a count was asked for."""
    policy = CommitPolicy(2.5, None, now=100.0)
    assert not policy.acknowledged(1_000_000)
    assert not policy.should_commit(102.4)
    assert policy.due_at == policy.wake_at() == 102.5
    assert policy.should_commit(102.5)


def test_commit_is_due_after_so_many_acknowledgements() -> None:
    """It need not wait for the interval, and counts anew from the snapshot on."""
    policy = CommitPolicy(60.0, 3, now=0.0)
    assert not policy.acknowledged(2)
    assert not policy.should_commit(1.0)
    assert policy.acknowledged(1)
    assert policy.should_commit(1.0)
    policy.started()
    assert not policy.acknowledged(1)
    assert policy.succeeded(1.5) is Report.NOTHING
    assert policy.wake_at() == 61.5
    assert policy.acknowledged(2)
    assert policy.wake_at() == 1.5


def test_acknowledgements_do_not_shorten_a_back_off() -> None:
    """A broker that is down is not asked for each message."""
    policy = CommitPolicy(1.0, 1, now=0.0)
    policy.started()
    assert policy.failed(0.0) is Report.FAILING
    assert policy.acknowledged(100)
    assert not policy.should_commit(0.9)
    assert policy.wake_at() == 1.0
    assert policy.should_commit(1.0)


def test_back_off_doubles_up_to_its_bound() -> None:
    """However long the episode is, the wait stays finite."""
    policy = CommitPolicy(1.0, None, now=0.0, max_backoff=5.0)
    waits = []
    for _ in range(2000):
        policy.failed(0.0)
        waits.append(policy.wake_at())
    assert waits[:5] == [1.0, 2.0, 4.0, 5.0, 5.0]
    assert waits[-1] == 5.0
    assert policy.failures == 2000
    assert policy.succeeded(10.0) is Report.RECOVERED
    assert policy.failures == 0
    assert policy.wake_at() == 11.0


def test_broker_that_is_back_is_asked_within_half_a_minute() -> None:
    """The bound of the back-off where nobody chooses one."""
    policy = CommitPolicy(1.0, None, now=0.0)
    for _ in range(10):
        policy.failed(0.0)
    assert policy.wake_at() == 30.0


def test_back_off_is_never_shorter_than_the_interval() -> None:
    """A long interval is not cut by the bound of the back-off."""
    policy = CommitPolicy(120.0, None, now=0.0)
    policy.failed(0.0)
    assert policy.wake_at() == 120.0


@pytest.mark.parametrize("interval", [0, -1.0, float("nan")])
def test_interval_has_to_be_positive(interval: float) -> None:
    """Zero seconds between commits is a mistake, not a wish."""
    with pytest.raises(ValueError, match=r"^commit_interval must be positive, not "):
        CommitPolicy(interval, None, now=0.0)


@pytest.mark.parametrize("every", [0, -1])
def test_every_has_to_be_at_least_one(every: int) -> None:
    """Who wants no commits by count says None."""
    with pytest.raises(ValueError, match=rf"^commit_every must be at least 1, not {every}$"):
        CommitPolicy(1.0, every, now=0.0)


def test_put_off_waits_for_the_interval_and_counts_anew() -> None:
    """A transaction is open: its end commits."""
    policy = CommitPolicy(10.0, 3, now=0.0)
    policy.acknowledged(5)
    assert policy.should_commit(1.0)
    policy.put_off(1.0)
    assert not policy.should_commit(10.0)
    assert policy.wake_at() == 11.0
    assert policy.should_commit(11.0)
    assert not policy.acknowledged(2)
    assert policy.acknowledged(1)
