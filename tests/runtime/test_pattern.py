"""Streams of the topics that a pattern means, now and later."""

# The blocks nest as those of a program do.
# ruff: noqa: SIM117

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import trio

from trio_consumer import TP, ConfigurationError, Stream, UnknownTopicError
from trio_consumer.testing import MemoryBroker
from trio_consumer.transports.memory.session import MemorySession

from .support import GROUP, add_topic, committed, consuming, run, take

AGE: dict[str, Any] = {"client_options": {"metadata_max_age_ms": 10_000}}


def topics_of(*names: str, **given: Any) -> MemoryBroker:
    """A broker with these topics, of two partitions with a record each."""
    it = MemoryBroker(**given)
    for name in names:
        add_topic(it, name, 1, 2)
    return it


async def names(stream: Stream, *, wait: float = 1.0) -> list[str]:
    """The topics of the messages that come, until none comes for some seconds."""
    return sorted(message.topic for message in await take(stream, wait=wait))


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged about the subscription."""
    return [r.getMessage() for r in caplog.records if r.name == "trio_consumer.subscription"]


@pytest.mark.parametrize("kind", [str, re.compile])
def test_stream_takes_every_topic_whose_whole_name_matches(kind: Callable[[str], Any]) -> None:
    """A part of a name is not enough, and nothing else is consumed."""

    async def main() -> None:
        it = topics_of("orders-a", "orders-b", "orders-b-dead", "my-orders-a", "other")
        async with consuming(it) as consumer:
            async with consumer.stream(pattern=kind("orders-[a-z]")) as stream:
                assert await names(stream) == ["orders-a"] * 2 + ["orders-b"] * 2
                assert {tp.topic for tp in consumer.assignment} == {"orders-a", "orders-b"}
                assert it.generation(GROUP) == 1
                assert consumer.statistics().streams[0].topics == {"orders-a", "orders-b"}
                assert repr(stream) == ("<Stream pattern 'orders-[a-z]' ack=auto open buffered=0>")
        assert committed(it, TP("orders-b", 1)) == 1
        assert committed(it, TP("other", 0)) is None

    run(main)


def test_internal_topics_never_match() -> None:
    """Topics of Kafka's own have to be named."""

    async def main() -> None:
        it = topics_of("__consumer_offsets", "t")
        async with consuming(it) as consumer:
            async with consumer.stream(pattern=".*") as stream:
                assert await names(stream) == ["t", "t"]
                async with consumer.stream("__consumer_offsets") as named:
                    assert await names(named) == ["__consumer_offsets"] * 2
                    assert await names(stream) == []

    run(main)


def test_topic_that_appears_later_joins_the_subscription() -> None:
    """It is found when the metadata is renewed, and read from its beginning."""

    async def main() -> None:
        it = topics_of("t-1")
        async with consuming(it, **AGE) as consumer:
            async with consumer.stream(pattern="t-.*") as stream:
                assert await names(stream) == ["t-1"] * 2
                add_topic(it, "t-2", 3)
                add_topic(it, "u", 3)
                assert await names(stream, wait=8) == []
                assert await names(stream, wait=8) == ["t-2"] * 3
                assert {tp.topic for tp in consumer.assignment} == {"t-1", "t-2"}
        assert committed(it, TP("t-2", 0)) == 3

    run(main)


def test_metadata_is_renewed_every_five_minutes_by_default() -> None:
    """As the client does; nothing is asked while no stream has a pattern."""

    async def main() -> None:
        it = topics_of("t")
        async with consuming(it) as consumer:
            async with consumer.stream(pattern="t-.*|t") as stream:
                await names(stream)
                add_topic(it, "t-2", 1)
                assert await names(stream, wait=290) == []
                assert await names(stream, wait=20) == ["t-2"]

    run(main)


