"""The memory broker's side of the seam: one session.

A :class:`MemorySession` puts together who it is (:mod:`.membership`), where it
reads (:mod:`.fetcher`) and how its requests travel (:mod:`.link`), and turns
the coordinator's answers into the errors of the seam.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import TypeVar

import trio

from ..._errors import (
    AuthorizationError,
    BrokerUnavailableError,
    CommitFailedError,
    FencedError,
    TransportError,
)
from ..._types import GroupMetadata, OffsetAndMetadata, TopicPartition
from ..base import PolledBatch, RebalanceListener, SessionSettings
from .cluster import Cluster, Signal
from .faults import CommitFault
from .fetcher import Fetcher
from .group import METADATA_LIMIT
from .link import Link
from .membership import Membership
from .options import ClientOptions, read_options
from .protocol import GroupError

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

__all__ = ["MemorySession", "open_session"]

logger: logging.Logger = logging.getLogger("trio_consumer.transport")

T = TypeVar("T")

UNSTABLE_RETRY = 0.1
"""Seconds until offsets are asked for again that a transaction holds; kafka-python's."""

Offsets = dict[TopicPartition, OffsetAndMetadata]

# Faults that are answers of the coordinator.
_FAULT_ANSWERS = {
    CommitFault.UNKNOWN_MEMBER: GroupError.UNKNOWN_MEMBER_ID,
    CommitFault.ILLEGAL_GENERATION: GroupError.ILLEGAL_GENERATION,
    CommitFault.REBALANCE_IN_PROGRESS: GroupError.REBALANCE_IN_PROGRESS,
    CommitFault.METADATA_TOO_LARGE: GroupError.OFFSET_METADATA_TOO_LARGE,
    CommitFault.FENCED: GroupError.FENCED_INSTANCE_ID,
}

_STALE = {
    GroupError.UNKNOWN_MEMBER_ID: "the coordinator does not know this member: its session expired"
    " or it was removed from the group",
    GroupError.ILLEGAL_GENERATION: "the group is in another generation by now",
    GroupError.REBALANCE_IN_PROGRESS: "the group is rebalancing",
}


