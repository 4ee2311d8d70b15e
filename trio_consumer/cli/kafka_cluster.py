"""A Kafka cluster that answers questions, through kafka-python's admin client in threads."""

# kafka-python has no types; the stubs that pyright brings are of an older one.
# pyright: basic, reportAttributeAccessIssue=false, reportCallIssue=false

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import outcome
import trio
from kafka import IsolationLevel, KafkaAdminClient, OffsetSpec, errors
from kafka.net.compat import KafkaNetClient
from kafka.protocol.admin import DescribeGroupsRequest
from kafka.protocol.consumer.metadata import ConsumerProtocolAssignment
from outcome import Outcome, Value

from .. import (
    AuthenticationError,
    BrokerUnavailableError,
    ConfigurationError,
    OffsetAndMetadata,
    TopicPartition,
)
from .._errors import shown, told
from ..transports.addresses import check_brokers
from ..transports.base import SessionSettings
from ..transports.kafka import internals
from ..transports.kafka.options import client_options
from ..transports.kafka.translate import is_refusal, query_error
from ..transports.kafka.transport import MISTAKES
from .cluster import Broker, GroupDescription, ListedGroup, Member, Partition, PartitionOffsets
from .consumer_groups import ConsumerGroupDescribeRequest

__all__ = ["KafkaCluster", "open_kafka"]

T = TypeVar("T")

RETRY = 0.2
"""Seconds between two attempts at what a broker cannot do yet, such as finding the
coordinator when its first group ever comes.  Arbitrary."""

WATCH = 0.05
"""Seconds between two looks whether a connection was refused.  Arbitrary."""

FILES = ("ssl_cafile", "ssl_certfile", "ssl_keyfile", "ssl_crlfile")
CLOSE_TIMEOUT = 2.0
UNKNOWN_GROUP = errors.GroupIdNotFoundError.errno


@asynccontextmanager
async def open_kafka(
    brokers: str, options: Mapping[str, Any], timeout: float
) -> AsyncGenerator[KafkaCluster, None]:
    """Connect for the length of a block.

    Args:
        brokers: ``host:port`` pairs, separated by commas.
        options: kafka-python's own; those that only a consumer has are checked
            and not used.
        timeout: Seconds until a broker has to have answered.

    Raises:
        ConfigurationError: The address, or an option, cannot be.
        BrokerUnavailableError: Nobody answered in time.
        AuthenticationError: The credentials were refused.

    Cancelling it abandons the threads at their work.
    """
    check_brokers(brokers, "kafka")
    settings = SessionSettings(group="", connect_timeout=timeout, client_options=options)
    # A consumer's, so that the same options do for all commands.
    checked = client_options(brokers, settings)
    known = {name: checked[name] for name in checked if name in KafkaAdminClient.DEFAULT_CONFIG}
    _check_files(known)
    nets: list[Any] = []
    try:
        admin = await _open(known, brokers, timeout, nets)
        yield KafkaCluster(admin, brokers)
    finally:
        with trio.move_on_after(CLOSE_TIMEOUT, shield=True):
            await trio.to_thread.run_sync(internals.close_all, nets, abandon_on_cancel=True)


def _check_files(options: Mapping[str, Any]) -> None:
    """The client reads them with each connection, and names none that it misses."""
    for name in FILES:
        path = options.get(name)
        if path is not None:
            try:
                with open(path, "rb"):
                    pass
            except OSError as exc:
                raise ConfigurationError(
                    f"client option {name!r} is {shown(path)}, which cannot be read:"
                    f" {exc.strerror}; give the path of a PEM file"
                ) from exc


