"""Topics as what they are, not as what they are called: one that was made again is another."""

# kafka-python has no types; the stubs that pyright brings are of an older one.
# pyright: basic, reportAttributeAccessIssue=false, reportCallIssue=false

from __future__ import annotations

from typing import Any

from kafka import KafkaConsumer, errors

from ...._types import TopicPartition

__all__ = [
    "CommitWatch",
    "make_topics",
    "refresh_metadata",
    "remade_topics",
    "reset_positions",
    "watch_commits",
]


class CommitWatch:
    """What became of a commit; there is one at a time.

    Attributes:
        identities: Of the topics that were read when it began, by name.
        missing: Partitions that the broker did not know when it was last asked.
        remade: Partitions whose topic was made again meanwhile; never sent to it.
    """

    def __init__(self) -> None:
        self.identities: dict[str, object] = {}
        self.missing: set[TopicPartition] = set()
        self.remade: set[TopicPartition] = set()

    def begin(self, identities: dict[str, object]) -> None:
        """Before each commit."""
        self.identities = identities.copy()
        self.missing.clear()
        self.remade.clear()


TOPIC_LOOK_MS = 2000
"""Milliseconds to wait for metadata, before a commit is sent again."""


def watch_commits(consumer: KafkaConsumer, watch: CommitWatch) -> None:
    """Note which partitions the broker did not know, and commit nothing to a successor.

    The client goes on sending until its time is up, and reports a time-out; the broker
    has stored the other partitions each time.  If a topic that was deleted is made again
    in that time, the broker takes the old offsets for the new topic, and who gets it next
    skips what is below.  So where the broker did not know a partition, or the metadata
    have not the topic that was read, it is sent only if newer metadata have that one.
    """
    coordinator, cluster = consumer._coordinator, consumer._cluster
    send, handle = (
        coordinator._send_offset_commit_request,
        coordinator._handle_offset_commit_response,
    )

    def watched(offsets: Any, send_time: float, response: Any) -> Any:
        watch.missing.clear()
        watch.missing.update(
            TopicPartition(topic, partition)
            for topic, partitions in response.topics
            for partition, code in partitions
            if code == errors.UnknownTopicOrPartitionError.errno
        )
        return handle(offsets, send_time, response)

    def is_doubtful(tp: Any) -> bool:
        read = watch.identities.get(tp.topic)
        return read is not None and (
            tp in watch.missing
            or (tp.topic in cluster._topics and cluster.topic_id(tp.topic) != read)
        )

    async def send_to_what_was_read(offsets: Any) -> None:
        doubtful = {tp for tp in offsets if is_doubtful(tp)}
        if doubtful:
            try:
                await coordinator._manager.wait_for(cluster.request_update(), TOPIC_LOOK_MS)
            except errors.KafkaTimeoutError as exc:
                raise errors.UnknownTopicOrPartitionError from exc
            except errors.KafkaError:
                pass  # that of the only topic; the metadata have come
        absent = {tp for tp in doubtful if cluster.topic_id(tp.topic) is None}
        watch.remade.update(
            TopicPartition(*tp)
            for tp in doubtful - absent
            if cluster.topic_id(tp.topic) != watch.identities[tp.topic]
        )
        held = absent | watch.remade
        await send({tp: stored for tp, stored in offsets.items() if tp not in held})
        if absent:
            watch.missing.update(TopicPartition(*tp) for tp in absent)
            raise errors.UnknownTopicOrPartitionError  # have it tried again

    coordinator._send_offset_commit_request = send_to_what_was_read
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


def reset_positions(consumer: KafkaConsumer, topics: set[str]) -> set[TopicPartition]:
    """Have the partitions of some topics read from where the reset policy says.

    The client reads names: after a topic was deleted and made again between two
    looks at the metadata, it would go on at the old position and skip what the new
    topic has before it.  A position that is still to come would be the old one too, if
    the group has not forgotten it yet.  Call it in the polling thread, or in the IO thread
    while partitions are being assigned.

    Returns:
        These partitions.

    Raises:
        kafka.errors.OffsetOutOfRangeError: There is no policy.
    """
    subscription = consumer._subscription
    reset = set()
    for tp, state in list(subscription.assignment.items()):
        if tp.topic not in topics:
            continue
        if subscription.has_default_offset_reset_policy():
            subscription.request_offset_reset(tp)
            reset.add(TopicPartition(*tp))
        elif state.position is not None:
            raise errors.OffsetOutOfRangeError({tp: state.position.offset})
    return reset


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
