"""The example of a web application, with its lifespan run as a server runs it."""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from starlette.requests import Request

from trio_consumer import TP
from trio_consumer.testing import MemoryBroker


def test_consumer_in_the_lifespan_of_an_application(
    run: Callable[[Callable[[], Awaitable[Any]]], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It consumes while requests are served, and commits when the application stops."""
    # The examples lie beside the package, not in it.
    monkeypatch.syspath_prepend(Path(__file__).parents[2])
    monkeypatch.delitem(sys.modules, "examples", raising=False)
    from examples.starlette_app import app, lifespan, show

    name = "shop"
    MemoryBroker.forget(name)
    broker = MemoryBroker.named(name)
    broker.create_topic("orders")
    monkeypatch.setenv("KAFKA_URL", f"memory://{name}")

    async def main() -> None:
        async with lifespan(app):
            for order in (b"tea", b"coffee", b"tea"):
                broker.produce("orders", order)
            request = Request({"type": "http", "app": app, "method": "GET", "headers": []})
            with anyio.fail_after(30):
                while True:
                    body = json.loads(bytes((await show(request)).body))
                    if body["counts"] == {"tea": 2, "coffee": 1}:
                        break
                    await anyio.sleep(0.01)
        stored = broker.committed("shop", TP("orders", 0))
        assert stored is not None
        assert stored.offset == 3

    try:
        run(main)
    finally:
        MemoryBroker.forget(name)
