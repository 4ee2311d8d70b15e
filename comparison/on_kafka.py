"""The same schedules on a real Kafka, as far as its clock and its logs allow.

On the memory of the two drivers a schedule may hold back an answer, refuse a
commit or let twenty minutes pass.  Here it cannot, and topics have no holes.
What is left runs with everything real: aiokafka and its thread below Faust,
kafka-python and its threads below this consumer.
"""

from __future__ import annotations

import itertools
import time
from typing import Any

from confluent_kafka import Producer

from tests.kafka import Cluster
from trio_consumer.transports import resolve

from .schedules import (
    CommitMeanwhile,
    HandOver,
    RefuseCommit,
    Schedule,
    Seek,
    WaitForStoppedFlow,
    Watch,
)

__all__ = ["QUIET", "KafkaWorld", "is_possible"]

QUIET = 4.0
"""Seconds of the real clock without a message after which no more is waited for."""

_serial = itertools.count(1)


def is_possible(schedule: Schedule) -> bool:
    """Whether a schedule needs nothing that only a broker in memory can do."""
    impossible = (CommitMeanwhile, HandOver, RefuseCommit, Watch)
    if any(isinstance(step, impossible) for step in schedule.steps):
        return False
    kinds = {type(step) for step in schedule.steps}
    if WaitForStoppedFlow in kinds and Seek not in kinds:
        return False  # what a client fetches is not seen from outside
    return all(list(offsets) == list(range(len(offsets))) for offsets in schedule.topics.values())


class KafkaWorld:
    """Topics and a group of their own for one run of a schedule."""

    def __init__(self, cluster: Cluster, schedule: Schedule) -> None:
        self._cluster = cluster
        self._schedule = schedule
        self._prefix = f"run-{time.time_ns()}-{next(_serial)}"
        self._producer: Any = Producer({"bootstrap.servers": cluster.bootstrap, "log_level": 2})
        self.bootstrap = cluster.bootstrap
        self.address = resolve(f"kafka://{cluster.bootstrap}")
        self.quiet = QUIET
        self.group = self._prefix
        for topic, offsets in schedule.topics.items():
            cluster.create_topic(self.name(topic))
            for offset in offsets:
                value = b"no JSON" if offset in schedule.not_json else b"%d" % offset
                self._producer.produce(self.name(topic), value, partition=0)
            self._producer.flush()
        if schedule.committed is not None:
            cluster.commit_for(self.group, self.name("t"), 0, schedule.committed)

    def name(self, topic: str) -> str:
        """What a topic of the schedule is called here."""
        return f"{self._prefix}-{topic}"

    def topic(self, name: str) -> str:
        """The reverse."""
        return name.removeprefix(f"{self._prefix}-")

    def produce(self, count: int) -> range:
        """So many records more in ``t``; their offsets."""
        end = self._cluster.end_offsets(self.name("t"))[0]
        for _ in range(count):
            self._producer.produce(self.name("t"), b"1", partition=0)
        self._producer.flush()
        return range(end, end + count)

    def committed(self) -> dict[str, int]:
        """What the group has committed, by topic."""
        stored = self._cluster.group_offsets(self.group)
        return {self.topic(name): offset for (name, _), (offset, _) in stored.items()}
