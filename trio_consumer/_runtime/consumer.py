"""The consumer: the face that the user sees.

It knows whether it hands out and whether it stops; everything else it asks of the
parts that :func:`~.opening.open_consumer` made it of.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from contextlib import AbstractContextManager
from typing import Literal

import trio

from .._core.flow import PauseReason
from .._core.ledger import DeliveredBatch
from .._core.subscription import TopicPattern
from .._errors import ConfigurationError
from .._types import AckMode, GroupMetadata, OffsetAndMetadata, TopicPartition
from ..transports.base import Session
from .committer import Committer
from .decoding import Deserializer, Deserializers
from .message import Message
from .partitions import Assignment, AssignmentState, Partitions
from .rebalance import Rebalancer, wait_settled
from .statistics import ConsumerStatistics, PartitionStatistics, StreamStatistics
from .stream import DecodeErrorHandler, Stream
from .subscription import Subscription

__all__ = ["Consumer"]


class Consumer:
    """A member of a consumer group; made by :func:`~trio_consumer.open_consumer`."""

    def __init__(
        self,
        *,
        group: str,
        session: Session,
        partitions: Partitions,
        committer: Committer,
        rebalancer: Rebalancer,
        subscription: Subscription,
        topics: frozenset[str],
        max_buffered: int,
    ) -> None:
        self._group = group
        self._session = session
        self._partitions = partitions
        self._committer = committer
        self._rebalancer = rebalancer
        self._subscription = subscription
        self._topics = topics
        self._max_buffered = max_buffered
        self._token = trio.lowlevel.current_trio_token()
        self._handing_out = True
        self._stopping = False

    def __repr__(self) -> str:
        return (
            f"<Consumer group={self._group!r} partitions={len(self._partitions)}"
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
            chosen = frozenset(topics) or self._topics
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
        bound = self._max_buffered if max_buffered is None else max_buffered
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

    # -- acknowledging and committing ----------------------------------------------

    def ack(self, message: Message) -> bool:
        """Finish a message for the stream that handed it out, see :meth:`Message.ack`."""
        return message.ack()

    async def commit(self, topics: Iterable[str | TopicPartition] | None = None) -> bool:
        """Commit what is finished, now.

        Args:
            topics: Only these topics and partitions; None for all.

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
        if isinstance(topics, str):
            topics = [topics]
        chosen = frozenset(topics)
        return await self._committer.commit(
            lambda assignment: assignment.tp in chosen or assignment.tp.topic in chosen
        )

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
        return self._handing_out

    def stop_flow(self) -> None:
        """Hand out nothing more and fetch nothing more, until :meth:`resume_flow`.

        Membership in the group goes on.  What is buffered stays buffered.
        """
        self._handing_out = False
        self._partitions.stop_flow()
        for stream in self._partitions.streams:
            stream._interrupt()

    def resume_flow(self) -> None:
        """Hand out and fetch again."""
        self._handing_out = True
        self._partitions.resume_flow()
        for stream in self._partitions.streams:
            stream._arrived.unpark_all()

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

    async def seek(self, tp: TopicPartition, offset: int) -> None:
        """Go on reading a partition at an offset.

        What is buffered or in hand of it becomes stale: acknowledging returns
        False.  Seeking back delivers again; seeking forward leaves out what is
        between.

        Raises:
            ConfigurationError: The partition is not assigned to this member, or
                the offset is negative.
        """
        await trio.lowlevel.checkpoint()
        if offset < 0:
            raise ConfigurationError(f"cannot seek {tp} to {offset}: offsets begin at 0")
        self._partitions.seek(self._assigned(tp), offset)

    async def seek_to_committed(self) -> dict[TopicPartition, int]:
        """Go back to the committed offset in every partition that has one.

        Returns:
            Where each partition goes on.
        """
        offsets = await self.committed()
        found = {tp: stored.offset for tp, stored in offsets.items() if stored is not None}
        for tp, offset in found.items():
            assignment = self._partitions.get(tp)
            if assignment is not None and assignment.state is AssignmentState.OPEN:
                self._partitions.seek(assignment, offset)
        return found

    def while_assigned(self, tp: TopicPartition) -> AbstractContextManager[trio.CancelScope]:
        """A cancel scope for work that lasts as long as a partition is assigned.

        It is cancelled when the assignment ends: at once when the partition is
        lost; when it is revoked, after the last commit and
        ``on_partitions_revoked``; and when the consumer ends.  A seek does not
        cancel it.  For the work on one message see :meth:`Message.while_assigned`.

        Raises:
            ConfigurationError: The partition is not assigned to this member.
        """
        return self._assigned(tp).partition_scope()

    def _assigned(self, tp: TopicPartition) -> Assignment:
        assignment = self._partitions.get(TopicPartition(*tp))
        if assignment is None or assignment.state is not AssignmentState.OPEN:
            raise ConfigurationError(
                f"{TopicPartition(*tp)} is not assigned to this member; it has"
                f" {sorted(map(str, self.assignment))}"
            )
        return assignment

    # -- what is known -----------------------------------------------------------------

    @property
    def assignment(self) -> frozenset[TopicPartition]:
        """The partitions that this member has now."""
        return frozenset(a.tp for a in self._partitions if a.state is AssignmentState.OPEN)

    @property
    def group_metadata(self) -> GroupMetadata:
        """The membership of this consumer in its group now."""
        return self._session.group_metadata()

    def position(self, tp: TopicPartition) -> int | None:
        """Offset after the last message given to the streams, None before the first.

        Raises:
            ConfigurationError: The partition is not assigned to this member.
        """
        return self._assigned(tp).ledger.position

    async def committed(
        self, tps: Iterable[TopicPartition] | None = None
    ) -> dict[TopicPartition, OffsetAndMetadata | None]:
        """Ask the broker for the committed offsets of the group.

        Args:
            tps: Which partitions; None for those assigned.

        Raises:
            TransportError: The broker did not answer in time.
        """
        wanted = self.assignment if tps is None else [TopicPartition(*tp) for tp in tps]
        return await self._session.committed(wanted)

    async def beginning_offsets(self, tps: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Ask the broker for the first offset in each partition."""
        return await self._session.beginning_offsets([TopicPartition(*tp) for tp in tps])

    async def end_offsets(self, tps: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Ask the broker for the end of each partition (last stable offset if committed only)."""
        return await self._session.end_offsets([TopicPartition(*tp) for tp in tps])

    def statistics(self) -> ConsumerStatistics:
        """A frozen snapshot of what this consumer is doing."""
        partitions = {}
        for assignment in self._partitions:
            ledger = assignment.ledger
            snapshot = ledger.snapshot()
            partitions[assignment.tp] = PartitionStatistics(
                position=ledger.position,
                committed=ledger.committed,
                committable=None if snapshot is None else snapshot.offset,
                high_watermark=assignment.high_watermark,
                unfinished=ledger.unfinished_count,
                oldest_unfinished=ledger.oldest_unfinished,
                replay=ledger.replay,
                pause_reasons=tuple(
                    reason.value if isinstance(reason, PauseReason) else f"full: {reason!r}"
                    for reason in self._partitions.flow.reasons(assignment.tp)
                ),
            )
        return ConsumerStatistics(
            group=self._group,
            generation=self._rebalancer.generation,
            rebalances=self._rebalancer.rebalances,
            commits=self._committer.commits,
            commit_failures=self._committer.failures,
            partitions=partitions,
            streams=tuple(
                StreamStatistics(s.topics, s.ack_mode.value, s.buffered, s.is_full)
                for s in self._partitions.streams
            ),
        )

    # -- stopping ------------------------------------------------------------------------

    def close(self) -> None:
        """Begin a graceful stop: loops over streams end after the message in hand.

        The rest happens when the ``open_consumer`` block is left.
        """
        self._stopping = True
        for stream in list(self._partitions.streams):
            stream._end()

    def _give_back(self) -> None:
        """Take back what the streams never handed out, so only hands are waited for."""
        # Held first: a buffer that drains would take in what is pending.
        self._partitions.stop_flow()
        for stream in list(self._partitions.streams):
            stream._remove(None, DeliveredBatch.withdraw)

    async def _stop(self, drain: float, commit_timeout: float) -> None:
        """Stop handing out, wait for what is in hand, commit what is finished.

        Cancelling ends the wait; the commit is shielded and bounded in time.
        """
        self.close()
        self._give_back()
        try:
            if drain > 0:
                await wait_settled(list(self._partitions), trio.current_time() + drain)
        finally:
            with trio.CancelScope(shield=True):
                await self._committer.last_commit(
                    list(self._partitions), trio.current_time() + commit_timeout
                )
