"""Runs a test on each event loop that the face supports."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import anyio
import pytest

Main = Callable[[], Awaitable[Any]]

BACKENDS: dict[str, tuple[str, dict[str, Any]]] = {
    "asyncio": ("asyncio", {}),
    "uvloop": ("asyncio", {"use_uvloop": True}),
    "trio": ("trio", {}),
}


@pytest.fixture(params=list(BACKENDS))
def run(request: pytest.FixtureRequest) -> Callable[[Main], Any]:
    """Run an async function on one of the event loops, within a limit."""
    name, options = BACKENDS[request.param]

    async def limited(main: Main) -> Any:
        with anyio.fail_after(60):
            return await main()

    return lambda main: anyio.run(limited, main, backend=name, backend_options=options)


@pytest.fixture(params=["asyncio", "uvloop"])
def run_asyncio(request: pytest.FixtureRequest) -> Callable[[Main], Any]:
    """Run an async function on asyncio, without anything of AnyIO around it."""
    factory: Any = asyncio.new_event_loop
    if request.param == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop

    def run(main: Main) -> Any:
        loop = factory()
        try:
            return loop.run_until_complete(asyncio.wait_for(main(), 60))
        finally:
            left = asyncio.all_tasks(loop)
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()
            assert not left

    return run


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """No thread may outlast a test; Trio keeps idle ones for ten seconds."""
    yield
    gc.collect()
    left = [
        t for t in threading.enumerate() if t is not threading.main_thread() and "kafka" in t.name
    ]
    assert not left
