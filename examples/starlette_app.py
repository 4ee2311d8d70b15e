"""A consumer in the lifespan of a Starlette application, under any ASGI server.

    uvicorn examples.starlette_app:app

The consumer starts before the first request and stops after the last one: loops
end, what is in hand is waited for, what is finished is committed.  FastAPI takes
the same ``lifespan``.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from trio_consumer.anyio import Consumer, open_consumer


async def consume(app: Starlette, consumer: Consumer) -> None:
    """Count what has been ordered; a real one would store it before the loop comes back."""
    async with consumer.stream("orders") as orders:
        async for message in orders:
            counts = app.state.counts
            counts[message.value] = counts.get(message.value, 0) + 1


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncGenerator[None, None]:
    """Consume while the application runs."""
    app.state.counts = {}
    url = os.environ.get("KAFKA_URL", "kafka://localhost:9092")
    async with open_consumer(url, group="shop") as consumer, anyio.create_task_group() as group:
        group.start_soon(consume, app, consumer)
        app.state.consumer = consumer
        yield
        consumer.close()  # no more messages; the loop above ends after the one in hand


async def show(request: Request) -> JSONResponse:
    """What was counted, and how far the group is."""
    state = request.app.state
    positions = {
        str(tp): partition.position
        for tp, partition in state.consumer.statistics().partitions.items()
    }
    counts = {key.decode(): count for key, count in state.counts.items()}
    return JSONResponse({"counts": counts, "positions": positions})


app = Starlette(routes=[Route("/", show)], lifespan=lifespan)
