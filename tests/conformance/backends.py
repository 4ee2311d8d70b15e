"""The brokers and transports that the conformance suite runs against, behind one face.

A backend makes topics, produces, and tells what the broker has committed, all
inside a running Trio program.  What it says comes from the broker itself and
not from the library under test.
"""

from __future__ import annotations

import asyncio
import itertools
import selectors
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, Protocol

import anyio
import anyio.to_thread
import trio
from confluent_kafka import Producer
from trio.testing import MockClock

from trio_consumer import TP, Consumer, OffsetAndMetadata, open_consumer
from trio_consumer.anyio import open_consumer as open_with_anyio
from trio_consumer.anyio.engine import Engine
from trio_consumer.anyio.faces import AsyncioConsumer
from trio_consumer.testing import MemoryBroker
from trio_consumer.transports.confluent import ConfluentTransport

from ..kafka.cluster import Cluster

Value = bytes | None

_serial = itertools.count(1)


class Backend(Protocol):
    """A broker to test against."""

    name: str

    def run(self, main: Callable[[], Awaitable[object]]) -> None:
        """Run a Trio program, on the clock that suits this broker."""

    async def topic(self, partitions: int = 1, prefix: str = "topic") -> str:
        """Make a topic with a new name."""

    async def produce(self, topic: str, values: Sequence[Value], partition: int = 0) -> None:
        """Append values to a partition; returns when they can be read."""

    async def produce_record(self, topic: str, **fields: Any) -> None:
        """Append one record to partition 0: key, value, headers, timestamp in ms."""

    async def produce_transaction(
        self, topic: str, values: Sequence[Value], partition: int = 0, *, commit: bool = True
    ) -> None:
        """Append values in one transaction, which leaves a marker behind them."""

    async def committed(self, group: str, tp: TP) -> int | None:
        """The committed offset that the broker has, None without one."""

    async def end(self, tp: TP) -> int:
        """The end of a partition."""

    async def set_committed(self, group: str, tp: TP, offset: int) -> None:
        """Set a committed offset of a group that has no member."""

    async def delete_records(self, tp: TP, before: int) -> None:
        """Let a partition begin at an offset."""

    async def delete_topic(self, topic: str) -> None:
        """Delete a topic with its records and what groups have committed of it."""

    async def create_again(self, topic: str, partitions: int = 1) -> None:
        """Make a topic that was deleted."""

    async def expel(self, consumer: Consumer) -> None:
        """Remove a member from its group; it learns of it with its next request."""

    async def commit(self, consumer: Consumer, offsets: dict[TP, OffsetAndMetadata]) -> None:
        """Have the session of a consumer commit something, past its accounts."""

    def consumer(self, group: str, **options: Any) -> AbstractAsyncContextManager[Consumer]:
        """Open a consumer with timeouts that suit a test."""


class OnTrio:
    """The case is a Trio program."""

    async def commit(self, consumer: Consumer, offsets: dict[TP, OffsetAndMetadata]) -> None:
        await consumer._session.commit(offsets)


class OnAsyncio:
    """The case is an asyncio program."""

    async def commit(self, consumer: Consumer, offsets: dict[TP, OffsetAndMetadata]) -> None:
        assert isinstance(consumer, AsyncioConsumer)
        await consumer._engine.run(partial(consumer._session.commit, offsets))


def new_group() -> str:
    """A group name that no other test uses."""
    return f"group-{next(_serial)}"


