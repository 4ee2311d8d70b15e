"""A transactional producer on kafka-python.

Several calls of the client have no time limit, so each runs in a thread that
can be given up.  What such a thread still does is not known then, so the
producer is of no use afterwards: its transaction ends by the broker's time
limit, or when a successor of the same name begins.
"""

# kafka-python has no types; the stubs that pyright brings are of an older one.
# pyright: basic, reportAttributeAccessIssue=false, reportCallIssue=false

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import trio
from kafka import KafkaProducer, errors
from kafka.net.compat import KafkaNetClient
from kafka.structs import ConsumerGroupMetadata
from kafka.structs import OffsetAndMetadata as ClientOffset
from kafka.structs import TopicPartition as ClientPartition

from ..._errors import BrokerUnavailableError, ConfigurationError, ConsumerError, TransportError
from ..._types import GroupMetadata, OffsetAndMetadata, TopicPartition
from ..base import OutgoingRecord, ProducerSettings
from . import internals
from .translate import transaction_error

__all__ = ["KafkaTransactionalProducer", "open_producer"]

logger: logging.Logger = logging.getLogger("trio_consumer.transactions")

CLOSE_TIMEOUT = 2.0
"""Seconds to wait for the client to close; what was committed is committed."""

UNREACHABLE = (errors.KafkaTimeoutError, errors.KafkaConnectionError)

LINGER_MS = 5
"""Milliseconds that the client waits to fill a batch; the end of a transaction
does not wait for it."""


class KafkaTransactionalProducer:
    """See :class:`~trio_consumer.transports.TransactionalProducer`."""

    def __init__(self, client: KafkaProducer) -> None:
        self._client = client
        self._limiter = trio.CapacityLimiter(1)
        self._failure: ConsumerError | None = None
        # Of the records of the transaction that is open.
        self._futures: list[Any] = []

    async def begin(self, *, timeout: float) -> None:
        """Begin a transaction."""
        self._futures = []
        await self._run("begin a transaction", self._client.begin_transaction, timeout)

    async def send(self, records: Sequence[OutgoingRecord], *, timeout: float) -> None:
        """Hand records to the client."""
        await self._run("produce", partial(self._send, records), timeout)

    def _send(self, records: Sequence[OutgoingRecord]) -> None:
        send = self._client.send
        for record in records:
            self._futures.append(
                send(
                    record.topic,
                    value=record.value,
                    key=record.key,
                    headers=list(record.headers),
                    partition=record.partition,
                    timestamp_ms=record.timestamp_ms,
                )
            )

    async def send_offsets(
        self,
        offsets: Mapping[TopicPartition, OffsetAndMetadata],
        group: GroupMetadata,
        *,
        timeout: float,
    ) -> None:
        """Add offsets of a group."""
        wanted = {
            ClientPartition(*tp): ClientOffset(stored.offset, stored.metadata, stored.leader_epoch)
            for tp, stored in offsets.items()
        }
        membership = ConsumerGroupMetadata(
            group_id=group.group,
            generation_id=group.generation,
            member_id=group.member_id,
            group_instance_id=group.group_instance_id,
        )
        await self._run(
            "add offsets to the transaction",
            partial(self._client.send_offsets_to_transaction, wanted, membership),
            timeout,
            offsets,
        )

    async def commit(self, *, timeout: float) -> None:
        """Wait for the records, then commit."""
        await self._run("commit the transaction", self._commit, timeout)

    def _commit(self) -> None:
        self._client.flush()
        for future in self._futures:
            # The client refuses the commit itself; this says why.
            if future.failed():
                raise future.exception
        self._futures = []
        self._client.commit_transaction()

    async def abort(self, *, timeout: float) -> None:
        """Abort."""
        self._futures = []
        await self._run("abort the transaction", self._client.abort_transaction, timeout)

    async def _run(
        self,
        attempt: str,
        function: Callable[[], object],
        timeout: float,
        offsets: Mapping[TopicPartition, OffsetAndMetadata] | None = None,
    ) -> None:
        """Run a call in a thread; not torn by a cancellation, given up after the timeout."""
        if self._failure is not None:
            raise self._failure
        try:
            with trio.move_on_after(timeout, shield=True):
                await trio.to_thread.run_sync(
                    function, limiter=self._limiter, abandon_on_cancel=True
                )
                return
        except Exception as exc:
            raise transaction_error(exc, attempt, offsets or {}) from exc
        self._failure = TransportError(
            f"cannot tell whether the broker did {attempt}: no answer within {timeout:g} s. Open"
            " the consumer anew; it goes on behind the transaction if that counts"
        )
        raise self._failure


@asynccontextmanager
async def open_producer(
    brokers: str, settings: ProducerSettings
) -> AsyncGenerator[KafkaTransactionalProducer, None]:
    """Open a producer for the length of a block, and fence those of the same name."""
    client = await _open(brokers, settings)
    try:
        yield KafkaTransactionalProducer(client)
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(_close, client, limiter=trio.CapacityLimiter(1))


async def _open(brokers: str, settings: ProducerSettings) -> KafkaProducer:
    timeout = settings.connect_timeout
    options = _options(brokers, settings)

    def make_net(**config: Any) -> Any:
        net = KafkaNetClient(**config)
        internals.mend_connections(net)
        return net

    def build() -> KafkaProducer:
        client = KafkaProducer(kafka_client=make_net, **options)
        try:
            client.init_transactions()
        except BaseException:
            _close(client)
            raise
        return client

    attempt = f"begin as the transactional id {settings.transactional_id!r}"
    try:
        # Bounded by the client's own limits: a thread that was given up would
        # go on to fence whoever came after us.
        with trio.CancelScope(shield=True):
            client = await trio.to_thread.run_sync(build, limiter=trio.CapacityLimiter(1))
    except errors.KafkaConfigurationError as exc:
        raise ConfigurationError(f"kafka-python: {exc}") from exc
    except (
        errors.KafkaTimeoutError,
        errors.NoBrokersAvailable,
        errors.KafkaConnectionError,
    ) as exc:
        raise BrokerUnavailableError(
            f"cannot {attempt}: no answer within {timeout:g} s", retriable=True
        ) from exc
    except Exception as exc:
        raise transaction_error(exc, attempt, {}) from exc
    return client


def _options(brokers: str, settings: ProducerSettings) -> dict[str, Any]:
    shared = {
        name: value
        for name, value in settings.client_options.items()
        if name in KafkaProducer.DEFAULT_CONFIG
    }
    return {
        "client_id": "trio-consumer",
        "linger_ms": LINGER_MS,
        "metrics_enabled": False,
        **shared,
        "bootstrap_servers": [part.strip() for part in brokers.split(",") if part.strip()],
        "bootstrap_timeout_ms": max(1, round(settings.connect_timeout * 1000)),
        "max_block_ms": max(1, round(settings.connect_timeout * 1000)),
        "transactional_id": settings.transactional_id,
        "transaction_timeout_ms": max(1, round(settings.transaction_timeout * 1000)),
    }


def _close(client: KafkaProducer) -> None:
    try:
        client.close(timeout=CLOSE_TIMEOUT)
    except Exception as exc:
        logger.warning("could not close the producer in order: %s: %s", type(exc).__name__, exc)
