"""Topics that are deleted and made again under a consumer of a real Kafka."""

from __future__ import annotations

import itertools
import logging

import pytest
import trio

from trio_consumer import TP, open_consumer

from ..kafka.cluster import Cluster
from ..kafka.fixtures import TopicFactory
from ..kafka.produce import produce_numbered
from .test_trouble import take

pytestmark = pytest.mark.kafka

_serial = itertools.count(1)


@pytest.mark.parametrize("partitions", [1, 2])
def test_commit_that_goes_on_meanwhile_does_not_reach_the_new_topic(
    kafka_cluster: Cluster,
    topic: TopicFactory,
    caplog: pytest.LogCaptureFixture,
    partitions: int,
) -> None:
    """Whoever got its offset there would skip what lies below."""
    name, group = topic(partitions), f"remade-{next(_serial)}"
    produce_numbered(kafka_cluster.bootstrap, name, 5 * partitions, partitions)
    tps = [TP(name, number) for number in range(partitions)]

    async def main() -> None:
        async with (
            open_consumer(
                f"kafka://{kafka_cluster.bootstrap}",
                group=group,
                commit_interval=1000.0,
                commit_timeout=30.0,
                # It learns of the deletion from nobody else.
                client_options={"metadata_max_age_ms": 600_000},
            ) as consumer,
            consumer.stream(name) as stream,
            trio.open_nursery() as nursery,
        ):
            await take(stream, 5 * partitions)
            await trio.to_thread.run_sync(kafka_cluster.delete_topic, name)
            over = trio.Event()

            async def commit() -> None:
                await consumer.commit()
                over.set()

            nursery.start_soon(commit)
            watch = consumer._session._watch  # type: ignore[attr-defined]
            with trio.fail_after(20):
                while not watch.missing:
                    await trio.sleep(0.01)
            await trio.to_thread.run_sync(kafka_cluster.create_topic, name, partitions)
            produce_numbered(kafka_cluster.bootstrap, name, 20 * partitions, partitions)
            with trio.fail_after(60):
                await over.wait()
            stored = kafka_cluster.group_offsets(group)
            assert not stored, "that of the old topic"
            assert "not committed for the group" in caplog.text
            # What lies above the old position may come before that is found out, and some
            # of the new one twice.
            missing = {(tp.partition, offset) for tp in tps for offset in range(20)}

            async def read() -> None:
                async for message in stream:
                    missing.discard((message.partition, message.offset))

            nursery.start_soon(read)
            with trio.fail_after(60):
                while missing or {each[0] for each in stored.values()} != {20}:
                    await consumer.commit()
                    stored = await trio.to_thread.run_sync(kafka_cluster.group_offsets, group)
            nursery.cancel_scope.cancel()

    caplog.set_level(logging.WARNING, "trio_consumer")
    trio.run(main)
