"""Runs each case on the memory broker, and with the marker ``kafka`` on a real one."""

from __future__ import annotations

import pytest

from .backends import Backend, KafkaBackend, MemoryBackend


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.kafka)])
def backend(request: pytest.FixtureRequest) -> Backend:
    """The broker to test against."""
    if request.param == "memory":
        return MemoryBackend()
    return KafkaBackend(request.getfixturevalue("kafka_cluster"))
