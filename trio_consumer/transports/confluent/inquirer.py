"""Questions about offsets and topics, asked by a client of their own.

While one thread is in a method of a confluent-kafka consumer, every other method
waits in the other threads (2.16), and a poll loop is in one all the time.  So
whatever blocks is asked by a second client, which subscribes to nothing and is no
member of the group.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaError, KafkaException
from confluent_kafka import TopicPartition as ClientPartition

from ..._types import OffsetAndMetadata, TopicPartition
from .internals import partitions
from .translate import is_refusal

__all__ = ["Inquirer", "RefusedError"]

SLICE = 0.2
"""Seconds between two looks at whether an attempt to connect was given up."""


class RefusedError(Exception):
    """A broker answered that it does not want us; the client's error is the argument."""


class Inquirer:
    """Asks; every method blocks, and one thread at a time may be in one.

    Args:
        options: What the client is made with.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        self._errors: list[Any] = []
        self._client = Consumer({**options, "error_cb": self._errors.append})

    def connect(self, timeout: float, given_up: Callable[[], bool]) -> str | None:
        """Wait until a broker answers.

        Args:
            timeout: Seconds.
            given_up: Whether to stop trying.

        Returns:
            None if one did, else the last reason why not.

        Raises:
            RefusedError: It refused who we are.
        """
        deadline = time.monotonic() + timeout
        reason = "no answer"
        while True:
            left = deadline - time.monotonic()
            if left <= 0 or given_up():
                return reason
            try:
                # Of one topic, or it would be the metadata of all of them.
                self._client.list_topics("__consumer_offsets", timeout=min(SLICE, left))
            except KafkaException as exc:
                self._client.poll(0)  # calls back with the reasons
                for error in self._errors:
                    if is_refusal(error):
                        raise RefusedError(error) from exc
                if self._errors:
                    reason = self._errors[-1].str()
                self._errors.clear()
                code = exc.args[0].code()
                if code not in (KafkaError._TIMED_OUT, KafkaError._TRANSPORT):
                    raise
            else:
                return None

    def close(self) -> None:
        """Close the client."""
        self._client.close()

    def committed(
        self, tps: Collection[TopicPartition], timeout: float
    ) -> dict[TopicPartition, OffsetAndMetadata]:
        """What the group has committed; without those that have nothing."""
        self._begin()
        found = {}
        for stored in self._client.committed(partitions(tps), timeout=timeout):
            _check(stored)
            if stored.offset >= 0:
                epoch: Any = stored.leader_epoch  # None if unknown, whatever its type says
                found[_tp(stored)] = OffsetAndMetadata(
                    stored.offset,
                    stored.metadata or "",
                    -1 if epoch is None else epoch,
                )
        return found

    def beginning_offsets(
        self, tps: Collection[TopicPartition], timeout: float
    ) -> dict[TopicPartition, int]:
        """The first offset of each partition."""
        return self._offsets(tps, OFFSET_BEGINNING, timeout)

    def end_offsets(
        self, tps: Collection[TopicPartition], timeout: float
    ) -> dict[TopicPartition, int]:
        """The end of each partition, of what is committed if read_committed."""
        return self._offsets(tps, OFFSET_END, timeout)

    def _offsets(
        self, tps: Collection[TopicPartition], which: int, timeout: float
    ) -> dict[TopicPartition, int]:
        self._begin()
        # One request a broker; the ends are times of their own to the protocol.
        answers = self._client.offsets_for_times(partitions(tps, which), timeout=timeout)
        for answer in answers:
            _check(answer)
        return {_tp(answer): answer.offset for answer in answers}

    def topics(self, timeout: float) -> frozenset[str]:
        """The topics of the cluster."""
        self._begin()
        found = self._client.list_topics(timeout=timeout).topics
        return frozenset(name for name, topic in found.items() if topic.error is None)

    def partitions_for(self, topic: str, timeout: float) -> frozenset[int]:
        """The partitions of a topic; empty if there is none of the name."""
        self._begin()
        found = self._client.list_topics(topic, timeout=timeout).topics.get(topic)
        if found is None:
            return frozenset()
        error = found.error
        if error is None or error.code() == KafkaError.LEADER_NOT_AVAILABLE:
            return frozenset(found.partitions)
        if error.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.TOPIC_EXCEPTION):
            return frozenset()
        raise KafkaException(error)

    def _begin(self) -> None:
        # Nobody polls this client: let it forget what went wrong since.
        self._client.poll(0)
        self._errors.clear()


def _tp(partition: ClientPartition) -> TopicPartition:
    return TopicPartition(partition.topic, partition.partition)


def _check(partition: ClientPartition) -> None:
    if partition.error is not None:
        raise KafkaException(partition.error)
