"""The seam between the runtime and a Kafka client.

A :class:`Transport` is an address: it knows how to open a session and holds no
connection.  A :class:`Session` is one member of one group.  The runtime sees
polled batches, partitions that come and go, and answers to commits; threads,
sockets and the client's own types stay below this line.

What every transport keeps:

* :meth:`Session.poll` loses nothing: cancelling it leaves the records for the
  next call.
* From the moment ``RebalanceListener.revoked`` or ``lost`` is called for a
  partition, :meth:`Session.poll` returns none of its records, until
  ``assigned`` has returned for it.  From the moment :meth:`Session.seek` is
  called, it returns none from before the seek.
* The first batch of an assignment tells where reading starts; it is empty if
  there is nothing to read yet.
* Membership does not depend on :meth:`Session.poll` being called: heartbeats
  (and the client's own polling) go on while the runtime is busy, with a
  bounded number of polled batches held.
* A rebalance waits for the listener; heartbeats go on meanwhile.
* :meth:`Session.commit` may be called while the listener runs.

``_core`` and the runtime never ask which transport they have.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, runtime_checkable

from .._types import GroupMetadata, OffsetAndMetadata, TopicPartition

__all__ = [
    "OutgoingRecord",
    "PolledBatch",
    "ProducerSettings",
    "RebalanceListener",
    "Record",
    "Session",
    "SessionSettings",
    "TransactionalProducer",
    "TransactionalTransport",
    "Transport",
]


class Record(Protocol):
    """One record, as the client made it.

    ``timestamp`` is in milliseconds since the epoch, -1 if unknown, as on the
    wire.  ``headers`` is a sequence of ``(str, bytes | None)`` pairs.
    """

    @property
    def topic(self) -> str:
        """Name of the topic."""
        ...

    @property
    def partition(self) -> int:
        """Number of the partition."""
        ...

    @property
    def offset(self) -> int:
        """Offset of this record."""
        ...

    @property
    def timestamp(self) -> int:
        """Milliseconds since the epoch, -1 if unknown."""
        ...

    @property
    def key(self) -> bytes | None:
        """Raw key."""
        ...

    @property
    def value(self) -> bytes | None:
        """Raw value; None for a tombstone."""
        ...

    @property
    def headers(self) -> Sequence[tuple[str, bytes | None]]:
        """Headers in the order of the producer."""
        ...


@dataclass(frozen=True, slots=True)
class PolledBatch:
    """Records of one partition out of one poll, in offset order.

    Attributes:
        tp: The partition.
        records: The records; may be empty when only the position moved.
        next_offset: The position after this batch.  It may lie beyond the
            last record's offset + 1 (transaction markers, compaction).
        high_watermark: The partition's high watermark, or None if unknown.
        begins: The position before this batch, or None if unknown.  Wanted of the
            first one after an assignment if it has no record: else nobody would
            know that there is something to commit.
    """

    tp: TopicPartition
    records: Sequence[Record]
    next_offset: int
    high_watermark: int | None = None
    begins: int | None = None


class RebalanceListener(Protocol):
    """What a session tells the runtime about its partitions.

    The calls come one at a time, from a task of the session.
    """

    async def assigned(self, tps: frozenset[TopicPartition], generation: int) -> None:
        """These partitions were added.  Their records come after the return."""
        ...

    async def revoked(self, tps: frozenset[TopicPartition]) -> None:
        """These partitions will go to another member once this returns.

        They are still owned: a commit for them is accepted until the return.
        """
        ...

    async def lost(self, tps: frozenset[TopicPartition]) -> None:
        """These partitions are gone already; a commit for them is refused."""
        ...


@dataclass(frozen=True)
class SessionSettings:
    """What a session needs to know beyond the address.

    Attributes:
        group: The consumer group.
        auto_offset_reset: ``"earliest"``, ``"latest"`` or ``"none"``: where to
            start without a committed offset, or when it is out of range.
        isolation_level: ``"read_uncommitted"`` or ``"read_committed"``.
        connect_timeout: Seconds until :class:`~trio_consumer.BrokerUnavailableError`.
        commit_timeout: Seconds until a commit or an offset query gives up.
        client_options: Options under the client's own names.
    """

    group: str
    auto_offset_reset: str = "earliest"
    isolation_level: str = "read_uncommitted"
    connect_timeout: float = 10.0
    commit_timeout: float = 5.0
    client_options: Mapping[str, Any] = field(default_factory=dict)


class Session(Protocol):
    """One member of one group; lives inside ``async with transport.connect(...)``."""

    @property
    def rebalance_timeout(self) -> float:
        """Seconds that the group waits for a member's revocation."""
        ...

    @property
    def metadata_max_age(self) -> float:
        """Seconds after which the client renews what it knows of the cluster."""
        ...

    async def subscribe(self, topics: frozenset[str]) -> None:
        """Replace the subscription.  Returns before the group has rebalanced.

        Raises:
            UnknownTopicError: A topic does not exist; the subscription is as before.
        """
        ...

    async def poll(self) -> Sequence[PolledBatch]:
        """Wait for the next poll's batches: at most one batch a partition.

        Raises:
            TransportError: The client failed for good
                (:exc:`~trio_consumer.CorruptRecordError`,
                :exc:`~trio_consumer.OffsetOutOfRangeError`, authorization, fencing).
        """
        ...

    def pause(self, tps: Collection[TopicPartition]) -> None:
        """Stop fetching these.  At most the polls already made still arrive."""
        ...

    def resume(self, tps: Collection[TopicPartition]) -> None:
        """Fetch these again, from where they stopped."""
        ...

    async def quiesce(self) -> None:
        """Wait until pauses and seeks asked for are in force at the client.

        On return, :meth:`poll` has given out everything that was polled before.
        Somebody else has to be calling it meanwhile.
        """
        ...

    def seek(self, tp: TopicPartition, offset: int) -> None:
        """Move the position; does nothing if the partition is not assigned."""
        ...

    async def commit(self, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        """Commit exactly these offsets and wait for the broker's answer.

        It never outlives the call, even if cancelled: on return nothing is in
        flight.  A partition that the broker, asked all the while, does not have
        (its topic was deleted) is left out with a warning.

        Raises:
            CommitFailedError: Not committed, or not known to be.
            AuthorizationError: Not allowed.
            FencedError: Another member has this one's identity.
        """
        ...

    async def committed(
        self, tps: Collection[TopicPartition]
    ) -> dict[TopicPartition, OffsetAndMetadata | None]:
        """What the broker has for the group, None where nothing was committed."""
        ...

    async def beginning_offsets(self, tps: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """The first offset available in each partition."""
        ...

    async def end_offsets(self, tps: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """The high watermark of each partition (last stable offset if read_committed)."""
        ...

    async def topics(self) -> frozenset[str]:
        """The topics of the cluster that this principal may see.

        Topics of Kafka's own may be missing.

        Raises:
            TransportError: No answer (retriable).
        """
        ...

    async def partitions_for(self, topic: str) -> frozenset[int]:
        """The partitions of a topic; empty if it does not exist."""
        ...

    def group_metadata(self) -> GroupMetadata:
        """The membership now."""
        ...


@dataclass(frozen=True, slots=True)
class OutgoingRecord:
    """A record to be produced.

    Attributes:
        topic: Where it goes.
        value: The value; None is a tombstone.
        key: The key, or None.
        partition: Which partition; None lets the client choose by the key.
        headers: Name and value each.
        timestamp_ms: Milliseconds since the epoch; None for now.
    """

    topic: str
    value: bytes | None
    key: bytes | None = None
    partition: int | None = None
    headers: Sequence[tuple[str, bytes]] = ()
    timestamp_ms: int | None = None


@dataclass(frozen=True)
class ProducerSettings:
    """What a transactional producer needs to know beyond the address.

    Attributes:
        transactional_id: Name under which a successor fences this producer.
        transaction_timeout: Seconds after which the broker aborts a transaction
            by itself.
        connect_timeout: Seconds until :class:`~trio_consumer.BrokerUnavailableError`.
        client_options: The consumer's; those that a producer has too are used.
    """

    transactional_id: str
    transaction_timeout: float
    connect_timeout: float = 10.0
    client_options: Mapping[str, Any] = field(default_factory=dict)


class TransactionalProducer(Protocol):
    """A producer whose records count together or not at all.

    The calls come one at a time.  Each ends within ``timeout`` seconds, and a
    cancellation does not tear it; if it has to give up, what became of it is not
    known, and the producer is of no use any more.
    """

    async def begin(self, *, timeout: float) -> None:
        """Begin a transaction.

        Raises:
            FencedError: Another producer has this one's transactional id.
            TransportError: As each of the calls.
        """
        ...

    async def send(self, records: Sequence[OutgoingRecord], *, timeout: float) -> None:
        """Hand records to the client.  They may still fail until the commit."""
        ...

    async def send_offsets(
        self,
        offsets: Mapping[TopicPartition, OffsetAndMetadata],
        group: GroupMetadata,
        *,
        timeout: float,
    ) -> None:
        """Make offsets of a group part of the transaction.

        Raises:
            CommitFailedError: The member is no longer an owner; abort.
        """
        ...

    async def commit(self, *, timeout: float) -> None:
        """Make everything visible, once all records are stored."""
        ...

    async def abort(self, *, timeout: float) -> None:
        """Undo everything."""
        ...


@runtime_checkable
class Transport(Protocol):
    """An address from which sessions are opened.

    Attributes:
        closed_errors: Exceptions that the client raises once it is closed.
    """

    closed_errors: ClassVar[tuple[type[BaseException], ...]]

    def connect(
        self, settings: SessionSettings, listener: RebalanceListener
    ) -> AbstractAsyncContextManager[Session]:
        """Open a session; leaving the block leaves the group.

        Leaving calls no listener and waits a bounded time; commit before.

        Raises:
            ConfigurationError: An option that would break the guarantees.
            BrokerUnavailableError: No answer within ``connect_timeout``.
            AuthenticationError: Credentials or TLS refused.
        """
        ...


@runtime_checkable
class TransactionalTransport(Transport, Protocol):
    """A transport that can produce too, in transactions."""

    def producer(
        self, settings: ProducerSettings
    ) -> AbstractAsyncContextManager[TransactionalProducer]:
        """Open a transactional producer, and fence those of the same id.

        Raises:
            ConfigurationError: An option or a timeout that cannot be.
            BrokerUnavailableError: No answer within ``connect_timeout``.
        """
        ...
