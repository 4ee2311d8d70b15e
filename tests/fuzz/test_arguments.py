"""Nonsense in the arguments of the public names: an error that names the argument, or it works."""

from __future__ import annotations

import math
from typing import Any

import pytest
import trio
from hypothesis import example, given
from hypothesis import strategies as st
from trio.testing import MockClock

from trio_consumer import TP, ConfigurationError, Consumer, UnknownTopicError, open_consumer
from trio_consumer.testing import MemoryBroker

from .support import fuzzed

LONG = 60.0
"""Virtual seconds: longer than anything that ends."""


class Odd:
    """Something whose text cannot be told."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")


numbers = st.sampled_from(
    [math.nan, math.inf, -math.inf, 0, -0.0, -1, 1, 0.5, 1e308, 10**400, -(10**400), 2**63, 2**31]
) | st.integers(-3, 3)
anything = st.recursive(
    st.none()
    | st.booleans()
    | numbers
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["", "t", "\0", "\ud800", "t\0", "a" * 40_000])
    | st.binary(max_size=5)
    | st.complex_numbers(max_magnitude=3)
    | st.just(object())
    | st.builds(Odd)
    | st.just(len)
    | st.just(Odd),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.frozensets(st.integers(-2, 2) | st.text(max_size=2), max_size=3)
        | st.dictionaries(st.text(max_size=2), inner, max_size=2)
    ),
    max_leaves=4,
)

OPENING = (
    "group",
    "topics",
    "commit_interval",
    "commit_every",
    "commit_timeout",
    "commit_livelock_soft_timeout",
    "drain_timeout",
    "connect_timeout",
    "auto_offset_reset",
    "isolation_level",
    "transactional_id",
    "transaction_timeout",
    "max_buffered",
    "scheduler",
    "callback",
    "randomly_assigned_topics",
    "on_partitions_assigned",
    "on_partitions_revoked",
    "on_partitions_lost",
    "on_livelock",
    "client_options",
)
STREAM = (
    "pattern",
    "key_deserializer",
    "value_deserializer",
    "on_decode_error",
    "ack",
    "partitions",
    "max_buffered",
)


def filled() -> MemoryBroker:
    broker = MemoryBroker()
    broker.create_topic("t", 1)
    broker.produce_many("t", [b"1", b"2", b"3"], partition=0)
    return broker


def run(main: Any) -> None:
    """Under a virtual clock, and never for ever."""

    async def bounded() -> None:
        with trio.fail_after(10 * LONG):
            await main()

    trio.run(bounded, clock=MockClock(autojump_threshold=0))


def check_named(caught: ConfigurationError, name: str) -> None:
    """The message says which argument, and is no novel."""
    # One of the client options is named by itself.
    assert name in str(caught) or name[:-1].replace("_", " ") in str(caught), str(caught)
    assert len(str(caught)) < 600


@fuzzed(100)
@given(st.sampled_from(OPENING), anything)
@example("commit_interval", math.nan)
@example("commit_timeout", math.nan)
@example("connect_timeout", math.inf)
@example("transaction_timeout", 1e308)
@example("drain_timeout", "5")
@example("max_buffered", True)
@example("max_buffered", 1.5)
@example("commit_every", math.inf)
@example("group", "a\0b")
@example("group", "\ud800")
@example("topics", [[]])
@example("topics", [""])
@example("topics", 5)
@example("isolation_level", "")
@example("transactional_id", "")
@example("client_options", "ab")
@example("scheduler", 5)
@example("callback", 5)
@example("on_livelock", 5)
def test_opening(name: str, value: Any) -> None:
    """A consumer opens and closes, or the argument is named."""

    async def main() -> None:
        given: dict[str, Any] = {"group": "g", name: value}
        if name == "callback":
            given["topics"] = ["t"]
        if name == "transaction_timeout":
            given["transactional_id"] = "x"
        try:
            async with open_consumer(filled(), **given) as consumer:
                opened = consumer
        except ConfigurationError as exc:
            check_named(exc, name)
        else:
            assert not opened.assignment

    run(main)


@fuzzed(100)
@given(st.sampled_from(STREAM), anything)
@example("max_buffered", True)
@example("max_buffered", math.nan)
@example("partitions", [-1])
@example("partitions", 0)
@example("partitions", [[]])
@example("value_deserializer", 5)
@example("ack", [])
@example("on_decode_error", [])
def test_stream(name: str, value: Any) -> None:
    """A stream is made, or the argument is named; what it then hands out is not looked at."""

    async def main() -> None:
        async with open_consumer(filled(), group="g") as consumer:
            topics = () if name == "pattern" else ("t",)
            try:
                consumer.stream(*topics, **{name: value})
            except ConfigurationError as exc:
                check_named(exc, "topic" if name == "pattern" and value is None else name)

    run(main)


@fuzzed(50)
@given(st.lists(anything, min_size=1, max_size=2))
@example([[]])
@example([""])
@example([b"t"])
def test_topics_of_a_stream(topics: list[Any]) -> None:
    """Names of topics are text."""

    async def main() -> None:
        async with open_consumer(filled(), group="g") as consumer:
            try:
                consumer.stream(*topics)
            except ConfigurationError as exc:
                check_named(exc, "topics")
            else:
                assert all(isinstance(topic, str) and topic for topic in topics)

    run(main)


@fuzzed(30)
@given(anything, anything)
@example(True, 0.0)
@example(1.5, 0.0)
@example(1, math.nan)
@example(2, math.inf)
@example("1", 0.0)
@example(1, None)
def test_batches(max_size: Any, max_wait: Any) -> None:
    """Batches come, or the argument is named; nothing waits for ever."""

    async def main() -> None:
        async with (
            open_consumer(filled(), group="g") as consumer,
            consumer.stream("t", ack="manual") as stream,
        ):
            try:
                batches = stream.batches(max_size, max_wait)
            except ConfigurationError as exc:
                check_named(exc, "max_")
                return
            with trio.move_on_after(LONG):
                batch = await anext(batches)
                assert 1 <= len(batch) <= max_size

    run(main)


async def seek(consumer: Consumer, value: Any) -> None:
    await consumer.seek(TP("t", 0), value)


async def seek_partition(consumer: Consumer, value: Any) -> None:
    await consumer.seek(value, 0)


async def getmany(consumer: Consumer, value: Any) -> None:
    with trio.move_on_after(LONG):
        async for _ in consumer.getmany(value):
            pass


async def wait_empty(consumer: Consumer, value: Any) -> None:
    with trio.move_on_after(LONG):
        await consumer.wait_empty(value)


async def commit(consumer: Consumer, value: Any) -> None:
    await consumer.commit(value)


async def pause(consumer: Consumer, value: Any) -> None:
    consumer.pause_partitions(value)
    consumer.resume_partitions(value)


async def buffer_full(consumer: Consumer, value: Any) -> None:
    consumer.on_buffer_full(value)
    consumer.on_buffer_drop(value)


async def position(consumer: Consumer, value: Any) -> None:
    consumer.position(value)


async def while_assigned(consumer: Consumer, value: Any) -> None:
    with consumer.while_assigned(value):
        pass


async def committed(consumer: Consumer, value: Any) -> None:
    await consumer.committed(value)


async def beginnings(consumer: Consumer, value: Any) -> None:
    await consumer.beginning_offsets(value)


async def ends(consumer: Consumer, value: Any) -> None:
    await consumer.end_offsets(value)


CALLS = {
    seek: "offset",
    seek_partition: "tp",
    getmany: "timeout",
    wait_empty: "timeout",
    commit: "topics",
    pause: "tps",
    buffer_full: "tp",
    position: "tp",
    while_assigned: "tp",
    committed: "tps",
    beginnings: "tps",
    ends: "tps",
}
partitions = st.tuples(st.text(max_size=2) | st.just("t"), anything)


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.__name__)
@fuzzed(30)
@given(value=anything | partitions | st.lists(partitions, max_size=2))
@example(value=True)
@example(value=math.nan)
@example(value=2**63)
@example(value=("t", True))
@example(value=("t", 2**31))
@example(value=[("t",)])
@example(value="t")
@example(value=5)
def test_calls(call: Any, value: Any) -> None:
    """Each call of a consumer does what it is for, or names the argument."""

    async def main() -> None:
        async with (
            open_consumer(filled(), group="g", topics=["t"]) as consumer,
            consumer.stream("t", ack="manual") as stream,
        ):
            message = await anext(aiter(stream))
            message.ack()
            try:
                await call(consumer, value)
            except ConfigurationError as exc:
                # The text names a partition of another one, which is as it should be.
                if "is not assigned to this member" not in str(exc):
                    check_named(exc, CALLS[call])
            except UnknownTopicError:
                pass  # a good name, and the broker does not know it

    run(main)