async def _open(options: dict[str, Any], brokers: str, timeout: float, nets: list[Any]) -> Any:
    refusals: list[BaseException] = []

    def remember(**config: Any) -> Any:
        # If the constructor raises, nothing else has a reference to its sockets.
        net = KafkaNetClient(**config)
        nets.append(net)
        internals.watch_connections(net, refusals)
        internals.mend_connections(net)
        return net

    def connect() -> Any:
        return KafkaAdminClient(**options, kafka_client=remember)

    def refused() -> BaseException | None:
        return next(filter(is_refusal, refusals), None)

    result: Outcome[Any] | None = None
    async with trio.open_nursery() as nursery:

        async def watch() -> None:
            # The client tries a wrong password for as long as it may.
            while refused() is None:  # noqa: ASYNC110 - a thread of the client's notes it
                await trio.sleep(WATCH)
            nursery.cancel_scope.cancel()

        nursery.start_soon(watch)
        result = await trio.to_thread.run_sync(outcome.capture, connect, abandon_on_cancel=True)
        nursery.cancel_scope.cancel()
    refusal = refused()
    if refusal is not None and not isinstance(result, Value):
        raise AuthenticationError(
            f"{brokers} refused the connection: {refusal}; check security_protocol, the sasl_*"
            " and the ssl_* options (-o)"
        ) from refusal
    assert result is not None
    try:
        return result.unwrap()
    except (errors.KafkaConfigurationError, *MISTAKES) as exc:
        raise ConfigurationError(
            f"kafka-python does not take these options ({', '.join(options)}): {told(exc)}; mend"
            " what -o gives it"
        ) from exc
    except (errors.KafkaError, RuntimeError, OSError, ValueError) as exc:
        reason = refusals[-1] if refusals else exc
        raise BrokerUnavailableError(
            f"no broker of {brokers} answered within {timeout:g} s ({reason}); check the address,"
            " that the broker runs and that security_protocol is the listener's",
            retriable=True,
        ) from exc


class KafkaCluster:
    """Satisfies :class:`~.cluster.Cluster`; made by :func:`open_kafka`."""

    def __init__(self, admin: Any, address: str) -> None:
        self._admin = admin
        self.address = address
        self.trouble: str = ""

    async def brokers(self) -> list[Broker]:
        """As :meth:`.Cluster.brokers`."""
        found = await self._ask("list the brokers", self._admin.describe_cluster)
        brokers = [Broker(b["broker_id"], b["host"], b["port"]) for b in found["brokers"]]
        return sorted(brokers, key=lambda broker: broker.id)

    async def groups(self) -> list[ListedGroup]:
        """As :meth:`.Cluster.groups`."""
        found = await self._ask("list the groups", self._admin.list_groups)
        listed = [
            ListedGroup(
                group["group_id"],
                group.get("group_state") or "",
                group.get("group_type") or "",
                group["protocol_type"],
            )
            for group in found
        ]
        return sorted(listed, key=lambda group: group.group)

    async def describe_group(self, group: str) -> GroupDescription | None:
        """As :meth:`.Cluster.describe_group`."""
        return await self._ask(f"describe the group {group!r}", self._describe, group)

    async def committed(self, group: str) -> dict[TopicPartition, OffsetAndMetadata]:
        """As :meth:`.Cluster.committed`."""
        attempt = f"read the offsets of the group {group!r}"
        found = await self._ask(attempt, self._admin.list_group_offsets, group)
        return {
            # confluent-kafka commits the NUL at the end of a text of C, too.
            TopicPartition(*tp): OffsetAndMetadata(
                at.offset, (at.metadata or "").rstrip("\0"), at.leader_epoch
            )
            for tp, at in found[group].items()
            if at.offset >= 0
        }

    async def topics(self) -> dict[str, list[Partition]]:
        """As :meth:`.Cluster.topics`."""
        # All of them: who asks by name is refused what he may not see, one by one.
        found = await self._ask("list the topics", self._admin.describe_topics)
        return {
            topic["name"]: sorted(
                (_partition(topic["name"], each) for each in topic["partitions"]),
                key=lambda partition: partition.tp,
            )
            for topic in sorted(found, key=lambda topic: topic["name"])
        }

    async def offsets(
        self, partitions: Iterable[Partition], *, committed_only: bool
    ) -> Mapping[TopicPartition, PartitionOffsets]:
        """As :meth:`.Cluster.offsets`."""
        led = [partition.tp for partition in partitions if partition.leader is not None]
        if not led:
            return {}
        level = IsolationLevel.READ_COMMITTED if committed_only else IsolationLevel.READ_UNCOMMITTED
        found: list[Mapping[Any, Any]] = []
        for spec, isolation in (
            (OffsetSpec.EARLIEST, IsolationLevel.READ_UNCOMMITTED),
            (OffsetSpec.LATEST, level),
        ):
            wanted = dict.fromkeys(led, spec)
            ask = self._admin.list_partition_offsets
            found.append(await self._ask("read the ends of partitions", ask, wanted, isolation))
        first, end = found
        return {tp: PartitionOffsets(first[tp].offset, end[tp].offset) for tp in led}

    async def _ask(self, attempt: str, function: Callable[..., T], *args: Any) -> T:
        """Call it in a thread, again and again while it fails for a passing reason."""
        while True:
            try:
                return await trio.to_thread.run_sync(function, *args, abandon_on_cancel=True)
            except errors.RetriableError as exc:
                # The deadline is the caller's.
                self.trouble = str(query_error(exc, f"cannot {attempt}"))
                await trio.sleep(RETRY)
            except (errors.KafkaError, RuntimeError, OSError) as exc:
                raise query_error(exc, f"cannot {attempt}") from exc

    # -- in threads ------------------------------------------------------------------

    def _describe(self, group: str) -> GroupDescription | None:
        classic = self._described(group, DescribeGroupsRequest(groups=[group]))
        # Before 4.0 a broker has no word for "unknown", it calls the group dead.
        if classic is not None and classic.group_state != "Dead":
            return _classic_group(classic)
        try:
            newer = self._described(
                group,
                ConsumerGroupDescribeRequest(
                    group_ids=[group], include_authorized_operations=False
                ),
            )
        except (errors.IncompatibleBrokerVersion, errors.UnsupportedVersionError):
            newer = None
        if newer is not None:
            return _consumer_group(newer)
        return None

    def _described(self, group: str, request: Any) -> Any:
        """What a coordinator says of the group, None if it has none of this type."""
        response = internals.ask_coordinator(self._admin, group, request)
        (described,) = response.groups
        if described.error_code == UNKNOWN_GROUP:
            return None
        if described.error_code:
            raise errors.for_code(described.error_code)(described.error_message or "")
        return described


