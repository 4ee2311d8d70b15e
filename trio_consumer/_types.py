"""The plain data that every layer speaks about, in Kafka's own words.

Nothing here knows Trio, a client or the runtime.  An *offset* is always the
offset of a record; the offset stored in a commit is the next one to read.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

__all__ = ["TP", "AckMode", "GroupMetadata", "OffsetAndMetadata", "TopicPartition"]


class TopicPartition(NamedTuple):
    """A partition of a topic.

    A named tuple, so that it equals (and hashes as) the pair that any Kafka
    client for Python uses, and dictionaries of either kind mix.
    """

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]"


TP = TopicPartition
"""Short name of :class:`TopicPartition`, as Faust has it."""


class OffsetAndMetadata(NamedTuple):
    """What a commit stores for a partition.

    Attributes:
        offset: The next offset to read (not the last one that was processed).
        metadata: Free text kept with the offset; Kafka's default limit is
            4096 bytes.
        leader_epoch: Epoch of the leader that served the last record, or -1
            if unknown (KIP-320).
    """

    offset: int
    metadata: str = ""
    leader_epoch: int = -1


class GroupMetadata(NamedTuple):
    """The membership of one consumer in its group at one moment (KIP-447).

    Attributes:
        group: Name of the group.
        generation: Number of the group's current generation, -1 before the
            first join.
        member_id: Id that the coordinator gave to this member, "" before the
            first join.
        group_instance_id: Name of a static member (KIP-345), or None.
    """

    group: str
    generation: int = -1
    member_id: str = ""
    group_instance_id: str | None = None


class AckMode(enum.Enum):
    """How a stream finishes its messages."""

    AUTO = "auto"
    """A message is finished when the loop comes back for the next one."""
    MANUAL = "manual"
    """A message is finished by ``message.ack()`` or ``async with message``."""
    NONE = "none"
    """The stream observes: it holds no reference and finishes nothing."""
