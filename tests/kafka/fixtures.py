"""Fixtures for tests against a real Kafka; `tests/conftest.py` imports them by name.

They never skip. Where Kafka is unavailable the tests fail with the reason and the remedy, in a
build service and at a desk alike; whoever wants to do without deselects the marker `kafka`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Protocol

import pytest

from .cluster import Cluster
from .properties import Value

_serial = itertools.count(1)


class TopicFactory(Protocol):
    """Makes topics with names that no other test uses; see `Cluster.create_topic`."""

    def __call__(
        self,
        partitions: int = 1,
        *,
        replication: int | None = None,
        config: Mapping[str, Value] | None = None,
        cluster: Cluster | None = None,
    ) -> str:
        """Create a topic, on the single-node cluster unless `cluster` is given; return its name."""
        ...


@pytest.fixture(scope="session")
def kafka_cluster() -> Iterator[Cluster]:
    """A cluster of one node for the whole session: leave it running as you found it."""
    with Cluster(nodes=1) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def kafka_cluster_3() -> Iterator[Cluster]:
    """A cluster of three nodes for the whole session: leave all of them running."""
    with Cluster(nodes=3) as cluster:
        yield cluster


@pytest.fixture
def topic(request: pytest.FixtureRequest) -> TopicFactory:
    """A function that creates a topic named after the test; see `TopicFactory`."""
    # Kafka allows these characters and 249 of them.
    test = re.sub(r"[^A-Za-z0-9_-]+", "-", request.node.name)[:100]

    def create(
        partitions: int = 1,
        *,
        replication: int | None = None,
        config: Mapping[str, Value] | None = None,
        cluster: Cluster | None = None,
    ) -> str:
        target: Cluster = cluster or request.getfixturevalue("kafka_cluster")
        name = f"{test}-{next(_serial)}"
        target.create_topic(name, partitions, replication, config)
        return name

    return create
