"""What the tests of this face share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from trio_consumer import TP
from trio_consumer.anyio import Message, Stream
from trio_consumer.testing import MemoryBroker

Run = Callable[[Callable[[], Awaitable[Any]]], Any]
T0, T1 = TP("t", 0), TP("t", 1)


def broker(records: int = 10, partitions: int = 1) -> MemoryBroker:
    made = MemoryBroker()
    made.create_topic("t", partitions)
    for n in range(partitions):
        made.produce_many("t", [b"%d" % i for i in range(records)], partition=n)
    return made


async def take(stream: Stream, count: int) -> list[Message]:
    got: list[Message] = []
    async for message in stream:
        got.append(message)
        if len(got) == count:
            message.ack()
            break
    return got


def committed(made: MemoryBroker, tp: TP = T0, group: str = "g") -> int | None:
    found = made.committed(group, tp)
    return None if found is None else found.offset
