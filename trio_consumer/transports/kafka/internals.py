"""Every private part of kafka-python that this library touches, and why.

kafka-python has no public way to do these things.  :func:`check` fails loudly
when a version moves a name, so that a release cannot quietly lose a mend; the
version is pinned below the next minor for the same reason.  It is all in this one
module, which is long for that reason: what a new version may break is to be found
in one place.
"""

# kafka-python has no types; the stubs that pyright brings are of an older one.
# pyright: basic, reportAttributeAccessIssue=false, reportCallIssue=false

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import wraps
from typing import Any, NamedTuple

import kafka
from kafka import KafkaConsumer, errors
from kafka.consumer.fetcher import Fetcher
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.net.inet import KafkaNetSocket
from kafka.net.transport import KafkaSSLTransport, KafkaTCPTransport
from kafka.record.default_records import DefaultRecordBatch
from kafka.structs import TopicPartition as ClientPartition

from ..._errors import ConfigurationError
from ..._types import OffsetAndMetadata, TopicPartition

__all__ = [
    "PoisonRecord",
    "ask_coordinator",
    "beginning",
    "bootstrap",
    "call_in_io_thread",
    "check",
    "close_all",
    "close_failed_sockets",
    "close_left_sockets",
    "fetch_committed",
    "fetch_while_joining",
    "finish_joins",
    "forget_beginnings",
    "forget_positions",
    "given_up",
    "hear_last_words",
    "hold_joins",
    "is_fenced",
    "is_joining",
    "lose_before_joining",
    "make_topics",
    "mend_connections",
    "positions",
    "read_batches_with",
    "read_large_pieces",
    "refresh_metadata",
    "release_parked",
    "release_poison",
    "remade_topics",
    "reset_positions",
    "uncompressed",
    "unwatch_connections",
    "watch_commits",
    "watch_connections",
]


class PoisonRecord(NamedTuple):
    """Where reading stopped: the record at this offset cannot be read."""

    tp: TopicPartition
    offset: int


def check(consumer: KafkaConsumer) -> None:
    """Raise if this version of kafka-python does not have what is used here.

    Raises:
        ConfigurationError: A name has moved.
    """
    wanted: Iterable[tuple[Any, tuple[str, ...]]] = (
        (consumer, ("_fetcher", "_subscription", "_coordinator", "_cluster", "_net", "_manager")),
        (
            getattr(consumer, "_fetcher", None),
            ("_next_partition_records", "_paused_partition_records", "_completed_fetches"),
        ),
        (
            Fetcher.PartitionRecords,
            (
                *("drain", "__bool__", "_contains_abort_marker", "_is_batch_aborted"),
                "_consume_aborted_transactions_up_to",
            ),
        ),
        (DefaultRecordBatch, ("_maybe_uncompress", "_buffer", "_pos")),
        (getattr(consumer, "_net", None), ("call_soon_threadsafe", "run")),
        (getattr(consumer, "_cluster", None), ("request_update", "topic_id", "config")),
        (
            getattr(consumer, "_coordinator", None),
            (
                *("fetch_committed_offsets", "need_rejoin", "rejoining", "stable"),
                *("_heartbeat_enabled", "_handle_offset_commit_response", "_generation"),
                *("_do_join_and_sync_async", "_on_join_prepare_async", "_assignors"),
                *("_on_join_complete_async", "_join_task", "poll", "time_to_next_poll"),
            ),
        ),
        (
            getattr(consumer, "_subscription", None),
            (
                *("assignment", "assign_from_subscribed", "partitions_auto_assigned"),
                "assigned_partitions",
                *("request_offset_reset", "has_default_offset_reset_policy"),
            ),
        ),
        (
            getattr(consumer, "_manager", None),
            ("get_connection", "wait_for", "_build_transport", "bootstrap_async"),
        ),
        (KafkaTCPTransport, ("_sock_recv",)),
    )
    for owner, names in wanted:
        missing = [name for name in names if not hasattr(owner, name)]
        if missing:
            raise ConfigurationError(
                f"kafka-python {kafka.__version__} has no {', '.join(missing)}: its internals"
                " have moved; install a version that this release of trio-consumer supports"
            )


