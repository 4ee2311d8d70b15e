"""A transactional producer on confluent-kafka.

The client's calls have time limits of their own.  Each runs in a thread that can be
given up all the same.  What became of a call that ended by its limit is not known,
so the producer is of no use afterwards: its transaction ends by the broker's time
limit, or when a successor of the same name begins.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import trio
from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka import TopicPartition as ClientPartition

from ..._errors import BrokerUnavailableError, ConfigurationError, ConsumerError, TransportError
from ..._types import GroupMetadata, OffsetAndMetadata, TopicPartition
from ..base import OutgoingRecord, ProducerSettings
from .internals import serialized_metadata
from .options import producer_options
from .translate import error_of, is_refusal, transaction_error

__all__ = ["ConfluentTransactionalProducer", "open_producer"]

logger: logging.Logger = logging.getLogger("trio_consumer.transactions")

CLOSE_TIMEOUT = 2.0
"""Seconds to wait for the client to close; what was committed is committed."""

GRACE = 1.0
"""Seconds past its own limit until a call is given up; arbitrary."""


class ConfluentTransactionalProducer:
    """See :class:`~trio_consumer.transports.TransactionalProducer`."""

    def __init__(self, client: Producer) -> None:
        self._client = client
        self._limiter = trio.CapacityLimiter(1)
        self._failure: ConsumerError | None = None
        # The first record of the open transaction that was not stored.
        self._lost: list[Any] = []

    async def begin(self, *, timeout: float) -> None:
        """Begin a transaction."""
        self._lost = []
        await self._run("begin a transaction", self._client.begin_transaction, timeout)

    async def send(self, records: Sequence[OutgoingRecord], *, timeout: float) -> None:
        """Hand records to the client."""
        await self._run("produce", partial(self._send, records, timeout), timeout)

    def _send(self, records: Sequence[OutgoingRecord], timeout: float) -> None:
        deadline = time.monotonic() + timeout
        for record in records:
            fields: dict[str, Any] = {
                "value": record.value,
                "key": record.key,
                "headers": list(record.headers),
                "on_delivery": self._delivered,
            }
            if record.partition is not None:
                fields["partition"] = record.partition
            if record.timestamp_ms is not None:
                fields["timestamp"] = record.timestamp_ms
            while True:
                try:
                    self._client.produce(record.topic, **fields)
                    break
                except BufferError:
                    if time.monotonic() >= deadline:
                        raise
                    self._client.poll(0.05)
        self._client.poll(0)

    def _delivered(self, error: Any, message: Any) -> None:
        if error is not None and not self._lost:
            self._lost.append(error)

    async def send_offsets(
        self,
        offsets: Mapping[TopicPartition, OffsetAndMetadata],
        group: GroupMetadata,
        *,
        timeout: float,
    ) -> None:
        """Add offsets of a group."""
        wanted = [
            ClientPartition(*tp, stored.offset, stored.metadata) for tp, stored in offsets.items()
        ]
        await self._run(
            "add offsets to the transaction",
            partial(
                self._client.send_offsets_to_transaction,
                wanted,
                serialized_metadata(group),
                timeout,
            ),
            timeout,
            offsets,
        )

    async def commit(self, *, timeout: float) -> None:
        """Wait for the records, then commit."""
        await self._run("commit the transaction", partial(self._commit, timeout), timeout)

    def _commit(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        if self._client.flush(timeout):
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "records are not stored yet"))
        if self._lost:
            # The client refuses the commit itself; this says why.
            raise KafkaException(self._lost[0])
        self._client.commit_transaction(max(0.1, deadline - time.monotonic()))

    async def abort(self, *, timeout: float) -> None:
        """Abort."""
        self._lost = []
        await self._run("abort the transaction", partial(self._abort, timeout), timeout)

    def _abort(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        # The end of a transaction can overtake the request that begins it at the
        # coordinator, which refuses that for good (librdkafka issue 4849).  When a
        # record is stored it has begun; nobody reads records that are aborted.
        self._client.flush(timeout / 2)
        self._client.abort_transaction(max(0.1, deadline - time.monotonic()))

    async def _reason(self, error: BaseException) -> BaseException:
        """Why a client is dead; most calls only say that it is."""
        inner = error_of(error)
        if inner is None or inner.code() != KafkaError._FATAL:
            return error
        try:
            with trio.move_on_after(GRACE, shield=True):
                await trio.to_thread.run_sync(self._client.poll, 0, limiter=self._limiter)
        except KafkaException as exc:
            return exc
        return error

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
        cause: BaseException | None = None
        try:
            with trio.move_on_after(timeout + GRACE, shield=True):
                await trio.to_thread.run_sync(
                    function, limiter=self._limiter, abandon_on_cancel=True
                )
                return
        except Exception as exc:
            inner = error_of(exc)
            if inner is None or inner.fatal() or inner.code() != KafkaError._TIMED_OUT:
                reason = await self._reason(exc)
                raise transaction_error(reason, attempt, offsets or {}) from exc
            cause = exc
        self._failure = TransportError(
            f"cannot tell whether the broker did {attempt}: no answer within {timeout:g} s. Open"
            " the consumer anew; it goes on behind the transaction if that counts"
        )
        raise self._failure from cause


@asynccontextmanager
async def open_producer(
    brokers: str, settings: ProducerSettings
) -> AsyncGenerator[ConfluentTransactionalProducer, None]:
    """Open a producer for the length of a block, and fence those of the same name."""
    client = await _open(brokers, settings)
    try:
        yield ConfluentTransactionalProducer(client)
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(_close, client, limiter=trio.CapacityLimiter(1))


async def _open(brokers: str, settings: ProducerSettings) -> Producer:
    timeout = settings.connect_timeout
    attempt = f"begin as the transactional id {settings.transactional_id!r}"
    errors: list[Any] = []
    options = {**producer_options(brokers, settings), "error_cb": errors.append}
    try:
        client = Producer(options)
    except (KafkaException, TypeError, ValueError) as exc:
        raise ConfigurationError(f"confluent-kafka: {exc}") from exc
    try:
        # Bounded by the client's own limit: a thread that was given up would go on
        # to fence whoever came after us.
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(
                client.init_transactions, timeout, limiter=trio.CapacityLimiter(1)
            )
    except KafkaException as exc:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(_close, client, limiter=trio.CapacityLimiter(1))
        refusal = next(filter(is_refusal, errors), None)
        if refusal is not None:
            raise transaction_error(KafkaException(refusal), attempt, {}) from exc
        if exc.args[0].code() in (KafkaError._TIMED_OUT, KafkaError._TRANSPORT):
            raise BrokerUnavailableError(
                f"cannot {attempt}: no answer within {timeout:g} s", retriable=True
            ) from exc
        raise transaction_error(exc, attempt, {}) from exc
    return client


def _close(client: Producer) -> None:
    try:
        # What is left belongs to a transaction that will not be committed.
        client.purge()
        client.flush(CLOSE_TIMEOUT)
    except SystemError:
        pass  # how flush() of a client says (2.16) that it had failed for good before
    except Exception as exc:
        logger.warning("could not close the producer in order: %s: %s", type(exc).__name__, exc)
