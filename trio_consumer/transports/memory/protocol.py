"""What members and the group coordinator say to each other, in Kafka's words.

Plain data of :mod:`.group`: states, errors, requests, answers, and the account
that the coordinator keeps of one member.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from ..._types import OffsetAndMetadata, TopicPartition
from .assign import Assignor, Claim

__all__ = [
    "AcceptedCommit",
    "GroupError",
    "GroupObserver",
    "GroupState",
    "JoinAnswer",
    "JoinRequest",
    "Member",
    "MemberPhase",
    "SyncAnswer",
]


class GroupState(enum.Enum):
    """Where a group is between two generations."""

    EMPTY = "empty"
    PREPARING = "preparing rebalance"
    COMPLETING = "completing rebalance"
    STABLE = "stable"


class MemberPhase(enum.Enum):
    """What the coordinator is waiting for from one member, or it from him."""

    MUST_JOIN = "must join"
    """Known, but it has not joined the rebalance that is going on."""
    JOINING = "joining"
    """Its join waits for the others."""
    JOINED = "joined"
    """Its join is answered; it has not asked for its assignment."""
    SYNCING = "syncing"
    """It asked for its assignment, which waits for the leader."""
    STABLE = "stable"
    """It has its assignment of this generation."""


class GroupError(enum.Enum):
    """Refusals, by Kafka's names."""

    UNKNOWN_MEMBER_ID = "unknown member id"
    ILLEGAL_GENERATION = "illegal generation"
    REBALANCE_IN_PROGRESS = "rebalance in progress"
    FENCED_INSTANCE_ID = "fenced instance id"
    INCONSISTENT_GROUP_PROTOCOL = "inconsistent group protocol"
    OFFSET_METADATA_TOO_LARGE = "offset metadata too large"


@dataclass(frozen=True, slots=True)
class JoinRequest:
    """What a member says of itself when it joins.

    Attributes:
        member_id: The id that it was given, "" the first time.
        topics: Its subscription.
        assignors: The strategies that it can use, the preferred one first.
        instance_id: Name of a static member, or None.
        client_id: Beginning of the member id that it is given.
        owned: Partitions that it still holds (cooperative).
        owned_generation: The generation in which it got them, -1 if none.
        session_timeout: Seconds without a heartbeat after which it is removed.
        rebalance_timeout: Seconds that a rebalance waits for it.
    """

    topics: frozenset[str]
    member_id: str = ""
    assignors: tuple[Assignor, ...] = (Assignor.RANGE,)
    instance_id: str | None = None
    client_id: str = "member"
    owned: frozenset[TopicPartition] = frozenset()
    owned_generation: int = -1
    session_timeout: float = 45.0
    rebalance_timeout: float = 300.0

    @property
    def claim(self) -> Claim:
        """What it brings to the assignment."""
        return Claim(self.topics, self.owned, self.owned_generation, self.instance_id)

    def same_protocol(self, other: JoinRequest) -> bool:
        """Whether nothing changes for the group if this one replaces the other."""
        return (self.topics, self.assignors) == (other.topics, other.assignors)


@dataclass(frozen=True, slots=True)
class JoinAnswer:
    """The answer to a join: an error, or the generation and the protocol."""

    error: GroupError | None = None
    generation: int = -1
    assignor: Assignor = Assignor.RANGE


@dataclass(frozen=True, slots=True)
class SyncAnswer:
    """The answer to a sync: an error, or the member's partitions."""

    error: GroupError | None = None
    assignment: frozenset[TopicPartition] = frozenset()


@dataclass(frozen=True, slots=True)
class AcceptedCommit:
    """One commit that the coordinator has taken.

    Attributes:
        time: Seconds, on the broker's clock.
        member_id: Who committed, "" for an administrator.
        generation: Generation that the commit carried, -1 for an administrator.
        offsets: What was stored.
    """

    time: float
    member_id: str
    generation: int
    offsets: Mapping[TopicPartition, OffsetAndMetadata]


class GroupObserver(Protocol):
    """Is told what a coordinator does, in the step in which it does it."""

    def rebalancing(self, group: str) -> None:
        """A rebalance begins; members learn of it with their next heartbeat."""
        ...

    def assigned(
        self, group: str, generation: int, assignment: Mapping[str, frozenset[TopicPartition]]
    ) -> None:
        """These members, by id, have these partitions from now on; others nothing new."""
        ...

    def committed(self, group: str, commit: AcceptedCommit) -> None:
        """A commit was stored."""
        ...


@dataclass(slots=True)
class Member:
    """One member as the coordinator sees it.

    An answer stands once it is given: what happens to the group before the
    member reads it does not change what it reads.
    """

    member_id: str
    request: JoinRequest
    phase: MemberPhase
    expires: float
    assignment: frozenset[TopicPartition] = field(default_factory=frozenset)
    join_answer: JoinAnswer | None = None
    sync_answer: SyncAnswer | None = None

    @property
    def static(self) -> bool:
        """Whether it has a group instance id."""
        return self.request.instance_id is not None

    @property
    def waiting(self) -> bool:
        """Whether a request of it is unanswered; then its session does not expire."""
        return self.phase in (MemberPhase.JOINING, MemberPhase.SYNCING)