def release_parked(consumer: KafkaConsumer) -> None:
    """Let the client take back records that it parked while a partition was paused.

    ``Fetcher.fetched_records`` takes parked records back only when
    ``_next_partition_records`` is None, but after a drain it is a drained object
    instead, and a parked partition is never fetched again: without this, about
    every second pause in mid-batch stalls its partition for ever (3.0.12).
    Call it in the polling thread before each poll.
    """
    fetcher = consumer._fetcher
    records = fetcher._next_partition_records
    if records is not None and not records:
        fetcher._next_partition_records = None


def release_poison(consumer: KafkaConsumer) -> PoisonRecord | None:
    """Drop the batch whose iteration raised, and name the record.

    After an exception out of a record the client keeps the dead iterator, and
    each following poll spins on it at full speed without end (3.0.12).  Call it
    in the polling thread after any error of ``poll``.
    """
    records = consumer._fetcher._next_partition_records
    if not records:
        return None
    tp = TopicPartition(*records.topic_partition)
    offset = records.next_fetch_offset
    records.drain()
    return PoisonRecord(tp, offset)


def forget_positions(consumer: KafkaConsumer, revoked: Iterable[TopicPartition]) -> None:
    """Take revoked partitions out of the client's assignment, with their positions.

    In an eager rebalance kafka-python leaves the old assignment in place while
    it joins, and a partition that comes back keeps the position it had been
    *fetched* to (3.0.12; the Java client clears it).  What was fetched but not
    processed before the revocation would then never be delivered, and the next
    commit would pass it.  Call it in the IO thread, at the end of the listener.
    """
    subscription = consumer._subscription
    gone = set(revoked)
    kept = [tp for tp in subscription.assigned_partitions() if tp not in gone]
    if subscription.partitions_auto_assigned():
        subscription.assign_from_subscribed(kept)


def given_up(consumer: KafkaConsumer, revoked: Iterable[TopicPartition]) -> bool:
    """Whether revoked partitions have left the client's assignment already.

    That is so when a cooperative join has ended: they go with the next join.
    """
    assignment = consumer._subscription.assignment
    return not any(tp in assignment for tp in revoked)


def hold_joins(consumer: KafkaConsumer, until: Any) -> None:
    """Have the client poll on instead of joining, until a future is resolved.

    While a cooperative member hands some partitions over, its listener would keep
    ``poll`` from fetching the others (3.0.12; Java's client blocks, too).  If the
    listener returns at once and the next join waits instead, they go on, with
    heartbeats, and nobody gets the partitions before that join.  Call it in the
    IO thread.
    """
    coordinator = consumer._coordinator
    held = coordinator.__dict__.get("_trio_consumer_holds")
    if held is None:
        held = coordinator._trio_consumer_holds = set()
        need_rejoin = coordinator.need_rejoin
        coordinator.need_rejoin = lambda: not held and need_rejoin()
    held.add(until)
    until.add_both(lambda _: held.discard(until))


def finish_joins(consumer: KafkaConsumer) -> None:
    """Have the client finish each join that it has begun.

    A join goes on when a poll ends, and a later poll takes up its result, but
    only if it still finds that it has to join.  What made it join may be settled
    by then, because the request says so (other topics, or other partitions of
    them): the result is never taken up, and the member has no partition, sends
    no heartbeat and never joins again (3.0.12).  Polls in short steps come upon
    that whenever the machine is busy.

    If the join ends between two polls, its result is thrown away in any case, and
    the member joins again; when it is the leader, so does the whole group.  So the
    second attempt gets the result of the first.
    """
    coordinator = consumer._coordinator
    need_rejoin = coordinator.need_rejoin
    join, complete = coordinator._do_join_and_sync_async, coordinator._on_join_complete_async
    # The generation that was joined, and the answer.
    unclaimed: list[Any] = []

    async def join_once() -> Any:
        if not (unclaimed and unclaimed[0] is coordinator._generation):
            answer = await join()
            unclaimed[:] = coordinator._generation, answer
        return unclaimed[1]

    async def complete_join(*args: Any) -> None:
        unclaimed.clear()
        await complete(*args)

    coordinator.need_rejoin = lambda: coordinator.rejoining or need_rejoin()
    coordinator._do_join_and_sync_async = join_once
    coordinator._on_join_complete_async = complete_join


