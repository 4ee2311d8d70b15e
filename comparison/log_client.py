"""What stands at the bottom of Faust, in the place of aiokafka's client.

:class:`LogClient` is a log in memory that keeps aiokafka's own
``SubscriptionState``; it fetches, seeks and commits as ``AIOKafkaConsumer``
does.  :class:`VirtualLoop` gives everything above it a clock that jumps.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, NamedTuple

from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.errors import CommitFailedError
from faust.types import TP

from .observed import Observed
from .schedules import Schedule

__all__ = ["LogClient", "VirtualLoop"]

T = TP("t", 0)

FETCH_POLL = 0.01
"""Virtual seconds between two looks of a waiting fetch."""

BASE = time.monotonic()
"""Where the virtual clock begins: Faust's own clock, which it is compared with."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose clock jumps to the next timer when nothing is left to do."""

    def __init__(self) -> None:
        super().__init__()
        self._virtual = BASE
        selector: Any = self._selector  # type: ignore[attr-defined]
        select = selector.select

        def jump(timeout: float | None = None) -> Any:
            if timeout is None:
                raise RuntimeError("nothing will ever happen any more")
            self._virtual += max(timeout, 0.0)
            return select(0)

        selector.select = jump

    def time(self) -> float:
        """Seconds on the virtual clock."""
        return self._virtual


class Record(NamedTuple):
    """What aiokafka's ``ConsumerRecord`` has."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    timestamp_type: int
    key: bytes | None
    value: bytes | None
    checksum: int | None
    serialized_key_size: int
    serialized_value_size: int
    headers: tuple[()] = ()


class LogFetcher:
    """aiokafka's fetcher: hands out what is there and moves the positions over it."""

    _closed = False

    def __init__(self, client: LogClient) -> None:
        self._client = client
        self._subscriptions = client._subscription

    async def fetched_records(
        self, partitions: Any, timeout: float = 0, max_records: int | None = None
    ) -> dict[TP, list[Record]]:
        """As in aiokafka, no partitions means all of them."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while True:
            drained = {}
            for tp in self._client.assignment():
                state = self._subscriptions.subscription.assignment.state_value(tp)
                state.highwater = self._client.end(tp)
                state.timestamp = int(1000 * time.time())
                if partitions and tp not in partitions:
                    continue
                records = [r for r in self._client.records[tp] if r.offset >= state.position]
                if records:
                    drained[tp] = records
                    state.consumed_to(records[-1].offset + 1)
            if drained or loop.time() >= deadline:
                if self._client.flow_is_stopped:
                    self._client.observed.fetched_while_stopped += sum(map(len, drained.values()))
                return drained
            await asyncio.sleep(FETCH_POLL)


class LogClient:
    """In the place of ``aiokafka.AIOKafkaConsumer``."""

    _closed = False
    _max_poll_records = None

    def __init__(self, schedule: Schedule, observed: Observed) -> None:
        self.observed = observed
        self.flow_is_stopped = False
        self.refuse = False
        self.latency = 0.0
        self.stored: dict[TP, int] = {}
        if schedule.committed is not None:
            self.stored[T] = schedule.committed
        self.records = {
            TP(topic, 0): [self._record(schedule, topic, offset) for offset in offsets]
            for topic, offsets in schedule.topics.items()
        }
        self._schedule = schedule
        self._subscription = SubscriptionState()
        self._fetcher = LogFetcher(self)
        self._coordinator = SimpleNamespace(generation=1)

    @staticmethod
    def _record(schedule: Schedule, topic: str, offset: int) -> Record:
        value = b"no JSON" if offset in schedule.not_json else b"%d" % offset
        return Record(topic, 0, offset, 0, 0, None, value, None, 0, len(value))

    def produce(self) -> None:
        """One record more in ``t``."""
        offset = self.end(T)
        self.records[T].append(self._record(self._schedule, "t", offset))
        self.observed.produce("t", offset)
        # aiokafka fetches in the background, whether or not anybody asks for records.
        self._subscription.subscription.assignment.state_value(T).highwater = offset + 1

    def end(self, tp: TP) -> int:
        """The next offset to be written."""
        return self.records[tp][-1].offset + 1

    def assign(self) -> None:
        """What the coordinator and the fetcher do: all partitions, each at its position."""
        self._subscription.subscribe({tp.topic for tp in self.records})
        self._subscription.assign_from_subscribed(set(self.records))
        for tp in self.records:
            self._subscription.seek(tp, self.stored.get(tp, 0))

    # What Faust calls.

    def assignment(self) -> Any:
        return self._subscription.assigned_partitions()

    def highwater(self, tp: TP) -> int:
        return self.end(TP(*tp))

    def seek(self, tp: TP, offset: int) -> None:
        self._subscription.seek(TP(*tp), offset)

    async def seek_to_committed(self) -> dict[TP, int | None]:
        committed = {tp: self.stored.get(tp) for tp in self.assignment()}
        for tp, offset in committed.items():
            if offset and offset > 0:
                self.seek(tp, offset)
        return committed

    async def commit(self, offsets: Mapping[TP, Any]) -> None:
        await asyncio.sleep(self.latency)
        if self.refuse:
            self.refuse = False
            # aiokafka/consumer/group_coordinator.py:commit_offsets
            raise CommitFailedError(
                "Commit cannot be completed since the group has already "
                "rebalanced and may have assigned the partitions "
                "to another member"
            )
        for tp, stored in offsets.items():
            self.stored[TP(*tp)] = stored.offset
            self.observed.store(tp.topic, stored.offset)
