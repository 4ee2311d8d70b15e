"""Runs each case on the memory broker, and with the marker ``kafka`` on a real one."""

from __future__ import annotations

import pytest

from .backends import Backend, ConfluentBackend, KafkaBackend, MemoryBackend


@pytest.fixture(
    params=[
        "memory",
        pytest.param("kafka", marks=pytest.mark.kafka),
        pytest.param("confluent", marks=pytest.mark.kafka),
    ]
)
def backend(request: pytest.FixtureRequest) -> Backend:
    """The broker to test against."""
    if request.param == "memory":
        return MemoryBackend()
    kind = KafkaBackend if request.param == "kafka" else ConfluentBackend
    return kind(request.getfixturevalue("kafka_cluster"))