JOIN_LOOK = 0.02
"""Seconds after which a poll that waits for records looks whether a join has ended."""


def fetch_while_joining(consumer: KafkaConsumer) -> None:
    """Have ``poll`` go on reading what the member keeps while its join waits for others.

    The broker answers a join when all members have sent theirs, which takes the
    others a heartbeat interval or, if they are busy, up to their
    ``max_poll_interval_ms``.  The client fetches nothing meanwhile (3.0.12; Java's
    has since KAFKA-8421), though nobody else may have these partitions: a
    cooperative member gives up only what it was told to, *before* it joins, and an
    eager one everything.  One that was thrown out keeps nothing either, but is told
    in the middle of its join, so that there is no reading then.

    The poll that begins a join does not wait for its end either, or what stays would
    be silent for the rest of that poll.  Only that one: a join that has failed is
    tried again after a pause, and none of no length.
    """
    coordinator, subscription = consumer._coordinator, consumer._subscription
    poll, time_to_next_poll = coordinator.poll, coordinator.time_to_next_poll
    ensure_active_group = coordinator.ensure_active_group

    def reads_on() -> bool:
        join = coordinator._join_task
        return (
            coordinator.rejoining
            and join is not None
            and not join.is_done
            and not coordinator._generation.is_lost()
            and bool(subscription.fetchable_partitions())
        )

    def poll_unless_joining(timeout_ms: Any = None) -> Any:
        return reads_on() or poll(timeout_ms=timeout_ms)

    def begin_join(timeout_ms: Any = None) -> Any:
        begins = not coordinator.rejoining and subscription.fetchable_partitions()
        return ensure_active_group(timeout_ms=0 if begins else timeout_ms)

    coordinator.ensure_active_group = begin_join
    # No heartbeat is due in a join, so the client would not wait at all.
    coordinator.poll = poll_unless_joining
    coordinator.time_to_next_poll = lambda: JOIN_LOOK if reads_on() else time_to_next_poll()


def is_joining(consumer: KafkaConsumer) -> bool:
    """Whether polls have to carry a join on."""
    return bool(consumer._coordinator.need_rejoin())


def lose_before_joining(consumer: KafkaConsumer) -> None:
    """Have the client give up what it has lost before it joins without a generation.

    It looks once, before the first attempt of a join, whether it is still a member.
    If it learns later, from the answer to that attempt, that it has been thrown out,
    it tries again as a new member and keeps its partitions (3.0.12; the Java client
    looks again).  In the cooperative protocol they would then be *revoked* after the
    join, and the last commit for them, under the new generation, would go over what
    their new owner has committed.

    Its assignor remembers them all the same and names them in the join as its own
    (3.0.12): nobody else is given them in this rebalance, and as they are not revoked
    from anybody no other one follows.  They would be read by nobody.
    """
    coordinator = consumer._coordinator
    subscription = consumer._subscription
    join = coordinator._do_join_and_sync_async

    async def join_as_what_it_is() -> Any:
        now = coordinator._generation
        if now.is_lost() and subscription.assigned_partitions():
            await coordinator._on_join_prepare_async(now.generation_id, now.member_id)
        if now.is_lost():
            for assignor in coordinator._assignors.values():
                if isinstance(assignor, CooperativeStickyAssignor):
                    assignor.member_assignment = None
        return await join()

    coordinator._do_join_and_sync_async = join_as_what_it_is


