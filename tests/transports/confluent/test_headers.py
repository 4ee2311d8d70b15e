"""Headers as librdkafka hands them out."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from kafka import KafkaProducer

from trio_consumer import open_consumer
from trio_consumer.opentelemetry import process_span

from ...conformance.backends import ConfluentBackend, new_group
from ...kafka.cluster import Cluster

pytestmark = pytest.mark.kafka


class NoText(str):
    """A name that goes over the wire as bytes that are no UTF-8."""

    __slots__ = ()

    def encode(self, *arguments: Any, **named: Any) -> bytes:
        return b"\xff\xfe"


def test_header_with_a_name_that_is_no_text_harms_no_other_record(kafka_cluster: Cluster) -> None:
    """An error comes to who looks at these headers, and to nobody else."""
    backend = ConfluentBackend(kafka_cluster)

    async def main() -> None:
        topic = await backend.topic(1)
        producer = KafkaProducer(bootstrap_servers=kafka_cluster.bootstrap)
        for name in ("good", NoText("bad"), None):
            headers = [] if name is None else [(name, b"1")]
            producer.send(topic, b"value", headers=headers).get(30)
        producer.close()
        got = []
        async with (
            open_consumer(f"confluent://{kafka_cluster.bootstrap}", group=new_group()) as consumer,
            consumer.stream(topic) as stream,
        ):
            with trio.fail_after(60):
                async for message in stream:
                    got.append(message)
                    if len(got) == 3:
                        break
        assert [message.value for message in got] == [b"value"] * 3
        assert list(got[0].headers) == [("good", b"1")]
        assert list(got[2].headers) == []
        with pytest.raises(ValueError, match="offset 1: the name of a header is no UTF-8"):
            list(got[1].headers)
        with process_span(got[1]):  # it only looks for the context of a trace
            pass

    backend.run(main)