class MemorySession:
    """One member of one group; see :class:`~trio_consumer.transports.base.Session`."""

    def __init__(
        self,
        cluster: Cluster,
        settings: SessionSettings,
        options: ClientOptions,
        listener: RebalanceListener,
    ) -> None:
        self._cluster = cluster
        self._settings = settings
        self._options = options
        number = cluster.next_session_number()
        self._link = Link(cluster, Random(f"{cluster.seed}/{number}"))
        self._fetcher = Fetcher(cluster, settings, options.max_poll_records)
        self._data = Signal()
        self._membership = Membership(
            cluster, self._link, settings, options, listener, self._fetcher, self.wake
        )
        self._polling = False

    def __repr__(self) -> str:
        identity = self.group_metadata()
        return (
            f"<MemorySession {identity.member_id or 'without a member id'},"
            f" group {identity.group!r}, generation {identity.generation},"
            f" {self._membership.state.value}>"
        )

    # What the broker asks

    @property
    def member_id(self) -> str:
        """The member id now, "" before the first join."""
        return self._membership.metadata().member_id

    @property
    def client_id(self) -> str:
        """The ``client_id`` that it was opened with."""
        return self._options.client_id

    @property
    def group(self) -> str:
        """The group that it was opened for."""
        return self._settings.group

    @property
    def frozen(self) -> bool:
        """Whether it is frozen."""
        return self._link.frozen

    @property
    def has_topics(self) -> bool:
        """Whether it subscribes to something."""
        return bool(self._membership.topics)

    @property
    def holds(self) -> frozenset[TopicPartition] | None:
        """What it owns, its listener's calls over; None during a rebalance."""
        return self._membership.holds

    def freeze(self) -> None:
        """Nothing reaches the broker from now on."""
        self._link.freeze()

    def thaw(self) -> None:
        """Requests reach the broker again."""
        self._link.thaw()

    def wake(self) -> None:
        """Let a waiting poll look again."""
        self._data.notify()

    # The seam

    @property
    def rebalance_timeout(self) -> float:
        """Seconds that the group waits for a member's revocation."""
        return self._options.rebalance_timeout

    @property
    def metadata_max_age(self) -> float:
        """Seconds after which to ask for the topics anew (``metadata_max_age_ms``)."""
        return self._options.metadata_max_age

    async def subscribe(self, topics: frozenset[str]) -> None:
        """Replace the subscription; an empty one leaves the group.

        Cancelling it leaves the subscription as it was.

        Raises:
            UnknownTopicError: A topic does not exist; the subscription is as before.
            TransportError: No answer within ``commit_timeout``; the same holds.
        """
        await self._ask(
            f"subscribe to {', '.join(sorted(topics))}",
            lambda: self._cluster.require_topics(topics),
        )
        self._membership.subscribe(topics)

    async def poll(self) -> Sequence[PolledBatch]:
        """Wait for records, or for a position that moved over hidden ones.

        Cancelling it loses nothing: positions move in the step that returns.

        Raises:
            trio.BusyResourceError: Another task polls this session.
            trio.ClosedResourceError: The session has ended.
            CorruptRecordError: A damaged record is next.
            OffsetOutOfRangeError: There is no position to read from.
            TransportError: The membership failed for good.
        """
        if self._polling:
            raise trio.BusyResourceError("another task is in poll() of this session already")
        self._polling = True
        try:
            while True:
                if self._membership.failure is not None:
                    raise self._membership.failure
                await self._link.answer(await self._link.arrive())
                batches = self._fetcher.collect()
                if batches:
                    return batches
                if self._membership.failure is None:
                    await self._data.wait()
        finally:
            self._polling = False

    def pause(self, tps: Collection[TopicPartition]) -> None:
        """Stop fetching these, until resumed or assigned anew."""
        self._fetcher.pause(tps, True)

    def resume(self, tps: Collection[TopicPartition]) -> None:
        """Fetch these again, from where they stopped."""
        self._fetcher.pause(tps, False)
        self.wake()

    async def quiesce(self) -> None:
        """Pauses are in force at once: a poll collects in the step that returns."""
        await trio.lowlevel.checkpoint()

    def seek(self, tp: TopicPartition, offset: int) -> None:
        """Move the position; nothing if the partition is not assigned.

        An offset out of the log is found by the next poll, which applies
        ``auto_offset_reset``.

        Raises:
            trio.ClosedResourceError: The session has ended.
        """
        self._link.check_open()
        self._fetcher.seek(tp, offset)
        self.wake()

    async def commit(self, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        """Commit these offsets and wait for the answer, ``commit_timeout`` at most.

        Cancelling it before the request arrives commits nothing, cancelling it
        later loses the answer; either way nothing is in flight afterwards.

        Raises:
            CommitFailedError: Not committed, or not known to be.
            AuthorizationError: Not allowed (injected only).
            FencedError: Another member has this one's group instance id.
            trio.ClosedResourceError: The session has ended.
        """
        self._link.check_open()
        wanted: Offsets = dict(offsets)
        if not wanted:
            await trio.lowlevel.checkpoint()
            return
        try:
            self._membership.check_commit(wanted)
        except BaseException:
            await trio.lowlevel.checkpoint()
            raise
        identity = self.group_metadata()
        unknown: list[TopicPartition] = []
        with trio.move_on_after(self._settings.commit_timeout):
            travel = await self._link.arrive(
                self._cluster.injector.commit_latency(self._link.random)
            )
            fault = self._cluster.injector.for_commit(self._link.random)
            error = self._commit_on_broker(wanted, identity, fault)
            if fault in (CommitFault.TIMEOUT, CommitFault.ANSWER_LOST):
                await trio.sleep_forever()
            if error is None:
                unknown = [tp for tp in wanted if self._cluster.find_log(tp) is None]
            if unknown:
                # A client goes on asking for new metadata until its time is up.
                await trio.sleep_forever()
            await self._link.answer(travel)
            if error is not None:
                if fault is None:
                    self._membership.refused(identity, error)
                raise self._commit_error(wanted, identity, error)
            if fault is CommitFault.UNAUTHORIZED:
                raise AuthorizationError(
                    f"cannot commit {_text(wanted)} for the group {identity.group!r}: not"
                    f" authorized. Grant READ on the group and its topics to this principal"
                )
            if fault is CommitFault.COORDINATOR_UNAVAILABLE:
                raise CommitFailedError(
                    f"cannot commit {_text(wanted)} for the group {identity.group!r}: its"
                    f" coordinator is not available; nothing was stored, commit again",
                    offsets=wanted,
                    retriable=True,
                )
            return
        if unknown:
            logger.warning(
                "%s not committed for the group %r: the broker has no such partition, its topic"
                " was deleted",
                _text({tp: wanted[tp] for tp in unknown}),
                identity.group,
                extra={"group": identity.group, "partitions": [str(tp) for tp in sorted(unknown)]},
            )
            return
        raise CommitFailedError(
            f"cannot tell whether {_text(wanted)} was committed for the group"
            f" {identity.group!r}: no answer within {self._settings.commit_timeout} s;"
            f" commit again",
            offsets=wanted,
            retriable=True,
        )

    async def committed(
        self, tps: Collection[TopicPartition]
    ) -> dict[TopicPartition, OffsetAndMetadata | None]:
        """What the group has committed, None where nothing.

        Raises:
            TransportError: No answer within ``commit_timeout`` (retriable).
        """
        stable_only = self._settings.isolation_level == "read_committed"

        def look() -> dict[TopicPartition, OffsetAndMetadata | None] | None:
            group = self._cluster.group(self._settings.group)
            if stable_only and any(group.pending.get(tp) for tp in tps):
                return None
            return {tp: group.offsets.get(tp) for tp in tps}

        what = "read the committed offsets"
        deadline = trio.current_time() + self._settings.commit_timeout
        while True:
            found = await self._ask(what, look)
            if found is not None:
                return found
            if trio.current_time() >= deadline:
                raise TransportError(
                    f"cannot {what}: a transaction that is open holds them; try again",
                    retriable=True,
                )
            # It is about to move one: ask again, as Kafka's clients do.
            await trio.sleep(UNSTABLE_RETRY)

    async def beginning_offsets(self, tps: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """The first offset available in each partition.

        Raises:
            UnknownTopicError: A partition does not exist.
            TransportError: No answer within ``commit_timeout`` (retriable).
        """
        return await self._ask(
            "read the beginning offsets", lambda: {tp: self._cluster.log(tp).start for tp in tps}
        )

    async def end_offsets(self, tps: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """The high watermark of each partition, or its last stable offset.

        Raises:
            UnknownTopicError: A partition does not exist.
            TransportError: No answer within ``commit_timeout`` (retriable).
        """
        committed_only = self._settings.isolation_level == "read_committed"
        return await self._ask(
            "read the end offsets",
            lambda: {tp: self._cluster.log(tp).limit(committed_only=committed_only) for tp in tps},
        )

    async def topics(self) -> frozenset[str]:
        """The topics that exist.

        Raises:
            TransportError: No answer within ``commit_timeout`` (retriable).
        """
        return await self._ask("list the topics", lambda: frozenset(self._cluster.topics))

    async def partitions_for(self, topic: str) -> frozenset[int]:
        """The partitions of a topic; empty if it does not exist.

        Raises:
            TransportError: No answer within ``commit_timeout`` (retriable).
        """
        return await self._ask(
            f"look up the topic {topic!r}",
            lambda: frozenset(range(len(self._cluster.topics.get(topic, ())))),
        )

    def group_metadata(self) -> GroupMetadata:
        """The membership now."""
        return self._membership.metadata()

    # Inside

    async def _ask(self, what: str, action: Callable[[], T]) -> T:
        """A request with the session's time limit."""
        with trio.move_on_after(self._settings.commit_timeout):
            return await self._link.exchange(action)
        raise TransportError(
            f"cannot {what}: no answer within {self._settings.commit_timeout} s; try again",
            retriable=True,
        )

    def _commit_on_broker(
        self, offsets: Offsets, identity: GroupMetadata, fault: CommitFault | None
    ) -> GroupError | None:
        """What happens to a commit on the broker; the error that comes back, if one."""
        if fault in _FAULT_ANSWERS:
            return _FAULT_ANSWERS[fault]
        if fault not in (None, CommitFault.ANSWER_LOST):
            return None
        # A deleted topic takes no offset, the other partitions of the request do.
        existing = {tp: o for tp, o in offsets.items() if self._cluster.find_log(tp) is not None}
        answers = self._cluster.ask(
            identity.group,
            lambda group, now: group.commit(
                identity.member_id,
                identity.generation,
                existing,
                now,
                identity.group_instance_id,
            ),
        )
        return next((error for error in answers.values() if error is not None), None)

    def _commit_error(
        self, offsets: Offsets, identity: GroupMetadata, error: GroupError
    ) -> CommitFailedError | FencedError:
        what = (
            f"cannot commit {_text(offsets)} for the group {identity.group!r} as member"
            f" {identity.member_id!r} of generation {identity.generation}"
        )
        if error is GroupError.FENCED_INSTANCE_ID:
            return FencedError(
                f"{what}: fenced, another member joined as {identity.group_instance_id!r}."
                f" Give each process a group_instance_id of its own"
            )
        if error is GroupError.OFFSET_METADATA_TOO_LARGE:
            return CommitFailedError(
                f"{what}: the metadata of a partition is above {METADATA_LIMIT} bytes; shorten it",
                offsets=offsets,
            )
        return CommitFailedError(
            f"{what}: {_STALE[error]}. The session joins again by itself; commit only what is"
            f" assigned then",
            offsets=offsets,
            stale=True,
        )

    async def _connect(self) -> None:
        with trio.move_on_after(self._settings.connect_timeout):
            await self._link.exchange(lambda: None)
            return
        raise BrokerUnavailableError(
            f"cannot connect to the memory broker: it is down, no answer within"
            f" {self._settings.connect_timeout} s. Call up(), or raise connect_timeout",
            retriable=True,
        )

    async def _close(self) -> None:
        """Leave the group, ``commit_timeout`` at most, whatever cancels us."""
        if not self._link.frozen:
            with trio.move_on_after(self._settings.commit_timeout, shield=True):
                await self._membership.leave()
        self._link.close()
        self.wake()


@asynccontextmanager
async def open_session(
    cluster: Cluster, settings: SessionSettings, listener: RebalanceListener
) -> AsyncGenerator[MemorySession, None]:
    """Open a session for the length of a block; see ``Transport.connect``.

    If the listener raises, the block is cancelled and the listener's exception
    leaves it.  What the block raises leaves it as itself.
    """
    session = MemorySession(cluster, settings, read_options(settings), listener)
    await session._connect()
    cluster.connections.append(session)
    cluster.watchers.sessions_changed()
    failure: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session._membership.drive)
            nursery.start_soon(session._membership.heartbeat)
            nursery.start_soon(session._membership.run)
            yield session
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        failure = _as_itself(group)
        if failure is group:
            raise
    finally:
        await session._close()
        cluster.connections.remove(session)
        cluster.watchers.sessions_changed()
    if failure is not None:
        raise failure


def _as_itself(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one exception in a nursery's group that is no cancellation, or the group.

    Only the nursery's own wrapping is taken off: a group that the block raised
    leaves it as a group.
    """
    others = [error for error in group.exceptions if not _is_cancellation(error)]
    return others[0] if len(others) == 1 else group


def _is_cancellation(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(_is_cancellation(each) for each in error.exceptions)
    return isinstance(error, trio.Cancelled)


def _text(offsets: Offsets) -> str:
    return ", ".join(f"{tp}={stored.offset}" for tp, stored in sorted(offsets.items()))