def watch_commits(consumer: KafkaConsumer, missing: set[TopicPartition]) -> None:
    """Note which partitions the broker did not know when it was last sent a commit.

    The client goes on sending until its time is up, and reports a time-out; the
    broker has stored the other partitions each time.
    """
    coordinator = consumer._coordinator
    handle = coordinator._handle_offset_commit_response

    def watched(offsets: Any, send_time: float, response: Any) -> Any:
        missing.clear()
        missing.update(
            TopicPartition(topic, partition)
            for topic, partitions in response.topics
            for partition, code in partitions
            if code == errors.UnknownTopicOrPartitionError.errno
        )
        return handle(offsets, send_time, response)

    coordinator._handle_offset_commit_response = watched


def remade_topics(consumer: KafkaConsumer, known: dict[str, object]) -> set[str]:
    """Topics that have another identity than when they were last seen.

    Args:
        consumer: The client.
        known: Identities by name, kept from call to call.
    """
    remade = set()
    identity = consumer._cluster.topic_id
    for topic in {tp.topic for tp in consumer._subscription.assignment}:
        now = identity(topic)
        if now is not None and known.setdefault(topic, now) != now:
            known[topic] = now
            remade.add(topic)
    return remade


def reset_positions(consumer: KafkaConsumer, topics: set[str]) -> None:
    """Have the partitions of some topics read from where the reset policy says.

    The client reads names: after a topic was deleted and made again between two
    looks at the metadata, it would go on at the old position and skip what the new
    topic has before it.  Call it in the polling thread.

    Raises:
        kafka.errors.OffsetOutOfRangeError: There is no policy.
    """
    subscription = consumer._subscription
    for tp, state in list(subscription.assignment.items()):
        if tp.topic in topics and state.position is not None:
            if not subscription.has_default_offset_reset_policy():
                raise errors.OffsetOutOfRangeError({tp: state.position.offset})
            subscription.request_offset_reset(tp)


def is_fenced(consumer: KafkaConsumer) -> bool:
    """Whether another member has taken this one's ``group_instance_id``.

    A heartbeat learns of it and is just not sent any more (3.0.12): a member with
    nothing to commit would go on reading for ever, beside its successor.  Call it
    in the polling thread, where no join can end meanwhile.
    """
    coordinator = consumer._coordinator
    return (
        coordinator.group_instance_id is not None
        and coordinator.stable()
        and not coordinator.rejoining
        and not coordinator._heartbeat_enabled
    )


def bootstrap(consumer: KafkaConsumer, timeout_ms: int) -> None:
    """Wait until some broker has answered.

    ``KafkaConsumer.bootstrap`` takes a time limit, but waits for an attempt that is
    under way as long as that lasts, and the client has begun one without a limit by
    then (3.0.12).

    Raises:
        kafka.errors.KafkaTimeoutError: None has.
    """
    manager = consumer._manager

    async def attempt() -> None:
        await manager.wait_for(manager.bootstrap_async(timeout_ms, refresh=False), timeout_ms)

    consumer._net.run(attempt)


def refresh_metadata(consumer: KafkaConsumer, timeout_ms: int) -> None:
    """Wait for fresh metadata of the subscribed topics, before the first join.

    The client remembers the partitions that it knew of when the group was last
    assigned, and joins again when that changes.  If it joins before the
    metadata of a new subscription has come, every start costs the whole group
    a second rebalance (3.0.12; for patterns it waits by itself).

    Raises:
        kafka.errors.KafkaError: No answer in time; joining works all the same.
    """
    update = consumer._cluster.request_update()
    consumer._net.run(consumer._manager.wait_for, update, timeout_ms)


def positions(consumer: KafkaConsumer) -> Iterator[tuple[TopicPartition, int]]:
    """The position of each assigned partition that has one.

    ``KafkaConsumer.position`` does the same after two checks and a network
    round trip where it is unknown.
    """
    for tp, state in list(consumer._subscription.assignment.items()):
        position = state.position
        if position is not None:
            yield tp, position.offset


def position(consumer: KafkaConsumer, tp: TopicPartition) -> int | None:
    """The position of one partition, None if it has none (any more)."""
    state = consumer._subscription.assignment.get(tp)
    if state is None or state.position is None:
        return None
    offset: int = state.position.offset
    return offset


