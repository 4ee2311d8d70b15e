"""Fixtures of every package of tests: a real Kafka, started when a test first asks for it.

They are bound here and nowhere else, so that one run starts one cluster of each kind.  A test
that asks for one carries the marker ``kafka``.
"""

from __future__ import annotations

from .kafka.fixtures import kafka_cluster, kafka_cluster_3, topic

__all__ = ["kafka_cluster", "kafka_cluster_3", "topic"]
