"""Turning raw keys and values into what a stream's user wants to see.

A record without a key or a value (a tombstone) stays None: deserializers see
bytes only.  Streams of one fan-out that use the same pair of deserializers
share one decoding of each record.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from .._errors import DeserializationError
from .._types import TopicPartition
from ..transports.base import Record

__all__ = ["Decode", "Deserializer", "Deserializers", "SharedDecoding"]

Deserializer = Callable[[bytes], Any]
Decode = Callable[[int], "tuple[Any, Any]"]


class Deserializers(NamedTuple):
    """The pair of functions that a stream decodes with; None leaves bytes."""

    key: Deserializer | None
    value: Deserializer | None

    def decode(self, record: Record) -> tuple[Any, Any]:
        """Key and value of one record.

        Raises:
            DeserializationError: A deserializer raised; its exception is the cause.
        """
        key, value = record.key, record.value
        return (
            key if self.key is None or key is None else _call(self.key, key, record, "key"),
            value
            if self.value is None or value is None
            else _call(self.value, value, record, "value"),
        )


def _call(deserializer: Deserializer, data: bytes, record: Record, field: str) -> Any:
    try:
        return deserializer(data)
    except Exception as exc:
        tp = TopicPartition(record.topic, record.partition)
        raise DeserializationError(tp, record.offset, field, exc) from exc


class SharedDecoding:
    """One decoding of a batch for every stream with the same deserializers.

    Decoding happens when the first stream hands the record out, so a record
    that no stream reaches costs nothing.
    """

    __slots__ = ("_deserializers", "_results", "records")

    def __init__(self, deserializers: Deserializers, records: Sequence[Record]) -> None:
        self._deserializers = deserializers
        self.records = records
        self._results: list[tuple[Any, Any] | DeserializationError | None] = [None] * len(records)

    def decode(self, index: int) -> tuple[Any, Any]:
        """Key and value of one record; a failure is remembered too.

        Raises:
            DeserializationError: A new one each time, with the first cause.
        """
        result = self._results[index]
        if result is None:
            try:
                result = self._deserializers.decode(self.records[index])
            except DeserializationError as exc:
                self._results[index] = exc
                raise
            self._results[index] = result
        if isinstance(result, DeserializationError):
            cause = result.__cause__ or result
            raise DeserializationError(result.tp, result.offset, result.field, cause) from cause
        return result
