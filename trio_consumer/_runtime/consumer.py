"""The consumer: the face that the user sees.

It decides nothing: what it is told to do it passes on to the parts that
:func:`~.opening.open_consumer` made it of.  What can be asked of it is in
:mod:`.inspection`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Hashable, Iterable
from contextlib import AbstractContextManager
from typing import Literal

import trio

from .._core.delivered_batch import DeliveredBatch
from .._core.flow import FullBuffer, PauseReason
from .._core.subscription import TopicPattern
from .._errors import ConfigurationError, ConsumerError, shown
from .._types import AckMode, TopicPartition
from .arguments import (
    check_function,
    check_name,
    check_names,
    check_number,
    check_partition,
    check_partitions,
    check_seconds,
)
from .decoding import Deserializer, Deserializers
from .diagnostics import Activity
from .emptying import wait_finished
from .fetching import FetchIterator
from .inspection import ConsumerInspection
from .logs import about
from .message import Message
from .rebalance import wait_settled
from .stream import DecodeErrorHandler, Stream
from .transactions import Transaction, TransactionManager

__all__ = ["Consumer"]

logger = logging.getLogger("trio_consumer.consumer")


class Consumer(ConsumerInspection):
    """A member of a consumer group; made by :func:`~trio_consumer.open_consumer`."""

    # The face of another event loop has its own.
    _stream_type: type[Stream] = Stream
    _new_transaction: Callable[[TransactionManager], Transaction] = staticmethod(Transaction)

    def __repr__(self) -> str:
        return (
            f"<Consumer group={self._settings.group!r} partitions={len(self._partitions)}"
            f" streams={len(self._partitions.streams)}{' stopping' if self._stopping else ''}>"
        )

    # -- streams -----------------------------------------------------------------

    def stream(
        self,
        *topics: str,
        pattern: str | re.Pattern[str] | None = None,
        key_deserializer: Deserializer | None = None,
        value_deserializer: Deserializer | None = None,
        on_decode_error: Literal["raise", "skip"] | DecodeErrorHandler = "raise",
        ack: Literal["auto", "manual", "none"] = "auto",
        partitions: Collection[int] | None = None,
        max_buffered: int | None = None,
    ) -> Stream:
        """Make a stream of the messages of some topics.

        Enter it (``async with consumer.stream("orders") as orders:``) before you
        iterate.  Streams entered one after another make one subscription.

        Args:
            topics: Names of topics; with none, the ``topics`` of the consumer.
            pattern: Instead of names, a regular expression that has to match the
                whole name of a topic.  Topics that appear later are found when
                the client renews its metadata (``metadata_max_age_ms`` of
                ``client_options``, by default every 300 s), so with
                ``auto_offset_reset="latest"`` their first records are missed.
                While there is none the stream waits.  Names that begin with
                ``__`` are Kafka's own and never match.
            key_deserializer: Called with the bytes of each key that is not None.
            value_deserializer: Called with the bytes of each value that is not None.
                Streams with the same two deserializers share what these make, so
                change none of it.
            on_decode_error: What becomes of a message that a deserializer does
                not accept.  ``"raise"``: :class:`DeserializationError` leaves
                the loop, the message stays unfinished.  ``"skip"``: a warning
                is logged, the message is finished, the loop goes on.  A
                function ``async def handler(error, message)``: the loop awaits
                it with the :class:`DeserializationError` and the message, key
                and value as bytes (to send it to a dead-letter topic, say).
                The message is finished when the function has returned; if it
                raises or is cancelled, the message stays unfinished and the
                exception leaves the loop.
            ack: ``"auto"``: the loop coming back finishes a message.
                ``"manual"``: only ``message.ack()`` or ``async with message``
                does.  ``"none"``: the stream observes and never holds back a
                commit; a topic that has observers only is never committed.
            partitions: Take only these partitions of each topic; an empty
                collection takes none.  Default: all that are assigned.
            max_buffered: Messages in the buffer at which fetching pauses; it
                goes on at half.  Default: the consumer's.

        Raises:
            ConfigurationError: No topic, topics and a pattern, an unknown ``ack`` or
                ``on_decode_error``, or an impossible bound.
        """
        if pattern is not None:
            if topics:
                raise ConfigurationError(
                    f"a stream takes topics or a pattern, not both: {topics} and {pattern!r}"
                )
            chosen: frozenset[str] | TopicPattern = TopicPattern(pattern)
        else:
            chosen = check_names("topics", topics) or self._settings.topics
            if not chosen:
                raise ConfigurationError("a stream needs at least one topic, or a pattern")
        try:
            mode = AckMode(ack)
        except ValueError:
            raise ConfigurationError(
                f"ack must be 'auto', 'manual' or 'none', not {shown(ack)}"
            ) from None
        if mode is AckMode.AUTO and self._transactions is not None:
            raise ConfigurationError(
                "a stream of a transactional consumer needs ack='manual' (or 'none'): the loop"
                " coming back would finish a message after its transaction has ended"
            )
        if on_decode_error not in ("raise", "skip") and not callable(on_decode_error):
            raise ConfigurationError(
                "on_decode_error must be 'raise', 'skip' or an async function,"
                f" not {shown(on_decode_error)}"
            )
        check_function("key_deserializer", key_deserializer)
        check_function("value_deserializer", value_deserializer)
        bound = self._settings.max_buffered
        if max_buffered is not None:
            bound = check_number("max_buffered", max_buffered)
        if partitions is not None:
            if isinstance(partitions, (str, bytes)) or not isinstance(partitions, Iterable):
                raise ConfigurationError(
                    f"partitions must be numbers, as in [0, 1], not {shown(partitions)}"
                )
            partitions = [check_number("each of partitions", each, 0) for each in partitions]
        return self._stream_type(
            self,
            chosen,
            deserializers=Deserializers(key_deserializer, value_deserializer),
            on_decode_error=on_decode_error,
            ack=mode,
            partitions=None if partitions is None else frozenset(partitions),
            max_buffered=bound,
        )

    def _check_running(self) -> None:
        if self._stopping:
            raise trio.ClosedResourceError(f"{self!r} is stopping; open streams before")

    def _open_stream(self, stream: Stream) -> None:
        self._partitions.open_stream(stream)
        self._subscription.opened(stream)

    def _close_stream(self, stream: Stream, *, failed: bool) -> None:
        self._partitions.close_stream(stream, failed=failed)

    def _pressure_changed(self, stream: Stream) -> None:
        self._partitions.pressure_changed(stream)

    def _needs_data(self) -> None:
        self._subscription.needed()

    # -- messages without a stream -------------------------------------------------

    def getmany(self, timeout: float) -> FetchIterator:
        """Hand out what has been fetched, as one batch in the scheduler's order.

            async for tp, message in consumer.getmany(timeout=1.0):
                await process(message)
                message.ack()

        The first call subscribes to the ``topics`` of the consumer and begins to
        receive all of their messages, beside any streams.  From then on a message
        has to be acknowledged to be committed; those of a batch that were not
        handed out yet come with the next call.

        Args:
            timeout: Seconds to wait for a first message.

        Returns:
            An async iterator of pairs of partition and message.  It ends after
            what had arrived with the first one; before that if flow is stopped
            or the group has rebalanced; at once when the consumer stops.
            Cancelling it takes no message.

        Raises:
            ConfigurationError: The consumer was opened without ``topics``.
        """
        timeout = check_seconds("timeout", timeout, zero=True)
        if self._fetched is None:
            if not self._settings.topics:
                raise ConfigurationError(
                    "getmany() needs to know the topics: open_consumer(..., topics=[...])"
                )
            self._fetched = self.stream(ack="manual")
            self._fetched._open()
        return FetchIterator(self, self._fetched, timeout)

    # -- acknowledging and committing ----------------------------------------------

    def ack(self, message: Message) -> bool:
        """Finish a message for the stream that handed it out, see :meth:`Message.ack`."""
        return message.ack()

    def nack(self, message: Message) -> bool:
        """Have a message handed out again, see :meth:`Message.nack`."""
        return message.nack()

    async def commit(
        self,
        topics: Iterable[str | TopicPartition] | None = None,
        start_new_transaction: bool = True,
    ) -> bool:
        """Commit what is finished, now.

        A commit that is under way is waited for first; what was finished before
        this call is committed when it returns.

        Args:
            topics: Only these topics and partitions; None for all.
            start_new_transaction: Inside of :meth:`transaction`, where this
                commits what was sent so far too: whether the block goes on with
                a new transaction; else nothing more can be sent in it.  Means
                nothing elsewhere.

        Returns:
            True if this call committed something.  False if there was nothing
            new to commit.

        Raises:
            CommitFailedError: The broker refused or did not answer in time.
                What is finished stays finished; a later commit includes it.

        Cancelling it before the commit is sent commits nothing; after that it
        waits for the answer, at most ``commit_timeout``.
        """
        if self._transactions is not None and self._transactions.is_mine:
            if topics is not None:
                raise ConfigurationError(
                    "a transaction commits what was finished in it as a whole: commit() without"
                    " topics"
                )
            return await self._transactions.commit_open(start_new=start_new_transaction)
        if topics is None:
            return await self._committer.commit()
        if isinstance(topics, (str, TopicPartition)):
            topics = [topics]
        if isinstance(topics, bytes) or not isinstance(topics, Iterable):
            raise ConfigurationError(
                f"topics must be names of topics or partitions, not {shown(topics)}"
            )
        chosen = frozenset(
            check_name("each of topics", each)
            if isinstance(each, str)
            else check_partition("each of topics", each)
            for each in topics
        )
        return await self._committer.commit(
            lambda assignment: assignment.tp in chosen or assignment.tp.topic in chosen
        )

    async def force_commit(
        self,
        topics: Iterable[str | TopicPartition] | None = None,
        start_new_transaction: bool = True,
    ) -> bool:
        """The same as :meth:`commit`, which never leaves out what was asked for.

        (Faust's ``commit`` does nothing while another one runs; its
        ``force_commit`` is the part behind that check.)
        """
        return await self.commit(topics, start_new_transaction)

    async def maybe_wait_for_commit_to_finish(self) -> bool:
        """Wait until the commit that is under way has its answer.

        Returns:
            True if there was one.

        Cancelling it does nothing to that commit.
        """
        await trio.lowlevel.checkpoint()
        return await self._committer.settle()

    async def commit_and_end_transactions(self) -> None:
        """Commit what is finished, and begin no new transaction.

        Raises:
            CommitFailedError: As for :meth:`commit`.
        """
        await self.commit(None, start_new_transaction=False)

    def transaction(self) -> Transaction:
        """A transaction: what is sent in it and what is finished in it count together.

        For example::

            async with consumer.stream("orders", ack="manual") as orders:
                async for batch in orders.batches(500):
                    async with consumer.transaction() as transaction:
                        for message in batch:
                            await transaction.send("invoices", invoice(message))
                        batch.ack()

        One is open at a time; entering another one waits.  Finish inside of it
        every message that you send something for: one that is finished after it
        counts with the next one, and would be processed twice after a crash
        between the two.

        Raises:
            ConfigurationError: The consumer was opened without ``transactional_id``.
        """
        if self._transactions is None:
            raise ConfigurationError(
                "transactions need a name: open_consumer(..., transactional_id='...'), one of its"
                " own for each process"
            )
        return self._new_transaction(self._transactions)

    async def wait_empty(self, timeout: float | None = None) -> bool:
        """Commit, wait until what is delivered now is finished, then commit it.

        Messages that are delivered meanwhile are not waited for, nor those that
        their loop or stream left behind.  What the calling task has in hand is:
        finish it before, or give a timeout.  What lies in a buffer has to be
        consumed for this to end: not while flow is stopped.  Every few seconds
        the log names what is still held, for how long, and by which task.

        Args:
            timeout: Seconds after which to give up; None waits for ever.

        Returns:
            True if everything was finished.  False if the time was over; what
            is finished is committed then, the rest stays as it is.

        Raises:
            CommitFailedError: As for :meth:`commit`.

        Cancelling it changes nothing.
        """
        await trio.lowlevel.checkpoint()
        if timeout is not None:
            timeout = check_seconds("timeout", timeout, zero=True)
        with self._diagnostics._doing(Activity.WAIT_EMPTY):
            # Inside of a transaction its end commits, and not this.
            commits = self._transactions is None or not self._transactions.is_inside
            if commits:
                await self.commit()
            empty = await wait_finished(self._partitions, timeout)
            if commits:
                await self.commit_and_end_transactions()
        return empty

    # -- flow ------------------------------------------------------------------------

    def stop_flow(self) -> None:
        """Hand out nothing more and fetch nothing more, until :meth:`resume_flow`.

        Membership in the group goes on.  What is buffered stays buffered.
        """
        self._flow.stop()

    def resume_flow(self) -> None:
        """Hand out and fetch again; nothing happens once the consumer is stopping."""
        # Else what was held back would come into the buffers that have just been
        # emptied, and the end would wait for it, which nobody can finish any more.
        if not self._stopping:
            self._flow.resume()

    async def wait_for_stopped_flow(self) -> None:
        """Wait until flow is stopped and no record is on its way from the broker.

        From then on nothing arrives until :meth:`resume_flow`.  If flow is not
        stopped, it waits until somebody stops it.  Messages in hand are not
        waited for, see :meth:`wait_empty`.  Cancelling it changes nothing.
        """
        await self._flow.not_fetching.wait()

    def pause_partitions(self, tps: Iterable[TopicPartition]) -> None:
        """Stop fetching these partitions; what is buffered is still handed out.

        It lasts as long as the assignment: a partition that a rebalance brings
        back is not paused (as in Kafka's own client).  Partitions that this
        member does not have are passed over.
        """
        self._partitions.hold(check_partitions("tps", tps), PauseReason.USER)

    def resume_partitions(self, tps: Iterable[TopicPartition]) -> None:
        """End :meth:`pause_partitions`; other reasons may still hold them."""
        self._partitions.release(check_partitions("tps", tps), PauseReason.USER)

    def on_buffer_full(self, tp: TopicPartition, buffer: Hashable = None) -> None:
        """Stop fetching a partition because a buffer of yours is full.

        The buffers of streams see to themselves.  What was fetched is still
        handed out; fetching goes on when every buffer that was full has been
        drained, and no other reason holds the partition.

        Args:
            tp: The partition.
            buffer: Which buffer, if there are several.
        """
        self._partitions.hold([check_partition("tp", tp)], FullBuffer(buffer))

    def on_buffer_drop(self, tp: TopicPartition, buffer: Hashable = None) -> None:
        """End :meth:`on_buffer_full`: this buffer has drained."""
        self._partitions.release([check_partition("tp", tp)], FullBuffer(buffer))

    # -- positions ----------------------------------------------------------------------

    async def seek(self, tp: TopicPartition, offset: int) -> None:
        """Go on reading a partition at an offset.

        What is buffered or in hand of it becomes stale: acknowledging returns
        False.  Seeking back delivers again; seeking forward leaves out what is
        between.  Nothing is committed by it, but by what is finished afterwards
        (with ``auto_offset_reset="latest"`` the place itself, too, as any place
        where reading starts).  Past the end, or before the beginning,
        ``auto_offset_reset`` applies.

        Raises:
            ConfigurationError: The partition is not assigned to this member, or
                the offset is negative.

        Cancelling it moves nothing.
        """
        await self._positions.seek(tp, offset)

    async def seek_to_committed(self) -> dict[TopicPartition, int]:
        """Go back to the committed offset in every partition.

        A partition without one goes back to where the group began with it.
        What is buffered or in hand becomes stale, as for :meth:`seek`.

        Returns:
            Where each partition goes on.

        Raises:
            TransportError: The broker did not answer in time; nothing was moved.

        Cancelling it moves nothing.
        """
        return await self._positions.seek_to_committed()

    async def perform_seek(self) -> None:
        """The same as :meth:`seek_to_committed`, without a result (Faust's name)."""
        await self._positions.seek_to_committed()

    def while_assigned(self, tp: TopicPartition) -> AbstractContextManager[trio.CancelScope]:
        """A cancel scope for work that lasts as long as a partition is assigned.

        It is cancelled when the assignment ends: at once when the partition is
        lost; when it is revoked, after the last commit and
        ``on_partitions_revoked``; and when the consumer ends.  A seek does not
        cancel it.  For the work on one message see :meth:`Message.while_assigned`.

        Raises:
            ConfigurationError: The partition is not assigned to this member.
        """
        return self._positions.assigned(tp).partition_scope()

    # -- the watchdog -----------------------------------------------------------------

    async def verify_all_partitions_active(self) -> None:
        """Look whether every partition makes progress, as the watchdog does by itself.

        It logs and calls ``on_livelock`` for what has not moved for
        ``commit_livelock_soft_timeout``.  Cancelling it is harmless.
        """
        await self._watchdog.look()

    # -- what the group does -------------------------------------------------------------

    async def on_partitions_assigned(
        self, assigned: frozenset[TopicPartition], generation_id: int = 0
    ) -> None:
        """Take partitions in; called by the session, and the callback by this.

        A program that calls it itself makes this member read what others own.
        """
        await self._rebalancer.assigned(assigned, generation_id)

    async def on_partitions_revoked(self, revoked: frozenset[TopicPartition]) -> None:
        """Hand partitions over: drain, commit, tell the user; called by the session."""
        await self._rebalancer.revoked(revoked)

    async def on_partitions_lost(self, lost: frozenset[TopicPartition]) -> None:
        """Give up partitions that others own already; called by the session."""
        await self._rebalancer.lost(lost)

    # -- failing and stopping ------------------------------------------------------------

    async def on_task_error(self, exc: BaseException) -> None:
        """Commit what is finished, because processing a message has failed.

        The failed message stays unfinished.  Called before the failure of a
        ``callback`` stops the consumer.  If the commit fails too, that is logged
        and nothing else.
        """
        try:
            await self.commit()
        except ConsumerError as failure:
            # Whatever it is: raised here, it would take the place of what has failed.
            logger.warning(
                "commit failed after %r, what is finished stays uncommitted: %s",
                exc,
                failure,
                extra=about(self._session, error=str(failure)),
            )

    async def on_restart(self) -> None:
        """Begin anew with what is assigned, as after a start, without leaving the group.

        Nothing is kept: buffers and accounts are emptied, acknowledgements of
        what was handed out before return False, pauses of the user and
        :meth:`stop_flow` end, and reading begins at the committed offsets.

        Raises:
            TransportError: The broker did not answer in time; nothing was changed.
        """
        await self._positions.seek_to_committed()
        self._partitions.forget_pauses()
        self.resume_flow()

    def close(self) -> None:
        """Begin a graceful stop: loops over streams end after the message in hand.

        The rest happens when the ``open_consumer`` block is left.
        """
        self._stopping = True
        for stream in list(self._partitions.streams):
            stream._end()

    async def on_stop(self) -> None:
        """Stop handing out, wait for what is in hand, commit what is finished.

        It waits ``drain_timeout`` seconds at most.  Leaving the
        ``open_consumer`` block in order does this, and then leaves the group.

        Raises:
            CommitFailedError: The last commit failed.

        Cancelling it ends the wait; the commit is shielded and bounded by
        ``commit_timeout``.
        """
        if self._transactions is not None:
            self._transactions.check_outside("stop the consumer")
        await self._stop(self._settings.drain_timeout)

    def _give_back(self) -> None:
        """Take back what the streams never handed out, so only hands are waited for."""
        # Held first: a buffer that drains would take in what is pending.
        self._partitions.stop_flow()
        for stream in list(self._partitions.streams):
            stream._remove(None, DeliveredBatch.withdraw)

    async def _stop(self, drain: float) -> None:
        self.close()
        self._give_back()
        drained_by = trio.current_time() + drain
        try:
            if drain > 0:
                await wait_settled(list(self._partitions), drained_by, self._session)
        finally:
            with trio.CancelScope(shield=True):
                await self._committer.last_commit(
                    list(self._partitions),
                    trio.current_time() + self._settings.commit_timeout,
                    drained_by=drained_by,
                )
                if self._transactions is not None:
                    await self._transactions.settle(
                        trio.current_time() + self._settings.commit_timeout
                    )
