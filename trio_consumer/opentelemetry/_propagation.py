"""The context of a trace in the headers of a record."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from opentelemetry import propagate
from opentelemetry.propagators.textmap import Getter, Setter

__all__ = ["HEADERS", "Headers", "context_headers"]

Headers = Sequence[tuple[str, "bytes | None"]]


class _Getter(Getter[Headers]):
    """Reads headers of Kafka: names occur more than once, values are bytes."""

    def get(self, carrier: Headers, key: str) -> list[str] | None:
        """The last one of a name: who sends a record again appends to its headers."""
        for name, value in reversed(carrier):
            if name == key and value is not None:
                try:
                    return [value.decode()]
                except UnicodeDecodeError:
                    return None
        return None

    def keys(self, carrier: Headers) -> list[str]:
        """The names."""
        return [name for name, _ in carrier]


class _Setter(Setter[dict[str, bytes]]):
    def set(self, carrier: dict[str, bytes], key: str, value: str) -> None:
        carrier[key] = value.encode()


HEADERS = _Getter()


def context_headers(headers: Iterable[tuple[str, bytes]] = ()) -> list[tuple[str, bytes]]:
    """Headers for a record that is sent, with the current context of the trace in them.

        with process_span(message):
            await transaction.send("invoices", invoice, headers=context_headers())

    Args:
        headers: Others, which stay in front; those of the same names are replaced.

    The global propagator decides what there is: by default ``traceparent``,
    ``tracestate`` and ``baggage``.  Without a span and baggage nothing is added.
    """
    injected: dict[str, bytes] = {}
    propagate.inject(injected, setter=_Setter())
    return [each for each in headers if each[0] not in injected] + list(injected.items())
