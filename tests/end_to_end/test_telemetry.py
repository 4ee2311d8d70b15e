"""OpenTelemetry from a producer through a real Kafka to a consumer, on each transport."""

from __future__ import annotations

import itertools

import pytest
import trio
from confluent_kafka import Producer

from trio_consumer import open_consumer
from trio_consumer.opentelemetry import instrument, traced

from ..kafka.cluster import Cluster
from ..kafka.fixtures import TopicFactory
from ..opentelemetry.support import PARENT, SPAN_ID, TRACE_ID, Telemetry

pytestmark = pytest.mark.kafka

_serial = itertools.count(1)


@pytest.mark.parametrize("scheme", ["kafka", "confluent"])
def test_trace_of_a_producer_goes_on_in_the_consumer(
    scheme: str, kafka_cluster: Cluster, topic: TopicFactory
) -> None:
    """By the header of a record; an exporter's thread reads the gauges, the last commit counts."""
    telemetry, group, name = Telemetry(), f"telemetry-{next(_serial)}", topic(1)
    producer = Producer({"bootstrap.servers": kafka_cluster.bootstrap})
    for n in range(10):
        producer.produce(name, b"%d" % n, headers=[PARENT])
    producer.flush(30)

    async def main() -> None:
        with trio.fail_after(120):
            async with (
                open_consumer(
                    f"{scheme}://{kafka_cluster.bootstrap}", group=group, commit_interval=1000
                ) as consumer,
                instrument(consumer, **telemetry.providers),
                consumer.stream(name, ack="manual") as stream,
            ):
                async for message in stream:
                    async with traced(message):
                        pass
                    if message.offset == 8:
                        break
                collected = await trio.to_thread.run_sync(telemetry.collect)
                [unfinished] = collected["trio_consumer.partition.unfinished"]
                assert unfinished.value == 1
                [replay] = collected["trio_consumer.partition.replay"]
                assert replay.value == 10
                assert collected["trio_consumer.commits"][0].value == 0

    trio.run(main)
    spans = telemetry.spans(f"process {name}")
    assert [(span.attributes or {})["messaging.kafka.offset"] for span in spans] == [*range(9)]
    for span in spans:
        assert span.parent is not None
        assert (span.parent.trace_id, span.parent.span_id) == (TRACE_ID, SPAN_ID)
    assert len(telemetry.spans(f"commit {name}")) == 1
    collected = telemetry.collect()
    assert collected["trio_consumer.commits"][0].value == 1
    assert sum(p.value for p in collected["messaging.client.consumed.messages"]) == 9
    [stored] = kafka_cluster.group_offsets(group).values()
    assert stored[0] == 9