def fetch_committed(
    consumer: KafkaConsumer, tps: Iterable[TopicPartition], timeout_ms: int
) -> dict[TopicPartition, OffsetAndMetadata]:
    """Committed offsets of many partitions in one request.

    ``KafkaConsumer.committed`` takes one partition a request.
    """
    wanted = [ClientPartition(*tp) for tp in tps]
    found = consumer._coordinator.fetch_committed_offsets(wanted, timeout_ms=timeout_ms)
    return {
        TopicPartition(*tp): OffsetAndMetadata(stored.offset, stored.metadata, stored.leader_epoch)
        for tp, stored in found.items()
        if stored.offset >= 0
    }


def call_in_io_thread(consumer: KafkaConsumer, function: Callable[[], object]) -> None:
    """Run a function in the client's IO thread, to resolve a future there.

    Raises:
        RuntimeError: The client is closed.
    """
    consumer._net.call_soon_threadsafe(function)


def watch_connections(client: Any, failures: list[BaseException]) -> None:
    """Note why each connection attempt failed.

    While it bootstraps, the client logs the reasons, goes on trying and reports
    a time-out in the end, also when the broker refuses the password.
    """
    manager = client._manager
    connect = manager.get_connection

    def watched(*args: Any, **kwargs: Any) -> Any:
        connection = connect(*args, **kwargs)
        connection.init_future.add_errback(failures.append)
        return connection

    manager.get_connection = watched


def unwatch_connections(client: Any) -> None:
    """End :func:`watch_connections`.

    A failure holds all that its traceback does: in a long outage a list of them
    would grow without end.
    """
    client._manager.__dict__.pop("get_connection", None)


