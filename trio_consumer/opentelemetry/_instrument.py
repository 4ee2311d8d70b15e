"""Instrumenting one consumer."""

from __future__ import annotations

from types import TracebackType

from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider

from .._errors import ConfigurationError, shown
from .._runtime.consumer import Consumer
from ._instruments import Watched
from ._spans import CommitSpan
from ._telemetry import choose

__all__ = ["Instrumentation", "instrument"]


class Instrumentation:
    """What :func:`instrument` makes; ``with`` and ``async with`` do the same."""

    def __init__(
        self,
        consumer: Consumer,
        tracer_provider: TracerProvider | None,
        meter_provider: MeterProvider | None,
        client_id: str,
    ) -> None:
        self._consumer = consumer
        self._telemetry = choose(consumer, tracer_provider, meter_provider, client_id)
        attributes = {
            "messaging.system": "kafka",
            "messaging.consumer.group.name": consumer._settings.group,
        }
        if client_id:
            attributes["messaging.client.id"] = client_id
        self._watched = Watched(consumer, attributes)

    def __enter__(self) -> None:
        consumer, telemetry = self._consumer, self._telemetry
        # Until the consumer ends: its last commit comes after this block.
        consumer._committer.around = lambda offsets: CommitSpan(consumer, telemetry, offsets)
        self._telemetry.instruments.watch(self._watched)

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._watched.left = True

    async def __aenter__(self) -> None:
        self.__enter__()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.__exit__(exc_type, exc, traceback)


def instrument(
    consumer: Consumer,
    *,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    client_id: str = "",
) -> Instrumentation:
    """Observe a consumer: gauges and counters of its state, and a span for each commit.

        async with open_consumer("kafka://localhost:9092", group="billing") as consumer:
            async with instrument(consumer), consumer.stream("orders") as orders:
                ...

    The values are those of ``consumer.statistics()`` at the moment when a reader collects them.
    An exporter collects in a thread of its own; that thread asks the consumer's event
    loop for a snapshot and waits up to 1 s for it.  If the loop is blocked for longer,
    this collection has no gauges of the consumer.

    Leaving the block ends the gauges.  The counters keep what they have counted, and
    count until the consumer ends, its last commit included.

    Args:
        consumer: The consumer, of whichever event loop.
        tracer_provider: Where spans go, also those of :func:`process_span` for its
            messages; default: the global provider.
        meter_provider: Where measurements go, likewise.
        client_id: ``messaging.client.id`` of what is reported; give one to each where
            several consumers of a group live in one process.

    Returns:
        A context manager, plain and async; enter it in the thread of the consumer.  It
        never waits, so nothing can be cancelled in it.

    Raises:
        ConfigurationError: It is no consumer, or the name is no text.
    """
    if not isinstance(consumer, Consumer):
        raise ConfigurationError(f"only a consumer can be instrumented, not {shown(consumer)}")
    if not isinstance(client_id, str):
        raise ConfigurationError(f"client_id must be a text, not {shown(client_id)}")
    return Instrumentation(consumer, tracer_provider, meter_provider, client_id)
