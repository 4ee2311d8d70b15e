"""A stream: one buffer, any number of loops over it.

The conductor puts :class:`Chunk` objects into the buffer; iterators take single
messages out of the chunk in front.  Everything that takes or finishes a message
is synchronous, so a cancellation can only land where nothing is half done: the
one place that waits is :meth:`Stream._advance`, and it waits before it takes.

An iterator runs without a checkpoint for as long as the chunk in front lasts,
but no longer than about :data:`PACE` seconds, so that a loop whose body never
awaits can be cancelled and does not starve other tasks.
"""

from __future__ import annotations

import enum
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractContextManager, suppress
from threading import get_ident
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar
from weakref import WeakSet

import trio

from .._core.flow import Pressure
from .._core.subscription import TopicPattern
from .._errors import ConfigurationError, DeserializationError, told
from .._types import AckMode, TopicPartition
from .arguments import check_number, check_seconds
from .callers import caller_name
from .decoding import Deserializers
from .iterators import BatchIterator, MessageIterator, abandon
from .logs import about
from .message import Chunk, Message, Segment

if TYPE_CHECKING:
    from .._core.delivered_batch import DeliveredBatch
    from .consumer import Consumer
    from .partitions import Assignment
    from .transactions import TransactionManager

__all__ = ["DecodeErrorHandler", "ParkingPlace", "Stream"]

logger = logging.getLogger("trio_consumer.stream")

T = TypeVar("T")

DecodeErrorHandler = Callable[[DeserializationError, Message], Awaitable[object]]

PACE = 0.002
"""Seconds that a loop may run between two checkpoints; arbitrary, well below what a
human or a heartbeat notices, well above what a checkpoint costs."""

LONGEST_STRIDE = 4096


class StreamState(enum.Enum):
    """Where a stream is in its life."""

    NEW = "new"
    OPEN = "open"
    ENDED = "ended"
    """The consumer is stopping: loops end once their message in hand is done."""
    CLOSED = "closed"


class ParkingPlace(Protocol):
    """Where tasks wait until something has changed."""

    async def park(self) -> None:
        """Wait for the next :meth:`unpark_all`."""

    def unpark_all(self) -> object:
        """Let everybody go on who waits now."""


