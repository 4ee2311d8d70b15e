"""Spans around messages, batches and commits."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import pytest
import trio
from opentelemetry import baggage, trace
from opentelemetry.trace import SpanContext, SpanKind, StatusCode

import trio_consumer.anyio
from trio_consumer import ConfigurationError, Message
from trio_consumer.opentelemetry import (
    batch_span,
    context_headers,
    instrument,
    process_span,
    traced,
)
from trio_consumer.testing import CommitFault, MemoryBroker

from ..runtime.support import GROUP, broker, committed, consuming, run, take
from .support import PARENT, SPAN_ID, TRACE_ID, Telemetry, traceparent

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup

COMMON = {
    "messaging.system": "kafka",
    "messaging.operation.name": "process",
    "messaging.operation.type": "process",
    "messaging.consumer.group.name": GROUP,
    "messaging.destination.name": "t",
}


def with_headers(*headers: tuple[str, bytes]) -> MemoryBroker:
    """A broker with one message that has these headers."""
    it = broker()
    it.produce("t", b"0", partition=0, headers=headers)
    return it


def linked(span: Any) -> list[int]:
    """The spans that it is linked to."""
    return [link.context.span_id for link in span.links]


def process_one(telemetry: Telemetry, it: MemoryBroker, body: Any = None, **options: Any) -> None:
    """Take one message and process it in a span."""

    async def main() -> None:
        async with (
            consuming(it) as consumer,
            instrument(consumer, **telemetry.providers),
            consumer.stream("t") as stream,
        ):
            [message] = await take(stream, 1, ack=False)
            with process_span(message, **options):
                if body is not None:
                    body(message)

    run(main)


def test_span_of_a_message_has_the_names_of_the_conventions(telemetry: Telemetry) -> None:
    """Kind, name, attributes; without a header it begins a trace and has no status."""
    process_one(telemetry, broker(1), attributes={"app.shop": "north"})
    span = telemetry.span("process t")
    assert span.kind is SpanKind.CONSUMER
    assert dict(span.attributes or {}) == {
        **COMMON,
        "messaging.destination.partition.id": "0",
        "messaging.kafka.offset": 0,
        "app.shop": "north",
    }
    assert span.parent is None
    assert span.links == ()
    assert span.status.status_code is StatusCode.UNSET
    assert span.instrumentation_scope is not None
    assert span.instrumentation_scope.name == "trio_consumer"


def test_message_goes_on_with_the_trace_of_its_header(telemetry: Telemetry) -> None:
    """It is a child of the span that sent it, and linked to it; the span is current inside."""
    seen: list[SpanContext] = []
    process_one(
        telemetry,
        with_headers(PARENT),
        lambda _: seen.append(trace.get_current_span().get_span_context()),
    )
    span = telemetry.span("process t")
    assert span.parent is not None
    assert (span.parent.trace_id, span.parent.span_id) == (TRACE_ID, SPAN_ID)
    assert linked(span) == [SPAN_ID]
    assert seen == [span.context]
    assert not trace.get_current_span().get_span_context().is_valid


@pytest.mark.parametrize(
    ("parent", "in_trace_of_message"), [("auto", False), ("current", False), ("message", True)]
)
def test_span_around_is_the_parent_unless_the_message_is_asked_for(
    telemetry: Telemetry, parent: Any, in_trace_of_message: bool
) -> None:
    """The one that is not the parent is linked to."""

    async def main() -> None:
        async with (
            consuming(with_headers(PARENT)) as consumer,
            instrument(consumer, **telemetry.providers),
            consumer.stream("t") as stream,
        ):
            [message] = await take(stream, 1)
            tracer = telemetry.tracer_provider.get_tracer("test")
            with tracer.start_as_current_span("around"), process_span(message, parent=parent):
                pass

    run(main)
    span, around = telemetry.span("process t"), telemetry.span("around")
    assert span.parent is not None
    assert around.context is not None
    if in_trace_of_message:
        assert span.parent.span_id == SPAN_ID
        assert linked(span) == [SPAN_ID, around.context.span_id]
    else:
        assert span.parent.span_id == around.context.span_id
        assert linked(span) == [SPAN_ID]


def test_span_around_is_no_link_of_a_message_that_names_none(telemetry: Telemetry) -> None:
    """It is the parent, whatever else is in the headers."""

    async def main() -> None:
        async with (
            consuming(with_headers(("other", b"x"))) as consumer,
            instrument(consumer, **telemetry.providers),
            consumer.stream("t") as stream,
        ):
            [message] = await take(stream, 1)
            tracer = telemetry.tracer_provider.get_tracer("test")
            with tracer.start_as_current_span("around"), process_span(message, parent="message"):
                pass

    run(main)
    span, around = telemetry.span("process t"), telemetry.span("around")
    assert span.links == ()
    assert span.parent == around.context


def test_message_begins_a_trace_of_its_own_if_asked(telemetry: Telemetry) -> None:
    """``parent="current"`` where there is none."""
    process_one(telemetry, with_headers(PARENT), parent="current")
    span = telemetry.span("process t")
    assert span.parent is None
    assert linked(span) == [SPAN_ID]


@pytest.mark.parametrize(
    "headers",
    [
        [("traceparent", b"\xff\xfe")],
        [("traceparent", b"nonsense")],
        [("other", b"x")],
        [("Traceparent", PARENT[1])],
    ],
)
def test_headers_that_name_no_span_are_passed_over(
    telemetry: Telemetry, headers: list[tuple[str, bytes]]
) -> None:
    """Whatever they are, the message is processed."""
    process_one(telemetry, with_headers(*headers))
    span = telemetry.span("process t")
    assert span.parent is None
    assert span.links == ()


def test_last_header_of_a_name_counts(telemetry: Telemetry) -> None:
    """Who sends a record again appends its own to what is there."""
    process_one(telemetry, with_headers(traceparent(7), PARENT))
    assert linked(telemetry.span("process t")) == [SPAN_ID]


def test_baggage_of_a_message_is_there_inside_of_its_span(telemetry: Telemetry) -> None:
    """The global propagator has it beside the trace."""
    seen: list[object] = []
    process_one(
        telemetry,
        with_headers(("baggage", b"tenant=7"), PARENT),
        lambda _: seen.append(baggage.get_baggage("tenant")),
    )
    assert seen == ["7"]


def test_tombstone_is_told(telemetry: Telemetry) -> None:
    """By what the record is, not by what a deserializer makes of it."""

    async def main() -> None:
        it = broker()
        it.produce("t", b"null", partition=0)
        it.produce("t", None, partition=0)
        async with (
            consuming(it) as consumer,
            instrument(consumer, **telemetry.providers),
            consumer.stream("t", value_deserializer=json.loads) as stream,
        ):
            for message in await take(stream, 2):
                with process_span(message):
                    pass

    run(main)
    spans = telemetry.spans("process t")
    told = [(s.attributes or {}).get("messaging.kafka.message.tombstone") for s in spans]
    assert told == [None, True]


def test_exception_is_the_status_of_the_span(telemetry: Telemetry) -> None:
    """It is recorded once, its class is the type of the error, and it goes on."""

    def fail(_: Message) -> None:
        raise json.JSONDecodeError("bad order", "{", 0)

    with pytest.raises(json.JSONDecodeError):
        process_one(telemetry, broker(1), fail)
    span = telemetry.span("process t")
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description == "bad order: line 1 column 1 (char 0)"
    assert (span.attributes or {})["error.type"] == "json.decoder.JSONDecodeError"
    assert [event.name for event in span.events] == ["exception"]
    [point] = telemetry.collect()["messaging.process.duration"]
    assert point.attributes["error.type"] == "json.decoder.JSONDecodeError"


def test_cancellation_is_no_error(telemetry: Telemetry) -> None:
    """The span ends with a mark and without a status, the message stays unfinished."""

    async def main() -> None:
        it = broker(1)
        async with (
            consuming(it) as consumer,
            instrument(consumer, **telemetry.providers),
            consumer.stream("t", ack="manual") as stream,
        ):
            [message] = await take(stream, 1, ack=False)
            with trio.move_on_after(5):
                async with traced(message), trio.open_nursery() as nursery:
                    nursery.start_soon(trio.sleep_forever)
                    await trio.sleep_forever()
        assert committed(it) is None

    run(main)
    span = telemetry.span("process t")
    assert span.status.status_code is StatusCode.UNSET
    assert span.events == ()
    attributes = span.attributes or {}
    assert attributes["trio_consumer.cancelled"] is True
    assert "error.type" not in attributes
    [point] = telemetry.collect()["messaging.process.duration"]
    assert "error.type" not in point.attributes


def test_group_with_a_failure_in_it_is_an_error(telemetry: Telemetry) -> None:
    """A nursery cancels the others and raises a group: that is no cancellation."""

    async def fail() -> None:
        raise ValueError("bad")

    async def main() -> None:
        async with (
            consuming(broker(1)) as consumer,
            instrument(consumer, **telemetry.providers),
            consumer.stream("t") as stream,
        ):
            [message] = await take(stream, 1)
            with pytest.raises(ExceptionGroup), process_span(message):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(trio.sleep_forever)
                    nursery.start_soon(fail)

    run(main)
    span = telemetry.span("process t")
    assert span.status.status_code is StatusCode.ERROR
    assert str((span.attributes or {})["error.type"]).endswith("ExceptionGroup")


def test_clean_exit_of_a_traced_block_finishes_its_message(telemetry: Telemetry) -> None:
    """As ``async with message``; the task is known while it is in hand."""

    async def main() -> None:
        it = broker(1)
        async with (
            consuming(it) as consumer,
            instrument(consumer, **telemetry.providers),
            consumer.stream("t", ack="manual") as stream,
        ):
            [message] = await take(stream, 1, ack=False)
            async with traced(message) as span:
                assert trace.get_current_span() is span
                [held] = consumer.held()
                assert held.tasks == (trio.lowlevel.current_task().name,)
            await consumer.commit()
        assert committed(it) == 1

    run(main)
    assert len(telemetry.spans("process t")) == 1


def test_tasks_have_their_own_current_spans(telemetry: Telemetry) -> None:
    """Workers of one stream interleave, and a child span belongs to the right message."""

    async def main() -> None:
        tracer = telemetry.tracer_provider.get_tracer("test")

        async def work() -> None:
            async for message in stream:
                with process_span(message):
                    await trio.sleep(1 + message.offset % 3)
                    with tracer.start_as_current_span(f"child of {message.offset}"):
                        await trio.sleep(1)

        async with (
            consuming(broker(12)) as consumer,
            instrument(consumer, **telemetry.providers),
            consumer.stream("t") as stream,
            trio.open_nursery() as nursery,
        ):
            for _ in range(4):
                nursery.start_soon(work)
            await trio.sleep(60)
            nursery.cancel_scope.cancel()

    run(main)
    spans = telemetry.spans("process t")
    assert len(spans) == 12
    for span in spans:
        assert span.parent is None
        assert span.context is not None
        child = telemetry.span(f"child of {(span.attributes or {})['messaging.kafka.offset']}")
        assert child.parent is not None
        assert child.parent.span_id == span.context.span_id


def test_batch_is_linked_to_the_spans_of_its_messages(telemetry: Telemetry) -> None:
    """Each different one once; a child of the current span only; nothing is decoded for it."""
    decoded: list[bytes] = []

    def decode(value: bytes) -> bytes:
        decoded.append(value)
        return value

    async def main() -> None:
        it = broker(0, 2)
        for n, (partition, headers) in enumerate(
            [(0, [PARENT]), (0, [PARENT]), (1, [traceparent(7)]), (1, [])]
        ):
            it.produce("t", b"%d" % n, partition=partition, headers=headers)
        async with (
            consuming(it) as consumer,
            instrument(consumer, **telemetry.providers),
            consumer.stream("t", value_deserializer=decode) as stream,
        ):
            async for batch in stream.batches(4, max_wait=1):
                async with traced(batch):
                    assert decoded == []
                assert len(batch) == 4
                break
            await consumer.commit()
        assert committed(it) == 2

    run(main)
    span = telemetry.span("process t")
    assert span.parent is None
    assert sorted(linked(span)) == sorted([SPAN_ID, 7])
    assert dict(span.attributes or {}) == {**COMMON, "messaging.batch.message_count": 4}
    counted = {
        point.attributes["messaging.destination.partition.id"]: point.value
        for point in telemetry.collect()["messaging.client.consumed.messages"]
    }
    assert counted == {"0": 2, "1": 2}


def test_batch_has_no_more_links_than_a_span_keeps(telemetry: Telemetry) -> None:
    """Two hundred messages of as many traces."""

    async def main() -> None:
        it = broker()
        for n in range(200):
            it.produce("t", b"", partition=0, headers=[traceparent(n + 1)])
        async with (
            consuming(it) as consumer,
            instrument(consumer, **telemetry.providers),
            consumer.stream("t") as stream,
        ):
            async for batch in stream.batches(200, max_wait=1):
                with batch_span(batch):
                    break

    run(main)
    span = telemetry.span("process t")
    assert linked(span) == list(range(1, 129))
    assert span.dropped_links == 0


def test_commit_has_a_span_that_settles(telemetry: Telemetry) -> None:
    """The last one too, which comes after the block; one that is refused is an error."""

    async def main() -> None:
        it = broker(2, 2)
        async with (
            consuming(it, commit_interval=1000) as consumer,
            instrument(consumer, client_id="one", **telemetry.providers),
            consumer.stream("t", ack="manual") as stream,
        ):
            messages = await take(stream, 4, ack=False)
            it.fail_next_commits(1, CommitFault.COORDINATOR_UNAVAILABLE)
            messages[0].ack()
            with pytest.raises(trio_consumer.CommitFailedError):
                await consumer.commit()
            for message in messages:
                message.ack()
        assert committed(it) == 2

    run(main)
    refused, last = (*telemetry.spans("commit t"),)
    assert refused.kind is last.kind is SpanKind.CLIENT
    assert dict(last.attributes or {}) == {
        **COMMON,
        "messaging.operation.name": "commit",
        "messaging.operation.type": "settle",
        "messaging.client.id": "one",
        "trio_consumer.commit.partitions": 2,
    }
    assert last.status.status_code is StatusCode.UNSET
    assert refused.status.status_code is StatusCode.ERROR
    attributes = refused.attributes or {}
    assert attributes["error.type"] == "trio_consumer.CommitFailedError"
    assert attributes["messaging.destination.partition.id"] in ("0", "1")


def test_headers_for_what_is_sent_carry_the_current_span(telemetry: Telemetry) -> None:
    """Others stay, those of the same name are replaced, and nothing is added without a span."""
    assert context_headers([("a", b"1")]) == [("a", b"1")]
    sent: list[list[tuple[str, bytes]]] = []
    process_one(
        telemetry,
        with_headers(PARENT),
        lambda _: sent.append(context_headers([traceparent(9), ("a", b"1")])),
    )
    span = telemetry.span("process t")
    assert span.context is not None
    assert sent == [[("a", b"1"), traceparent(span.context.span_id)]]


def test_what_makes_no_sense_is_refused() -> None:
    """With the remedy."""

    async def main() -> None:
        async with consuming(broker(1)) as consumer, consumer.stream("t") as stream:
            [message] = await take(stream, 1)
            with pytest.raises(ConfigurationError, match=r"^parent must be 'auto', 'message' or"):
                process_span(message, parent="both")  # type: ignore[arg-type]
            with pytest.raises(ConfigurationError, match=r"^client_id must be a text, not 7"):
                instrument(consumer, client_id=7)  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match=r"^only a consumer can be instrumented"):
            instrument("kafka://")  # type: ignore[arg-type]

    run(main)


def test_without_an_sdk_everything_runs_and_nothing_is_kept() -> None:
    """A library may have the spans in it, whatever the program does."""

    async def main() -> None:
        async with (
            consuming(with_headers(PARENT)) as consumer,
            instrument(consumer),
            consumer.stream("t") as stream,
        ):
            [message] = await take(stream, 1)
            with process_span(message) as span:
                assert not span.is_recording()

    run(main)


def test_on_asyncio_it_is_the_same(telemetry: Telemetry) -> None:
    """The header, a cancellation by asyncio's means, and the commit."""

    async def main() -> None:
        it = broker(0)
        for n in range(2):
            it.produce("t", b"%d" % n, partition=0, headers=[traceparent(n + 1)])
        async with (
            trio_consumer.anyio.open_consumer(it, group=GROUP) as consumer,
            instrument(consumer, **telemetry.providers),
            consumer.stream("t", ack="manual") as stream,
        ):
            messages = aiter(stream)
            async with traced(await anext(messages)):
                await asyncio.sleep(0)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(forever(await anext(messages)), 0.01)
            await consumer.commit()
            lag = telemetry.collect()["trio_consumer.partition.unfinished"]
            assert [point.value for point in lag] == [1]
        assert committed(it) == 1

    async def forever(message: Message) -> None:
        async with traced(message):
            await asyncio.sleep(1000)

    asyncio.run(main())
    first, second = telemetry.spans("process t")
    assert (linked(first), linked(second)) == ([1], [2])
    assert (second.attributes or {})["trio_consumer.cancelled"] is True
    assert second.status.status_code is StatusCode.UNSET
    assert len(telemetry.spans("commit t")) == 1
