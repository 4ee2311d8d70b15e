"""What the commands that look at a cluster ask, and what they are told.

:class:`Cluster` is the seam: ``lag`` and ``inspect`` know nothing of a client.
Offsets are Kafka's: a committed offset and an end name the next message, not
the last one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from .. import OffsetAndMetadata, TopicPartition

__all__ = [
    "Broker",
    "Cluster",
    "GroupDescription",
    "ListedGroup",
    "Member",
    "Partition",
    "PartitionOffsets",
]


@dataclass(frozen=True, slots=True)
class Broker:
    """One broker, as the cluster names it."""

    id: int
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class ListedGroup:
    """A group, as the list of all groups has it.

    Attributes:
        group: Its name.
        state: Such as ``"Stable"`` or ``"Empty"``; "" from brokers before 2.6.
        type: ``"classic"``, ``"consumer"`` (KIP-848), ``"share"`` or another
            one; "" from brokers before 4.0.
        protocol_type: ``"consumer"`` for groups of consumers.
    """

    group: str
    state: str
    type: str
    protocol_type: str


@dataclass(frozen=True, slots=True)
class Member:
    """One member of a group.

    Attributes:
        member_id: The id that the coordinator knows it by.
        client_id: What it calls itself.
        host: Where it connects from.
        instance_id: Its ``group_instance_id`` if it is static, else None.
        assignment: Its partitions; none while the group is not stable.
    """

    member_id: str
    client_id: str
    host: str
    instance_id: str | None
    assignment: frozenset[TopicPartition]


@dataclass(frozen=True, slots=True)
class GroupDescription:
    """A group, as its coordinator describes it.

    Attributes:
        group: Its name.
        state: Such as ``"Stable"``, ``"Empty"`` or ``"PreparingRebalance"``.
        type: ``"classic"``, or ``"consumer"`` (KIP-848).
        protocol_type: ``"consumer"`` for groups of consumers.
        assignor: The strategy in use, "" while there is none.
        members: Its members, by client id and member id.
    """

    group: str
    state: str
    type: str
    protocol_type: str
    assignor: str
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition, as the cluster's metadata have it.

    Attributes:
        tp: Which one.
        leader: The broker that leads it, None if there is none.
        replicas: The brokers that have a copy.
        in_sync: Those of them that are not behind.
    """

    tp: TopicPartition
    leader: int | None
    replicas: tuple[int, ...]
    in_sync: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PartitionOffsets:
    """Where a partition begins and ends."""

    first: int
    end: int


class Cluster(Protocol):
    """A cluster that answers questions; none of them changes anything there.

    Each may be cancelled, which abandons the question, and raises
    :class:`~trio_consumer.TransportError` if it is refused.
    """

    @property
    def address(self) -> str:
        """Where it is, for a sentence."""
        ...

    @property
    def trouble(self) -> str:
        """Why the last question had to be asked again; "" if none had."""
        ...

    async def brokers(self) -> list[Broker]:
        """The brokers, by id."""
        ...

    async def groups(self) -> list[ListedGroup]:
        """All groups, by name."""
        ...

    async def describe_group(self, group: str) -> GroupDescription | None:
        """One group, None if there is none of this name that consists of consumers."""
        ...

    async def committed(self, group: str) -> dict[TopicPartition, OffsetAndMetadata]:
        """All that a group has committed; empty if there is no such group."""
        ...

    async def topics(self) -> dict[str, list[Partition]]:
        """The partitions of each topic; the broker's own topics too."""
        ...

    async def offsets(
        self, partitions: Iterable[Partition], *, committed_only: bool
    ) -> Mapping[TopicPartition, PartitionOffsets]:
        """First and end offset; partitions without a leader are left out.

        Args:
            partitions: Which ones.
            committed_only: Take the last stable offset for the end, behind which
                transactions are open, instead of the high watermark.
        """
        ...
