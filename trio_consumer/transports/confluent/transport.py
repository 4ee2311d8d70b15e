"""Opening and closing confluent-kafka clients without blocking Trio."""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, ClassVar

import outcome
import trio
from confluent_kafka import KafkaException
from outcome import Outcome, Value

from ..._errors import AuthenticationError, BrokerUnavailableError, ConfigurationError
from ..addresses import check_brokers
from ..base import (
    ProducerSettings,
    RebalanceListener,
    Session,
    SessionSettings,
    TransactionalProducer,
)
from .inquirer import Inquirer, RefusedError
from .options import consumer_options
from .producer import open_producer
from .session import ConfluentSession

__all__ = ["ConfluentTransport"]

logger: logging.Logger = logging.getLogger("trio_consumer.transport")

CLOSE_TIMEOUT = 5.0
"""Seconds that leaving the group may take; the client itself has no limit."""

MAX_POLL_RECORDS = 5000
"""The most that one poll takes: large enough that the fixed costs of a poll and of a
task switch are nothing, and the few milliseconds that the client keeps the
interpreter for so many are not felt."""


QUIET = 2
"""Log what is critical only, in syslog's numbers."""


class ConfluentTransport:
    """A Kafka cluster, through confluent-kafka in worker threads.

    Args:
        brokers: ``host:port`` of some brokers, separated by commas; the port
            defaults to 9092.
        max_poll_records: The most that one poll takes.
    """

    closed_errors: ClassVar[tuple[type[BaseException], ...]] = (KafkaException, RuntimeError)

    def __init__(self, brokers: str, *, max_poll_records: int = MAX_POLL_RECORDS) -> None:
        if max_poll_records < 1:
            raise ConfigurationError(f"max_poll_records must be at least 1, not {max_poll_records}")
        check_brokers(brokers, "confluent")
        self.brokers = brokers
        self._max_poll_records = max_poll_records

    def __repr__(self) -> str:
        return f"ConfluentTransport({self.brokers!r})"

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
        options = consumer_options(self.brokers, settings)
        inquirer = await _open(options, self.brokers, settings.connect_timeout)
        try:
            session = ConfluentSession(
                inquirer, options, settings, listener, self._max_poll_records
            )
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(session.run)
                    try:
                        yield session
                    finally:
                        session.stop()
            finally:
                await _close("could not leave the group in order", session.loop.close)
        finally:
            await _close("could not close a client", inquirer.close)


async def _open(options: dict[str, Any], brokers: str, timeout: float) -> Inquirer:
    """Make a client in a thread, and see that a broker answers it.  Cancelling stops it."""
    given_up = threading.Event()
    # Its own name of a static member would fence the member itself, were it to join.
    asking = {name: value for name, value in options.items() if name != "group.instance.id"}
    # Its log would repeat the member's, and twenty times a second while it connects: what
    # it says then comes as a callback too, and is in our error.
    asking.setdefault("log_level", QUIET)

    def build() -> tuple[Inquirer, str | None]:
        inquirer = Inquirer(asking)
        try:
            reason = inquirer.connect(timeout, given_up.is_set)
        except BaseException:
            inquirer.close()
            raise
        if reason is not None:
            inquirer.close()
        return inquirer, reason

    try:
        inquirer, reason = await _run_stoppable(build, given_up)
    except RefusedError as exc:
        refusal = exc.args[0]
        raise AuthenticationError(
            f"{brokers} refused the connection: {refusal.str()}; check security.protocol, the"
            " sasl.* and the ssl.* client options"
        ) from exc
    except (KafkaException, TypeError, ValueError) as exc:
        raise ConfigurationError(f"confluent-kafka: {exc}; look at the client_options") from exc
    if reason is not None:
        raise BrokerUnavailableError(
            f"no broker of {brokers} answered within {timeout:g} s ({reason}); check the address,"
            " that the broker runs and that security.protocol is the listener's",
            retriable=True,
        )
    return inquirer


async def _run_stoppable(
    build: Callable[[], tuple[Inquirer, str | None]], given_up: threading.Event
) -> tuple[Inquirer, str | None]:
    """Run it in a thread; when cancelled, tell it to end and wait for that."""
    result: Outcome[tuple[Inquirer, str | None]] | None = None
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
                given_up.set()
                with trio.CancelScope(shield=True):
                    await done.wait()
                if isinstance(result, Value) and result.value[1] is None:
                    await _close("could not close a client", result.value[0].close)
    assert result is not None
    return result.unwrap()


async def _close(trouble: str, close: Callable[[], None]) -> None:
    """Close in a thread, which is left to itself if that takes too long."""
    with trio.CancelScope(shield=True), trio.move_on_after(CLOSE_TIMEOUT) as scope:
        try:
            await trio.to_thread.run_sync(
                close, limiter=trio.CapacityLimiter(1), abandon_on_cancel=True
            )
        except Exception as exc:
            # The offsets are committed already; the group notices by its session
            # timeout that this member has gone.
            logger.warning("%s: %s: %s", trouble, type(exc).__name__, exc)
    if scope.cancelled_caught:
        logger.warning("%s: no end within %g s", trouble, CLOSE_TIMEOUT)
