"""The loops over a stream: what they have in hand, and when it is finished.

An iterator finishes the message in hand when its loop comes back, and at no
other time.  Everything here but the wait in :meth:`Stream._advance` is
synchronous.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._core.delivered_batch import DeliveredBatch
from .._types import AckMode
from .message import Chunk, Message, MessageBatch, Segment

if TYPE_CHECKING:
    from .stream import Stream

__all__ = ["BatchIterator", "MessageIterator", "abandon"]


def abandon(segments: list[Segment]) -> None:
    """Wait no longer for messages that were handed out."""
    for chunk, start, stop in segments:
        if chunk.entries is not None:
            for index in range(start, stop):
                chunk.entries.abandon(index, chunk.bit, again=False)


class MessageIterator:
    """One ``async for`` over a stream; holds at most one message in hand."""

    __slots__ = ("__weakref__", "_automatic", "_held", "_index", "_stream", "task_name")

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.task_name: str = stream._task_name()
        stream._iterators.add(self)
        self._automatic = stream.ack_mode is AckMode.AUTO
        self._held: Chunk | None = None
        self._index = 0

    def __aiter__(self) -> MessageIterator:
        return self

    async def __anext__(self) -> Message:
        """Finish the message in hand (``ack="auto"``) and wait for the next one.

        Cancelling it takes no message; the one before stays finished.  If it is
        cancelled while an ``on_decode_error`` function runs, the message that
        the function was called for stays unfinished.
        """
        held = self._held
        if held is not None:
            self._held = None
            held.entries.finish(self._index, held.bit)  # type: ignore[union-attr]  # AUTO has entries
        stream = self._stream
        while True:
            index = stream._next
            if index >= stream._limit:
                self.task_name = stream._task_name()
                index = await stream._advance()
            stream._next = index + 1
            chunk: Chunk = stream._chunk  # type: ignore[assignment]  # _advance() saw to it
            if chunk.decode is None:
                message = Message(chunk.records[index], chunk, index)
                break
            try:
                message = chunk.message(index)
                break
            except BaseException as exc:
                if not await stream._handled(exc, chunk, index):
                    raise
        if self._automatic:
            self._held = chunk
            self._index = index
        return message

    def holds(self, entries: DeliveredBatch, index: int) -> bool:
        """Whether it has this record in hand (``ack="auto"``)."""
        held = self._held
        return held is not None and held.entries is entries and self._index == index

    def __del__(self) -> None:
        # The loop was left with a message in hand, so nothing will come back
        # for it: a drain need not wait.  It stays unfinished.  Finalizers may
        # run in any thread and in the middle of anything, hence later.
        if self._held is not None:
            segment = (self._held, self._index, self._index + 1)
            self._stream.call_soon(abandon, [segment])


class BatchIterator:
    """One ``async for`` over the batches of a stream."""

    __slots__ = (
        "__weakref__",
        "_automatic",
        "_held",
        "_max_size",
        "_max_wait",
        "_stream",
        "task_name",
    )

    def __init__(self, stream: Stream, max_size: int, max_wait: float) -> None:
        self._stream = stream
        self._max_size = max_size
        self._max_wait = max_wait
        self._automatic = stream.ack_mode is AckMode.AUTO
        self._held: list[Segment] = []
        self.task_name: str = stream._task_name()
        stream._iterators.add(self)

    def __aiter__(self) -> BatchIterator:
        return self

    async def __anext__(self) -> MessageBatch:
        """Finish the batch in hand (``ack="auto"``) and wait for the next one.

        Cancelling it takes no message; the batch before stays finished.
        """
        for chunk, start, stop in self._held:
            if chunk.entries is not None:
                chunk.entries.finish_range(start, stop, chunk.bit)
        self._held = []
        stream = self._stream
        self.task_name = stream._task_name()
        messages: list[Message] | None = None
        while True:
            await stream._advance()
            if self._max_wait and stream.buffered < self._max_size:
                await stream._wait_for_fill(self._max_size, self._max_wait)
                await stream._advance()
            if not stream.decodes_ahead:
                segments = stream._take(self._max_size)
                break
            segments, messages = await stream._take_decoded(self._max_size)
            if messages:
                break
        if self._automatic:
            self._held = segments
        return MessageBatch(segments, messages)

    def holds(self, entries: DeliveredBatch, index: int) -> bool:
        """Whether it has this record in hand (``ack="auto"``)."""
        return any(c.entries is entries and a <= index < b for c, a, b in self._held)

    def __del__(self) -> None:
        if self._held:
            self._stream.call_soon(abandon, self._held)
