"""Pause reasons against a set of pairs, and the hysteresis of one buffer."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from trio_consumer._core.flow import Flow, PauseReason, Pressure
from trio_consumer._types import TopicPartition

from .strategies import bounds, levels, reasons, topic_partitions

P, Q = TopicPartition("a", 0), TopicPartition("b", 0)


class FlowMachine(RuleBasedStateMachine):
    """Partitions that come and go, held and released for several reasons."""

    def __init__(self) -> None:
        super().__init__()
        self.flow = Flow()
        self.known: set[TopicPartition] = set()
        self.held: set[tuple[TopicPartition, str]] = set()
        self.paused: set[TopicPartition] = set()
        """What a client is told to pause: it must never need more than the changes."""

    def is_held(self, tp: TopicPartition) -> bool:
        return any(other == tp for other, _ in self.held)

    @rule(tps=st.lists(topic_partitions))
    def add(self, tps: list[TopicPartition]) -> None:
        self.flow.add(tps)
        self.known.update(tps)

    @rule(tps=st.lists(topic_partitions))
    def discard(self, tps: list[TopicPartition]) -> None:
        self.flow.discard(tps)
        self.known.difference_update(tps)
        self.paused.difference_update(tps)
        self.held = {(tp, reason) for tp, reason in self.held if tp not in tps}

    @rule(tps=st.lists(topic_partitions), reason=reasons)
    def hold(self, tps: list[TopicPartition], reason: str) -> None:
        changed = self.flow.hold(tps, reason)
        assert not changed & self.paused
        self.paused |= changed
        self.held.update((tp, reason) for tp in tps if tp in self.known)

    def let_go(self, release: Callable[[], frozenset[TopicPartition]]) -> None:
        changed = release()
        assert changed <= self.paused
        self.paused -= changed

    @rule(tps=st.lists(topic_partitions), reason=reasons)
    def release(self, tps: list[TopicPartition], reason: str) -> None:
        self.let_go(lambda: self.flow.release(tps, reason))
        self.held.difference_update((tp, reason) for tp in tps)

    @rule(reason=reasons)
    def release_everywhere(self, reason: str) -> None:
        self.let_go(lambda: self.flow.release_everywhere(reason))
        self.held = {(tp, other) for tp, other in self.held if other != reason}

    @invariant()
    def it_agrees_with_the_pairs(self) -> None:
        assert set(self.flow.partitions) == self.known
        assert self.paused == {tp for tp in self.known if self.is_held(tp)}
        for tp in self.known:
            assert self.flow.is_open(tp) is not self.is_held(tp)
            assert self.flow.reasons(tp) == {reason for other, reason in self.held if other == tp}
        for reason in ("user", "flow", "stream 1"):
            assert self.flow.held_by(reason) == {tp for tp, r in self.held if r == reason}


TestFlowMachine = FlowMachine.TestCase


def test_unknown_partition_is_neither_open_nor_held() -> None:
    """A partition that is not assigned is not fetched, and nothing holds it."""
    flow = Flow()
    assert not flow.is_open(P)
    assert flow.reasons(P) == frozenset()
    assert flow.hold([P], PauseReason.USER) == frozenset()
    assert flow.release([P], PauseReason.USER) == frozenset()
    assert flow.reasons(P) == frozenset()


def test_users_pause_does_not_end_when_a_buffer_drains() -> None:
    """Reasons are independent of one another, and of other partitions."""
    flow = Flow()
    flow.add([P, Q])
    assert flow.hold([P], PauseReason.USER) == {P}
    assert flow.hold([P, Q], "stream") == {Q}
    assert flow.release_everywhere("stream") == {Q}
    assert not flow.is_open(P)
    assert flow.is_open(Q)
    assert flow.release([P], PauseReason.USER) == {P}
    assert flow.is_open(P)


def test_what_a_reason_holds_and_what_is_known() -> None:
    """Other reasons and partitions that are not held do not count."""
    flow = Flow()
    flow.add([P, Q])
    flow.hold([P], PauseReason.USER)
    flow.hold([Q], "stream")
    assert flow.held_by(PauseReason.USER) == {P}
    assert flow.held_by(PauseReason.FLOW) == frozenset()
    assert set(flow.partitions) == {P, Q}


def test_partition_named_twice_changes_once() -> None:
    """A client is not asked twice for the same partition."""
    flow = Flow()
    flow.add([P, P])
    assert flow.hold([P, P], PauseReason.FLOW) == {P}
    assert flow.release([P, P], PauseReason.FLOW) == {P}


def test_partition_that_comes_back_is_not_held() -> None:
    """A pause ends with the assignment."""
    flow = Flow()
    flow.add([P])
    flow.hold([P], PauseReason.USER)
    flow.discard([P])
    flow.add([P])
    assert flow.is_open(P)


@given(bound=bounds, filling=levels)
def test_pressure_follows_the_level_with_hysteresis(bound: int, filling: list[int]) -> None:
    """Full at the bound, drained at half of it, and unchanged in between."""
    pressure = Pressure(bound)
    full = False
    for level in filling:
        before = full
        if level >= bound:
            full = True
        elif level <= bound // 2:
            full = False
        assert pressure.update(level) is (full is not before)
        assert pressure.full is full


def test_pressure_of_a_buffer_for_one_drains_when_empty() -> None:
    """The smallest buffer is full with one record and drained with none."""
    pressure = Pressure(1)
    assert pressure.update(1)
    assert not pressure.update(1)
    assert pressure.update(0)
    assert not pressure.full


@pytest.mark.parametrize("bound", [0, -1])
def test_pressure_refuses_a_buffer_without_room(bound: int) -> None:
    """A buffer that is always full would never be filled."""
    with pytest.raises(ValueError, match=rf"^a buffer needs room .* not {bound}$"):
        Pressure(bound)