def test_pattern_that_means_nothing_yet_waits() -> None:
    """No error, and no member of a group without a topic; then its topic appears."""

    async def main() -> None:
        it = topics_of("other")
        async with consuming(it, **AGE) as consumer:
            async with consumer.stream(pattern="t-.*") as stream:
                assert await names(stream, wait=30) == []
                assert it.members(GROUP) == {}
                add_topic(it, "t-1", 2)
                assert await names(stream, wait=15) == ["t-1"] * 2
        assert committed(it, TP("t-1", 0)) == 2

    run(main)


def test_streams_opened_together_join_once() -> None:
    """Names and patterns make one subscription, and a message goes to whoever wants it."""

    async def main() -> None:
        it = topics_of("a", "b", "c")
        async with (
            consuming(it, topics=["c"]) as consumer,
            consumer.stream("a") as named,
            consumer.stream(pattern="[ab]") as one,
            consumer.stream(pattern="[bc]") as two,
        ):
            assert await names(named) == ["a"] * 2
            assert await names(one) == ["a"] * 2 + ["b"] * 2
            assert await names(two) == ["b"] * 2 + ["c"] * 2
            assert it.generation(GROUP) == 1

    run(main)


def test_stream_opened_later_resolves_its_pattern_at_once() -> None:
    """It does not wait for the metadata to be renewed."""

    async def main() -> None:
        it = topics_of("a")
        async with consuming(it) as consumer, consumer.stream(pattern="a.*") as one:
            assert await names(one) == ["a"] * 2
            add_topic(it, "b", 1)
            async with consumer.stream(pattern="b.*") as two:
                assert await names(two, wait=5) == ["b"]
            # Nothing is asked for a pattern whose stream has gone.
            async with consumer.stream("a") as three:
                await names(three, wait=5)
                assert {tp.topic for tp in consumer.assignment} == {"a"}

    run(main)


def test_topic_that_another_stream_brings_in_is_taken_at_once() -> None:
    """A pattern takes what is assigned, whether it was asked for since or not."""

    async def main() -> None:
        it = topics_of("t-1")
        async with consuming(it) as consumer, consumer.stream(pattern="t-.*") as one:
            assert await names(one) == ["t-1"] * 2
            add_topic(it, "t-2", 1)
            async with consumer.stream("t-2") as two:
                assert await names(two, wait=5) == ["t-2"]
                assert await names(one) == ["t-2"]

    run(main)


def test_subset_of_partitions_holds_for_every_topic_of_a_pattern() -> None:
    """``partitions=`` goes with a pattern as with names."""

    async def main() -> None:
        it = topics_of("t-1", "t-2")
        async with consuming(it) as consumer:
            async with consumer.stream(pattern="t-.*", partitions=[1]) as stream:
                assert [m.tp for m in await take(stream)] == [TP("t-1", 1), TP("t-2", 1)]

    run(main)


def test_topic_that_was_deleted_leaves_the_subscription() -> None:
    """The others go on, and it is taken again if it is made anew."""

    async def main() -> None:
        it = topics_of("t-1", "t-2")
        async with consuming(it, **AGE) as consumer:
            async with consumer.stream(pattern="t-.*") as stream:
                await names(stream)
                await consumer.commit()
                it.delete_topic("t-2")
                await trio.sleep(25)
                assert stream.topics == {"t-1"}
                it.produce("t-1", b"more")
                assert await names(stream) == ["t-1"]
                await consumer.commit()
                it.delete_topic("t-1")
                await trio.sleep(25)
                assert consumer.assignment == frozenset()
                add_topic(it, "t-3", 2)
                assert await names(stream, wait=25) == ["t-3"] * 2

    run(main)


