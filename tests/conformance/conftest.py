"""Runs each case on the memory broker and (marker ``kafka``) a real one, on Trio and asyncio."""

from __future__ import annotations

import pytest

from .backends import (
    AsyncioKafkaBackend,
    AsyncioMemoryBackend,
    Backend,
    KafkaBackend,
    MemoryBackend,
)


@pytest.fixture(
    params=[
        "memory",
        "memory-asyncio",
        pytest.param("kafka", marks=pytest.mark.kafka),
        pytest.param("kafka-asyncio", marks=pytest.mark.kafka),
    ]
)
def backend(request: pytest.FixtureRequest) -> Backend:
    """The broker to test against, and the event loop of the case."""
    if request.param == "memory":
        return MemoryBackend()
    if request.param == "memory-asyncio":
        return AsyncioMemoryBackend()
    cluster = request.getfixturevalue("kafka_cluster")
    return KafkaBackend(cluster) if request.param == "kafka" else AsyncioKafkaBackend(cluster)
