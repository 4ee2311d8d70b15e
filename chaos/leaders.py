"""Moves the leadership of partitions without hurting anybody.

A partition is led by the first of its replicas, if there is a choice.  So the order of
the replicas is turned, and an election asked for.  The leader of a partition of
``__consumer_offsets`` is the coordinator of the groups in it.
"""

from __future__ import annotations

import time
from typing import Any

from kafka.errors import KafkaError
from kafka.structs import TopicPartition

from tests.kafka import Cluster

__all__ = ["move_leaders"]

PREFERRED = 0
"""The protocol's number for the election of the first replica."""


def move_leaders(cluster: Cluster, topic: str) -> int:
    """Move all partitions of a topic to other leaders; return how many have moved.

    Blocks for some seconds; with a node down some do not move.
    """
    with cluster.admin() as admin:
        before = _leaders(admin, topic)
        turned = {
            TopicPartition(topic, number): _turned(leader, replicas)
            for number, (leader, replicas) in before.items()
        }
        admin.alter_partition_reassignments(turned, timeout_ms=5000)
        deadline = time.monotonic() + 10
        while admin.list_partition_reassignments() and time.monotonic() < deadline:
            time.sleep(0.1)
        admin.elect_leaders(PREFERRED, [topic], raise_errors=False)
        time.sleep(0.5)
        after = _leaders(admin, topic)
    return sum(after[number][0] != leader for number, (leader, _) in before.items())


def _turned(leader: int, replicas: list[int]) -> list[int]:
    """The replicas, the one after the leader first: it may not be the first now."""
    after = replicas.index(leader) + 1 if leader in replicas else 1
    return [*replicas[after:], *replicas[:after]]


def _leaders(admin: Any, topic: str) -> dict[int, tuple[int, list[int]]]:
    (described,) = admin.describe_topics([topic])
    if described["error_code"]:
        raise KafkaError(f"{topic} cannot be described: error {described['error_code']}")
    return {
        each["partition_index"]: (each["leader_id"], list(each["replica_nodes"]))
        for each in described["partitions"]
    }
