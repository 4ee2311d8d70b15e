"""Groups and topics by their names; one that does not exist is a failure with a proposal."""

from __future__ import annotations

import difflib
from collections.abc import Collection

from .. import OffsetAndMetadata, TopicPartition
from .cluster import Cluster, GroupDescription
from .errors import Failure

__all__ = ["find_group", "find_topics"]

FEW = 5


async def find_group(
    cluster: Cluster, group: str
) -> tuple[GroupDescription, dict[TopicPartition, OffsetAndMetadata]]:
    """What a group is and what it has committed.

    Raises:
        Failure: There is none, or it is no group of consumers.
    """
    description = await cluster.describe_group(group)
    if description is not None:
        return description, await cluster.committed(group)
    listed = {each.group: each for each in await cluster.groups()}
    if group in listed:
        raise Failure(
            f"the group {group!r} on {cluster.address} is of the type {listed[group].type!r},"
            " which commits no offsets of its own; only groups of consumers can be looked into"
        )
    raise Failure(
        f"there is no group {group!r} on {cluster.address}, or it has expired"
        f"{_proposal(group, listed)}; 'trio-consumer inspect' lists the groups"
    )


def find_topics(topics: Collection[str], wanted: Collection[str], address: str) -> None:
    """Check that topics exist.

    Raises:
        Failure: One does not.
    """
    for topic in wanted:
        if topic not in topics:
            raise Failure(
                f"there is no topic {topic!r} on {address}, or you may not see it"
                f"{_proposal(topic, topics)}; 'trio-consumer inspect' lists the topics"
            )


def _proposal(name: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(name, list(known), FEW)
    return f" (did you mean {' or '.join(map(repr, near))}?)" if near else ""
