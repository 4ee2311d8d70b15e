"""Every Hypothesis strategy of the core's tests."""

from __future__ import annotations

from hypothesis import strategies as st

from trio_consumer._types import TopicPartition

STREAM_COUNTS = (1, 2, 3, 4, 5, 6, 7, 8, 15, 31, 63, 70)
"""Every row type of the ledger, and more streams than any of them holds."""

HUGE_GAP = 10_000_000

stream_counts = st.one_of(st.sampled_from((1, 2, 3)), st.sampled_from(STREAM_COUNTS))

steps = st.lists(st.sampled_from((1, 1, 1, 1, 1, 2, 3, 17, HUGE_GAP)), max_size=9)
"""Distances between neighbouring offsets; 1 is no hole."""

leads = st.sampled_from((0, 0, 0, 1, 5, HUGE_GAP))
"""How far behind the position a batch begins."""

starts = st.sampled_from((0, 0, 1, 7, 5_000_000_000))
"""Where reading starts, 0 above all."""

picks = st.integers(0, 10_000)
"""A choice out of a list whose length is not known here: take it modulo that."""

many_picks = st.lists(picks, min_size=1, max_size=6)

topic_partitions = st.builds(TopicPartition, st.sampled_from("abc"), st.integers(0, 3))

poll_sizes = st.dictionaries(topic_partitions, st.integers(0, 25), max_size=8)

quanta = st.integers(1, 12)

reasons = st.sampled_from(("user", "flow", "seek", "stream 1", "stream 2"))

levels = st.lists(st.integers(0, 40), max_size=60)

bounds = st.integers(1, 30)

intervals = st.integers(1, 40)
"""Seconds, whole ones, so that sums of them are exact."""

thresholds = st.one_of(st.none(), st.integers(1, 6))
