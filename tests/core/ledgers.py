"""What the tests of the ledger share: names of streams, and all that can be seen."""

from __future__ import annotations

from collections.abc import Sequence

from trio_consumer._core.delivered_batch import FIRST_STREAM_BIT
from trio_consumer._core.ledger import Ledger
from trio_consumer._types import TopicPartition

TP = TopicPartition("orders", 3)
A, B, C, D = (FIRST_STREAM_BIT << n for n in range(4))


def bit_of(stream: int) -> int:
    """The bit of a stream by its number."""
    return FIRST_STREAM_BIT << stream


def mask_of(streams: Sequence[int] | set[int]) -> int:
    """The bits of several streams."""
    return sum(bit_of(stream) for stream in set(streams))


def observe(ledger: Ledger) -> tuple[object, ...]:
    """Everything that can be seen of a ledger."""
    return (
        ledger.position,
        ledger.committed,
        ledger.closed,
        ledger.snapshot(),
        ledger.in_hand,
        ledger.unfinished_count,
        ledger.unfinished(),
        ledger.oldest_unfinished,
        ledger.owed(),
        ledger.replay,
        repr(ledger),
    )
