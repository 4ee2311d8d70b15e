"""JSON as objects with types: msgspec, pydantic and dataclasses.

Each deserializer is a function of bytes.  What it raises is told with the place of the message;
here such messages are left out, with a warning in the log::

    python -m examples.json_deserializers kafka://localhost:9092
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass

import msgspec
import pydantic
import trio

from trio_consumer import open_consumer


class Order(msgspec.Struct):
    """What the values of the topic are; what has no such fields is refused."""

    id: int
    amount: float
    note: str = ""


class CheckedOrder(pydantic.BaseModel):
    """The same with pydantic, which can hold values to bounds as well."""

    id: int
    amount: float = pydantic.Field(gt=0)
    note: str = ""


@dataclass(frozen=True)
class PlainOrder:
    """The same with the standard library, which compares no types by itself."""

    id: int
    amount: float
    note: str = ""


from_msgspec = msgspec.json.Decoder(Order).decode

from_pydantic = CheckedOrder.model_validate_json


def from_dataclass(data: bytes) -> PlainOrder:
    """Make an order of JSON: a TypeError for fields that are missing or too many."""
    return PlainOrder(**json.loads(data))


async def main(url: str) -> None:
    """Print each order, and each that was cancelled."""
    async with (
        open_consumer(url, group="billing") as consumer,
        consumer.stream(
            "orders",
            key_deserializer=bytes.decode,
            value_deserializer=from_msgspec,
            on_decode_error="skip",
        ) as orders,
    ):
        async for message in orders:
            if message.value is None:  # a tombstone: no deserializer is called for it
                print(f"{message.key} was cancelled", flush=True)
            else:
                print(f"{message.key}: {message.value.amount:.2f}", flush=True)


if __name__ == "__main__":
    trio.run(main, sys.argv[1])
