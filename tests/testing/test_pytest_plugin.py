"""The fixtures beside each plugin that runs async tests, alone and together."""

from __future__ import annotations

from pathlib import Path

import pytest

from .suites import PLUGINS, run_suite

CONFTEST = {"conftest.py": 'pytest_plugins = ["trio_consumer.testing.pytest_plugin"]\n'}

CONSUME = """
async def consume_all(broker, open_consumer):
    broker.create_topic("t", 2)
    broker.produce_many("t", [b"a", b"b", b"c"])
    got = []
    async with open_consumer("g") as consumer, consumer.stream("t") as stream:
        async for message in stream:
            got.append(message.value)
            if len(got) == 3:
                message.ack()
                break
        await broker.wait_lag("g", "t")
        assert len(await broker.wait_members("g", 1)) == 1
    assert sorted(got) == [b"a", b"b", b"c"]
    assert await broker.wait_members("g", 0) == {}
"""

PYTEST_TRIO = """
import pytest
import trio

@pytest.mark.trio
async def test_real_clock(memory_broker, memory_consumer):
    await consume_all(memory_broker, memory_consumer)

@pytest.mark.trio
async def test_virtual_clock(memory_broker, memory_consumer, autojump_clock):
    await consume_all(memory_broker, memory_consumer)
    with pytest.raises(TimeoutError, match="^the group 'g' has not settled with 1 members within"):
        await memory_broker.wait_members("g", 1, timeout=1e6)
    assert trio.current_time() > 1e6

from pytest_trio import trio_fixture

@trio_fixture
async def consumer(memory_broker, memory_consumer):
    memory_broker.create_topic("t")
    async with memory_consumer("g", topics=["t"]) as consumer:
        yield consumer

@pytest.mark.trio
async def test_fixture(consumer, memory_broker, autojump_clock):
    [member] = await memory_broker.wait_members("g", 1)
    memory_broker.lose("g")
    [other] = await memory_broker.wait_members("g", 1)
    assert member != other
"""

ANYIO = """
import pytest

@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param

@pytest.mark.anyio
async def test_real_clock(memory_broker, memory_consumer):
    await consume_all(memory_broker, memory_consumer)

@pytest.fixture
async def consumer(anyio_backend, memory_broker, memory_consumer):
    memory_broker.create_topic("t")
    async with memory_consumer("g", topics=["t"]) as consumer:
        yield consumer

@pytest.mark.anyio
async def test_fixture(consumer, memory_broker):
    [member] = await memory_broker.wait_members("g", 1)
    memory_broker.lose("g")
    [other] = await memory_broker.wait_members("g", 1)
    assert member != other
"""

PYTEST_ASYNCIO = """
import pytest
import pytest_asyncio

@pytest.mark.asyncio
async def test_real_clock(memory_broker, memory_consumer):
    await consume_all(memory_broker, memory_consumer)

@pytest_asyncio.fixture
async def consumer(memory_broker, memory_consumer):
    memory_broker.create_topic("t")
    async with memory_consumer("g", topics=["t"]) as consumer:
        yield consumer

@pytest.mark.asyncio
async def test_fixture(consumer, memory_broker):
    [member] = await memory_broker.wait_members("g", 1)
    memory_broker.lose("g")
    [other] = await memory_broker.wait_members("g", 1)
    assert member != other
"""

PLAIN = """
import asyncio
from functools import partial

import trio
from trio.testing import MockClock

def test_trio(memory_broker, memory_consumer):
    trio.run(consume_all, memory_broker, memory_consumer)

def test_virtual_clock(memory_broker, memory_consumer):
    trio.run(consume_all, memory_broker, memory_consumer, clock=MockClock(autojump_threshold=0))

def test_asyncio(memory_broker, memory_consumer):
    asyncio.run(consume_all(memory_broker, memory_consumer))
"""

