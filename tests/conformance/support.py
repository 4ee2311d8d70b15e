"""What the cases share."""

from __future__ import annotations

from collections.abc import Callable

import anyio

from trio_consumer import TP, Message, Stream

from .backends import Backend


def numbered(count: int, start: int = 0) -> list[bytes | None]:
    return [b"%d" % number for number in range(start, start + count)]


async def take(stream: Stream, count: int) -> list[Message]:
    """Take so many messages, all of them finished by an acknowledgement or by coming back."""
    messages: list[Message] = []
    async for message in stream:
        messages.append(message)
        if len(messages) == count:
            message.ack()
            break
    return messages


async def until_committed(backend: Backend, group: str, tp: TP, offset: int | None) -> None:
    with anyio.fail_after(30):
        while await backend.committed(group, tp) != offset:
            await anyio.sleep(0.05)


async def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until something holds, with more patience than it should take."""
    with anyio.fail_after(20):
        while not condition():
            await anyio.sleep(0.02)
