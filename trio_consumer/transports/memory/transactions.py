"""Transactions of a producer: records and offsets that count together or not at all.

A :class:`Transaction` writes its records at once (they take their offsets and a
``read_uncommitted`` reader sees them); its end appends a marker to every
partition that it wrote to.  A transaction that is begun under the id of one
still open aborts and fences that one, as a restarted producer does in Kafka.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Mapping
from types import TracebackType

from ..._errors import CommitFailedError, FencedError, TransportError
from ..._types import GroupMetadata, OffsetAndMetadata, TopicPartition
from .cluster import Cluster
from .log import Headers

__all__ = ["Transaction", "TransactionState"]


class TransactionState(enum.Enum):
    """How far a transaction is."""

    OPEN = "open"
    COMMITTED = "committed"
    ABORTED = "aborted"
    FENCED = "fenced"


class Transaction:
    """One transaction; as a context manager it commits, or aborts on an exception.

    Attributes:
        producer_id: Its transactional id.
        expires: When the broker aborts it by itself, on the broker's clock.
    """

    def __init__(
        self,
        cluster: Cluster,
        number: int,
        producer_id: str,
        choose_partition: Callable[[str, bytes | None, int | None], TopicPartition],
        timestamp: Callable[[], int],
        timeout: float = math.inf,
    ) -> None:
        self.producer_id = producer_id
        self._cluster = cluster
        self._number = number
        self._choose_partition = choose_partition
        self._timestamp = timestamp
        self._state = TransactionState.OPEN
        self._partitions: set[TopicPartition] = set()
        self.expires: float = cluster.clock.now() + timeout
        cluster.transactions[number] = self
        self._offsets: list[tuple[GroupMetadata, dict[TopicPartition, OffsetAndMetadata]]] = []

    def __repr__(self) -> str:
        return f"<Transaction {self._number} of {self.producer_id!r}, {self._state.value}>"

    def __enter__(self) -> Transaction:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._state is not TransactionState.OPEN:
            return
        if exc is None:
            self.commit()
        else:
            self.abort()

    @property
    def state(self) -> TransactionState:
        """How far it is."""
        return self._state

    def produce(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        partition: int | None = None,
        headers: Headers = (),
        timestamp: int | None = None,
    ) -> int:
        """Append a record as part of the transaction; return its offset."""
        self._check_open("produce")
        tp = self._choose_partition(topic, key, partition)
        self._partitions.add(tp)
        offset = self._cluster.log(tp).append(
            value,
            key=key,
            headers=headers,
            timestamp=self._timestamp() if timestamp is None else timestamp,
            transaction=self._number,
        )
        self._cluster.wake()
        return offset

    def send_offsets(
        self, offsets: Mapping[TopicPartition, OffsetAndMetadata], group: GroupMetadata
    ) -> None:
        """Commit these offsets with the transaction (KIP-447).

        Raises:
            CommitFailedError: The member or the generation is stale.
        """
        self._check_open("send offsets")
        error = self._cluster.ask(
            group.group,
            lambda coordinator, _: coordinator.check(
                group.member_id, group.generation, group.group_instance_id
            ),
        )
        if error is not None:
            raise CommitFailedError(
                f"cannot add offsets of the group {group.group!r} to {self!r}: {error.value} for"
                f" member {group.member_id!r} of generation {group.generation}. Abort it",
                offsets=offsets,
                stale=True,
            )
        self._offsets.append((group, dict(offsets)))
        pending = self._cluster.group(group.group).pending
        for tp in offsets:
            pending.setdefault(tp, set()).add(self._number)

    def commit(self) -> None:
        """Make everything visible, with a marker in each partition written to."""
        self._check_open("commit")
        for group, offsets in self._offsets:
            self._store(group, offsets)
        self._end(TransactionState.COMMITTED)

    def abort(self) -> None:
        """Hide everything from ``read_committed``, with the same markers."""
        self._check_open("abort")
        self._end(TransactionState.ABORTED)

    def fence(self) -> None:
        """Abort it because its producer has been replaced, or its time is over."""
        if self._state is TransactionState.OPEN:
            self._end(TransactionState.FENCED)

    def _store(
        self, group: GroupMetadata, offsets: dict[TopicPartition, OffsetAndMetadata]
    ) -> None:
        # Checked when they were sent; a generation that ended since changes nothing.
        self._cluster.ask(
            group.group,
            lambda coordinator, now: coordinator.store(
                group.member_id, group.generation, offsets, now
            ),
        )

    def _end(self, state: TransactionState) -> None:
        self._state = state
        self._cluster.transactions.pop(self._number, None)
        for group, offsets in self._offsets:
            pending = self._cluster.group(group.group).pending
            for tp in offsets:
                pending[tp].discard(self._number)
        for tp in sorted(self._partitions):
            log = self._cluster.find_log(tp)
            if log is not None:
                log.end_transaction(self._number, commit=state is TransactionState.COMMITTED)
        self._cluster.wake()

    def _check_open(self, what: str) -> None:
        self._cluster.expire_transactions()
        if self._state is TransactionState.FENCED:
            raise FencedError(
                f"cannot {what} in {self!r}: fenced, it took longer than its timeout, or another"
                f" producer was opened as {self.producer_id!r}. Give each process an id of its own"
            )
        if self._state is not TransactionState.OPEN:
            raise TransportError(f"cannot {what} in {self!r}: it has ended; begin another one")
