"""The group protocol of KIP-848, where the broker computes the assignment."""

from __future__ import annotations

from collections import Counter

import pytest
import trio

from trio_consumer import TP, Consumer, open_consumer

from ...conformance.backends import ConfluentBackend, new_group
from ...conformance.support import numbered, wait_for
from ...kafka.cluster import Cluster

pytestmark = pytest.mark.kafka


def test_members_of_the_new_protocol_lose_and_double_nothing(kafka_cluster: Cluster) -> None:
    """A second member gets its share while messages are in hand, and all is committed."""
    backend = ConfluentBackend(kafka_cluster)

    async def main() -> None:
        topic, group = await backend.topic(4), new_group()
        for partition in range(4):
            await backend.produce(topic, numbered(100), partition)
        finished: Counter[tuple[int, int]] = Counter()

        async def member(
            *, task_status: trio.TaskStatus[Consumer] = trio.TASK_STATUS_IGNORED
        ) -> None:
            async with (
                open_consumer(
                    f"confluent://{kafka_cluster.bootstrap}",
                    group=group,
                    commit_interval=0.3,
                    client_options={"group.protocol": "consumer"},
                ) as consumer,
                consumer.stream(topic) as stream,
            ):
                task_status.started(consumer)
                async for message in stream:
                    await trio.sleep(0.02)
                    finished[message.partition, message.offset] += 1

        async with trio.open_nursery() as nursery:
            first = await nursery.start(member)
            await wait_for(lambda: len(finished) >= 20)
            assert len(first.assignment) == 4
            second = await nursery.start(member)
            await wait_for(lambda: len(second.assignment) == len(first.assignment) == 2)
            assert first.group_metadata.generation > 0
            await wait_for(lambda: len(finished) == 400)
            first.close()
            second.close()
        assert set(finished.values()) == {1}
        for partition in range(4):
            assert await backend.committed(group, TP(topic, partition)) == 100

    backend.run(main)