SUITES = {
    "trio": (PYTEST_TRIO, ("trio",), 3),
    "anyio": (ANYIO, ("anyio",), 4),
    "asyncio": (PYTEST_ASYNCIO, ("asyncio",), 2),
    "plain": (PLAIN, (), 3),
}


@pytest.mark.parametrize("name", SUITES)
def test_fixtures_work_with_one_plugin(name: str, tmp_path: Path) -> None:
    """Its own event loop and its own way of async fixtures, and none of the other plugins."""
    source, plugins, tests = SUITES[name]
    files = {**CONFTEST, "test_it.py": CONSUME + source}
    assert run_suite(tmp_path, files, plugins=plugins) == {"passed": tests}


def test_fixtures_work_with_all_plugins_at_once(tmp_path: Path) -> None:
    """In one process, one after the other."""
    files = {f"test_{name}_suite.py": CONSUME + source for name, (source, *_) in SUITES.items()}
    passed = sum(tests for *_, tests in SUITES.values())
    assert run_suite(tmp_path, CONFTEST | files, plugins=PLUGINS) == {"passed": passed}


def test_each_test_has_a_broker_of_its_own(tmp_path: Path) -> None:
    """Its address is free afterwards, and its arguments can be given."""
    source = """
import pytest
from trio_consumer.testing import MemoryBroker
from trio_consumer.transports import resolve

seen = []

@pytest.mark.parametrize("turn", [0, 1])
def test_fresh(memory_broker, turn):
    assert memory_broker.topics == {}
    memory_broker.create_topic("t")
    assert resolve(memory_broker.url) is memory_broker
    assert memory_broker not in seen
    seen.append(memory_broker)

def test_forgotten():
    assert all(MemoryBroker.named(each.url.removeprefix("memory://")) is not each for each in seen)
    assert len(seen) == 2

class TestOptions:
    @pytest.fixture
    def memory_broker_options(self):
        return {"latency": 0.5, "name": "mine"}

    def test_options(self, memory_broker):
        assert memory_broker.faults.latency == 0.5
        assert memory_broker.url == "memory://mine"
"""
    # Asked for on the command line, which is the other way.
    opted = "-ptrio_consumer.testing.pytest_plugin"
    assert run_suite(tmp_path, {"test_it.py": source}, opted, plugins=()) == {"passed": 4}


def test_consumers_are_quick_unless_told_otherwise(tmp_path: Path) -> None:
    """Options of the caller win, and those for the client are joined."""
    source = """
import trio
from trio.testing import MockClock

def test_quick(memory_broker, memory_consumer):
    async def main():
        memory_broker.create_topic("t")
        memory_broker.produce_many("t", [b"a", b"b"])
        for group, options, least, most in (
            ("quick", {"client_options": {"client_id": "me"}}, 0, 0.3),
            ("slow", {"commit_interval": 50.0}, 49, 51),
        ):
            async with memory_consumer(group, **options) as consumer:
                async with consumer.stream("t", ack="manual") as stream:
                    message = await anext(aiter(stream))
                    begun = trio.current_time()
                    message.ack()
                    await memory_broker.wait_committed(group, message.tp, 1)
                    assert least <= trio.current_time() - begun <= most
                    begun = trio.current_time()
                    memory_broker.lose(group)
                    await memory_broker.wait_members(group, 1)
                    assert trio.current_time() - begun <= 0.3
        assert "me-0001" in {c.member_id for c in memory_broker.commit_history("quick")}

    trio.run(main, clock=MockClock(autojump_threshold=0))
"""
    assert run_suite(tmp_path, {**CONFTEST, "test_it.py": source}, plugins=()) == {"passed": 1}


def test_nothing_is_loaded_unasked(tmp_path: Path) -> None:
    """Who installs the package has no fixture more, and nothing of it is imported."""
    source = """
import sys

def test_not_loaded():
    assert "trio_consumer" not in sys.modules

def test_no_fixture(memory_broker):
    pass
"""
    counts = run_suite(tmp_path, {"test_it.py": source}, plugins=())
    assert counts == {"passed": 1, "error": 1}
