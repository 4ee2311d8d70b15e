"""One message, as a stream hands it to its user."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from itertools import chain, repeat, starmap
from threading import get_ident
from types import TracebackType
from typing import TYPE_CHECKING, Any, overload

import msgspec
import trio

from .._core.delivered_batch import DeliveredBatch
from .._core.ledger import Ledger
from .._types import TopicPartition
from ..transports.base import Record
from .decoding import Decode

if TYPE_CHECKING:
    from .partitions import Assignment
    from .stream import Stream

__all__ = ["Chunk", "Message", "MessageBatch", "Segment"]


class Chunk:
    """Consecutive records of one partition in the buffer of one stream.

    Attributes:
        stream: The stream whose buffer it is in.
        assignment: The assignment that the records were read under.
        ledger: The account of that assignment that they belong to.
        records: The records.
        entries: Their entries in the ledger, same indices; None for an observer.
        bit: The stream's bit in those entries.
        decode: Key and value of the record at an index; None leaves the bytes.
    """

    __slots__ = ("assignment", "bit", "decode", "entries", "ledger", "records", "stream")

    def __init__(
        self,
        stream: Stream,
        assignment: Assignment,
        ledger: Ledger,
        records: Sequence[Record],
        entries: DeliveredBatch | None,
        bit: int,
        decode: Decode | None,
    ) -> None:
        self.stream: Stream = stream
        self.assignment: Assignment = assignment
        self.ledger: Ledger = ledger
        self.records: Sequence[Record] = records
        self.entries: DeliveredBatch | None = entries
        self.bit: int = bit
        self.decode: Decode | None = decode

    def message(self, index: int) -> Message:
        """Make the message of a record.

        Raises:
            DeserializationError: The record cannot be decoded.
        """
        if self.decode is None:
            return self.raw_message(index)
        return DecodedMessage(self.records[index], self, index, *self.decode(index))

    def raw_message(self, index: int) -> Message:
        """Make the message of a record with its key and value as bytes."""
        return Message(self.records[index], self, index)

    def messages(self, start: int, stop: int) -> Iterator[Message]:
        """Make the messages of the records from one index up to another, each when it is asked for.

        Raises:
            DeserializationError: When a record is asked for that cannot be decoded.
        """
        indices = range(start, stop)
        if self.decode is None:
            return map(Message, self.records[start:stop], repeat(self), indices)
        return map(self.message, indices)

    def again(self, index: int, entries: DeliveredBatch) -> Chunk:
        """A chunk of one of these records alone, entered anew."""
        decode = self.decode
        return Chunk(
            self.stream,
            self.assignment,
            self.ledger,
            self.records[index : index + 1],
            entries,
            self.bit,
            None if decode is None else lambda _: decode(index),
        )

    def enter(self, index: int) -> None:
        """A task begins to work on one record."""
        if self.entries is not None:
            self.stream._entered[self.entries, index] = self.stream._task_name()

    def leave(self, index: int) -> None:
        """It has ended."""
        if self.entries is not None:
            self.stream._entered.pop((self.entries, index), None)

    def is_tracked(self, index: int) -> bool:
        """Whether an acknowledgement of one record would count."""
        return self.entries is not None and self.entries.can_finish(index, self.bit)

    def forfeit(self, index: int) -> None:
        """Let one record be finished no more."""
        if self.entries is not None:
            self.entries.forfeit(index, self.bit)

    def finish(self, index: int) -> bool:
        """Acknowledge one record; from any thread."""
        if self.entries is None:
            return False
        if get_ident() != self.stream.thread:
            return self.stream.call_from_thread(self.finish, index)
        if self.stream.transactions is not None:
            self.stream.transactions.finishing(self, index)
        return self.entries.finish(index, self.bit)

    def redeliver(self, index: int) -> bool:
        """Have the stream hand out one record again; from any thread."""
        if self.entries is None:
            return False
        if get_ident() == self.stream.thread:
            return self.stream._redeliver(self, index)
        return self.stream.call_from_thread(self.stream._redeliver, self, index)


# A struct is made by one call in C: two thirds of what an object with three slots costs.
class Message(msgspec.Struct, eq=False):
    """A record in the hands of one stream.

    It is finished by exactly three things: the ``async for`` loop of an
    ``ack="auto"`` stream coming back for the next message, :meth:`ack`, and a
    clean exit of ``async with message:``.  Leaving the loop or the block in any
    other way leaves it unfinished, and it will be delivered again.
    """

    _record: Record
    _chunk: Chunk
    _index: int

    def __repr__(self) -> str:
        return f"<Message {self.topic}[{self.partition}] offset={self.offset}>"

    @property
    def topic(self) -> str:
        """Name of the topic."""
        return self._record.topic

    @property
    def partition(self) -> int:
        """Number of the partition."""
        return self._record.partition

    @property
    def tp(self) -> TopicPartition:
        """Topic and partition."""
        return self._chunk.assignment.tp

    @property
    def offset(self) -> int:
        """Offset of the record in its partition."""
        return self._record.offset

    @property
    def key(self) -> Any:
        """Bytes or None, or what the stream's key deserializer made of the key."""
        return self._record.key

    @property
    def value(self) -> Any:
        """Bytes or None, or what the stream's value deserializer made of the value."""
        return self._record.value

    @property
    def headers(self) -> Sequence[tuple[str, bytes | None]]:
        """Headers in the order of the producer; a name may occur twice."""
        return self._record.headers

    @property
    def timestamp(self) -> float | None:
        """Seconds since the epoch, as the producer or the broker stamped it; None if neither."""
        milliseconds = self._record.timestamp
        return None if milliseconds < 0 else milliseconds / 1000

    def ack(self) -> bool:
        """Finish this message for its stream.  May be called from any thread.

        Returns:
            True if this call finished it.  False if it was finished before, if
            the stream observes only, or if the partition has been revoked or
            sought meanwhile: then somebody else gets the message again.
        """
        return self._chunk.finish(self._index)

    def nack(self) -> bool:
        """Give this message back: its stream hands it out again.  From any thread.

        It comes again behind what the stream has in its buffer now, and holds
        the commit back until then.  This object can no longer finish it.  While
        the partition is going away, or once the stream has ended, it is left to
        the next stream of this consumer or to whoever gets the partition next.

        Returns:
            True if it will come again.  False if it was finished or given back
            before, if somebody else has got it since, if the stream observes
            only, or if the partition has been revoked or sought.
        """
        return self._chunk.redeliver(self._index)

    def while_assigned(self) -> AbstractContextManager[trio.CancelScope]:
        """A cancel scope for work that is in vain once the partition has gone.

            with message.while_assigned() as scope:
                await charge(message.value)

        It is cancelled at once when the partition is lost or sought; when it is
        revoked and the wait for what is in hand (``drain_timeout``) is over,
        before the last commit (which does not wait for the work to end); and
        when the consumer ends.  From that moment the message cannot be
        finished: :meth:`ack` returns False, a loop that comes back finishes
        nothing, and whoever has the partition next gets it.  If that has
        happened already, the scope is cancelled from the beginning.

        Returns:
            A context manager that yields the :class:`trio.CancelScope`; enter it
            in the thread of the consumer, as any scope.
        """
        chunk = self._chunk
        return chunk.assignment.message_scope(chunk.ledger, partial(chunk.forfeit, self._index))

    async def __aenter__(self) -> Message:
        self._chunk.enter(self._index)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._chunk.leave(self._index)
        if exc_type is None:
            self.ack()


