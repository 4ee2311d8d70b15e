"""End-to-end tests: real Kafka, real processes, real time."""

from __future__ import annotations

from ..kafka.fixtures import kafka_cluster, topic

__all__ = ["kafka_cluster", "topic"]
