"""What the tests of the memory broker share: a clock, a listener, short names."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

import trio
from trio.testing import MockClock

from trio_consumer._types import OffsetAndMetadata, TopicPartition
from trio_consumer.transports.base import SessionSettings
from trio_consumer.transports.memory import MemoryBroker, MemorySession

T0, T1, T2, T3 = (TopicPartition("t", n) for n in range(4))
ALL = frozenset({T0, T1, T2, T3})
COOPERATIVE = {"partition_assignment_strategy": "cooperative-sticky"}


def run(main: Callable[[], Awaitable[None]]) -> None:
    """Run under a virtual clock that jumps when everybody waits."""
    trio.run(main, clock=MockClock(autojump_threshold=0))


def settings(group: str = "g", /, *, client: dict[str, Any] | None = None, **given: Any) -> Any:
    """Session settings with client options as a dictionary."""
    return SessionSettings(group, client_options=client or {}, **given)


def broker(partitions: int = 4, records: int = 0, **given: Any) -> MemoryBroker:
    """A broker with the topic ``t`` and this many records in each partition."""
    result = MemoryBroker(**given)
    result.create_topic("t", partitions)
    for n in range(partitions):
        result.produce_many("t", [b"%d" % i for i in range(records)], partition=n)
    return result


def at(offset: int, metadata: str = "") -> OffsetAndMetadata:
    """An offset to commit."""
    return OffsetAndMetadata(offset, metadata)


@dataclass
class Recorder:
    """A listener that writes down its calls and can be made to take its time."""

    calls: list[tuple[str, AbstractSet[TopicPartition]]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    generations: list[int] = field(default_factory=list)
    held: set[TopicPartition] = field(default_factory=set)
    hook: Callable[[str, frozenset[TopicPartition]], Awaitable[None]] | None = None
    running: int = 0

    async def assigned(self, tps: frozenset[TopicPartition], generation: int) -> None:
        """Note it."""
        self.generations.append(generation)
        await self._call("assigned", tps)
        assert not self.held & tps
        self.held |= tps

    async def revoked(self, tps: frozenset[TopicPartition]) -> None:
        """Note it."""
        assert self.held >= tps
        await self._call("revoked", tps)
        self.held -= tps

    async def lost(self, tps: frozenset[TopicPartition]) -> None:
        """Note it."""
        assert self.held >= tps
        self.held -= tps
        await self._call("lost", tps)

    async def _call(self, name: str, tps: frozenset[TopicPartition]) -> None:
        assert self.running == 0, "one call at a time"
        self.running += 1
        try:
            self.calls.append((name, tps))
            self.times.append(trio.current_time())
            if self.hook is not None:
                await self.hook(name, tps)
        finally:
            self.running -= 1

    @property
    def names(self) -> list[str]:
        """The calls without their partitions."""
        return [name for name, _ in self.calls]


async def settle(seconds: float = 20.0) -> None:
    """Let a rebalance end: some heartbeats of the default interval."""
    await trio.sleep(seconds)


async def poll_offsets(session: MemorySession, seconds: float = 1.0) -> dict[Any, list[int]]:
    """Poll until nothing comes for some seconds; the offsets by partition."""
    found: dict[Any, list[int]] = {}
    while True:
        with trio.move_on_after(seconds) as scope:
            for batch in await session.poll():
                found.setdefault(batch.tp, []).extend(r.offset for r in batch.records)
        if scope.cancelled_caught:
            return found