def test_topic_deleted_between_question_and_subscription_is_no_error() -> None:
    """Only who names a topic wants to know that it does not exist."""

    async def main() -> None:
        it = topics_of("t-1", "t-2", "u", latency=1.0)
        async with (
            consuming(it) as consumer,
            consumer.stream("u") as named,
            consumer.stream(pattern="t-.*") as stream,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(partial(take, stream, wait=30))
            # The answer with the topics has been given, the subscription has not arrived.
            await trio.sleep(1.2)
            it.delete_topic("t-2")
            assert await names(named, wait=20) == ["u"] * 2
            assert stream.topics == {"t-1"}
            assert {tp.topic for tp in consumer.assignment} == {"t-1", "u"}

    run(main)


def test_named_topic_that_does_not_exist_is_an_error_beside_a_pattern() -> None:
    """A pattern does not hide the mistake in a name."""

    async def main() -> None:
        it = topics_of("t-1")
        with pytest.raises(UnknownTopicError, match=r"^cannot .*'no-such-topic'"):
            async with (
                consuming(it) as consumer,
                consumer.stream(pattern="t-.*"),
                consumer.stream("no-such-topic") as stream,
            ):
                await take(stream)

    run(main)


def test_cluster_that_does_not_answer_is_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    """An outage is reported once; what is subscribed goes on, and new topics come later."""

    async def main() -> None:
        it = topics_of("t-1")
        async with consuming(it, **AGE) as consumer:
            async with consumer.stream(pattern="t-.*") as stream:
                await names(stream)
                it.down()
                await trio.sleep(30)
                it.up()
                add_topic(it, "t-2", 1)
                assert await names(stream, wait=15) == ["t-2"]
                assert {tp.topic for tp in consumer.assignment} == {"t-1", "t-2"}

    run(main)
    assert warnings(caplog) == [
        "cannot tell which topics the patterns mean, new ones are not consumed yet; trying again:"
        " cannot list the topics: no answer within 5.0 s; try again"
    ]


def test_refusal_to_list_the_topics_ends_the_consumer(monkeypatch: pytest.MonkeyPatch) -> None:
    """What will not pass leaves the block as itself."""

    async def main() -> None:
        from trio_consumer import AuthorizationError

        async def refused(session: MemorySession) -> frozenset[str]:
            raise AuthorizationError("cannot list the topics: not authorized")

        monkeypatch.setattr(MemorySession, "topics", refused)
        with pytest.raises(AuthorizationError, match=r"^cannot list the topics"):
            async with consuming(topics_of("t")) as consumer:
                async with consumer.stream(pattern="t") as stream:
                    await take(stream)

    run(main)


def test_answer_that_leaves_out_an_existing_topic_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A topic is given up only if it is really gone: a rebalance costs more than a question."""

    async def main() -> None:
        it = topics_of("t-1", "t-2")
        ask = MemorySession.topics
        answers = 0

        async def partly(session: MemorySession) -> frozenset[str]:
            nonlocal answers
            answers += 1
            return (await ask(session)) - ({"t-2"} if answers > 1 else set())

        monkeypatch.setattr(MemorySession, "topics", partly)
        async with consuming(it, **AGE) as consumer:
            async with consumer.stream(pattern="t-.*") as stream:
                await names(stream)
                await trio.sleep(30)
                assert answers > 2
                assert stream.topics == {"t-1", "t-2"}
                assert it.generation(GROUP) == 1

    run(main)


@pytest.mark.parametrize(
    ("topics", "pattern", "match"),
    [
        (["t"], "t.*", r"^a stream takes topics or a pattern, not both: \('t',\) and 't\.\*'$"),
        ([], "(", r"^pattern '\(' is not a regular expression: "),
        ([], 3, r"^pattern 3 is not a regular expression: "),
        ([], re.compile(b"t"), r"^pattern .* is for bytes: names of topics are text"),
    ],
)
def test_pattern_that_cannot_work_is_refused(topics: list[str], pattern: Any, match: str) -> None:
    """At once, and with what is wrong about it."""

    async def main() -> None:
        async with consuming(topics_of("t")) as consumer:
            with pytest.raises(ConfigurationError, match=match):
                consumer.stream(*topics, pattern=pattern)

    run(main)
