"""Fixtures for pytest, for whoever asks for them: nothing here is loaded by itself.

In the ``conftest.py`` at the root of your tests, or with ``-p`` on the command line::

    pytest_plugins = ["trio_consumer.testing.pytest_plugin"]

The fixtures are plain functions and belong to no event loop, so they work beside
pytest-trio, AnyIO's plugin (on both backends), pytest-asyncio, and in a test that
calls ``trio.run`` itself.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

import pytest

from .. import Consumer
from ..anyio import open_consumer
from . import MemoryBroker

__all__ = ["ConsumerFactory", "memory_broker", "memory_broker_options", "memory_consumer"]

QUICK_COMMITS = 0.1
"""Seconds between commits; no more than what a test on the real clock likes to wait."""

QUICK_HEARTBEATS = 100
"""Milliseconds; a member learns of a rebalance with a heartbeat."""

_numbers = itertools.count(1)


class ConsumerFactory(Protocol):
    """What :func:`memory_consumer` gives."""

    def __call__(self, group: str, **options: Any) -> AbstractAsyncContextManager[Consumer]:
        """Open a consumer, as :func:`trio_consumer.open_consumer` does, on the test's broker."""
        ...


@pytest.fixture
def memory_broker_options() -> Mapping[str, Any]:
    """What :func:`memory_broker` is made with, nothing; a fixture of the same name overrides it.

    See :class:`~trio_consumer.testing.MemoryBroker`: ``seed``, ``latency``, ``faults`` and others.
    """
    return {}


@pytest.fixture
def memory_broker(memory_broker_options: Mapping[str, Any]) -> Iterator[MemoryBroker]:
    """A broker of the test's own, without topics; ``memory_broker.url`` is its address.

    After the test the address is free; what is connected still goes on with this broker.
    """
    name = f"pytest-{next(_numbers)}"
    options: dict[str, Any] = {"name": name, **memory_broker_options}
    broker = MemoryBroker(**options)
    address = broker.url.removeprefix("memory://")
    yield broker
    MemoryBroker.forget(address)


@pytest.fixture
def memory_consumer(memory_broker: MemoryBroker) -> ConsumerFactory:
    """A function that opens a consumer on the test's broker, to be used with ``async with``.

    On Trio they are those of :mod:`trio_consumer`, on asyncio those of
    :mod:`trio_consumer.anyio`.  They take the same options.  Unless told otherwise
    they commit every 0.1 s and send a heartbeat every 0.1 s, so that a test on the real
    clock does not wait long for a commit or a rebalance.  Cancelling the block does what
    cancelling ``open_consumer`` does.
    """

    def open_on_broker(group: str, **options: Any) -> AbstractAsyncContextManager[Consumer]:
        client = {"heartbeat_interval_ms": QUICK_HEARTBEATS, **options.pop("client_options", {})}
        options = {"commit_interval": QUICK_COMMITS, **options}
        return open_consumer(memory_broker, group=group, client_options=client, **options)

    return open_on_broker
