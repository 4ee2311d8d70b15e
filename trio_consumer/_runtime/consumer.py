"""The consumer: the face that the user sees.

It knows whether it hands out and whether it stops; everything else it asks of the
parts that :func:`~.opening.open_consumer` made it of.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Hashable, Iterable
from contextlib import AbstractContextManager
from typing import Literal

import trio

from .._core.delivered_batch import DeliveredBatch
from .._core.flow import FullBuffer, PauseReason
from .._core.scheduling import SchedulingStrategy
from .._core.subscription import TopicPattern
from .._errors import CommitFailedError, ConfigurationError
from .._types import AckMode, GroupMetadata, OffsetAndMetadata, TopicPartition
from ..transports.base import Session, Transport
from .committer import Committer
from .decoding import Deserializer, Deserializers
from .diagnostics import Diagnostics
from .fetching import FetchIterator
from .flow_gate import FlowEvent, FlowGate
from .message import Message
from .partitions import Partitions
from .positions import Positions
from .rebalance import Rebalancer, wait_settled
from .settings import ConsumerSettings
from .statistics import ConsumerStatistics, UnackedMessage, of_partition, of_stream
from .stream import DecodeErrorHandler, Stream
from .subscription import Subscription

__all__ = ["Consumer"]

logger = logging.getLogger("trio_consumer.consumer")


class Consumer:
    """A member of a consumer group; made by :func:`~trio_consumer.open_consumer`."""

    def __init__(
        self,
        settings: ConsumerSettings,
        *,
        transport: Transport,
        session: Session,
        partitions: Partitions,
        committer: Committer,
        rebalancer: Rebalancer,
        subscription: Subscription,
        flow: FlowGate,
        positions: Positions,
        diagnostics: Diagnostics,
    ) -> None:
        self._settings = settings
        self._transport = transport
        self._session = session
        self._partitions = partitions
        self._committer = committer
        self._rebalancer = rebalancer
        self._subscription = subscription
        self._flow = flow
        self._positions = positions
        self._diagnostics = diagnostics
        self._token = trio.lowlevel.current_trio_token()
        self._fetched: Stream | None = None
        self._stopping = False

    def __repr__(self) -> str:
        return (
            f"<Consumer group={self._settings.group!r} partitions={len(self._partitions)}"
            f" streams={len(self._partitions.streams)}{' stopping' if self._stopping else ''}>"
        )

    # -- what it is -------------------------------------------------------------------

    @property
    def transport(self) -> Transport:
        """Where it consumes from."""
        return self._transport

    @property
    def consumer_stopped_errors(self) -> tuple[type[BaseException], ...]:
        """What the client raises once it is closed.

        A normal end while the consumer stops, a failure at any other time.
        """
        return self._transport.closed_errors

    @property
    def commit_interval(self) -> float:
        """Seconds between commits."""
        return self._settings.commit_interval

    @property
    def commit_every(self) -> int | None:
        """Acknowledgements after which to commit too, or None."""
        return self._settings.commit_every

    @property
    def randomly_assigned_topics(self) -> frozenset[str]:
        """Topics whose records are taken even of partitions that are not assigned."""
        return self._settings.randomly_assigned_topics

    @property
    def scheduler(self) -> SchedulingStrategy:
        """The order of delivery out of one poll."""
        return self._settings.scheduler

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
            chosen = frozenset(topics) or self._settings.topics
            if not chosen:
                raise ConfigurationError("a stream needs at least one topic, or a pattern")
        try:
            mode = AckMode(ack)
        except ValueError:
            raise ConfigurationError(
                f"ack must be 'auto', 'manual' or 'none', not {ack!r}"
            ) from None
        if on_decode_error not in ("raise", "skip") and not callable(on_decode_error):
            raise ConfigurationError(
                "on_decode_error must be 'raise', 'skip' or an async function,"
                f" not {on_decode_error!r}"
            )
        bound = self._settings.max_buffered if max_buffered is None else max_buffered
        if bound < 1:
            raise ConfigurationError(f"max_buffered must be at least 1, not {bound}")
        return Stream(
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

    def track_message(self, message: Message) -> bool:
        """Whether an acknowledgement of this message is still awaited.

        Every message is tracked before anybody sees it, so nothing has to be
        done for that (in Faust whoever fetches a message must call this).

        Returns:
            False if its stream has finished it or only observes, or if the
            partition has been revoked or sought.
        """
        return message._chunk.is_tracked(message._index)

    @property
    def unacked(self) -> frozenset[UnackedMessage]:
        """Messages that were delivered and that some stream has not finished.

        Takes time in proportion to their number; ``statistics().unfinished``
        only counts them.
        """
        return frozenset(
            UnackedMessage(assignment.tp, offset)
            for assignment in self._partitions
            for offset in assignment.ledger.unfinished()
        )

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
            start_new_transaction: Whether a transaction begins anew after the
                one that this commit ends.  Means nothing without one.

        Returns:
            True if this call committed something.  False if there was nothing
            new to commit.

        Raises:
            CommitFailedError: The broker refused or did not answer in time.
                What is finished stays finished; a later commit includes it.

        Cancelling it before the commit is sent commits nothing; after that it
        waits for the answer, at most ``commit_timeout``.
        """
        if topics is None:
            return await self._committer.commit()
        if isinstance(topics, (str, TopicPartition)):
            topics = [topics]
        chosen = frozenset(topics)
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

    async def wait_empty(self) -> None:
        """Wait until no delivered message is unfinished, then commit.

        Messages that are still in the buffers have to be consumed for that.
        Use :func:`trio.move_on_after` for a deadline; cancelling changes nothing.

        Raises:
            CommitFailedError: As for :meth:`commit`.
        """
        await trio.lowlevel.checkpoint()
        for assignment in self._partitions:
            await assignment.wait_settled()
        await self.commit()

    # -- flow ------------------------------------------------------------------------

    @property
    def flow_active(self) -> bool:
        """False between :meth:`stop_flow` and :meth:`resume_flow`."""
        return self._flow.active

    @property
    def can_resume_flow(self) -> FlowEvent:
        """Set while messages are handed out."""
        return self._flow.flowing

    @property
    def suspend_flow(self) -> FlowEvent:
        """Set while flow is stopped."""
        return self._flow.suspended

    @property
    def not_waiting_next_records(self) -> FlowEvent:
        """Set while flow is stopped and no record is on its way from the broker."""
        return self._flow.not_fetching

    def stop_flow(self) -> None:
        """Hand out nothing more and fetch nothing more, until :meth:`resume_flow`.

        Membership in the group goes on.  What is buffered stays buffered.
        """
        self._flow.stop()

    def resume_flow(self) -> None:
        """Hand out and fetch again."""
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
        self._partitions.hold([TopicPartition(*tp) for tp in tps], PauseReason.USER)

    def resume_partitions(self, tps: Iterable[TopicPartition]) -> None:
        """End :meth:`pause_partitions`; other reasons may still hold them."""
        self._partitions.release([TopicPartition(*tp) for tp in tps], PauseReason.USER)

    def on_buffer_full(self, tp: TopicPartition, buffer: Hashable = None) -> None:
        """Stop fetching a partition because a buffer of yours is full.

        The buffers of streams see to themselves.  What was fetched is still
        handed out; fetching goes on when every buffer that was full has been
        drained, and no other reason holds the partition.

        Args:
            tp: The partition.
            buffer: Which buffer, if there are several.
        """
        self._partitions.hold([TopicPartition(*tp)], FullBuffer(buffer))

    def on_buffer_drop(self, tp: TopicPartition, buffer: Hashable = None) -> None:
        """End :meth:`on_buffer_full`: this buffer has drained."""
        self._partitions.release([TopicPartition(*tp)], FullBuffer(buffer))

    # -- positions ----------------------------------------------------------------------

    async def seek(self, tp: TopicPartition, offset: int) -> None:
        """Go on reading a partition at an offset.

        What is buffered or in hand of it becomes stale: acknowledging returns
        False.  Seeking back delivers again; seeking forward leaves out what is
        between.

        Raises:
            ConfigurationError: The partition is not assigned to this member, or
                the offset is negative.
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

    # -- what is known -----------------------------------------------------------------

    @property
    def assignment(self) -> frozenset[TopicPartition]:
        """The partitions that this member has now."""
        return frozenset(a.tp for a in self._partitions if a.is_open)

    @property
    def generation(self) -> int:
        """The group's generation at the last assignment, -1 before the first."""
        return self._rebalancer.generation

    @property
    def diag(self) -> Diagnostics:
        """What it is doing at this moment: ``consumer.diag.flags``."""
        return self._diagnostics

    @property
    def group_metadata(self) -> GroupMetadata:
        """The membership of this consumer in its group now."""
        return self._session.group_metadata()

    def position(self, tp: TopicPartition) -> int | None:
        """Offset after the last message given to the streams, None before the first.

        Raises:
            ConfigurationError: The partition is not assigned to this member.
        """
        return self._positions.assigned(tp).ledger.position

    async def committed(
        self, tps: Iterable[TopicPartition] | None = None
    ) -> dict[TopicPartition, OffsetAndMetadata | None]:
        """Ask the broker for the committed offsets of the group.

        Args:
            tps: Which partitions; None for those assigned.

        Raises:
            TransportError: The broker did not answer in time.
        """
        return await self._positions.committed(self.assignment if tps is None else tps)

    async def beginning_offsets(self, tps: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Ask the broker for the first offset in each partition."""
        return await self._positions.beginning_offsets(tps)

    async def end_offsets(self, tps: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Ask the broker for the end of each partition (last stable offset if committed only)."""
        return await self._positions.end_offsets(tps)

    def statistics(self) -> ConsumerStatistics:
        """A frozen snapshot of what this consumer is doing."""
        return ConsumerStatistics(
            group=self._settings.group,
            generation=self._rebalancer.generation,
            rebalances=self._rebalancer.rebalances,
            commits=self._committer.commits,
            commit_failures=self._committer.failures,
            activities=self._diagnostics.flags,
            partitions={a.tp: of_partition(a, self._partitions.flow) for a in self._partitions},
            streams=tuple(of_stream(stream) for stream in self._partitions.streams),
        )

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
        except CommitFailedError as failure:
            logger.warning(
                "commit failed after %r, what is finished stays uncommitted: %s", exc, failure
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
        self._flow.resume()

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
        try:
            if drain > 0:
                await wait_settled(list(self._partitions), trio.current_time() + drain)
        finally:
            with trio.CancelScope(shield=True):
                await self._committer.last_commit(
                    list(self._partitions), trio.current_time() + self._settings.commit_timeout
                )