class MemoryBackend(OnTrio):
    """The memory broker under a virtual clock."""

    name = "memory"
    open = staticmethod(open_consumer)

    def __init__(self) -> None:
        self.broker = MemoryBroker(seed=1, latency=0.001)

    def run(self, main: Callable[[], Awaitable[object]]) -> None:
        async def limited() -> None:
            # Heartbeats keep a virtual clock going for ever.
            with trio.fail_after(3600):
                await main()

        trio.run(limited, clock=MockClock(autojump_threshold=0))

    async def topic(self, partitions: int = 1, prefix: str = "topic") -> str:
        name = f"{prefix}-{next(_serial)}"
        self.broker.create_topic(name, partitions)
        return name

    async def produce(self, topic: str, values: Sequence[Value], partition: int = 0) -> None:
        for value in values:
            self.broker.produce(topic, value, partition=partition)

    async def produce_record(self, topic: str, **fields: Any) -> None:
        self.broker.produce(topic, partition=0, **fields)

    async def produce_transaction(
        self, topic: str, values: Sequence[Value], partition: int = 0, *, commit: bool = True
    ) -> None:
        transaction = self.broker.transaction()
        for value in values:
            transaction.produce(topic, value, partition=partition)
        if commit:
            transaction.commit()
        else:
            transaction.abort()

    async def committed(self, group: str, tp: TP) -> int | None:
        stored = self.broker.committed(group, tp)
        return None if stored is None else stored.offset

    async def end(self, tp: TP) -> int:
        return self.broker.end_offset(tp)

    async def set_committed(self, group: str, tp: TP, offset: int) -> None:
        self.broker.set_committed(group, tp, offset)

    async def delete_records(self, tp: TP, before: int) -> None:
        self.broker.delete_records(tp, before)

    async def delete_topic(self, topic: str) -> None:
        self.broker.delete_topic(topic)

    async def create_again(self, topic: str, partitions: int = 1) -> None:
        self.broker.create_topic(topic, partitions)

    async def expel(self, consumer: Consumer) -> None:
        self.broker.expire(consumer.group_metadata.member_id)

    def consumer(self, group: str, **options: Any) -> AbstractAsyncContextManager[Consumer]:
        return self.open(self.broker, group=group, **options)


class KafkaBackend(OnTrio):
    """A real Kafka on the real clock."""

    name = "kafka"
    open = staticmethod(open_consumer)

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    def run(self, main: Callable[[], Awaitable[object]]) -> None:
        async def limited() -> None:
            with trio.fail_after(90):
                await main()

        trio.run(limited)

    async def topic(self, partitions: int = 1, prefix: str = "topic") -> str:
        name = f"conformance-{prefix}-{next(_serial)}"
        await anyio.to_thread.run_sync(self.cluster.create_topic, name, partitions)
        return name

    async def produce(self, topic: str, values: Sequence[Value], partition: int = 0) -> None:
        await anyio.to_thread.run_sync(self._produce, topic, values, partition, None)

    async def produce_record(self, topic: str, **fields: Any) -> None:
        def produce() -> None:
            producer = Producer({"bootstrap.servers": self.cluster.bootstrap})
            producer.produce(topic, partition=0, **fields)
            producer.flush(30)

        await anyio.to_thread.run_sync(produce)

    async def produce_transaction(
        self, topic: str, values: Sequence[Value], partition: int = 0, *, commit: bool = True
    ) -> None:
        await anyio.to_thread.run_sync(self._produce, topic, values, partition, commit)

    def _produce(
        self, topic: str, values: Sequence[Value], partition: int, commit: bool | None
    ) -> None:
        options: dict[str, Any] = {"bootstrap.servers": self.cluster.bootstrap, "linger.ms": 5}
        if commit is not None:
            options["transactional.id"] = f"transaction-{next(_serial)}"
        producer = Producer(options)
        if commit is not None:
            producer.init_transactions(30)
            producer.begin_transaction()
        for value in values:
            producer.produce(topic, value, partition=partition)
            producer.poll(0)
        producer.flush(30)
        if commit is True:
            producer.commit_transaction(30)
        elif commit is False:
            producer.abort_transaction(30)

    async def committed(self, group: str, tp: TP) -> int | None:
        stored = await anyio.to_thread.run_sync(self.cluster.group_offsets, group)
        found = stored.get((tp.topic, tp.partition))
        return None if found is None else found[0]

    async def end(self, tp: TP) -> int:
        ends = await anyio.to_thread.run_sync(self.cluster.end_offsets, tp.topic)
        return ends[tp.partition]

    async def set_committed(self, group: str, tp: TP, offset: int) -> None:
        await anyio.to_thread.run_sync(self.cluster.commit_for, group, *tp, offset)

    async def delete_records(self, tp: TP, before: int) -> None:
        await anyio.to_thread.run_sync(self.cluster.delete_records, *tp, before)

    async def delete_topic(self, topic: str) -> None:
        await anyio.to_thread.run_sync(self.cluster.delete_topic, topic)

    async def create_again(self, topic: str, partitions: int = 1) -> None:
        await anyio.to_thread.run_sync(self.cluster.create_topic, topic, partitions)

    async def expel(self, consumer: Consumer) -> None:
        now = consumer.group_metadata
        await anyio.to_thread.run_sync(self.cluster.expel, now.group, now.member_id)

    def consumer(self, group: str, **options: Any) -> AbstractAsyncContextManager[Consumer]:
        client = {"heartbeat_interval_ms": 300, **options.pop("client_options", {})}
        url = f"kafka://{self.cluster.bootstrap}"
        return self.open(url, group=group, client_options=client, **options)


