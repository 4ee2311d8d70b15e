"""Batches of what was polled, with as little as possible done for each record.

The client makes one ``Message`` a record, whose fields are methods.  They stay as
they are: a batch says how to read them, and nobody does before a handler looks.
Everything here that runs for each record runs in C.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Message

from ..._types import TopicPartition
from ..base import RecordFields

__all__ = ["FIELDS", "errors_of", "runs", "without_errors"]


def _timestamp(message: Any) -> int:
    kind, milliseconds = message.timestamp()
    return -1 if kind == TIMESTAMP_NOT_AVAILABLE else milliseconds


def _headers(message: Any) -> Any:
    return message.headers() or ()


# What was polled has all of them; the client's types are those of a message to produce, too.
_MESSAGE: Any = Message

FIELDS = RecordFields(
    topic=_MESSAGE.topic,
    partition=_MESSAGE.partition,
    offset=_MESSAGE.offset,
    timestamp=_timestamp,
    key=_MESSAGE.key,
    value=_MESSAGE.value,
    headers=_headers,
)
"""How the fields of the client's messages are read."""


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
