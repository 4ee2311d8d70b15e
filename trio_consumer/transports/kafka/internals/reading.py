"""Records on their way from a fetch to a poll, and where reading is."""

# kafka-python has no types; the stubs that pyright brings are of an older one.
# pyright: basic, reportAttributeAccessIssue=false, reportCallIssue=false

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from kafka import KafkaConsumer

from ...._types import TopicPartition

__all__ = [
    "PoisonRecord",
    "beginning",
    "forget_beginnings",
    "position",
    "positions",
    "read_batches_with",
    "release_parked",
    "release_poison",
    "uncompressed",
]


class PoisonRecord(NamedTuple):
    """Where reading stopped: the record at this offset cannot be read."""

    tp: TopicPartition
    offset: int


def release_parked(consumer: KafkaConsumer) -> None:
    """Let the client take back records that it parked while a partition was paused.

    ``Fetcher.fetched_records`` takes parked records back only when
    ``_next_partition_records`` is None, but after a drain it is a drained object
    instead, and a parked partition is never fetched again: without this, about
    every second pause in mid-batch stalls its partition for ever (3.0.12).
    Call it in the polling thread before each poll.
    """
    fetcher = consumer._fetcher
    records = fetcher._next_partition_records
    if records is not None and not records:
        fetcher._next_partition_records = None


def release_poison(consumer: KafkaConsumer) -> PoisonRecord | None:
    """Drop the batch whose iteration raised, and name the record.

    After an exception out of a record the client keeps the dead iterator, and
    each following poll spins on it at full speed without end (3.0.12).  Call it
    in the polling thread after any error of ``poll``.
    """
    records = consumer._fetcher._next_partition_records
    if not records:
        return None
    tp = TopicPartition(*records.topic_partition)
    offset = records.next_fetch_offset
    records.drain()
    return PoisonRecord(tp, offset)


def positions(consumer: KafkaConsumer) -> Iterator[tuple[TopicPartition, int]]:
    """The position of each assigned partition that has one.

    ``KafkaConsumer.position`` does the same after two checks and a network
    round trip where it is unknown.
    """
    for tp, state in list(consumer._subscription.assignment.items()):
        position = state.position
        if position is not None:
            yield tp, position.offset


def position(consumer: KafkaConsumer, tp: TopicPartition) -> int | None:
    """The position of one partition, None if it has none (any more)."""
    state = consumer._subscription.assignment.get(tp)
    if state is None or state.position is None:
        return None
    offset: int = state.position.offset
    return offset


def read_batches_with(consumer: KafkaConsumer, reader: type) -> None:
    """Let a client read what it has fetched with another class than its own.

    What it then notes is where the first fetch of each partition began: the client
    tells its position only after it has passed over what nobody gets to see.
    """
    fetcher = consumer._fetcher
    beginnings: dict[TopicPartition, int] = {}
    fetcher._trio_consumer_beginnings = beginnings

    def read(fetch_offset: int, tp: Any, *args: Any, **options: Any) -> Any:
        beginnings.setdefault(tp, fetch_offset)
        return reader(fetch_offset, tp, *args, **options)

    fetcher.PartitionRecords = read


def beginning(consumer: KafkaConsumer, tp: TopicPartition) -> int | None:
    """Where the first fetch of a partition began, None if none has been read."""
    found: int | None = consumer._fetcher._trio_consumer_beginnings.get(tp)
    return found


def forget_beginnings(consumer: KafkaConsumer, tps: Iterable[TopicPartition]) -> None:
    """Partitions went away: the next fetch of them is a first one again."""
    for tp in tps:
        consumer._fetcher._trio_consumer_beginnings.pop(tp, None)


def uncompressed(batch: Any) -> tuple[bytes, int]:
    """The bytes of a record batch, and where its first record begins in them."""
    batch._maybe_uncompress()
    return bytes(batch._buffer), batch._pos
