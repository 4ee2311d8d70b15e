"""A Kafka cluster on loopback with what tests ask of it: topics, and what a group committed.

The nodes and their lives are in `nodes.py`; this module adds the orders and questions to the
running cluster. Those are asked again while the cluster is finding itself, for example after a
node was killed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kafka import TopicPartition
from kafka.admin import MemberToRemove
from kafka.errors import (
    InvalidPartitionsError,
    RetriableError,
    TopicAlreadyExistsError,
    UnknownTopicOrPartitionError,
)
from kafka.structs import OffsetAndMetadata

from . import admin as _admin
from .nodes import Nodes
from .properties import Value, text


class Cluster(Nodes):
    """A context manager that runs a Kafka cluster for tests.

    All calls block; from Trio make them in a worker thread. See `Nodes` for the arguments.

    Example:
        >>> with Cluster(nodes=3) as cluster:
        ...     cluster.create_topic("orders", partitions=4)
        ...     cluster.kill(2)
    """

    def create_topic(
        self,
        name: str,
        partitions: int = 1,
        replication: int | None = None,
        config: Mapping[str, Value] | None = None,
    ) -> None:
        """Create a topic and wait until every running node knows the leaders of its partitions.

        Args:
            name: its name.
            partitions: how many.
            replication: copies of each; all nodes, at most three, if None.
            config: topic settings, for example `{"cleanup.policy": "compact"}`.

        Raises:
            kafka.errors.TopicAlreadyExistsError: it exists.
        """
        copies = min(3, self._size) if replication is None else replication
        settings = {
            "num_partitions": partitions,
            "replication_factor": copies,
            "configs": {key: text(value) for key, value in (config or {}).items()},
        }
        create = _admin.repeatable(
            lambda admin: admin.create_topics({name: settings}), TopicAlreadyExistsError
        )
        self._ask(create)
        self._await_partitions(name, partitions)

    def create_partitions(self, name: str, partitions: int) -> None:
        """Grow a topic to `partitions` in all, and wait as `create_topic` does.

        Raises:
            kafka.errors.InvalidPartitionsError: it has so many, or more, already.
        """
        grow = _admin.repeatable(
            lambda admin: admin.create_partitions({name: partitions}), InvalidPartitionsError
        )
        self._ask(grow)
        self._await_partitions(name, partitions)

    def delete_topic(self, name: str) -> None:
        """Delete a topic and wait until no running node knows it.

        Raises:
            kafka.errors.UnknownTopicOrPartitionError: there is none.
        """
        delete = _admin.repeatable(
            lambda admin: admin.delete_topics([name]), UnknownTopicOrPartitionError
        )
        self._ask(delete)
        self._await_partitions(name, 0)

    def describe_group(self, group: str) -> dict[str, Any]:
        """Return what the coordinator says of a group: `group_state`, `members` and more."""
        described: dict[str, Any] = self._ask(lambda admin: admin.describe_groups([group])[group])
        return described

    def group_offsets(self, group: str) -> dict[tuple[str, int], tuple[int, str]]:
        """Return what a group has committed: (topic, partition) to (offset, metadata)."""
        return self._ask(lambda admin: _admin.group_offsets(admin, group))

    def end_offsets(self, topic: str) -> dict[int, int]:
        """Return each partition's end offset (the next to be written) by its number."""
        return self._ask(lambda admin: _admin.end_offsets(admin, topic))

    def expel(self, group: str, member_id: str) -> None:
        """Remove a member from its group; it learns of it with its next request."""
        self._ask(lambda admin: admin.remove_group_members(group, [MemberToRemove(member_id)]))

    def commit_for(self, group: str, topic: str, partition: int, offset: int) -> None:
        """Set a committed offset of a group that has no member."""
        where = {TopicPartition(topic, partition): OffsetAndMetadata(offset, "", -1)}
        self._ask(lambda admin: admin.alter_group_offsets(group, where))

    def delete_records(self, topic: str, partition: int, before: int) -> None:
        """Let a partition begin at an offset: what is below is gone."""
        where = {TopicPartition(topic, partition): before}
        self._ask(lambda admin: admin.delete_records(where))

    def _await_partitions(self, topic: str, partitions: int) -> None:
        """Wait until every running node sees so many partitions, led and in sync."""

        def look(admin: Any) -> None:
            for node in self._running():
                view = _admin.metadata(admin, node.number, [topic])
                (found,) = view["topics"]
                unknown = found["error_code"] == UnknownTopicOrPartitionError.errno
                if unknown and not partitions:
                    continue
                up = [n.number for n in self._running()]
                if len(found["partitions"]) != partitions or _admin.sick_partitions(view, up):
                    raise RetriableError(f"node {node.number} sees of {topic}: {found}")

        self._ask(look)
