"""The schedules with Faust, all of it its own code but the client at the bottom.

What runs is an :class:`faust.App` with Faust's aiokafka driver: its consumer and
consumer thread's methods, fetcher, conductor, channels, streams, agents, the
rebalance of the app and the recovery that resumes the streams after it.  Below
that, in the place of ``aiokafka.AIOKafkaConsumer``, stands :class:`LogClient`, a
log in memory that keeps aiokafka's own ``SubscriptionState``.  It fetches,
seeks and commits as aiokafka does, and writes down what is stored.

Three things are different from a worker, none of which decides anything here:
the methods of the consumer thread run in the loop of the app
(:class:`InlineThread`); the timers that commit and look for livelocks are not
started, because a schedule says when; the loop's clock is virtual
(:class:`VirtualLoop`).
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from types import SimpleNamespace
from typing import Any, NamedTuple

import faust
import faust.sensors.monitor
import faust.transport.consumer
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.errors import CommitFailedError
from faust.exceptions import ValueDecodeError
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from mode.utils.futures import maybe_async, notify

from .observed import BOUND, QUIET, Observed
from .schedules import (
    Background,
    Commit,
    CommitMeanwhile,
    Finish,
    HandOver,
    Pause,
    Produce,
    Reader,
    RefuseCommit,
    Resume,
    ResumeFlow,
    Schedule,
    Seek,
    Step,
    StopFlow,
    Take,
    Wait,
    WaitForStoppedFlow,
    Watch,
    Work,
)

__all__ = ["VERSION", "run"]

VERSION: str = faust.__version__

T = TP("t", 0)

LOOK_INTERVAL = 2.8 * 2.5
"""Seconds between two looks of Faust's livelock detector, by default."""

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


