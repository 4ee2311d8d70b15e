"""Opening and closing a kafka-python client without blocking Trio."""

# kafka-python has no types; the stubs that pyright brings are of an older one.
# pyright: basic, reportAttributeAccessIssue=false, reportCallIssue=false

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, ClassVar

import outcome
import trio
from kafka import KafkaConsumer, errors
from kafka.net.compat import KafkaNetClient
from outcome import Outcome, Value

from ..._errors import AuthenticationError, BrokerUnavailableError, ConfigurationError, told
from ..addresses import check_brokers
from ..base import (
    ProducerSettings,
    RebalanceListener,
    Session,
    SessionSettings,
    TransactionalProducer,
)
from . import internals
from .options import client_options
from .producer import open_producer
from .records import BatchReader
from .session import KafkaSession
from .translate import is_refusal

__all__ = ["KafkaTransport"]

logger: logging.Logger = logging.getLogger("trio_consumer.transport")

CLOSE_TIMEOUT = 5.0
"""Seconds that leaving the group may take; behind a join the client waits half a
minute."""


MISTAKES = (AssertionError, AttributeError, LookupError, TypeError, FileNotFoundError)
"""What the client raises for an option that it cannot use, if it looks at it."""


class KafkaTransport:
    """A Kafka cluster, through kafka-python in worker threads.

    Args:
        brokers: ``host:port`` of some brokers, separated by commas; the port
            defaults to 9092.
    """

    closed_errors: ClassVar[tuple[type[BaseException], ...]] = (
        errors.IllegalStateError,
        RuntimeError,
    )

    def __init__(self, brokers: str) -> None:
        check_brokers(brokers, "kafka")
        self.brokers = brokers

    def __repr__(self) -> str:
        return f"KafkaTransport({self.brokers!r})"

    def connect(
        self, settings: SessionSettings, listener: RebalanceListener
    ) -> AbstractAsyncContextManager[Session]:
        """Open a session, see :meth:`~trio_consumer.transports.Transport.connect`."""
        return self._connect(settings, listener)

    def producer(
        self, settings: ProducerSettings
    ) -> AbstractAsyncContextManager[TransactionalProducer]:
        """Open a producer, see :class:`~trio_consumer.transports.TransactionalTransport`."""
        return open_producer(self.brokers, settings)

    @asynccontextmanager
    async def _connect(
        self, settings: SessionSettings, listener: RebalanceListener
    ) -> AsyncGenerator[Session, None]:
        options = client_options(self.brokers, settings)
        client = await _open(options, self.brokers, settings.connect_timeout)
        try:
            internals.check(client)
            internals.read_batches_with(client, BatchReader)
            async with trio.open_nursery() as nursery:
                session = KafkaSession(client, settings, listener)
                nursery.start_soon(session.run)
                try:
                    yield session
                finally:
                    session.stop()
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(_close, client, limiter=trio.CapacityLimiter(1))


async def _open(options: dict[str, Any], brokers: str, timeout: float) -> KafkaConsumer:
    """Make the client in a thread.  Cancelling stops the attempt and its threads."""
    nets: list[Any] = []
    refusals: list[BaseException] = []

    def remember(**config: Any) -> Any:
        # The constructor may block for the whole timeout and raise, and then
        # nothing else has a reference to its IO thread and sockets.
        net = KafkaNetClient(**config)
        nets.append(net)
        internals.watch_connections(net, refusals)
        internals.mend_connections(net)
        internals.read_large_pieces(net)
        internals.make_topics(net, options["allow_auto_create_topics"])
        return net

    def build() -> KafkaConsumer:
        try:
            consumer = KafkaConsumer(kafka_client=remember, **options)
            if options.get("api_version") is not None:
                # Otherwise the constructor has asked the brokers already.
                internals.bootstrap(consumer, options["bootstrap_timeout_ms"])
        except BaseException:
            internals.close_all(nets)
            raise
        for net in nets:
            internals.unwatch_connections(net)
        return consumer

    try:
        return await _run_stoppable(build, nets)
    except (errors.KafkaConfigurationError, *MISTAKES) as exc:
        raise ConfigurationError(
            f"kafka-python does not take these client_options ({', '.join(map(str, options))}):"
            f" {told(exc)}"
        ) from exc
    except (errors.KafkaError, RuntimeError, OSError, ValueError) as exc:
        refusal = next(filter(is_refusal, refusals), None)
        if refusal is not None:
            raise AuthenticationError(
                f"{brokers} refused the connection: {refusal}; check security_protocol, the sasl_*"
                " and the ssl_* client options"
            ) from refusal
        reason = refusals[-1] if refusals else exc
        raise BrokerUnavailableError(
            f"no broker of {brokers} answered within {timeout:g} s ({reason}); check the address,"
            " that the broker runs and that security_protocol is the listener's",
            retriable=True,
        ) from exc


async def _run_stoppable(build: Callable[[], KafkaConsumer], nets: list[Any]) -> KafkaConsumer:
    """Run the constructor in a thread; when cancelled, close its network to end it."""
    result: Outcome[KafkaConsumer] | None = None
    done = trio.Event()

    async def work() -> None:
        nonlocal result
        with trio.CancelScope(shield=True):
            limiter = trio.CapacityLimiter(1)
            result = await trio.to_thread.run_sync(outcome.capture, build, limiter=limiter)
        done.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(work)
        try:
            await done.wait()
        finally:
            if not done.is_set():
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(
                        internals.close_all, nets, limiter=trio.CapacityLimiter(1)
                    )
                    await done.wait()
                if isinstance(result, Value):
                    with trio.CancelScope(shield=True):
                        await trio.to_thread.run_sync(_close, result.value)
    assert result is not None
    return result.unwrap()


def _close(client: KafkaConsumer) -> None:
    try:
        client.close(autocommit=False, timeout_ms=round(CLOSE_TIMEOUT * 1000))
    except Exception as exc:
        # The offsets are committed already; the group notices by its session
        # timeout that this member has gone.
        logger.warning("could not leave the group in order: %s: %s", type(exc).__name__, exc)
