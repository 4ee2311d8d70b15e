"""Metrics and spans by OpenTelemetry's conventions for messaging: an extra.

    async with open_consumer("kafka://localhost:9092", group="billing") as consumer:
        async with instrument(consumer), consumer.stream("orders") as orders:
            async for message in orders:
                with process_span(message):
                    await charge(message.value)

It needs ``pip install 'trio-consumer[opentelemetry]'`` and, to send what it
measures anywhere, an SDK that the program sets up.  Nothing else of this package
imports it, and a consumer that is not instrumented does nothing for it.

Everything here works on Trio and, with a consumer of :mod:`trio_consumer.anyio`,
on asyncio.
"""

try:
    import opentelemetry.metrics as _metrics
except ImportError as _missing:
    raise ImportError(
        "trio_consumer.opentelemetry needs OpenTelemetry's API:"
        " pip install 'trio-consumer[opentelemetry]'"
    ) from _missing

from ._instrument import instrument
from ._propagation import context_headers
from ._spans import batch_span, process_span, traced

del _metrics

__all__ = ["batch_span", "context_headers", "instrument", "process_span", "traced"]
