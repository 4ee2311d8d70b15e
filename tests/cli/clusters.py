"""A cluster that answers from plain data, in the place of a real one."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import trio

from trio_consumer import OffsetAndMetadata, TopicPartition
from trio_consumer.cli import opening
from trio_consumer.cli.cluster import (
    Broker,
    GroupDescription,
    ListedGroup,
    Member,
    Partition,
    PartitionOffsets,
)

from .support import Called, invoke


def member(name: str, *tps: TopicPartition, static: str | None = None) -> Member:
    return Member(f"{name}-1f", name, "10.0.0.7", static, frozenset(tps))


@dataclass
class FakeCluster:
    """Satisfies ``Cluster``.  What is in ``ends`` exists and has a leader."""

    groups_: dict[str, GroupDescription] = field(default_factory=dict)
    listed: list[ListedGroup] = field(default_factory=list)
    stored: dict[TopicPartition, OffsetAndMetadata] = field(default_factory=dict)
    ends: dict[TopicPartition, tuple[int, int]] = field(default_factory=dict)
    stable_ends: dict[TopicPartition, int] = field(default_factory=dict)
    leaderless: set[TopicPartition] = field(default_factory=set)
    address: str = ""
    trouble: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    stuck: bool = False

    @asynccontextmanager
    async def open(
        self, address: str, options: Mapping[str, Any], timeout: float
    ) -> AsyncGenerator[FakeCluster, None]:
        self.options, self.address = options, address
        yield self

    async def brokers(self) -> list[Broker]:
        if self.stuck:
            await trio.sleep_forever()
        return [Broker(1, "10.0.0.1", 9092)]

    async def groups(self) -> list[ListedGroup]:
        return self.listed

    async def describe_group(self, group: str) -> GroupDescription | None:
        return self.groups_.get(group)

    async def committed(self, group: str) -> dict[TopicPartition, OffsetAndMetadata]:
        return self.stored

    async def topics(self) -> dict[str, list[Partition]]:
        found: dict[str, list[Partition]] = {}
        for tp in sorted({*self.ends, *self.leaderless}):
            leader = None if tp in self.leaderless else 1
            found.setdefault(tp.topic, []).append(Partition(tp, leader, (1, 2), (1,)))
        return found

    async def offsets(
        self, partitions: Iterable[Partition], *, committed_only: bool
    ) -> Mapping[TopicPartition, PartitionOffsets]:
        found: dict[TopicPartition, PartitionOffsets] = {}
        for partition in partitions:
            if partition.leader is not None:
                first, end = self.ends[partition.tp]
                stable = self.stable_ends.get(partition.tp, end)
                found[partition.tp] = PartitionOffsets(first, stable if committed_only else end)
        return found


@dataclass
class Asked:
    """Calls commands against a fake cluster."""

    cluster: FakeCluster

    def __call__(self, *arguments: str) -> Called:
        return invoke(*arguments, "--url", "kafka://fake:9092")

    def json(self, *arguments: str) -> Any:
        result = self(*arguments, "--json")
        assert (result.exit_code, result.stderr) == (0, ""), result.output
        return json.loads(result.stdout)


def billing(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """A group of two members, one of them static; orders[1] has no commit."""
    orders = [TopicPartition("orders", number) for number in range(4)]
    cluster = FakeCluster(
        groups_={
            "billing": GroupDescription(
                "billing",
                "Stable",
                "classic",
                "consumer",
                "range",
                (
                    member("bill", orders[0], orders[1]),
                    member("bob", orders[2], static="bob-1"),
                ),
            ),
            "idle": GroupDescription("idle", "Empty", "classic", "consumer", "", ()),
        },
        listed=[
            ListedGroup("billing", "Stable", "classic", "consumer"),
            ListedGroup("shared", "Stable", "share", "share"),
        ],
        stored={
            orders[0]: OffsetAndMetadata(0),
            orders[2]: OffsetAndMetadata(40, "by hand"),
        },
        ends={
            orders[0]: (0, 25),
            orders[1]: (10, 17),
            orders[2]: (0, 40),
            orders[3]: (0, 0),
            TopicPartition("__consumer_offsets", 0): (0, 9),
        },
    )
    monkeypatch.setattr(opening, "open_kafka", cluster.open)
    return Asked(cluster)
