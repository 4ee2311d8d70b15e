"""A transactional producer of the memory broker."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import TYPE_CHECKING

import trio

from ..._errors import BrokerUnavailableError, FencedError, TransportError
from ..._types import GroupMetadata, OffsetAndMetadata, TopicPartition
from ..base import OutgoingRecord, ProducerSettings
from .cluster import Cluster
from .link import Link
from .transactions import Transaction

if TYPE_CHECKING:
    from .broker import MemoryBroker

__all__ = ["MemoryProducer", "open_producer"]


class MemoryProducer:
    """See :class:`~trio_consumer.transports.TransactionalProducer`."""

    def __init__(
        self, broker: MemoryBroker, link: Link, settings: ProducerSettings, epoch: int
    ) -> None:
        self._broker = broker
        self._link = link
        self._settings = settings
        self._epoch = epoch
        self._transaction: Transaction | None = None

    async def begin(self, *, timeout: float) -> None:
        """Begin a transaction; costs no request, as in Kafka."""
        await trio.lowlevel.checkpoint()
        self._check_epoch("begin a transaction")
        self._transaction = self._broker.transaction(
            self._settings.transactional_id, timeout=self._settings.transaction_timeout
        )

    async def send(self, records: Sequence[OutgoingRecord], *, timeout: float) -> None:
        """Append records."""

        def append() -> None:
            transaction = self._now("produce")
            for record in records:
                transaction.produce(
                    record.topic,
                    record.value,
                    key=record.key,
                    partition=record.partition,
                    headers=tuple(record.headers),
                    timestamp=record.timestamp_ms,
                )

        await self._request("produce", append, timeout)

    async def send_offsets(
        self,
        offsets: Mapping[TopicPartition, OffsetAndMetadata],
        group: GroupMetadata,
        *,
        timeout: float,
    ) -> None:
        """Add offsets of a group."""
        await self._request(
            "add offsets", lambda: self._now("add offsets").send_offsets(offsets, group), timeout
        )

    async def commit(self, *, timeout: float) -> None:
        """Commit."""
        await self._request("commit", lambda: self._now("commit").commit(), timeout)

    async def abort(self, *, timeout: float) -> None:
        """Abort."""
        await self._request("abort", lambda: self._now("abort").abort(), timeout)

    def _now(self, what: str) -> Transaction:
        self._check_epoch(what)
        if self._transaction is None:
            raise TransportError(f"cannot {what}: no transaction has begun")
        return self._transaction

    def _check_epoch(self, what: str) -> None:
        name = self._settings.transactional_id
        if self._broker.epoch(name) != self._epoch:
            raise FencedError(
                f"cannot {what}: fenced, another producer was opened as {name!r}. Give each"
                f" process a transactional_id of its own"
            )

    async def _request(self, what: str, action: Callable[[], None], timeout: float) -> None:
        """A request that ends within the timeout, and is not torn by a cancellation."""
        with trio.move_on_after(timeout, shield=True):
            await self._link.exchange(action)
            return
        raise TransportError(
            f"cannot tell whether the broker did {what}: no answer within {timeout:g} s"
        )


@asynccontextmanager
async def open_producer(
    broker: MemoryBroker, cluster: Cluster, settings: ProducerSettings
) -> AsyncGenerator[MemoryProducer, None]:
    """Open a producer for the length of a block; a transaction left open is aborted."""
    link = Link(cluster, Random(f"{cluster.seed}/producer/{cluster.next_session_number()}"))
    epoch = None
    with trio.move_on_after(settings.connect_timeout):
        epoch = await link.exchange(lambda: broker.begin_epoch(settings.transactional_id))
    if epoch is None:
        raise BrokerUnavailableError(
            f"no answer within {settings.connect_timeout:g} s to a producer as"
            f" {settings.transactional_id!r}",
            retriable=True,
        )
    try:
        yield MemoryProducer(broker, link, settings, epoch)
    finally:
        link.close()
