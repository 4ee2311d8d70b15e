"""The page about deserializers: JSON with types, Avro and Protobuf behind a schema registry."""

from __future__ import annotations

import io
import json
import re
import struct
from collections.abc import Callable, Iterator
from typing import Any

import fastavro
import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.protobuf import ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from trio_consumer import DeserializationError, open_consumer

from .registry import Registry, serving
from .support import Address, block_with, run_until

SCHEMAS: list[dict[str, Any]] = [
    {"type": "record", "name": "Order", "fields": [{"name": "id", "type": "long"}]},
    {
        "type": "record",
        "name": "Order",
        "fields": [{"name": "id", "type": "long"}, {"name": "amount", "type": "double"}],
    },
]


def framed(number: int, order: dict[str, Any]) -> bytes:
    """An order in Avro as a registry's serializer writes it: magic byte, id of the schema."""
    out = io.BytesIO(struct.pack(">bI", 0, number))
    out.seek(5)
    fastavro.schemaless_writer(out, SCHEMAS[number - 1], order)
    return out.getvalue()


@pytest.fixture
def registry() -> Iterator[Registry]:
    """A registry with two versions of the schema of the orders."""
    with serving(Registry("orders-value", [json.dumps(each) for each in SCHEMAS])) as it:
        yield it


@pytest.mark.parametrize("name", ["from_msgspec", "from_pydantic", "from_dataclass"])
def test_json_becomes_an_object_with_types(name: str) -> None:
    """Fields are those of the JSON, and what lacks one is refused."""
    from examples import json_deserializers

    decode: Callable[[bytes], Any] = getattr(json_deserializers, name)
    order = decode(b'{"id": 7, "amount": 2.5}')
    assert (order.id, order.amount, order.note) == (7, 2.5, "")
    with pytest.raises((TypeError, ValueError)):
        decode(b'{"id": 7}')


def test_program_for_json_prints_skips_and_commits(
    address: Address, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """A tombstone reaches the loop as None, a value without an amount is left out and logged."""
    from examples import json_deserializers

    address.broker.create_topic("orders")
    for key, value in [
        (b"1", b'{"id": 1, "amount": 2.5}'),
        (b"2", b'{"id": 2}'),
        (b"\xff", b'{"id": 3, "amount": 1}'),
        (b"1", None),
    ]:
        address.broker.produce("orders", value, key=key)
    run_until(
        json_deserializers.main,
        address.url,
        done=lambda: address.committed("billing", "orders") == 4,
    )
    assert capsys.readouterr().out == "1: 2.50\n1 was cancelled\n"
    warnings = [record.getMessage() for record in caplog.records]
    assert re.match(r"orders\[0\] offset 1 is skipped, .* its value cannot", warnings[0])
    assert re.match(r"orders\[0\] offset 2 is skipped, .* its key cannot", warnings[1])
    assert len(warnings) == 2


def test_program_for_avro_asks_the_registry_before_it_reads(
    address: Address, registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both versions are known when their messages come; what was written without one is skipped."""
    from examples import schema_registry

    address.broker.create_topic("orders")
    values = [framed(1, {"id": 1}), b"plain", framed(2, {"id": 2, "amount": 2.5})]
    address.broker.produce_many("orders", values)
    printed = ""

    def done() -> bool:
        nonlocal printed
        printed += capsys.readouterr().out
        return printed.count("\n") == 2

    run_until(schema_registry.main, address.url, registry.url, done=done, virtual=False)
    assert printed == "{'id': 1}\n{'id': 2, 'amount': 2.5}\n"
    assert address.committed("billing", "orders") == 3
    # No message waited for an answer.
    versions = "/subjects/orders-value/versions"
    assert registry.asked == [versions, f"{versions}/1", f"{versions}/2"]


@pytest.mark.parametrize("trouble", ["refuses", "gone"])
def test_message_stays_unfinished_when_the_registry_fails(
    address: Address, registry: Registry, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    """A schema that is unknown here and cannot be fetched is no fault of the message."""
    from examples import schema_registry

    address.broker.create_topic("orders")
    address.broker.produce_many("orders", [framed(1, {"id": 1}), framed(2, {"id": 2, "amount": 1})])

    def fetch_first(client: SchemaRegistryClient, subject: str) -> None:
        client.get_version(subject, 1)
        registry.away = True
        if trouble == "gone":
            registry.stop()

    monkeypatch.setattr(schema_registry, "fetch_schemas", fetch_first)
    with pytest.raises(DeserializationError, match=r"the value of orders\[0\] offset 1"):
        run_until(
            schema_registry.main, address.url, registry.url, done=lambda: False, virtual=False
        )
    assert address.committed("billing", "orders") == 1


def generated_class() -> type[Any]:
    """What ``protoc`` would generate for a message with a number and a text."""
    field = descriptor_pb2.FieldDescriptorProto
    number = field(name="id", number=1, type=field.TYPE_INT64, label=field.LABEL_OPTIONAL)
    text = field(name="note", number=2, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)
    file = descriptor_pb2.FileDescriptorProto(
        name="recipes_order.proto",
        package="recipes",
        syntax="proto3",
        message_type=[descriptor_pb2.DescriptorProto(name="Order", field=[number, text])],
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("recipes.Order"))


def test_deserializer_of_protobuf_takes_the_same_adapter(address: Address) -> None:
    """As the page has it: the example with another deserializer."""
    from examples.schema_registry import in_topic, skip_bad_data

    order_class = generated_class()
    registry = SchemaRegistryClient.new_client({"url": "mock://"})
    context = SerializationContext("orders", MessageField.VALUE)
    data = ProtobufSerializer(order_class, registry)(order_class(id=7, note="soon"), context)
    address.broker.create_topic("orders")
    address.broker.produce_many("orders", [data, b"plain", data[:-1]])
    source = block_with("docs/deserializing.md", "ProtobufDeserializer")
    names: dict[str, Any] = {"registry": registry, "Order": order_class, "in_topic": in_topic}
    program = re.sub(r"^from orders_pb2 import Order\n", "", source, flags=re.MULTILINE)
    exec(compile(program, "docs/deserializing.md", "exec"), names)
    read: list[Any] = []

    async def main() -> None:
        async with (
            open_consumer(address.url, group="billing") as consumer,
            consumer.stream(
                "orders", value_deserializer=names["decode"], on_decode_error=skip_bad_data
            ) as orders,
        ):
            async for message in orders:
                read.append((message.value.id, message.value.note))

    run_until(main, done=lambda: address.committed("billing", "orders") == 3)
    assert read == [(7, "soon")]