def _partition(topic: str, found: Mapping[str, Any]) -> Partition:
    leader = found["leader_id"]
    return Partition(
        TopicPartition(topic, found["partition_index"]),
        leader if leader >= 0 else None,
        tuple(found["replica_nodes"]),
        tuple(found["isr_nodes"]),
    )


def _classic_group(found: Any) -> GroupDescription:
    consumers = found.protocol_type == "consumer"
    members = [
        Member(
            member.member_id,
            member.client_id,
            member.client_host.lstrip("/"),
            member.group_instance_id,
            # What members of another kind, such as workers of Connect, are given
            # are not partitions.
            _assigned(member.member_assignment) if consumers else frozenset(),
        )
        for member in found.members
    ]
    return GroupDescription(
        found.group_id,
        found.group_state,
        "classic",
        found.protocol_type,
        found.protocol_data,
        tuple(sorted(members, key=_by_client)),
    )


def _assigned(data: bytes | None) -> frozenset[TopicPartition]:
    if not data:
        return frozenset()
    return frozenset(
        TopicPartition(each.topic, partition)
        for each in ConsumerProtocolAssignment.decode(bytes(data)).assigned_partitions
        for partition in each.partitions
    )


def _consumer_group(found: Any) -> GroupDescription:
    members = [
        Member(
            member.member_id,
            member.client_id,
            member.client_host.lstrip("/"),
            member.instance_id,
            frozenset(
                TopicPartition(each.topic_name, partition)
                for each in member.assignment.topic_partitions
                for partition in each.partitions
            ),
        )
        for member in found.members
    ]
    return GroupDescription(
        found.group_id,
        found.group_state,
        "consumer",
        "consumer",
        found.assignor_name,
        tuple(sorted(members, key=_by_client)),
    )


def _by_client(member: Member) -> tuple[str, str]:
    return member.client_id, member.member_id
