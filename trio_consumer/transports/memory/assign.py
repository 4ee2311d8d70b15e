"""Who gets which partition: the two assignors that the memory broker offers.

Pure functions of the members' subscriptions, what they own, and the number of
partitions of each topic.  ``range`` belongs to the eager protocol (everybody
gives everything back first), ``cooperative-sticky`` to the cooperative one:
what a member owns stays where it is unless balance needs it, and a partition
that moves is given to nobody until its owner has given it back.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from ..._types import TopicPartition

__all__ = ["Assignor", "Claim", "assign", "cooperative_sticky_assign", "range_assign"]


class Assignor(enum.Enum):
    """An assignment strategy, by its name in the group protocol."""

    RANGE = "range"
    COOPERATIVE_STICKY = "cooperative-sticky"

    @property
    def cooperative(self) -> bool:
        """Whether members keep their partitions during a rebalance."""
        return self is Assignor.COOPERATIVE_STICKY


@dataclass(frozen=True, slots=True)
class Claim:
    """What one member brings to an assignment.

    Attributes:
        topics: Topics it subscribes to.
        owned: Partitions that it holds (cooperative members only).
        owned_generation: Generation in which it got them; of two members that
            claim one partition the later generation is right.
        instance_id: Name of a static member; it decides the order, so that a
            restarted member gets the same partitions.
    """

    topics: frozenset[str]
    owned: frozenset[TopicPartition] = frozenset()
    owned_generation: int = -1
    instance_id: str | None = None


Assignment = dict[str, frozenset[TopicPartition]]


def assign(
    assignor: Assignor, claims: Mapping[str, Claim], partitions: Mapping[str, int]
) -> Assignment:
    """Assign partitions to members.

    Args:
        assignor: The strategy that the group agreed on.
        claims: What each member brings, by member id.
        partitions: Number of partitions of each topic that exists.

    Returns:
        The partitions of every member in ``claims``, by member id.
    """
    if assignor is Assignor.RANGE:
        return range_assign(claims, partitions)
    return cooperative_sticky_assign(claims, partitions)


def range_assign(claims: Mapping[str, Claim], partitions: Mapping[str, int]) -> Assignment:
    """Give each member a contiguous range of each topic that it subscribes to."""
    result: dict[str, set[TopicPartition]] = {member: set() for member in claims}
    order = _in_order(claims)
    for topic, count in partitions.items():
        members = [member for member in order if topic in claims[member].topics]
        if not members:
            continue
        share, extra = divmod(count, len(members))
        first = 0
        for place, member in enumerate(members):
            size = share + (1 if place < extra else 0)
            result[member].update(TopicPartition(topic, n) for n in range(first, first + size))
            first += size
    return {member: frozenset(tps) for member, tps in result.items()}


def cooperative_sticky_assign(
    claims: Mapping[str, Claim], partitions: Mapping[str, int]
) -> Assignment:
    """Balance with few moves, and hold back what another member still owns.

    A partition that has to move is in nobody's assignment of this round: its
    owner sees it missing, gives it back and joins again, and the next round
    assigns it.
    """
    owners = _owners(claims, partitions)
    target = _balanced(claims, partitions, owners)
    return {
        member: frozenset(tp for tp in tps if owners.get(tp, member) == member)
        for member, tps in target.items()
    }


def _in_order(claims: Mapping[str, Claim]) -> list[str]:
    """Static members by their names first, then the others by member id."""
    return sorted(
        claims,
        key=lambda member: (
            claims[member].instance_id is None,
            claims[member].instance_id or "",
            member,
        ),
    )


def _owners(
    claims: Mapping[str, Claim], partitions: Mapping[str, int]
) -> dict[TopicPartition, str]:
    """The one member that rightly claims each owned partition.

    Two members with the same claim of the same generation are both wrong, as in
    Kafka's assignor: one of them must be a zombie and nobody can tell which.
    """
    best: dict[TopicPartition, tuple[int, str | None]] = {}
    for member in _in_order(claims):
        claim = claims[member]
        for tp in claim.owned:
            if tp.topic not in claim.topics or tp.partition >= partitions.get(tp.topic, 0):
                continue
            generation, _ = best.get(tp, (-2, None))
            if claim.owned_generation > generation:
                best[tp] = (claim.owned_generation, member)
            elif claim.owned_generation == generation:
                best[tp] = (generation, None)
    return {tp: member for tp, (_, member) in best.items() if member is not None}


def _balanced(
    claims: Mapping[str, Claim],
    partitions: Mapping[str, int],
    owners: Mapping[TopicPartition, str],
) -> dict[str, set[TopicPartition]]:
    """Owned partitions where they are, the rest to the least loaded, then level out."""
    order = _in_order(claims)
    result: dict[str, set[TopicPartition]] = {member: set() for member in order}
    for tp, member in owners.items():
        result[member].add(tp)
    free = [
        tp
        for topic in sorted(partitions)
        for n in range(partitions[topic])
        if (tp := TopicPartition(topic, n)) not in owners
    ]
    for tp in free:
        takers = [member for member in order if tp.topic in claims[member].topics]
        if takers:
            result[min(takers, key=lambda member: len(result[member]))].add(tp)
    while (move := _next_move(claims, order, result, owners)) is not None:
        tp, giver, taker = move
        result[giver].remove(tp)
        result[taker].add(tp)
    return result


def _next_move(
    claims: Mapping[str, Claim],
    order: list[str],
    result: Mapping[str, set[TopicPartition]],
    owners: Mapping[TopicPartition, str],
) -> tuple[TopicPartition, str, str] | None:
    """A move from a member to one with at least two fewer, or None if balanced.

    Every move makes the sum of the squared loads smaller, so they end.
    """
    by_load = sorted(order, key=lambda member: len(result[member]))
    for giver in reversed(by_load):
        for taker in by_load:
            if len(result[giver]) - len(result[taker]) < 2:
                break
            movable = [tp for tp in result[giver] if tp.topic in claims[taker].topics]
            if movable:
                # Rather what the giver does not hold yet: that moves nothing.
                tp = max(movable, key=lambda tp: (owners.get(tp) != giver, tp))
                return tp, giver, taker
    return None
