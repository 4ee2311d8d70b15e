"""One record as the transports of Kafka hand it out."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

__all__ = ["KafkaRecord"]


class KafkaRecord(msgspec.Struct, gc=False):
    """One record, see :class:`~trio_consumer.transports.base.Record`.

    The garbage collector does not look at it: it refers to nothing that could
    refer back, and tens of thousands of them wait in buffers.
    """

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]
