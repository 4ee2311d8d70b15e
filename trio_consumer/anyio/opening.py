"""``open_consumer`` for both event loops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

import sniffio

from .._runtime.consumer import Consumer
from .._runtime.opening import consumer_type
from .._runtime.opening import open_consumer as open_on_trio
from .engine import Engine, in_host
from .faces import AsyncioConsumer

__all__ = ["open_consumer"]

HOOKS = (
    "callback",
    "on_partitions_assigned",
    "on_partitions_revoked",
    "on_partitions_lost",
    "on_livelock",
)
"""Arguments that are functions of the user, plain or async."""


@asynccontextmanager
async def _open_consumer(*args: Any, **options: Any) -> AsyncGenerator[Consumer, None]:
    if sniffio.current_async_library() == "trio":
        async with open_on_trio(*args, **options) as consumer:
            yield consumer
        return
    async with Engine.running() as engine:
        options = _hooked(asyncio.get_running_loop(), options)
        # Read in the Trio task that enters, which has a copy of this context.
        token = consumer_type.set(AsyncioConsumer)
        visit = engine.entered(open_on_trio(*args, **options))
        try:
            consumer = await visit.__aenter__()
        finally:
            consumer_type.reset(token)
        assert isinstance(consumer, AsyncioConsumer)
        consumer.use(engine)
        try:
            yield consumer
        except BaseException as exc:
            if not await visit.__aexit__(type(exc), exc, exc.__traceback__):
                raise
        else:
            await visit.__aexit__(None, None, None)


def _hooked(loop: asyncio.AbstractEventLoop, options: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: in_host(loop, value) if name in HOOKS and value is not None else value
        for name, value in options.items()
    }


if TYPE_CHECKING:
    open_consumer = open_on_trio
else:
    open_consumer = cast("Any", _open_consumer)
    open_consumer.__name__ = open_consumer.__qualname__ = "open_consumer"
    open_consumer.__doc__ = open_on_trio.__doc__
