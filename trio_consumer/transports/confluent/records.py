"""Records out of what was polled, with as little as possible done for each.

The client makes one ``Message`` a record, which the garbage collector looks at.  Tens of
thousands that wait in buffers would cost more in its collections than to take each
message apart at once.  So it is taken apart, a slice at a time, and gone before the
collector has a reason to run.  Everything here that runs for each record runs in C.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, repeat
from operator import itemgetter
from typing import Any

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Message

from ..._types import TopicPartition
from ..record import KafkaRecord

__all__ = ["SLICE", "errors_of", "runs", "take_apart", "without_errors"]

SLICE = 500
"""Messages of the client that are alive at a time, below the 700 new objects at which
the collector runs."""

# What was polled has all of them; the client's types are those of a message to produce, too.
_MESSAGE: Any = Message

_kind, _milliseconds = itemgetter(0), itemgetter(1)


NO_NAME = (UnicodeDecodeError, SystemError)
"""What the client raises for headers with a name that is no UTF-8: the latter, where the
former was meant (2.16)."""


def errors_of(messages: list[Any]) -> list[Any]:
    """The messages that are none but tell of an error."""
    if any(map(_MESSAGE.error, messages)):
        return [message for message in messages if message.error() is not None]
    return []


def without_errors(messages: list[Any]) -> list[Any]:
    """The others."""
    return [message for message in messages if message.error() is None]


def runs(messages: list[Any]) -> Iterator[tuple[TopicPartition, list[Any]]]:
    """Neighbours of the same partition; a partition may come several times."""
    topics = groupby(messages, _MESSAGE.topic)
    for topic, of_topic in topics:
        for partition, group in groupby(of_topic, _MESSAGE.partition):
            yield TopicPartition(topic, partition), list(group)


def take_apart(tp: TopicPartition, messages: list[Any]) -> list[KafkaRecord]:
    """The records of messages of one partition."""
    headers = _headers(tp, messages)
    return list(
        map(
            KafkaRecord,
            repeat(tp.topic),
            repeat(tp.partition),
            map(_MESSAGE.offset, messages),
            _timestamps(messages),
            map(_MESSAGE.key, messages),
            map(_MESSAGE.value, messages),
            [each or () for each in headers] if any(headers) else repeat(()),
        )
    )


def _timestamps(messages: list[Any]) -> Iterable[int]:
    stamps = list(map(_MESSAGE.timestamp, messages))
    if TIMESTAMP_NOT_AVAILABLE in map(_kind, stamps):
        # The number beside it means nothing.
        return [-1 if kind == TIMESTAMP_NOT_AVAILABLE else stamp for kind, stamp in stamps]
    return map(_milliseconds, stamps)


def _headers(tp: TopicPartition, messages: list[Any]) -> list[Any]:
    headers: list[Any] = []
    # Once for each message: where a name was refused, a second call hands out a tuple
    # with a null pointer in it.
    found = map(_MESSAGE.headers, messages)
    while len(headers) < len(messages):
        try:
            headers.extend(found)
        except NO_NAME:
            headers.append(UnreadableHeaders(tp, messages[len(headers)].offset()))
    return headers


class UnreadableHeaders(Sequence[tuple[str, "bytes | None"]]):
    """Headers with a name that is no UTF-8, which the client does not tell.

    The record is delivered all the same; ``ValueError`` comes to who looks at these.
    """

    __slots__ = ("_offset", "_tp")

    def __init__(self, tp: TopicPartition, offset: int) -> None:
        self._tp = tp
        self._offset = offset

    def __bool__(self) -> bool:
        return True

    def __len__(self) -> int:
        raise self._error()

    def __getitem__(self, index: Any) -> Any:
        raise self._error()

    def _error(self) -> ValueError:
        return ValueError(
            f"{self._tp} offset {self._offset}: the name of a header is no UTF-8,"
            " and librdkafka's client does not hand these headers out"
        )
