"""Topics as what they are, not as what they are called: one that was made again is another."""

# kafka-python has no types; the stubs that pyright brings are of an older one.
# pyright: basic, reportAttributeAccessIssue=false, reportCallIssue=false

from __future__ import annotations

from typing import Any

from kafka import KafkaConsumer, errors

from ...._types import TopicPartition

__all__ = [
    "make_topics",
    "refresh_metadata",
    "remade_topics",
    "reset_positions",
    "watch_commits",
]


def watch_commits(consumer: KafkaConsumer, missing: set[TopicPartition]) -> None:
    """Note which partitions the broker did not know when it was last sent a commit.

    The client goes on sending until its time is up, and reports a time-out; the
    broker has stored the other partitions each time.
    """
    coordinator = consumer._coordinator
    handle = coordinator._handle_offset_commit_response

    def watched(offsets: Any, send_time: float, response: Any) -> Any:
        missing.clear()
        missing.update(
            TopicPartition(topic, partition)
            for topic, partitions in response.topics
            for partition, code in partitions
            if code == errors.UnknownTopicOrPartitionError.errno
        )
        return handle(offsets, send_time, response)

    coordinator._handle_offset_commit_response = watched


def remade_topics(consumer: KafkaConsumer, known: dict[str, object]) -> set[str]:
    """Topics that have another identity than when they were last seen.

    Args:
        consumer: The client.
        known: Identities by name, kept from call to call.
    """
    remade = set()
    identity = consumer._cluster.topic_id
    for topic in {tp.topic for tp in consumer._subscription.assignment}:
        now = identity(topic)
        if now is not None and known.setdefault(topic, now) != now:
            known[topic] = now
            remade.add(topic)
    return remade


def reset_positions(consumer: KafkaConsumer, topics: set[str]) -> None:
    """Have the partitions of some topics read from where the reset policy says.

    The client reads names: after a topic was deleted and made again between two
    looks at the metadata, it would go on at the old position and skip what the new
    topic has before it.  Call it in the polling thread.

    Raises:
        kafka.errors.OffsetOutOfRangeError: There is no policy.
    """
    subscription = consumer._subscription
    for tp, state in list(subscription.assignment.items()):
        if tp.topic in topics and state.position is not None:
            if not subscription.has_default_offset_reset_policy():
                raise errors.OffsetOutOfRangeError({tp: state.position.offset})
            subscription.request_offset_reset(tp)


def refresh_metadata(consumer: KafkaConsumer, timeout_ms: int) -> None:
    """Wait for fresh metadata of the subscribed topics, before the first join.

    The client remembers the partitions that it knew of when the group was last
    assigned, and joins again when that changes.  If it joins before the
    metadata of a new subscription has come, every start costs the whole group
    a second rebalance (3.0.12; for patterns it waits by itself).

    Raises:
        kafka.errors.KafkaError: No answer in time; joining works all the same.
    """
    update = consumer._cluster.request_update()
    consumer._net.run(consumer._manager.wait_for, update, timeout_ms)


def make_topics(client: Any, allowed: bool) -> None:
    """Say whether a broker may make a topic because its metadata are asked for.

    The client has ``allow_auto_create_topics`` and does not pass it on (3.0.12): on a
    broker that makes topics, which is Kafka's default, a topic that was deleted under
    a running consumer was back at once, with the broker's number of partitions.
    """
    client.cluster.config["allow_auto_create_topics"] = allowed
