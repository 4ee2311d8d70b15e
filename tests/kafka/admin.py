"""Questions and orders to a running cluster, through kafka-python's admin client.

The functions take a client that their caller opens for the purpose: that costs some milliseconds,
and no state is left over from a node that has been killed and restarted since. What a cluster
answers while it is still finding itself (no coordinator yet, not the leader) is asked again until
a deadline.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from kafka import KafkaAdminClient, TopicPartition
from kafka.admin import OffsetSpec
from kafka.errors import KafkaError, RetriableError, UnknownTopicOrPartitionError
from kafka.protocol.metadata import MetadataRequest

T = TypeVar("T")

_POLL = 0.05  # seconds between two questions; arbitrary


def open_admin(bootstrap: str, **options: Any) -> Any:
    """Return a `kafka.KafkaAdminClient`; close it, or use it as a context manager."""
    options.setdefault("bootstrap_timeout_ms", 10_000)
    # A paused node takes requests and says nothing; short, so that another is asked soon.
    options.setdefault("request_timeout_ms", 5_000)
    # The default of 30 s would sleep through the restart of a node.
    options.setdefault("reconnect_backoff_max_ms", 200)
    return KafkaAdminClient(bootstrap_servers=bootstrap.split(","), **options)


def answers(host: str, port: int, timeout: float) -> bool:
    """Whether a node replies to ApiVersions within `timeout` seconds.

    A port that accepts is no sign of life: the system accepts for a node that is paused, and
    Kafka binds long before it serves.
    """
    request = struct.pack(">hhih", 18, 0, 1, -1)  # ApiVersions 0, correlation id 1, no client id
    try:
        with socket.create_connection((host, port), timeout=timeout) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            return len(connection.recv(4, socket.MSG_WAITALL)) == 4
    except OSError:
        return False


def metadata(admin: Any, node: int, topics: Iterable[str] | None = None) -> dict[str, Any]:
    """Return one node's own view of the cluster, as a Metadata response.

    Args:
        admin: the client.
        node: whom to ask. The public methods ask any node, which hides one that lags.
        topics: the names to describe; all if None.
    """
    wanted = MetadataRequest.MetadataRequestTopic
    request = MetadataRequest(
        topics=None if topics is None else [wanted(name=name) for name in topics],
        allow_auto_topic_creation=False,
        include_cluster_authorized_operations=False,
        include_topic_authorized_operations=False,
    )
    manager = admin._manager
    response: dict[str, Any] = manager.run(_send, manager, request, node).to_dict()
    return response


def sick_partitions(view: Mapping[str, Any], running: Iterable[int]) -> list[str]:
    """Name the partitions without a leader, or whose running copies are not all in sync."""
    up = set(running)
    sick = []
    for topic in view["topics"]:
        if topic["error_code"]:
            sick.append(f"{topic['name']} (error {topic['error_code']})")
        for partition in topic["partitions"]:
            label = f"{topic['name']}[{partition['partition_index']}]"
            if partition["leader_id"] not in up:
                sick.append(f"{label} (no leader)")
            elif up.intersection(partition["replica_nodes"]) - set(partition["isr_nodes"]):
                sick.append(f"{label} (copies behind)")
    return sick


def insist(action: Callable[[], T], timeout: float) -> T:
    """Call `action` until it no longer fails for a passing reason.

    A topic that is unknown stays so, whatever kafka-python says: all nodes are waited for after
    each change to the topics.

    Raises:
        KafkaError: the last failure, after `timeout` seconds, or one that will not pass.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            return action()
        except UnknownTopicOrPartitionError:
            raise
        except RetriableError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_POLL)


def repeatable(change: Callable[[Any], object], done: type[KafkaError]) -> Callable[[Any], None]:
    """Make a change fit to be tried again after a failure that may have come too late.

    Args:
        change: the order, given the client.
        done: what the cluster answers to an order that is carried out already. It is the
            caller's mistake at the first attempt, and success at a later one.
    """
    attempts = 0

    def attempt(admin: Any) -> None:
        nonlocal attempts
        attempts += 1
        try:
            change(admin)
        except done:
            if attempts == 1:
                raise

    return attempt


def group_offsets(admin: Any, group: str) -> dict[tuple[str, int], tuple[int, str]]:
    """Return what a group has committed: (topic, partition) to (offset, metadata)."""
    found = admin.list_group_offsets(group)[group]
    return {
        (where.topic, where.partition): (committed.offset, committed.metadata)
        for where, committed in found.items()
        if committed.offset >= 0
    }


def end_offsets(admin: Any, topic: str) -> dict[int, int]:
    """Return each partition's end offset (the next to be written) by its number."""
    (described,) = admin.describe_topics([topic])
    if described["error_code"]:
        raise UnknownTopicOrPartitionError(f"{topic}: error {described['error_code']}")
    partitions = [TopicPartition(topic, p["partition_index"]) for p in described["partitions"]]
    found = admin.list_partition_offsets(dict.fromkeys(partitions, OffsetSpec.LATEST))
    return {where.partition: int(at.offset) for where, at in sorted(found.items())}


def create_internal_topics(admin: Any) -> None:
    """Have the topics for groups' offsets and for transactions created.

    A cluster creates them when first asked for a coordinator. That takes a moment, and with three
    copies it takes three living nodes: a test that begins with a kill would find no coordinator.
    """
    admin.list_group_offsets("harness")
    try:
        admin.describe_transactions(["harness"])
    except RetriableError:
        raise
    except KafkaError:
        pass  # there is no such transaction, and that is the coordinator's own answer


async def _send(manager: Any, request: Any, node: int) -> Any:
    return await manager.send(request, node_id=node)
