"""The order of one poll: complete, ascending, and fair between topics."""

from __future__ import annotations

import pytest
from hypothesis import given

from trio_consumer._core.scheduling import RoundRobin, Slice
from trio_consumer._types import TopicPartition

from .strategies import poll_sizes, quanta


@given(sizes=poll_sizes, quantum=quanta)
def test_slices_cover_every_record_once_in_order(
    sizes: dict[TopicPartition, int], quantum: int
) -> None:
    """Put together, the slices of a partition are its batch."""
    seen = dict.fromkeys(sizes, 0)
    for tp, start, stop in RoundRobin(quantum).slices(sizes):
        assert start == seen[tp]
        assert start < stop <= start + quantum
        seen[tp] = stop
    assert seen == sizes


@given(sizes=poll_sizes, quantum=quanta)
def test_slices_take_topics_in_turn(sizes: dict[TopicPartition, int], quantum: int) -> None:
    """Between two slices of a topic each other topic that has records left gets one."""
    left = dict(sizes)
    others_since: dict[str, list[str]] = {}
    for tp, start, stop in RoundRobin(quantum).slices(sizes):
        if tp.topic in others_since:
            passed = others_since[tp.topic]
            waiting = {other.topic for other, size in left.items() if size} - {tp.topic}
            assert waiting <= set(passed)
            assert len(passed) == len(set(passed))
        others_since[tp.topic] = []
        for topic, others in others_since.items():
            if topic != tp.topic:
                others.append(tp.topic)
        left[tp] -= stop - start


@given(sizes=poll_sizes, quantum=quanta)
def test_slices_take_partitions_of_a_topic_in_turn(
    sizes: dict[TopicPartition, int], quantum: int
) -> None:
    """No partition is two slices ahead of another of its topic that has records left."""
    turns = dict.fromkeys(sizes, 0)
    left = dict(sizes)
    for tp, start, stop in RoundRobin(quantum).slices(sizes):
        turns[tp] += 1
        left[tp] -= stop - start
        for other, size in left.items():
            if other.topic == tp.topic and size:
                assert turns[tp] <= turns[other] + 1


def test_topic_with_one_partition_is_served_as_often_as_one_with_a_thousand() -> None:
    """The small topic has every second turn until it has no more."""
    small = TopicPartition("small", 0)
    sizes = {TopicPartition("big", number): 10 for number in range(1000)}
    sizes[small] = 50
    order = [tp for tp, _, _ in RoundRobin(1).slices(sizes)]
    assert len(order) == 10_050
    assert [index for index, tp in enumerate(order) if tp == small] == list(range(1, 100, 2))
    first_round = [tp.partition for tp in order if tp != small][:1000]
    assert first_round == list(range(1000))


def test_large_batch_is_cut_into_slices_of_the_quantum() -> None:
    """The last slice has what is left."""
    tp = TopicPartition("a", 0)
    assert list(RoundRobin().slices({tp: 2500})) == [
        Slice(tp, 0, 1000),
        Slice(tp, 1000, 2000),
        Slice(tp, 2000, 2500),
    ]


def test_partition_without_records_has_no_slice() -> None:
    """An empty batch is not handed on."""
    assert list(RoundRobin().slices({TopicPartition("a", 0): 0})) == []


def test_quantum_below_one_is_refused() -> None:
    """It would never get through a poll."""
    with pytest.raises(ValueError, match=r"^the quantum must be at least one record, not 0$"):
        RoundRobin(0)