class ConfluentBackend(KafkaBackend):
    """A real Kafka, consumed through confluent-kafka."""

    name = "confluent"

    def consumer(self, group: str, **options: Any) -> AbstractAsyncContextManager[Consumer]:
        client = {"heartbeat_interval_ms": 300, **options.pop("client_options", {})}
        size: dict[str, int] = {}
        if "max_poll_records" in client:
            size["max_poll_records"] = client.pop("max_poll_records")
        if "max_partition_fetch_bytes" in client:
            # It would fetch on until it has so many, however small the pieces.
            client["queued_min_messages"] = 1
        if "max_poll_interval_ms" in client:
            # librdkafka wants them in this order.
            client.setdefault("session_timeout_ms", min(client["max_poll_interval_ms"], 45_000))
        if "session_timeout_ms" in client:
            shorter = min(client["heartbeat_interval_ms"], client["session_timeout_ms"])
            client["heartbeat_interval_ms"] = shorter
        transport = ConfluentTransport(self.cluster.bootstrap, **size)
        named = {DOTTED.get(name, name.replace("_", ".")): v for name, v in client.items()}
        return open_consumer(transport, group=group, client_options=named, **options)


DOTTED = {"metadata_max_age_ms": "topic.metadata.refresh.interval.ms"}
"""What kafka-python and librdkafka call differently."""


class AsyncioMemoryBackend(OnAsyncio, MemoryBackend):
    """The memory broker, and the case a program of asyncio.

    No clock can jump here, because neither event loop sees that the other one is
    busy; time runs faster for both instead.
    """

    open = staticmethod(open_with_anyio)

    def run(self, main: Callable[[], Awaitable[object]]) -> None:
        async def limited() -> None:
            with anyio.fail_after(60 * SPEED):
                await main()

        factory = Engine.new_clock
        clock = SteadyClock()
        Engine.new_clock = staticmethod(lambda: clock)
        loop = SteadyLoop(clock)
        try:
            loop.run_until_complete(limited())
            loop.run_until_complete(loop.shutdown_default_executor())
        finally:
            Engine.new_clock = staticmethod(factory)
            loop.close()


class AsyncioKafkaBackend(OnAsyncio, KafkaBackend):
    """A real Kafka, and the case a program of asyncio."""

    open = staticmethod(open_with_anyio)

    def run(self, main: Callable[[], Awaitable[object]]) -> None:
        async def limited() -> None:
            with anyio.fail_after(90):
                await main()

        anyio.run(limited, backend="asyncio")


SPEED = 10
"""Seconds of a case on asyncio that pass in a real one."""

LONGEST = 0.02
"""Real seconds between two looks at the clock that count as time.  What is longer is a
machine that has others to serve, and would end sessions that nobody meant to end."""


class SteadyClock(trio.abc.Clock):
    """Time for both event loops: it runs faster, and stands still while they cannot run."""

    def __init__(self) -> None:
        self._looked_at = time.monotonic()
        self._now = 0.0

    def start_clock(self) -> None:
        """It runs from the beginning."""

    def current_time(self) -> float:
        now = time.monotonic()
        self._now += min(now - self._looked_at, LONGEST) * SPEED
        self._looked_at = now
        return self._now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        # No longer, or the rest of the sleep would not count.
        return max(0.0, min((deadline - self.current_time()) / SPEED, LONGEST))


class SteadySelector(selectors.DefaultSelector):
    """Waits for a part of the time that it is told, or shorter."""

    def select(self, timeout: float | None = None) -> Any:
        longest = LONGEST if timeout is None else min(timeout / SPEED, LONGEST)
        return super().select(longest)


class SteadyLoop(asyncio.SelectorEventLoop):
    """An event loop with such a clock."""

    def __init__(self, clock: SteadyClock) -> None:
        self._steady = clock
        super().__init__(SteadySelector())

    def time(self) -> float:
        return self._steady.current_time()
