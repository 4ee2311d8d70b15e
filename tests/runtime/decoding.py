"""What the tests of decode errors share."""

# The blocks nest as those of a program do.

from __future__ import annotations

from typing import Any, Literal

import pytest
import trio

from trio_consumer import DeserializationError, Message, Stream
from trio_consumer.testing import MemoryBroker

from .support import (
    broker,
)

AckMode = Literal["auto", "manual", "none"]


ACKS: list[AckMode] = ["auto", "manual", "none"]
GOOD, BAD = b"7", b"x"


def mixed(*data: bytes, **given: Any) -> MemoryBroker:
    """A broker with these values, each of them the key too."""
    it = broker(0, **given)
    for each in data:
        it.produce("t", each, key=each)
    return it


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the streams have logged."""
    return [r.getMessage() for r in caplog.records if r.name == "trio_consumer.stream"]


class Handler:
    """Writes down what it gets, and takes its time."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.got: list[tuple[str, int, Any, Any]] = []

    async def __call__(self, error: DeserializationError, message: Message) -> None:
        assert (error.tp, error.offset) == (message.tp, message.offset)
        await trio.sleep(self.seconds)
        self.got.append((error.field, message.offset, message.key, message.value))

    @property
    def offsets(self) -> list[int]:
        """The offsets that it has dealt with."""
        return [offset for _, offset, _, _ in self.got]


async def batched(stream: Stream, size: int = 500, *, wait: float = 1.0) -> list[list[int]]:
    """The offsets of each batch, until none comes for some seconds; finishes them."""
    got: list[list[int]] = []
    batches = stream.batches(size)
    while True:
        with trio.move_on_after(wait) as scope:
            batch = await anext(batches)
        if scope.cancelled_caught:
            return got
        got.append([message.offset for message in batch])
        assert [batch[i].offset for i in range(-len(batch), len(batch))] == got[-1] * 2
        assert [message.value for message in batch] == [7] * len(batch)
        batch.ack()


# -- skipping ----------------------------------------------------------------------
