"""Spans around the work on messages and around commits, and their durations as metrics.

The names are those of the semantic conventions for messaging, version 1.44 (which
call them "development" still).  There are no spans of polls: the conventions want
none for messages that a client fetches ahead, and this one does so always.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import AbstractContextManager, asynccontextmanager
from time import perf_counter
from types import TracebackType
from typing import Literal

import trio
from opentelemetry import context, propagate
from opentelemetry.context import Context
from opentelemetry.metrics import Histogram
from opentelemetry.trace import (
    Link,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.util.types import AttributeValue

from .._errors import ConfigurationError, shown
from .._runtime.inspection import ConsumerInspection
from .._runtime.message import Chunk, Message, MessageBatch
from .._types import OffsetAndMetadata, TopicPartition
from ._propagation import HEADERS, Headers
from ._telemetry import Telemetry, telemetry_of

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

__all__ = ["CommitSpan", "Parent", "batch_span", "process_span", "traced"]

Parent = Literal["auto", "message", "current"]
Given = Mapping[str, "str | bool | int | float"]

MAX_LINKS = 128
"""Links of one span; as many as an SDK keeps by default."""


class _Operation(AbstractContextManager[Span]):
    """A span of one operation, current while its block runs; and its duration.

    Args:
        telemetry: Where it goes.
        duration: Takes how long it was.
        name: Of the operation: ``"process"``, say.
        kind: Of the span.
        common: Attributes of the span and of the measurement.
    """

    def __init__(
        self,
        telemetry: Telemetry,
        duration: Histogram,
        name: str,
        kind: SpanKind,
        common: dict[str, AttributeValue],
    ) -> None:
        self._telemetry = telemetry
        self._duration = duration
        self._name = name
        self._kind = kind
        self._common = common

    def _attributes(self) -> dict[str, AttributeValue]:
        """What only the span has."""
        return {}

    def _context(self) -> tuple[Context, list[Link]]:
        """What the span is a child of, and what it is linked to."""
        return context.get_current(), []

    def __enter__(self) -> Span:
        parent, links = self._context()
        topic = self._common.get("messaging.destination.name")
        attributes = {**self._common, **self._attributes()}
        if self._telemetry.client_id:
            attributes["messaging.client.id"] = self._telemetry.client_id
        self._span = self._telemetry.tracer.start_span(
            self._name if topic is None else f"{self._name} {topic}",
            parent,
            self._kind,
            attributes,
            links,
        )
        self._token = context.attach(set_span_in_context(self._span, parent))
        self._started = perf_counter()
        return self._span

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        seconds = perf_counter() - self._started
        span = self._span
        common = self._common
        if exc is not None:
            if _is_cancellation(exc):
                # As the conventions have it elsewhere (HTTP): no error, and no status.
                span.set_attribute("trio_consumer.cancelled", True)
            else:
                name = _error_type(exc)
                common = {**common, "error.type": name}
                span.set_attribute("error.type", name)
                span.record_exception(exc)
                span.set_status(Status(StatusCode.ERROR, str(exc)))
        # While the span is current: an exemplar names it.
        self._duration.record(seconds, common)
        context.detach(self._token)
        span.end()


class _ProcessSpan(_Operation):
    """Around the work on one message."""

    def __init__(self, message: Message, parent: Parent, attributes: Given | None) -> None:
        if parent not in ("auto", "message", "current"):
            raise ConfigurationError(
                f"parent must be 'auto', 'message' or 'current', not {shown(parent)}"
            )
        self._message = message
        self._parent = parent
        self._given = attributes
        consumer = _consumer_of(message._chunk)
        telemetry = telemetry_of(consumer)
        super().__init__(
            telemetry,
            telemetry.instruments.process_duration,
            "process",
            SpanKind.CONSUMER,
            _common(consumer, "process", [message.tp]),
        )

    def _attributes(self) -> dict[str, AttributeValue]:
        message = self._message
        attributes: dict[str, AttributeValue] = {
            "messaging.operation.type": "process",
            "messaging.kafka.offset": message.offset,
        }
        if _is_tombstone(message):
            attributes["messaging.kafka.message.tombstone"] = True
        return {**attributes, **(self._given or {})}

    def _context(self) -> tuple[Context, list[Link]]:
        now = context.get_current()
        ambient = get_current_span(now)
        creation, extracted = _creation(self._message.headers, now)
        if creation is None:
            return (extracted, [])
        around = ambient.get_span_context()
        if self._parent == "current" or (self._parent == "auto" and around.is_valid):
            return now, [Link(creation)]
        links = [Link(creation)]
        if around.is_valid:
            links.append(Link(around))
        return extracted, links

    def __enter__(self) -> Span:
        span = super().__enter__()
        self._telemetry.instruments.consumed.add(1, self._common)
        return span


class _BatchSpan(_Operation):
    """Around the work on a batch."""

    def __init__(self, batch: MessageBatch, attributes: Given | None) -> None:
        if not len(batch):
            raise ConfigurationError("a batch without messages has nothing to process")
        self._batch = batch
        self._given = attributes
        self._consumer = _consumer_of(batch._segments[0][0])
        telemetry = telemetry_of(self._consumer)
        super().__init__(
            telemetry,
            telemetry.instruments.process_duration,
            "process",
            SpanKind.CONSUMER,
            _common(self._consumer, "process", _partitions(batch)),
        )

    def _attributes(self) -> dict[str, AttributeValue]:
        return {
            "messaging.operation.type": "process",
            "messaging.batch.message_count": len(self._batch),
            **(self._given or {}),
        }

    def _context(self) -> tuple[Context, list[Link]]:
        now = context.get_current()
        # A dictionary for its order; often a whole batch comes from one span.
        found: dict[tuple[int, int], Link] = {}
        for chunk, start, stop in self._batch._segments:
            for index in range(start, stop):
                if len(found) == MAX_LINKS:
                    return now, list(found.values())
                # Raw: nothing is decoded a second time for it.
                creation, _ = _creation(chunk.raw_message(index).headers, now)
                if creation is not None:
                    found.setdefault((creation.trace_id, creation.span_id), Link(creation))
        return now, list(found.values())

    def __enter__(self) -> Span:
        span = super().__enter__()
        counts: dict[TopicPartition, int] = {}
        for chunk, start, stop in self._batch._segments:
            tp = chunk.assignment.tp
            counts[tp] = counts.get(tp, 0) + stop - start
        for tp, count in counts.items():
            self._telemetry.instruments.consumed.add(
                count, _common(self._consumer, "process", [tp])
            )
        return span


class CommitSpan(_Operation):
    """Around one request that commits offsets: the conventions say that it settles."""

    def __init__(
        self,
        consumer: ConsumerInspection,
        telemetry: Telemetry,
        offsets: Mapping[TopicPartition, OffsetAndMetadata],
    ) -> None:
        super().__init__(
            telemetry,
            telemetry.instruments.operation_duration,
            "commit",
            SpanKind.CLIENT,
            _common(consumer, "commit", offsets),
        )
        self._partitions = len(offsets)

    def _attributes(self) -> dict[str, AttributeValue]:
        return {
            "messaging.operation.type": "settle",
            "trio_consumer.commit.partitions": self._partitions,
        }


def process_span(
    message: Message, *, parent: Parent = "auto", attributes: Given | None = None
) -> AbstractContextManager[Span]:
    """A span around the work on one message; it finishes nothing.

        async for message in orders:
            with process_span(message):
                await charge(message.value)

    It is named ``process <topic>``, is of the kind CONSUMER, and is the current
    span inside of the block.  The context of the trace is taken from the headers
    of the message by the global propagator, and the span is always linked to it.
    An exception that leaves the block is recorded and is the status of the span;
    a cancellation is no error: the span ends with ``trio_consumer.cancelled`` and
    without a status.  Its duration goes to ``messaging.process.duration``, and the
    message is counted in ``messaging.client.consumed.messages``.

    Args:
        message: The message.
        parent: What the span is a child of.  ``"auto"``: of the current span if
            there is one, else of the span that the message comes from.
            ``"message"``: of the latter whenever there is one; the current span is
            linked then.  ``"current"``: never of the latter, so that each message
            begins a trace of its own where there is no current span.
        attributes: More of them for the span.  The key of the message is not among
            those that it has by itself: it may be nobody else's business.

    Returns:
        A context manager, to be entered and left in the same task; it yields the
        ``opentelemetry.trace.Span``.  It never waits, so nothing can be
        cancelled in it.

    Raises:
        ConfigurationError: An unknown ``parent``.
    """
    return _ProcessSpan(message, parent, attributes)


def batch_span(
    batch: MessageBatch, *, attributes: Given | None = None
) -> AbstractContextManager[Span]:
    """A span around the work on a batch; it finishes nothing.

    As :func:`process_span`, but a child of the current span only: it is linked to the
    spans that its messages come from, up to 128 different ones.  Topic and partition
    are told where all its messages have them in common.

    Args:
        batch: What :meth:`Stream.batches() <trio_consumer.Stream.batches>` gave.
        attributes: More of them for the span.

    Returns:
        A context manager, to be entered and left in the same task; it yields the
        ``opentelemetry.trace.Span``.

    Raises:
        ConfigurationError: The batch is empty.
    """
    return _BatchSpan(batch, attributes)


@asynccontextmanager
async def traced(
    work: Message | MessageBatch, *, parent: Parent = "auto", attributes: Given | None = None
) -> AsyncGenerator[Span, None]:
    """``async with message:`` with a span around it: a clean exit finishes the message.

        async with consumer.stream("orders", ack="manual") as orders:
            async for message in orders:
                async with traced(message):
                    await charge(message.value)

    Args:
        work: A message or a batch.
        parent: As for :func:`process_span`; means nothing for a batch.
        attributes: More of them for the span.

    Yields:
        The ``opentelemetry.trace.Span``.

    Raises:
        ConfigurationError: As for the spans.

    An exception or a cancellation leaves the message unfinished, as it always does.
    """
    if isinstance(work, MessageBatch):
        span = batch_span(work, attributes=attributes)
    else:
        span = process_span(work, parent=parent, attributes=attributes)
    with span as it:
        async with work:
            yield it


def _consumer_of(chunk: Chunk) -> ConsumerInspection:
    return chunk.stream._consumer


def _partitions(batch: MessageBatch) -> set[TopicPartition]:
    return {chunk.assignment.tp for chunk, _, _ in batch._segments}


def _common(
    consumer: ConsumerInspection, operation: str, tps: Iterable[TopicPartition]
) -> dict[str, AttributeValue]:
    """What spans and measurements have; topic and partition if there is one only."""
    attributes: dict[str, AttributeValue] = {
        "messaging.system": "kafka",
        "messaging.operation.name": operation,
        "messaging.consumer.group.name": consumer._settings.group,
    }
    different = set(tps)
    topics = {tp.topic for tp in different}
    if len(topics) == 1:
        attributes["messaging.destination.name"] = topics.pop()
        if len(different) == 1:
            attributes["messaging.destination.partition.id"] = str(different.pop().partition)
    return attributes


def _creation(headers: Headers, now: Context) -> tuple[SpanContext | None, Context]:
    """The span that a message comes from, and the current context with it in place."""
    if not headers:
        return None, now
    try:
        extracted = propagate.extract(headers, now, HEADERS)
    except ValueError:  # librdkafka's client could not read them
        return None, now
    span = get_current_span(extracted)
    if span is get_current_span(now):
        return None, extracted
    found = span.get_span_context()
    return (found if found.is_valid else None), extracted


def _is_tombstone(message: Message) -> bool:
    # Not `message.value`: a deserializer may make None of something.
    return message._record.value is None


def _is_cancellation(exc: BaseException) -> bool:
    if isinstance(exc, BaseExceptionGroup):
        return all(map(_is_cancellation, exc.exceptions))
    return isinstance(exc, (trio.Cancelled, asyncio.CancelledError, GeneratorExit))


def _error_type(exc: BaseException) -> str:
    kind = type(exc)
    module = kind.__module__
    if module.startswith("trio_consumer."):
        module = "trio_consumer"  # where its public name is
    return kind.__qualname__ if module == "builtins" else f"{module}.{kind.__qualname__}"
