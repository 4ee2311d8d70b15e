"""Avro behind a schema registry, read with confluent-kafka's own deserializer.

    pip install 'confluent-kafka[avro,schemaregistry]'
    python -m examples.schema_registry kafka://localhost:9092 http://localhost:8081

That deserializer wants a context with each call and asks the registry for each schema that it
has not seen, waiting with the whole thread.  So it gets its context here once and for all, and
the schemas of the topic are fetched in another thread before the first message is.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import httpx2
import trio
from confluent_kafka.schema_registry import SchemaRegistryClient, SchemaRegistryError
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

from trio_consumer import DeserializationError, Message, open_consumer


def in_topic(
    deserializer: Callable[[bytes, SerializationContext], Any],
    topic: str,
    field: MessageField = MessageField.VALUE,
) -> Callable[[bytes], Any]:
    """Give a deserializer of confluent-kafka its context, so that it is a function of bytes."""
    context = SerializationContext(topic, field)
    return lambda data: deserializer(data, context)


def fetch_schemas(registry: SchemaRegistryClient, subject: str) -> None:
    """Have the client know every schema of a subject; it keeps them."""
    for version in registry.get_versions(subject):
        registry.get_version(subject, version)


def registry_failed(error: DeserializationError) -> bool:
    """Whether the registry is to blame, and not the message: another time it may be read."""
    cause = error.__cause__
    if isinstance(cause, SchemaRegistryError):
        return bool(cause.http_status_code != 404)  # 404: there is no such schema
    return isinstance(cause, httpx2.TransportError)


async def skip_bad_data(error: DeserializationError, message: Message) -> None:
    """Finish a message that nobody can read; raise if that is not known."""
    if registry_failed(error):
        raise error
    print(f"skipped: {error}", file=sys.stderr)


async def main(url: str, registry_url: str) -> None:
    """Print each order."""
    with SchemaRegistryClient.new_client(
        {"url": registry_url, "timeout": 5, "max.retries": 0}
    ) as registry:
        await trio.to_thread.run_sync(fetch_schemas, registry, "orders-value")
        topic_names = {"subject.name.strategy.type": "TOPIC"}
        avro = AvroDeserializer(registry, conf=topic_names)
        async with (
            open_consumer(url, group="billing") as consumer,
            consumer.stream(
                "orders",
                value_deserializer=in_topic(avro, "orders"),
                on_decode_error=skip_bad_data,
            ) as orders,
        ):
            async for message in orders:
                print(message.value, flush=True)


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2])
