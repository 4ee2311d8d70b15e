"""Runs each case on the memory broker and (marker ``kafka``) a real one, on Trio and asyncio."""

from __future__ import annotations

from typing import Any

import pytest

from .backends import (
    AsyncioKafkaBackend,
    AsyncioMemoryBackend,
    Backend,
    ConfluentBackend,
    KafkaBackend,
    MemoryBackend,
)

CONFLUENT_CANNOT = {
    "test_partitions_that_stay_flow_while_others_are_handed_over": "librdkafka pauses everything"
    " that is assigned from the moment it calls back until the rebalance is completed",
    "test_largest_metadata_is_stored_and_larger_is_refused_for_good": "the client ends metadata"
    " with a zero byte on the wire, so one byte less is accepted",
    "test_topic_made_again_under_a_consumer_loses_its_first_records_to_nobody": "librdkafka reads"
    " on at the old offset of a topic that was made again (a FIXME in its rdkafka_topic.c), and its"
    " binding does not tell the identities of topics",
}
"""Cases that fail over confluent-kafka, with what is in the way."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Expect what the client cannot do to fail."""
    for item in items:
        if not isinstance(item, pytest.Function) or not hasattr(item, "callspec"):
            continue
        reason = CONFLUENT_CANNOT.get(item.originalname)
        if item.callspec.params.get("backend") == "confluent" and reason is not None:
            item.add_marker(pytest.mark.xfail(reason=reason, strict=True))


BACKENDS = {
    "memory": MemoryBackend,
    "memory-asyncio": AsyncioMemoryBackend,
    "kafka": KafkaBackend,
    "kafka-asyncio": AsyncioKafkaBackend,
    "confluent": ConfluentBackend,
}


@pytest.fixture(
    params=[
        pytest.param(name, marks=() if name.startswith("memory") else pytest.mark.kafka)
        for name in BACKENDS
    ]
)
def backend(request: pytest.FixtureRequest) -> Backend:
    """The broker to test against, the client to do it with, and the event loop of the case."""
    kind: Any = BACKENDS[request.param]
    if request.param.startswith("memory"):
        return kind()
    return kind(request.getfixturevalue("kafka_cluster"))
