"""Where spans and measurements of a consumer go: its tracer and its instruments.

A program names its providers once, in :func:`instrument`; what is asked for a
message finds them by the message's consumer.  Without that the global ones count,
also if they are set later.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple
from weakref import WeakKeyDictionary

from opentelemetry import metrics, trace
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import Tracer, TracerProvider

from .._runtime.inspection import ConsumerInspection
from .._version import __version__
from ._instruments import Instruments

__all__ = ["SCOPE", "Telemetry", "choose", "telemetry_of"]

SCOPE = "trio_consumer"
"""Name of the tracer and of the meter."""


class Telemetry(NamedTuple):
    """What a consumer uses.

    Attributes:
        tracer: Makes the spans.
        instruments: Take the measurements.
        client_id: What tells this consumer from others of its group in this process, or "".
    """

    tracer: Tracer
    instruments: Instruments
    client_id: str


_chosen: WeakKeyDictionary[ConsumerInspection, Telemetry] = WeakKeyDictionary()
_instruments: WeakKeyDictionary[MeterProvider, Instruments] = WeakKeyDictionary()


def choose(
    consumer: ConsumerInspection,
    tracer_provider: TracerProvider | None,
    meter_provider: MeterProvider | None,
    client_id: str,
) -> Telemetry:
    """Let a consumer use these providers from now on."""
    telemetry = Telemetry(
        trace.get_tracer(SCOPE, __version__, tracer_provider),
        _instruments_of(meter_provider),
        client_id,
    )
    _chosen[consumer] = telemetry
    return telemetry


def telemetry_of(consumer: ConsumerInspection) -> Telemetry:
    """What was chosen for a consumer, or the global providers."""
    return _chosen.get(consumer) or _global_telemetry()


@cache
def _global_telemetry() -> Telemetry:
    # Both stand in for the real ones until a provider is set.
    return Telemetry(trace.get_tracer(SCOPE, __version__), _global_instruments(), "")


@cache
def _global_instruments() -> Instruments:
    return Instruments(metrics.get_meter(SCOPE, __version__))


def _instruments_of(provider: MeterProvider | None) -> Instruments:
    # Once each: a meter takes the callbacks of an observable instrument the first time only.
    if provider is None or provider is metrics.get_meter_provider():
        return _global_instruments()
    found = _instruments.get(provider)
    if found is None:
        found = _instruments[provider] = Instruments(provider.get_meter(SCOPE, __version__))
    return found
