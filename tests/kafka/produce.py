"""Numbered messages in bulk, for tests that count and benchmarks that consume."""

from __future__ import annotations

import time
from typing import Any

from confluent_kafka import KafkaError, Producer


def number_of(value: bytes) -> int:
    """Return the index that `produce_numbered` put into a message's value."""
    return int(value)


def produce_numbered(
    bootstrap: str,
    topic: str,
    count: int,
    partitions: int,
    *,
    size: int = 100,
    start: int = 0,
    timeout: float = 300.0,
    options: dict[str, Any] | None = None,
    filler: bytes = b"",
) -> float:
    """Write `count` messages whose values start with their index; return when all are stored.

    Message i goes to partition `i % partitions`, so in a fresh topic the record at offset k of
    partition p holds `k * partitions + p`. A second call with `start` set to the first one's
    `count` goes on where it ended. The producer is idempotent: neither doubles nor a changed
    order, whatever happens to the cluster meanwhile.

    Args:
        bootstrap: the cluster's addresses.
        topic: where to write; it must exist.
        count: how many messages.
        partitions: over how many partitions.
        size: bytes of each value: the decimal index, padded with spaces on the right.
        start: the first index.
        timeout: seconds for all of it.
        options: settings of librdkafka that win over the ones here, for example
            `{"compression.type": "zstd"}`.
        filler: what follows the index instead of spaces, which compress to nothing; each
            value has another part of it, and `number_of` does not apply.

    Returns:
        The seconds that it took.

    Raises:
        ValueError: an index does not fit into `size` bytes.
        RuntimeError: the cluster refused messages, or did not take them in time.
    """
    if count and len(str(start + count - 1)) > size:
        raise ValueError(f"index {start + count - 1} does not fit into {size} bytes")
    failures: list[KafkaError] = []

    def on_delivery(error: KafkaError | None, message: object) -> None:
        if error is not None:
            failures.append(error)

    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "enable.idempotence": True,
            "linger.ms": 20,
            # Longer than a created topic takes to be known; 30 s by default.
            "topic.metadata.propagation.max.ms": 5_000,
            "batch.size": 1_000_000,
            "batch.num.messages": 10_000,
            "queue.buffering.max.messages": 500_000,
            "queue.buffering.max.kbytes": 262_144,
            # A Python call for each message stored would double the time.
            "delivery.report.only.error": True,
            "on_delivery": on_delivery,
            "log_level": 3,  # errors; a new cluster makes it warn of a coordinator that loads
            **(options or {}),
        }
    )
    began = time.monotonic()
    deadline = began + timeout
    for index in range(start, start + count):
        value = b"%d" % index
        if filler:
            place = index * size % len(filler)
            value = (value + b" " + filler[place : place + size])[:size]
        while True:
            try:
                producer.produce(topic, value.ljust(size), partition=index % partitions)
                break
            except BufferError:
                producer.poll(0.01)
                if failures or time.monotonic() > deadline:
                    break
        if failures or time.monotonic() > deadline:
            break
    left = producer.flush(max(0.0, deadline - time.monotonic()))
    if failures or left:
        why = f"the first of {len(failures)} errors: {failures[0]}" if failures else "out of time"
        raise RuntimeError(f"{left} of {count} messages for {topic} were not stored: {why}")
    return time.monotonic() - began