def close_failed_sockets() -> None:
    """Close the socket of a connection attempt that failed, at once.

    The client leaves it to the garbage collector, which comes by when it likes:
    an outage uses up file descriptors, one an attempt (3.0.12).  It makes the
    objects that own the socket by itself, so their classes are changed, for all
    clients of the process; what they close has no other user.
    """
    connect, handshake = KafkaNetSocket.sock_connect, KafkaSSLTransport.handshake
    if hasattr(connect, "__wrapped__"):
        return

    @wraps(connect)
    async def connect_or_close(self: Any, net: Any, sock: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return await connect(self, net, sock, *args, **kwargs)
        except BaseException:
            sock.close()
            raise

    @wraps(handshake)
    async def handshake_or_close(self: Any) -> None:
        try:
            await handshake(self)
        except BaseException:
            self._sock.close()
            raise

    KafkaNetSocket.sock_connect = connect_or_close
    KafkaSSLTransport.handshake = handshake_or_close


def close_left_sockets(client: Any) -> None:
    """Let a client's ``close`` close each socket that it made.

    It leaves those with unsent bytes to its IO thread, which it ends before that
    has sent them (3.0.12): a consumer that is cancelled in a request keeps its
    connection, until the garbage collector comes by.
    """
    manager, close = client._manager, client.close
    build = manager._build_transport
    sockets: list[Any] = []

    async def built(*args: Any, **kwargs: Any) -> Any:
        transport = await build(*args, **kwargs)
        sockets[:] = [sock for sock in sockets if sock.fileno() >= 0]
        sockets.append(transport._sock)
        return transport

    def close_all(node_id: Any = None) -> None:
        try:
            close(node_id)
        finally:
            if node_id is None:
                for sock in sockets:
                    sock.close()

    manager._build_transport = built
    client.close = close_all


def hear_last_words(client: Any) -> None:
    """Let a client have what a broker sent right before it hung up.

    It receives until there is no more; if that is the end of the connection, it throws
    away what came before (3.0.12).  A broker that refuses a password answers and hangs
    up: where both are there at once, all that was left was a closed connection, and the
    error in the end that no broker had answered.
    """
    manager = client._manager
    build = manager._build_transport

    async def built(*args: Any, **kwargs: Any) -> Any:
        transport = await build(*args, **kwargs)
        receive = transport._sock_recv

        def receive_first() -> tuple[bytes, Exception | None]:
            data, error = receive()
            # The end of a connection does not go away: the next turn meets it again.
            return (data, None) if data else (data, error)

        transport._sock_recv = receive_first
        return transport

    manager._build_transport = built


def mend_connections(client: Any) -> None:
    """What every client needs, before it connects for the first time.

    These are :func:`close_failed_sockets`, :func:`close_left_sockets` and
    :func:`hear_last_words`.
    """
    close_failed_sockets()
    close_left_sockets(client)
    hear_last_words(client)


def close_all(clients: Iterable[Any]) -> None:
    """Close the network clients of a constructor that was given up, or has failed."""
    for client in clients:
        # The constructor may be closing it at this moment.
        with suppress(RuntimeError):
            client.close()


PIECE = 1024 * 1024
"""Bytes to receive at once: of the order of one partition's part of a fetch."""


def make_topics(client: Any, allowed: bool) -> None:
    """Say whether a broker may make a topic because its metadata are asked for.

    The client has ``allow_auto_create_topics`` and does not pass it on (3.0.12): on a
    broker that makes topics, which is Kafka's default, a topic that was deleted under
    a running consumer was back at once, with the broker's number of partitions.
    """
    client.cluster.config["allow_auto_create_topics"] = allowed


def read_large_pieces(client: Any) -> None:
    """Receive what has arrived in one call, instead of 4096 bytes a call.

    Each call gives up the interpreter lock, and while another thread computes it
    takes up to 5 ms to get it back; a fetch of 4 MB took a thousand of them, so
    that receiving and parsing never overlapped (3.0.12).  TLS goes on as it was:
    its records are small.
    """
    manager = client._manager
    build = manager._build_transport

    async def built(*args: Any, **kwargs: Any) -> Any:
        transport = await build(*args, **kwargs)
        if type(transport) is KafkaTCPTransport:
            sock: Any = transport._sock

            def receive() -> tuple[bytes, Exception | None]:
                try:
                    data = sock.recv(PIECE)
                except (BlockingIOError, InterruptedError):
                    return b"", None
                except OSError as exc:
                    return b"", errors.KafkaConnectionError(exc)
                if not data:
                    return b"", errors.KafkaConnectionError("socket disconnected")
                return data, None

            transport._sock_recv = receive
        return transport

    manager._build_transport = built


def read_batches_with(consumer: KafkaConsumer, reader: type) -> None:
    """Let a client read what it has fetched with another class than its own.

    What it then notes is where the first fetch of each partition began: the client
    tells its position only after it has passed over what nobody gets to see.
    """
    fetcher = consumer._fetcher
    beginnings: dict[TopicPartition, int] = {}
    fetcher._trio_consumer_beginnings = beginnings

    def read(fetch_offset: int, tp: Any, *args: Any, **options: Any) -> Any:
        beginnings.setdefault(tp, fetch_offset)
        return reader(fetch_offset, tp, *args, **options)

    fetcher.PartitionRecords = read


def beginning(consumer: KafkaConsumer, tp: TopicPartition) -> int | None:
    """Where the first fetch of a partition began, None if none has been read."""
    found: int | None = consumer._fetcher._trio_consumer_beginnings.get(tp)
    return found


def forget_beginnings(consumer: KafkaConsumer, tps: Iterable[TopicPartition]) -> None:
    """Partitions went away: the next fetch of them is a first one again."""
    for tp in tps:
        consumer._fetcher._trio_consumer_beginnings.pop(tp, None)


def uncompressed(batch: Any) -> tuple[bytes, int]:
    """The bytes of a record batch, and where its first record begins in them."""
    batch._maybe_uncompress()
    return bytes(batch._buffer), batch._pos


def ask_coordinator(admin: Any, group: str, request: Any) -> Any:
    """Send a request to the coordinator of a group and wait for the answer; blocks.

    The admin client has no request for groups of the newer protocol (KIP-848), and
    decodes what members of every kind of group say as if they were consumers (3.0.12).
    """
    manager = admin._manager

    async def ask() -> Any:
        (node,) = (await admin._find_coordinator_ids([group])).values()
        return await manager.send(request, node_id=node)

    return manager.run(ask)