class InlineThread(driver.AIOKafkaConsumerThread):  # type: ignore[misc]
    """Faust's consumer thread without the thread."""

    async def call_thread(self, fun: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return await maybe_async(fun(*args, **kwargs))


class InlineConsumer(driver.Consumer):  # type: ignore[misc]
    """Faust's consumer, which makes that thread."""

    def _new_consumer_thread(self) -> InlineThread:
        return InlineThread(self, loop=self.loop, beacon=self.beacon)


class InlineTransport(driver.Transport):  # type: ignore[misc]
    """Faust's transport, which makes that consumer."""

    Consumer = InlineConsumer


class NoProducer:
    """Nothing is produced."""

    class buffer:  # noqa: N801 - Faust's name
        """Never full."""

        @staticmethod
        async def wait_until_ebb() -> None:
            """Return at once."""

    async def flush(self) -> None:
        """Nothing to send."""


class BreakOffError(Exception):
    """What the agent of a schedule raises."""


class _Program:
    """One stream or agent, and what is in the hands of its program."""

    def __init__(self, side: _Side, number: int, reader: Reader) -> None:
        self.side = side
        self.number = number
        self.reader = reader
        self.hand: dict[int, Any] = {}
        self.may_fail = True
        self.last = 0.0
        # Each channel is a topic description of its own.
        self.topic = side.app.topic(
            reader.topic,
            value_type=None if reader.json else bytes,
            value_serializer="json" if reader.json else "raw",
        )
        self.agent: Any = None
        self.events: AsyncIterator[Any]

    async def start(self) -> None:
        if self.reader.fails_at is None:
            self.stream = self.topic.stream().noack()
            self.iterate()
            # A stream subscribes when its channel is iterated.
            self.first: asyncio.Future[Any] | None = asyncio.ensure_future(anext(self.events))
            await asyncio.sleep(0)
        else:
            self.agent = self.side.app.agent(self.topic)(self.handle)
            await self.agent.start()

    def iterate(self) -> None:
        self.events = aiter(self.stream.events())
        self.first = None

    async def take(self) -> Any:
        """The next event, or None if none comes."""
        deadline = asyncio.get_running_loop().time() + QUIET
        while True:
            if self.first is None:
                self.first = asyncio.ensure_future(anext(self.events))
            # Waited for, not cancelled: a stream that is cancelled has ended.
            left = deadline - asyncio.get_running_loop().time()
            await asyncio.wait([self.first], timeout=left)
            if not self.first.done():
                return None
            try:
                event = self.first.result()
            except ValueDecodeError:
                self.iterate()  # as the supervisor of an agent does
                continue
            self.first = None
            offset = event.message.offset
            self.side.observed.give(self.number, offset)
            self.hand[offset] = event
            return event

    def finish(self, step: Finish) -> None:
        for offset in step.offsets:
            self.side.observed.do(self.number, offset)
            for _ in range(step.times):
                self.hand[offset].ack()

    async def work(self, count: int | None) -> None:
        loop = asyncio.get_running_loop()
        if self.agent is not None:
            self.last = loop.time()
            while (left := self.last + QUIET - loop.time()) > 0:  # it moves
                await asyncio.sleep(left)
            # The iterator of an agent that has failed may live on in a traceback.
            gc.collect()
            return
        while count is None or count > 0:
            event = await self.take()
            if event is None:
                return
            self.finish(Finish((event.message.offset,)))
            count = None if count is None else count - 1

    async def handle(self, stream: Any) -> None:
        """The agent's function."""
        async for event in stream.events():
            offset = event.message.offset
            self.last = asyncio.get_running_loop().time()
            self.side.observed.give(self.number, offset)
            if offset == self.reader.fails_at and self.may_fail:
                self.may_fail = False
                if self.reader.failing == "raise":
                    raise BreakOffError
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
            await asyncio.sleep(0)
            self.side.observed.do(self.number, offset)


class _Side:
    def __init__(self, schedule: Schedule, observed: Observed) -> None:
        self.schedule = schedule
        self.observed = observed
        self.client = LogClient(schedule, self.observed)
        self.tasks: list[asyncio.Task[None]] = []
        self.handed_over = False

    def make_app(self) -> None:
        app = faust.App(
            "g",
            broker="kafka://none",
            web_enabled=False,
            stream_buffer_maxsize=self.schedule.buffer,
        )
        app.transport = InlineTransport(app.conf.broker_consumer, app)
        app.producer = NoProducer()
        app.sensors.add(app.monitor)
        self.app: Any = app
        self.consumer: Any = app.consumer
        self.consumer._thread._consumer = self.client
        self.consumer._thread.time_started = asyncio.get_running_loop().time()

    async def join(self) -> None:
        """Subscribe and be assigned everything, as a worker that starts."""
        topics, recovery = self.app.topics, self.app.tables.recovery
        # The end of transport/conductor.py:Conductor._subscriber.
        await topics._update_indices()
        notify(topics._subscription_done)
        await recovery.start()
        self.client.assign()
        self.app.consumer_generation_id = 1
        self.app.on_rebalance_start()
        await self.consumer.on_partitions_assigned(set(self.client.records), 1)
        await recovery.completed.wait()

    async def start(self) -> None:
        self.make_app()
        self.programs = [
            _Program(self, number, reader) for number, reader in enumerate(self.schedule.readers)
        ]
        for program in self.programs:
            await program.start()
        await self.join()

    async def main(self) -> None:
        await self.start()
        for step in self.schedule.steps:
            await self.step(step)
        if not self.handed_over:
            await self.consumer.commit()
        self.observed.close()

    async def commit_meanwhile(self, finish: Finish) -> None:
        self.client.latency = 1.0
        first = asyncio.create_task(self.consumer.commit())
        await asyncio.sleep(0.1)
        self.programs[finish.reader].finish(finish)
        await self.consumer.commit()
        self.observed.checkpoint()
        await first

    async def step(self, step: Step) -> None:
        match step:
            case Background(work):
                self.tasks.append(asyncio.create_task(self.programs[work.reader].work(work.count)))
                await asyncio.sleep(1)
            case Take(count, number):
                for _ in range(count):
                    await self.programs[number].take()
            case Work(count, number):
                await self.programs[number].work(count)
            case Finish():
                self.programs[step.reader].finish(step)
            case Commit(topics):
                await self.consumer.commit(None if topics is None else set(topics))
                self.observed.checkpoint()
            case CommitMeanwhile(finish):
                await self.commit_meanwhile(finish)
            case RefuseCommit():
                self.client.refuse = True
            case HandOver(finishes):
                await self.hand_over(finishes)
            case Pause():
                self.consumer.pause_partitions({T})
            case Resume():
                self.consumer.resume_partitions({T})
            case StopFlow():
                self.consumer.stop_flow()
            case ResumeFlow():
                self.client.flow_is_stopped = False
                self.consumer.resume_flow()
            case WaitForStoppedFlow():
                await self.bounded("wait_for_stopped_flow()", self.consumer.wait_for_stopped_flow())
                self.client.flow_is_stopped = True
            case Seek(offset):
                self.observed.seek("t", offset)
                await self.consumer.seek(T, offset)
            case Produce(count):
                for _ in range(count):
                    self.client.produce()
            case Wait(seconds):
                await asyncio.sleep(seconds)
            case Watch(seconds):
                await self.watch(seconds)

    async def bounded(self, name: str, awaitable: Awaitable[object]) -> None:
        """Await something that may not return."""
        task = asyncio.ensure_future(awaitable)
        await asyncio.wait([task], timeout=BOUND)
        if task.done():
            task.result()
        else:
            self.observed.hung.append(name)
            task.cancel()

    async def hand_over(self, finishes: tuple[Finish, ...]) -> None:
        """transport/drivers/aiokafka.py:ConsumerRebalanceListener.on_partitions_revoked."""
        self.app.on_rebalance_start()
        revoking = asyncio.create_task(self.consumer.on_partitions_revoked({T}))
        for finish in finishes:
            await asyncio.sleep(5)
            self.programs[finish.reader].finish(finish)
        await self.bounded("the hand-over", revoking)
        self.handed_over = True
        self.observed.checkpoint()

    async def watch(self, seconds: float) -> None:
        """transport/consumer.py:Consumer._commit_livelock_detector, which is a timer."""
        alarms = _Alarms(self.observed)
        logging.getLogger().addHandler(alarms)
        try:
            for _ in range(int(seconds / LOOK_INTERVAL)):
                await asyncio.sleep(LOOK_INTERVAL)
                await self.consumer.verify_all_partitions_active()
        finally:
            logging.getLogger().removeHandler(alarms)


class _Alarms(logging.Handler):
    """Takes whatever is logged as an error for an alarm."""

    def __init__(self, observed: Observed) -> None:
        super().__init__(logging.ERROR)
        self.observed = observed

    def emit(self, record: logging.LogRecord) -> None:
        """Keep its first line, without the name of the service."""
        line = record.getMessage().strip().partition("\n")[0]
        self.observed.alarms.append(line.partition("]: ")[2] or line)


def run(schedule: Schedule) -> Observed:
    """Put Faust through a schedule."""
    loop = VirtualLoop()
    observed = Observed(schedule)

    async def main() -> None:
        side = _Side(schedule, observed)
        await side.main()
        # What hangs there may take no notice of being cancelled (wait_empty does not).
        side.consumer._stopped.set()

    # Faust collects garbage each second while it waits for messages; what is
    # there already need not be looked through six hundred times.
    gc.collect()
    gc.freeze()
    modules: tuple[Any, ...] = (driver, faust.transport.consumer, faust.sensors.monitor)
    clocks = [module.monotonic for module in modules]
    asyncio.set_event_loop(loop)
    try:
        for module in modules:
            module.monotonic = loop.time
        loop.run_until_complete(main())
    finally:
        for module, clock in zip(modules, clocks, strict=True):
            module.monotonic = clock
        for task in asyncio.all_tasks(loop):
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError, RuntimeError):
            loop.run_until_complete(asyncio.sleep(QUIET))
        asyncio.set_event_loop(None)
        loop.close()
        gc.unfreeze()
    return observed