class DecodedMessage(Message, eq=False):
    """A message of a stream with deserializers."""

    _key: Any
    _value: Any

    @property
    def key(self) -> Any:
        """The key, decoded."""
        return self._key

    @property
    def value(self) -> Any:
        """The value, decoded."""
        return self._value


Segment = tuple[Chunk, int, int]
"""The records from one index up to another of a chunk."""


class MessageBatch(Sequence[Message]):
    """Messages that :meth:`Stream.batches` hands out together.

    A sequence; messages are made when they are looked at, unless the stream had
    to decode them before (``on_decode_error``).  It is finished as a
    whole by the loop coming back, by :meth:`ack` or by a clean exit of
    ``async with batch:``; each message may also be acknowledged by itself.
    """

    __slots__ = ("_made", "_segments", "_size")

    def __init__(self, segments: list[Segment], made: list[Message] | None = None) -> None:
        self._segments = segments
        self._size = sum(stop - start for _, start, stop in segments)
        self._made = made

    def __repr__(self) -> str:
        return f"<MessageBatch of {self._size}>"

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, index: int) -> Message: ...
    @overload
    def __getitem__(self, index: slice) -> list[Message]: ...
    def __getitem__(self, index: int | slice) -> Message | list[Message]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._size))]
        if self._made is not None:
            return self._made[index]
        if index < 0:
            index += self._size
        for chunk, start, stop in self._segments:
            if 0 <= index < stop - start:
                return chunk.message(start + index)
            index -= stop - start
        raise IndexError("batch index out of range")

    def __iter__(self) -> Iterator[Message]:
        if self._made is not None:
            return iter(self._made)
        return chain.from_iterable(starmap(Chunk.messages, self._segments))

    def ack(self) -> int:
        """Finish every message of the batch; how many this call finished.

        May be called from any thread.
        """
        if not self._segments:
            return 0
        stream = self._segments[0][0].stream
        if get_ident() != stream.thread:
            return stream.call_from_thread(self.ack)
        if stream.transactions is not None:
            for chunk, _, stop in self._segments:
                if chunk.entries is not None:
                    stream.transactions.finishing(chunk, stop - 1)
        return sum(
            chunk.entries.finish_range(start, stop, chunk.bit)
            for chunk, start, stop in self._segments
            if chunk.entries is not None
        )

    def nack(self) -> int:
        """Give back every message that is not finished, see :meth:`Message.nack`; how many.

        May be called from any thread.
        """
        if not self._segments:
            return 0
        stream = self._segments[0][0].stream
        if get_ident() != stream.thread:
            return stream.call_from_thread(self.nack)
        return sum(
            chunk.redeliver(index)
            for chunk, start, stop in self._segments
            for index in range(start, stop)
        )

    async def __aenter__(self) -> MessageBatch:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc_type is None:
            self.ack()
