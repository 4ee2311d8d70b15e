"""What cannot be processed goes to a topic of its own, and only then it is finished.

    python -m examples.dead_letters localhost:9092

A value that is no JSON goes there at once, a message whose handler fails after five attempts.
See docs/dead-letters.md.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, NamedTuple, Protocol

import trio
from kafka import KafkaProducer

from trio_consumer import DeserializationError, Message, open_consumer

DEAD = "orders.dead"
ATTEMPTS = 5
FIRST_WAIT = 0.5  # seconds; doubled each time, so that 7.5 s pass at most


class Send(Protocol):
    """Produces a record, and returns when the broker has it."""

    def __call__(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None,
        headers: list[tuple[str, bytes]],
    ) -> Awaitable[object]:
        """Produce it."""


class Order(NamedTuple):
    """A value, and the bytes that it was made of: they are what a dead letter consists of."""

    raw: bytes
    fields: dict[str, Any]


def decode(data: bytes) -> Order:
    """The value_deserializer of the stream."""
    return Order(data, json.loads(data))


async def charge(order: dict[str, Any]) -> None:
    """Stands for the work, which may fail now and then, or always."""
    await trio.sleep(0.01)
    print("charged", order["id"], flush=True)


def dead_headers(message: Message, error: BaseException | None) -> list[tuple[str, bytes]]:
    """The headers of the message, where it came from, and why it is here."""
    kept = [(name, value or b"") for name, value in message.headers]
    place = f"{message.tp}@{message.offset}"
    why = f"{type(error).__name__}: {error}"
    return [*kept, ("dead.source", place.encode()), ("dead.error", why.encode())]


async def insist(work: Callable[[], Awaitable[None]]) -> None:
    """Try some times, with longer and longer waits; the last failure is raised."""
    for attempt in range(1, ATTEMPTS):
        try:
            return await work()
        except Exception:  # a cancellation is none, it goes through
            await trio.sleep(FIRST_WAIT * 2 ** (attempt - 1))
    await work()


async def consume(url: str, send: Send) -> None:
    """Charge each order, or send it to the dead."""

    async def undecodable(error: DeserializationError, message: Message) -> None:
        headers = dead_headers(message, error.__cause__)
        await send(DEAD, message.value, key=message.key, headers=headers)

    async with (
        open_consumer(url, group="billing") as consumer,
        consumer.stream("orders", value_deserializer=decode, on_decode_error=undecodable) as orders,
    ):
        async for message in orders:
            # Ends the waiting, too, when the partition goes to another member.
            with message.while_assigned():
                try:
                    await insist(partial(charge, message.value.fields))
                except Exception as exc:
                    headers = dead_headers(message, exc)
                    await send(DEAD, message.value.raw, key=message.key, headers=headers)
            # The loop comes back: only now the message is finished.


async def main(brokers: str) -> None:
    """Consume from a Kafka, and produce to it with kafka-python."""
    producer = KafkaProducer(bootstrap_servers=brokers.split(","), acks="all")

    async def send(topic: str, value: bytes | None, **more: Any) -> None:
        def wait() -> None:
            producer.send(topic, value, **more).get(timeout=30)

        await trio.to_thread.run_sync(wait)

    try:
        await consume(f"kafka://{brokers}", send)
    finally:
        producer.close(timeout=5)


if __name__ == "__main__":
    trio.run(main, sys.argv[1])