class Stream:
    """Messages of some topics, in the order of their partitions.

    Made by :meth:`Consumer.stream`; use it as an async context manager and
    iterate inside.  Each ``async for`` has an iterator of its own over the one
    buffer, so several tasks may iterate one stream, and each message goes to
    one of them.  (Do not share one iterator between tasks: its coming back
    would finish the other task's message.)

    Leaving the block in order gives back what the stream never handed out: that
    is finished as soon as the other streams have finished it.  Leaving it by an
    exception, a cancellation included, or because the consumer stops, does not:
    then it holds the commit back until a new stream of this consumer, or the
    next member of the group, has got it.  Either way, what was in hand stays
    unfinished unless whoever holds the message acknowledges it.
    """

    # What a task that iterates waits with; the face of another event loop has its own.
    _checkpoint = staticmethod(trio.lowlevel.checkpoint)
    _checkpoint_if_cancelled = staticmethod(trio.lowlevel.checkpoint_if_cancelled)
    _move_on_after: Callable[[float], AbstractContextManager[Any]] = staticmethod(
        trio.move_on_after
    )
    _new_lot: Callable[[], ParkingPlace] = staticmethod(trio.lowlevel.ParkingLot)
    _task_name = staticmethod(caller_name)

    def __init__(
        self,
        consumer: Consumer,
        topics: Iterable[str] | TopicPattern,
        *,
        deserializers: Deserializers,
        on_decode_error: Literal["raise", "skip"] | DecodeErrorHandler,
        ack: AckMode,
        partitions: frozenset[int] | None,
        max_buffered: int,
    ) -> None:
        self.pattern: TopicPattern | None = topics if isinstance(topics, TopicPattern) else None
        # With a pattern, what it was found to mean.
        self.topics: frozenset[str] = (
            frozenset() if isinstance(topics, TopicPattern) else frozenset(topics)
        )
        self.ack_mode = ack
        self.partitions = partitions
        self.deserializers = deserializers
        self.on_decode_error = on_decode_error
        self.thread: int = get_ident()
        self.transactions: TransactionManager | None = consumer.transactions
        self._consumer = consumer
        self._state = StreamState.NEW
        self._pressure = Pressure(max_buffered)
        self._buffer: deque[Chunk] = deque()
        self._buffered = 0
        self._arrived = self._new_lot()
        # For people who ask what holds a commit back: the loops over this stream,
        # and the tasks inside of an ``async with message``.
        self._iterators: WeakSet[MessageIterator | BatchIterator] = WeakSet()
        self._entered: dict[tuple[DeliveredBatch, int], str] = {}
        # The chunk in front, the next index to hand out of it, and the index at
        # which the fast path of an iterator has to stop and look around.
        self._chunk: Chunk | None = None
        self._next = 0
        self._limit = 0
        self._stride = 1
        self._looked_at = 0.0

    def __repr__(self) -> str:
        topics = ", ".join(sorted(self.topics))
        if self.pattern is not None:
            topics = f"pattern {str(self.pattern)!r}"
        return (
            f"<Stream {topics} ack={self.ack_mode.value} {self._state.value}"
            f" buffered={self.buffered}>"
        )

    @property
    def buffered(self) -> int:
        """Records in the buffer that have not been handed out."""
        return self._buffered + (len(self._chunk.records) - self._next if self._chunk else 0)

    @property
    def is_open(self) -> bool:
        """Whether it hands out messages (entered, not left, and its consumer not stopping)."""
        return self._state is StreamState.OPEN

    @property
    def is_full(self) -> bool:
        """Whether the buffer holds its partitions back from being fetched."""
        return self._pressure.full

    def takes(self, tp: TopicPartition) -> bool:
        """Whether this stream wants the messages of a partition."""
        # Not by what a pattern was found to mean: another stream may have brought
        # the topic in since.
        wanted = tp.topic in self.topics if self.pattern is None else self.pattern.matches(tp.topic)
        return wanted and (self.partitions is None or tp.partition in self.partitions)

    def resolve(self, topics: frozenset[str]) -> None:
        """Find out what the pattern means among the topics of the cluster."""
        if self.pattern is not None:
            self.topics = self.pattern.among(topics)

    # -- life ------------------------------------------------------------------

    async def __aenter__(self) -> Stream:
        # No checkpoint: streams that are opened together make one subscription,
        # which is made when the first of them needs data.
        self._open()
        return self

    def _open(self) -> None:
        if self._state is not StreamState.NEW:
            raise ConfigurationError(f"{self!r} was opened before; make a new stream")
        self._consumer._check_running()
        self._state = StreamState.OPEN
        self._consumer._open_stream(self)

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._state is StreamState.CLOSED:
            return
        failed = exc is not None or self._state is StreamState.ENDED
        self._state = StreamState.CLOSED
        self._consumer._close_stream(self, failed=failed)
        self._arrived.unpark_all()

    def _end(self) -> None:
        """The consumer stops: hand out nothing more."""
        if self._state is StreamState.OPEN:
            self._state = StreamState.ENDED
            self._interrupt()
            self._arrived.unpark_all()

    # -- what the conductor and the rebalancer do --------------------------------

    def _push(self, chunk: Chunk) -> None:
        self._buffer.append(chunk)
        self._buffered += len(chunk.records)
        if self._pressure.update(self.buffered):
            self._consumer._pressure_changed(self)
        self._arrived.unpark_all()

    def _redeliver(self, chunk: Chunk, index: int) -> bool:
        """Hand out a record again that is in somebody's hand, behind what is buffered."""
        assert chunk.entries is not None  # an observer has nothing to give back
        if self._state is not StreamState.OPEN or not chunk.assignment.is_open:
            if not chunk.is_tracked(index):
                return False
            chunk.forfeit(index)
            return True
        entries = chunk.ledger.enter_again(chunk.entries, index, chunk.bit)
        if entries is None:
            return False
        self._push(chunk.again(index, entries))
        return True

    def _interrupt(self) -> None:
        """Send every iterator through :meth:`_advance` at its next message."""
        self._limit = 0

    def _remove(self, assignment: Assignment | None, give_back: GiveBack) -> None:
        """Take chunks out of the buffer: of one assignment, or (None) all."""
        chunk = self._chunk
        if chunk is not None and assignment in (None, chunk.assignment):
            if chunk.entries is not None:
                give_back(chunk.entries, self._next, len(chunk.records), chunk.bit)
            self._drop_front()
        kept: deque[Chunk] = deque()
        for chunk in self._buffer:
            if assignment not in (None, chunk.assignment):
                kept.append(chunk)
                continue
            self._buffered -= len(chunk.records)
            if chunk.entries is not None:
                give_back(chunk.entries, 0, len(chunk.records), chunk.bit)
        self._buffer = kept
        if self._pressure.update(self.buffered):
            self._consumer._pressure_changed(self)

    # -- who has what -------------------------------------------------------------

    def has_buffered(self, entries: DeliveredBatch, index: int) -> bool:
        """Whether a record has not been handed out yet."""
        chunk = self._chunk
        if chunk is not None and chunk.entries is entries and index >= self._next:
            return True
        return any(chunk.entries is entries for chunk in self._buffer)

    def holders(self, entries: DeliveredBatch, index: int) -> tuple[str, ...]:
        """Names of the tasks that have a record in hand, as far as can be told.

        Exact for automatic acknowledgement and inside of ``async with message``;
        otherwise the tasks that loop over this stream, one of which took it.
        """
        entered = self._entered.get((entries, index))
        if entered is not None:
            return (entered,)
        iterators = list(self._iterators)
        if self.ack_mode is AckMode.AUTO:
            iterators = [it for it in iterators if it.holds(entries, index)]
        return tuple(sorted({it.task_name for it in iterators} - {""}))

    # -- what iterators do -------------------------------------------------------

    def __aiter__(self) -> MessageIterator:
        return MessageIterator(self)

    def batches(self, max_size: int = 500, max_wait: float = 0.0) -> BatchIterator:
        """Iterate over batches instead of single messages.

        Args:
            max_size: Largest batch, in messages.
            max_wait: Seconds to wait for a batch to fill up once there is
                something to hand out.  With 0 a batch has what is there.

        Returns:
            An async iterator of :class:`MessageBatch`, none of them empty.  With
            ``ack="auto"`` a batch is finished when the loop comes back.
            Cancelling the wait takes nothing out of the stream.

            If ``on_decode_error`` is not ``"raise"``, messages are decoded before
            the batch is handed out, and it has only those that could be.  What
            is skipped is left out of the middle.  For a function a batch ends
            before the message, so that nothing else is in hand while it runs.

        Raises:
            ConfigurationError: ``max_size`` is below 1 or ``max_wait`` negative.
        """
        max_size = check_number("max_size", max_size)
        return BatchIterator(self, max_size, check_seconds("max_wait", max_wait, zero=True))

    async def _advance(self) -> int:
        """Wait until there is a message; the index of it in the chunk in front.

        Takes nothing: the caller does, without a checkpoint in between.

        Raises:
            StopAsyncIteration: The consumer is stopping.
            trio.ClosedResourceError: The stream has been closed.
        """
        await self._checkpoint()
        while True:
            if self._state is not StreamState.OPEN:
                raise self._over()
            chunk = self._chunk
            if self._consumer.flow_active:
                if chunk is not None and self._next < len(chunk.records):
                    self._pace(chunk)
                    return self._next
                if chunk is not None or self._buffer:
                    self._next_chunk()
                    continue
            self._consumer._needs_data()
            await self._arrived.park()

    def _over(self) -> Exception:
        if self._state is StreamState.ENDED:
            return StopAsyncIteration()
        return trio.ClosedResourceError(
            f"{self!r}: iterate inside `async with consumer.stream(...)`"
        )

    def _next_chunk(self) -> None:
        self._drop_front()
        if self._buffer:
            self._chunk = self._buffer.popleft()
            self._buffered -= len(self._chunk.records)
        if self._pressure.update(self.buffered):
            self._consumer._pressure_changed(self)

    def _drop_front(self) -> None:
        self._chunk = None
        self._next = 0
        self._limit = 0

    def _pace(self, chunk: Chunk) -> None:
        """Let the fast path run until the chunk ends or :data:`PACE` is over."""
        now = trio.current_time()
        elapsed, self._looked_at = now - self._looked_at, now
        if elapsed < PACE / 2:
            self._stride = min(self._stride * 2, LONGEST_STRIDE)
        elif elapsed > PACE:
            self._stride = max(1, int(self._stride * PACE / elapsed))
        self._limit = min(self._next + self._stride, len(chunk.records))

    async def _wait_for_some(self) -> None:
        """Wait until there is something to take, or the stream ends; takes nothing."""
        while self._state is StreamState.OPEN and not (
            self.buffered and self._consumer.flow_active
        ):
            self._consumer._needs_data()
            await self._arrived.park()

    async def _wait_for_fill(self, size: int, seconds: float) -> None:
        """Wait up to so many seconds for so many messages; takes nothing."""
        with self._move_on_after(seconds):
            while (
                self.buffered < size and not self._pressure.full and self._state is StreamState.OPEN
            ):
                self._consumer._needs_data()
                await self._arrived.park()

    def _front(self) -> Chunk | None:
        """The chunk in front, which has something left; None if the buffer is empty."""
        while (chunk := self._chunk) is None or self._next >= len(chunk.records):
            if not self._buffer:
                return None
            self._next_chunk()
        return chunk

    def _take(self, size: int) -> list[Segment]:
        """Take up to so many messages out of the buffer, without waiting."""
        segments: list[Segment] = []
        while size and (chunk := self._front()) is not None:
            stop = min(self._next + size, len(chunk.records))
            segments.append((chunk, self._next, stop))
            size -= stop - self._next
            self._next = stop
        self._limit = 0
        return segments

    # -- what cannot be decoded ----------------------------------------------------

    @property
    def decodes_ahead(self) -> bool:
        """Whether batches are decoded before they are handed out."""
        return self.on_decode_error != "raise" and self.deserializers != (None, None)

    async def _handled(self, error: BaseException, chunk: Chunk, index: int) -> bool:
        """Do with a message that was taken and not decoded what the stream is to do.

        It is in hand meanwhile: a drain waits for it.

        Returns:
            True if the message is done with and finished.  False if the error
            has to be raised; nobody is waited for any more.
        """
        policy = self.on_decode_error
        if not isinstance(error, DeserializationError) or policy == "raise":
            abandon([(chunk, index, index + 1)])
            return False
        try:
            if callable(policy):
                await policy(error, chunk.raw_message(index))
            else:
                self._log_skipped(error)
        except BaseException:
            abandon([(chunk, index, index + 1)])
            raise
        chunk.finish(index)
        return True

    def _log_skipped(self, error: DeserializationError) -> None:
        logger.warning(
            "%s offset %d is skipped, this stream counts it as finished: its %s cannot be"
            " deserialized: %s",
            error.tp,
            error.offset,
            error.field,
            told(error.__cause__ or error),
            extra=about(
                self._consumer._session, [error.tp], offset=error.offset, field=error.field
            ),
        )

    async def _take_decoded(self, size: int) -> tuple[list[Segment], list[Message]]:
        """Look at up to so many messages and take those that can be decoded, maybe none.

        Waits for nothing but the function that gets a message which cannot be
        decoded, and has nothing else in hand then.
        """
        segments: list[Segment] = []
        messages: list[Message] = []
        self._limit = 0
        # Skipped ones count: a buffer full of them is no reason to starve others.
        for _ in range(size):
            chunk = self._front()
            if chunk is None:
                break
            index = self._next
            try:
                message = chunk.message(index)
            except BaseException as exc:
                if not isinstance(exc, DeserializationError):
                    abandon(segments)
                elif messages and self.on_decode_error != "skip":
                    break  # next time, when these are not in hand
                self._next = index + 1
                if not await self._handled(exc, chunk, index):
                    raise
                if self.on_decode_error == "skip":
                    continue
                break  # it was waited for, so anything may have changed meanwhile
            self._next = index + 1
            messages.append(message)
            if segments and segments[-1][0] is chunk and segments[-1][2] == index:
                segments[-1] = (chunk, segments[-1][1], index + 1)
            else:
                segments.append((chunk, index, index + 1))
        return segments, messages

    # -- threads and finalizers ----------------------------------------------------

    def call_from_thread(self, function: Callable[..., T], *args: Any) -> T | Any:
        """Run a synchronous function in the thread of the consumer and wait.

        Returns False if the Trio program has ended.
        """
        try:
            return trio.from_thread.run_sync(function, *args, trio_token=self._consumer._token)
        except trio.RunFinishedError:
            return False

    def call_soon(self, function: Callable[..., object], *args: Any) -> None:
        """Run a synchronous function in the consumer's thread, later; from a finalizer."""
        with suppress(trio.RunFinishedError):
            self._consumer._token.run_sync_soon(function, *args)


GiveBack = Callable[["DeliveredBatch", int, int, int], None]
