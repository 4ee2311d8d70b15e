"""Providers that keep what they get, and what the tests ask of it."""

from __future__ import annotations

from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricsData
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

TRACE_ID, SPAN_ID = 0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331
PARENT = ("traceparent", f"00-{TRACE_ID:032x}-{SPAN_ID:016x}-01".encode())


def traceparent(span_id: int) -> tuple[str, bytes]:
    """A header that names another span of the same trace."""
    return ("traceparent", f"00-{TRACE_ID:032x}-{span_id:016x}-01".encode())


class Telemetry:
    """Two providers of an SDK, and what has reached them."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracer_provider = TracerProvider(shutdown_on_exit=False)
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meter_provider = MeterProvider([self.reader], shutdown_on_exit=False)

    @property
    def providers(self) -> dict[str, Any]:
        """As ``instrument()`` takes them."""
        return {"tracer_provider": self.tracer_provider, "meter_provider": self.meter_provider}

    def spans(self, name: str) -> list[ReadableSpan]:
        """The spans of a name that have ended, in the order of their ends."""
        return [span for span in self.exporter.get_finished_spans() if span.name == name]

    def span(self, name: str) -> ReadableSpan:
        """The one span of a name."""
        [span] = self.spans(name)
        return span

    def collect(self) -> dict[str, list[Any]]:
        """The points of each metric, by its name."""
        return points(self.reader.get_metrics_data())


def points(data: MetricsData | None) -> dict[str, list[Any]]:
    """The points of each metric, by its name."""
    if data is None:
        return {}
    return {
        metric.name: list(metric.data.data_points)
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
