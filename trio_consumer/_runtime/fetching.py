"""Messages without a stream: ``getmany`` and the ``callback`` of a consumer.

Both read a stream of their own over the topics of the consumer, with manual
acknowledgements.  So what they have not handed out stays in its buffer, what
nobody finishes is not committed, and other streams get the same messages.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from .._types import TopicPartition
from .message import Message
from .stream import Stream

if TYPE_CHECKING:
    from .consumer import Consumer

__all__ = ["FetchIterator", "MessageCallback", "feed"]

MessageCallback = Callable[[Message], Awaitable[object]]

PACE = 100
"""Messages between two checkpoints of a loop that never awaits; arbitrary."""


class FetchIterator:
    """What one ``getmany`` hands out: the messages that have arrived by now."""

    def __init__(self, consumer: Consumer, stream: Stream, timeout: float) -> None:
        self._consumer = consumer
        self._stream = stream
        self._timeout = timeout
        # Unknown until the first message is there.
        self._left: int | None = None
        self._generation = -1

    def __aiter__(self) -> FetchIterator:
        return self

    async def __anext__(self) -> tuple[TopicPartition, Message]:
        """Wait for the first message, take the others as they are.

        Cancelling it takes no message.
        """
        stream = self._stream
        if self._left is None:
            await stream._checkpoint()
            with stream._move_on_after(self._timeout):
                await stream._wait_for_some()
            self._left = stream.buffered
            self._generation = self._consumer.generation
        elif self._left % PACE == 0:
            await stream._checkpoint()
        else:
            await stream._checkpoint_if_cancelled()
        if (
            not self._left
            or not stream.is_open
            or not self._consumer.flow_active
            or self._generation != self._consumer.generation
        ):
            raise StopAsyncIteration
        self._left -= 1
        taken = stream._take(1)
        if not taken:  # a partition went, or was sought, or another task was quicker
            raise StopAsyncIteration
        chunk, index, _ = taken[0]
        message = chunk.message(index)
        return message.tp, message


async def feed(consumer: Consumer, stream: Stream, callback: MessageCallback) -> None:
    """Await the callback for every message, until the consumer stops."""
    async with stream:
        async for message in stream:
            try:
                await callback(message)
            except Exception as exc:
                await consumer.on_task_error(exc)
                raise
