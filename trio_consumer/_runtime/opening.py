"""Opening a consumer: one nursery that owns every task.

:func:`open_consumer` builds the parts, starts the tasks, lets the user's block
run among them, and stops everything on the way out: no more hand-out, wait for
what is in hand, commit, leave the group.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, Literal

import trio

from .._core.commit_policy import CommitPolicy
from .._core.scheduling import RoundRobin, SchedulingStrategy
from .._errors import ConfigurationError, ConsumerError, shown
from .._types import TopicPartition
from ..transports import resolve
from ..transports.base import (
    ProducerSettings,
    SessionSettings,
    TransactionalProducer,
    TransactionalTransport,
    Transport,
)
from .arguments import (
    LONGEST,
    check_function,
    check_name,
    check_names,
    check_number,
    check_seconds,
)
from .committer import Committer
from .conductor import Conductor, Fetcher, Parcel, Transit
from .consumer import Consumer
from .diagnostics import Diagnostics
from .fetching import MessageCallback, feed
from .flow_gate import FlowGate
from .logs import about
from .partitions import Partitions
from .positions import Positions
from .rebalance import RebalanceCallback, Rebalancer
from .settings import ConsumerSettings
from .subscription import Subscription
from .transactions import TransactionManager
from .watchdog import LivelockHook, Watchdog

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

__all__ = ["open_consumer"]

logger = logging.getLogger("trio_consumer.consumer")

consumer_type: ContextVar[type[Consumer]] = ContextVar("consumer_type", default=Consumer)
"""What :func:`open_consumer` makes; the face of another event loop has its own."""


class _Listener:
    """Stands in for the consumer, which needs the session that needs a listener."""

    consumer: Consumer

    async def assigned(self, tps: frozenset[TopicPartition], generation: int) -> None:
        await self.consumer.on_partitions_assigned(tps, generation)

    async def revoked(self, tps: frozenset[TopicPartition]) -> None:
        await self.consumer.on_partitions_revoked(tps)

    async def lost(self, tps: frozenset[TopicPartition]) -> None:
        await self.consumer.on_partitions_lost(tps)


@asynccontextmanager
async def open_consumer(
    transport: str | Transport,
    *,
    group: str,
    topics: Iterable[str] = (),
    commit_interval: float = 2.8,
    commit_every: int | None = None,
    commit_timeout: float = 5.0,
    commit_livelock_soft_timeout: float = 300.0,
    drain_timeout: float = 30.0,
    connect_timeout: float = 10.0,
    auto_offset_reset: Literal["earliest", "latest", "none"] = "earliest",
    isolation_level: Literal["read_uncommitted", "read_committed"] | None = None,
    transactional_id: str | None = None,
    transaction_timeout: float = 60.0,
    max_buffered: int = 10_000,
    scheduler: SchedulingStrategy | None = None,
    callback: MessageCallback | None = None,
    randomly_assigned_topics: Iterable[str] = (),
    on_partitions_assigned: RebalanceCallback | None = None,
    on_partitions_revoked: RebalanceCallback | None = None,
    on_partitions_lost: RebalanceCallback | None = None,
    on_livelock: LivelockHook | None = None,
    client_options: Mapping[str, Any] | None = None,
) -> AsyncGenerator[Consumer, None]:
    """Join a consumer group and consume inside the block.

    Leaving the block stops in this order: nothing more is handed out; messages
    in hand are waited for, up to ``drain_timeout``; what is finished is
    committed; the member leaves the group; every task and thread has ended.  If
    the block is cancelled, the wait for messages in hand is left out and the
    last commit is shielded for ``commit_timeout``.

    Args:
        transport: Where to consume from: ``"kafka://host:port,host:port"``,
            ``"memory://name"``, a :class:`~trio_consumer.testing.MemoryBroker`, or
            a transport of your own.
        group: The consumer group, under whose name offsets are committed.
        topics: Topics to subscribe to from the start, before a stream asks.
        commit_interval: Seconds between commits (Faust's default).
        commit_every: Commit after so many acknowledgements, too.
        commit_timeout: Seconds to wait for the broker's answer to a commit.
        commit_livelock_soft_timeout: Seconds without progress after which a
            partition is called stuck (Faust's default): see ``on_livelock``.
        drain_timeout: Seconds to wait for messages in hand when partitions are
            revoked and at the end; on revocation never more than about a third
            of the client's rebalance timeout (``max_poll_interval_ms``).
        connect_timeout: Seconds to wait for a first answer of any broker.
        auto_offset_reset: Where to start without a committed offset, or when it
            is out of range: ``"earliest"``, ``"latest"``, or ``"none"`` to raise
            :exc:`~trio_consumer.OffsetOutOfRangeError`.  With ``"latest"`` the starting
            place is committed too, or a rebalance before the first commit would
            skip what was produced meanwhile.
        isolation_level: ``"read_committed"`` leaves out records of transactions
            that are open or were aborted; the default with a
            ``transactional_id``, and then the only one that can be.  Default
            otherwise: ``"read_uncommitted"``.
        transactional_id: Name of this process as a producer, for
            :meth:`~trio_consumer.Consumer.transaction`.  One of its own for each process that
            runs at the same time; a successor of the same name fences it and
            ends what it left open.  Every commit goes in a transaction then.
        transaction_timeout: Seconds after which the broker aborts a transaction
            by itself (Kafka's default; at most ``transaction.max.timeout.ms``
            of the broker).
        max_buffered: Messages buffered for each stream at which fetching pauses.
        scheduler: The order of delivery out of one poll; default round robin
            over topics, then partitions.
        callback: Awaited with each message of ``topics``, one at a time, from
            the start.  It finishes nothing by returning: call ``message.ack()``,
            there or later.  If it raises, what is finished is committed and the
            exception leaves the block.
        randomly_assigned_topics: Topics whose records are handed to the streams
            even if the transport brings them for a partition that is not
            assigned.  They can be processed, and are not committed.  Records of
            other topics are dropped then, as they belong to another member.
        on_partitions_assigned: Called with the new partitions, before any of
            their messages is delivered; plain or async.
        on_partitions_revoked: Called after the last commit for these
            partitions, before another member gets them.
        on_partitions_lost: Called when partitions went without a hand-over.
        on_livelock: Called with a :class:`~trio_consumer.Livelock`, once an episode, when a
            partition makes no progress: messages wait at the broker and do not
            arrive, a message is not finished, what is finished is not
            committed.  Plain or async; the log has a warning in any case.  What
            it raises stops the consumer.
        client_options: Options for the client, under its own names: TLS, SASL,
            ``session_timeout_ms``, ``group_instance_id``,
            ``partition_assignment_strategy`` and so on.

    Yields:
        The :class:`~trio_consumer.Consumer`.

    Raises:
        ConfigurationError: An unknown URL scheme, an empty group, an option
            that would break the guarantees.
        BrokerUnavailableError: No broker answered within ``connect_timeout``.
        AuthenticationError: The credentials were refused.
        ConsumerError: Anything that ends the consumer later: a refused commit,
            an unknown topic, a corrupt record.  It cancels the block and leaves
            it as itself.

    What the block raises leaves it as itself, too; an exception group appears
    only if several things failed.
    """
    if not group or not isinstance(group, str):
        raise ConfigurationError(
            "a consumer needs a group to commit under: open_consumer(..., group='name')"
        )
    check_name("group", group)
    topics = check_names("topics", topics)
    if callback is not None and not topics:
        raise ConfigurationError("a callback needs topics: open_consumer(..., topics=[...])")
    max_buffered = check_number("max_buffered", max_buffered)
    if commit_every is not None:
        commit_every = check_number("commit_every", commit_every)
    commit_interval = check_seconds("commit_interval", commit_interval)
    commit_livelock_soft_timeout = check_seconds(
        "commit_livelock_soft_timeout", commit_livelock_soft_timeout
    )
    commit_timeout = check_seconds("commit_timeout", commit_timeout, zero=True, most=LONGEST)
    drain_timeout = check_seconds("drain_timeout", drain_timeout, zero=True)
    connect_timeout = check_seconds("connect_timeout", connect_timeout, most=LONGEST)
    transaction_timeout = check_seconds("transaction_timeout", transaction_timeout, most=LONGEST)
    if transactional_id is not None:
        check_name("transactional_id", transactional_id)
    for name, hook in (
        ("callback", callback),
        ("on_partitions_assigned", on_partitions_assigned),
        ("on_partitions_revoked", on_partitions_revoked),
        ("on_partitions_lost", on_partitions_lost),
        ("on_livelock", on_livelock),
    ):
        check_function(name, hook)
    if scheduler is not None and not callable(getattr(scheduler, "slices", None)):
        raise ConfigurationError(
            "scheduler must be a SchedulingStrategy, with a method slices(),"
            f" not {shown(scheduler)}"
        )
    if client_options is not None and not (
        isinstance(client_options, Mapping) and all(isinstance(n, str) for n in client_options)
    ):
        raise ConfigurationError(
            f"client_options must be a mapping of names to values, not {shown(client_options)}"
        )
    policy = CommitPolicy(commit_interval, commit_every, now=trio.current_time())
    if transactional_id is None:
        if isolation_level is None:
            isolation_level = "read_uncommitted"
    elif isolation_level == "read_uncommitted":
        # The client asks for stable offsets (KIP-447) only with this level: else a
        # successor could begin at an offset that a transaction is about to move.
        raise ConfigurationError(
            "a transactional consumer reads with isolation_level='read_committed'; leave it out"
        )
    elif isolation_level is None:
        isolation_level = "read_committed"
    for name, choice, known in (
        ("auto_offset_reset", auto_offset_reset, ("earliest", "latest", "none")),
        ("isolation_level", isolation_level, ("read_uncommitted", "read_committed")),
    ):
        if choice not in known:
            raise ConfigurationError(
                f"{name} must be one of {', '.join(known)}, not {shown(choice)}"
            )
    settings = ConsumerSettings(
        group=group,
        topics=topics,
        commit_interval=commit_interval,
        commit_every=commit_every,
        commit_timeout=commit_timeout,
        drain_timeout=drain_timeout,
        max_buffered=max_buffered,
        randomly_assigned_topics=check_names("randomly_assigned_topics", randomly_assigned_topics),
        scheduler=scheduler or RoundRobin(),
    )
    session_settings = SessionSettings(
        group=group,
        auto_offset_reset=auto_offset_reset,
        isolation_level=isolation_level,
        connect_timeout=connect_timeout,
        commit_timeout=commit_timeout,
        client_options=dict(client_options or {}),
    )
    address = resolve(transport)
    diagnostics = Diagnostics()
    committer = Committer(policy, diagnostics)
    listener = _Listener()
    failures: list[BaseException] = []
    try:
        async with (
            address.connect(session_settings, listener) as session,
            _producer(address, session_settings, transactional_id, transaction_timeout) as producer,
            trio.open_nursery() as nursery,
        ):
            partitions = Partitions(
                session,
                committer.acknowledged if commit_every else None,
                pin_start=auto_offset_reset == "latest",
            )
            committer.attach(session, partitions)
            rebalancer = Rebalancer(
                partitions,
                committer,
                session,
                diagnostics,
                drain_timeout=drain_timeout,
                on_assigned=on_partitions_assigned,
                on_revoked=on_partitions_revoked,
                on_lost=on_partitions_lost,
            )
            subscription = Subscription(session, partitions, topics)
            rebalancer.on_rebalanced = subscription.rebalanced
            transit = Transit()
            flow = FlowGate(session, partitions, transit, diagnostics)
            transactions = None
            if producer is not None:
                transactions = TransactionManager(
                    producer,
                    session,
                    partitions,
                    committer,
                    transaction_timeout=transaction_timeout,
                    commit_timeout=commit_timeout,
                )
                committer.carry_by(transactions)
            watchdog = Watchdog(
                session,
                partitions,
                flow,
                diagnostics,
                timeout=commit_livelock_soft_timeout,
                commit_interval=commit_interval,
                hook=on_livelock,
            )
            listener.consumer = consumer = consumer_type.get()(
                settings,
                transport=address,
                session=session,
                partitions=partitions,
                committer=committer,
                rebalancer=rebalancer,
                subscription=subscription,
                flow=flow,
                positions=Positions(
                    session,
                    partitions,
                    committer,
                    diagnostics,
                    auto_offset_reset=auto_offset_reset,
                ),
                diagnostics=diagnostics,
                watchdog=watchdog,
                transactions=transactions,
            )
            send, receive = trio.open_memory_channel[list[Parcel]](0)
            conductor = Conductor(partitions, receive, settings.scheduler, transit)
            fetcher = Fetcher(session, partitions, send, transit, settings.randomly_assigned_topics)
            for task in (conductor, fetcher, committer, subscription, flow, watchdog):
                nursery.start_soon(_run, task.run, consumer)
            if callback is not None:
                nursery.start_soon(feed, consumer, consumer.stream(ack="manual"), callback)
            try:
                yield consumer
            except BaseException as exc:
                # Only a body that failed by itself leaves others time to finish.
                drain = drain_timeout if isinstance(exc, Exception) else 0.0
                try:
                    await consumer._stop(drain)
                except trio.Cancelled:
                    pass  # what the block raised matters more, and ends the scope as well
                except ConsumerError as failure:
                    logger.warning(
                        "the last commit failed, what was finished since the one before will be"
                        " delivered again: %s",
                        failure,
                        extra=about(session, error=str(failure)),
                    )
                if _has_cancelled(exc):
                    raise
                # Kept out of the nurseries: they would wrap it, and take a group
                # of the user's apart.
                failures.append(exc)
            else:
                await consumer.on_stop()
            finally:
                partitions.close(list(partitions))
                nursery.cancel_scope.cancel()
    except BaseExceptionGroup as wrapped:
        failures.extend(_leaves(wrapped))
    except BaseException as exc:
        failures.append(exc)
    if failures:
        # Outside of the handlers, so that its cause and context stay what they were.
        raise _itself(failures)


def _producer(
    address: Transport, settings: SessionSettings, name: str | None, timeout: float
) -> AbstractAsyncContextManager[TransactionalProducer | None]:
    if name is None:
        return nullcontext()
    if not isinstance(address, TransactionalTransport):
        raise ConfigurationError(f"{address!r} cannot produce, so there are no transactions")
    return address.producer(
        ProducerSettings(
            transactional_id=name,
            transaction_timeout=timeout,
            connect_timeout=settings.connect_timeout,
            client_options=settings.client_options,
        )
    )


async def _run(task: Callable[[], Awaitable[None]], consumer: Consumer) -> None:
    """Run a task of the consumer; a closed client is no failure while it stops."""
    try:
        await task()
    except consumer.consumer_stopped_errors:
        if not consumer._stopping:
            raise


def _itself(failures: list[BaseException]) -> BaseException:
    """The one thing that failed, or a group of those that did."""
    genuine: list[BaseException] = []
    for failure in failures:
        # Several tasks meet the same trouble, such as being fenced: once is enough.
        known = isinstance(failure, ConsumerError) and type(failure) in map(type, genuine)
        if not known and not isinstance(failure, trio.Cancelled):
            genuine.append(failure)
    if len(genuine) > 1:
        return BaseExceptionGroup("several things failed in a consumer", genuine)
    return genuine[0] if genuine else failures[0]


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """What is inside of the groups that nurseries made."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _has_cancelled(error: BaseException) -> bool:
    return any(isinstance(leaf, trio.Cancelled) for leaf in _leaves(error))
