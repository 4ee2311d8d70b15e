"""The schedules with Faust, all of it its own code but the client at the bottom.

What runs is a :class:`faust.App` with Faust's aiokafka driver: its consumer and
consumer thread's methods, fetcher, conductor, channels, streams, agents, the
rebalance of the app and the recovery that resumes the streams after it.  Below
that, in the place of ``aiokafka.AIOKafkaConsumer``, stands
:class:`~.log_client.LogClient`.

Four things are different from a worker, none of which decides anything here:
the methods of the consumer thread run in the loop of the app
(:class:`InlineThread`); the timers that commit and look for livelocks are not
started, because a schedule says when; nothing is produced; the loop's clock is
virtual.  :func:`run_on_kafka` starts the app as a worker does, with nothing
replaced.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

import faust
import faust.sensors.monitor
import faust.transport.consumer
from faust.exceptions import ValueDecodeError
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from mode.utils.futures import maybe_async, notify

from .log_client import LogClient, VirtualLoop
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

if TYPE_CHECKING:
    from .on_kafka import KafkaWorld

__all__ = ["VERSION", "run", "run_on_kafka"]

VERSION: str = faust.__version__

LOOK_INTERVAL = 2.8 * 2.5
"""Seconds between two looks of Faust's livelock detector, by default."""


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
            side.name(reader.topic),
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

    def iterate(self) -> None:
        self.events = aiter(self.stream.events())
        self.first = None

    async def take(self) -> Any:
        """The next event, or None if none comes."""
        deadline = asyncio.get_running_loop().time() + self.side.quiet
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
            while (left := self.last + self.side.quiet - loop.time()) > 0:
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
    """Faust above a log in memory."""

    quiet = QUIET

    def __init__(self, schedule: Schedule, observed: Observed) -> None:
        self.schedule = schedule
        self.observed = observed
        self.tasks: list[asyncio.Task[None]] = []
        self.handed_over = False
        self.tp = TP(self.name("t"), 0)

    def name(self, topic: str) -> str:
        """What a topic of the schedule is called."""
        return topic

    def make_app(self) -> None:
        app = faust.App(
            "g",
            broker="kafka://none",
            web_enabled=False,
            stream_buffer_maxsize=self.schedule.buffer,
        )
        app.transport = InlineTransport(app.conf.broker_consumer, app)
        app.producer = NoProducer()
        self.client = LogClient(self.schedule, self.observed)
        app.sensors.add(app.monitor)
        self.app: Any = app
        self.consumer: Any = app.consumer
        self.consumer._thread._consumer = self.client
        self.consumer._thread.time_started = asyncio.get_running_loop().time()

    async def join(self) -> None:
        """Subscribe and be assigned everything, as a worker that starts."""
        for program in self.programs:
            if program.agent is not None:
                await program.agent.start()
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
            await self.commit()
        self.observed.close()

    async def commit(self, topics: tuple[str, ...] | None = None) -> None:
        await self.consumer.commit(None if topics is None else set(map(self.name, topics)))

    def note_flow(self, *, stopped: bool) -> None:
        self.client.flow_is_stopped = stopped

    async def produce(self, count: int) -> None:
        for _ in range(count):
            self.client.produce()

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
                await self.commit(topics)
                self.observed.checkpoint()
            case CommitMeanwhile(finish):
                await self.commit_meanwhile(finish)
            case RefuseCommit():
                self.client.refuse = True
            case HandOver(finishes):
                await self.hand_over(finishes)
            case Pause():
                self.consumer.pause_partitions({self.tp})
            case Resume():
                self.consumer.resume_partitions({self.tp})
            case StopFlow():
                self.consumer.stop_flow()
            case ResumeFlow():
                self.note_flow(stopped=False)
                self.consumer.resume_flow()
            case WaitForStoppedFlow():
                await self.bounded("wait_for_stopped_flow()", self.consumer.wait_for_stopped_flow())
                self.note_flow(stopped=True)
            case Seek(offset):
                self.observed.seek("t", offset)
                await self.consumer.seek(self.tp, offset)
            case Produce(count):
                await self.produce(count)
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
        revoking = asyncio.create_task(self.consumer.on_partitions_revoked({self.tp}))
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


class _KafkaSide(_Side):
    """A worker of Faust with aiokafka, its threads and a real broker."""

    def __init__(self, schedule: Schedule, observed: Observed, world: KafkaWorld) -> None:
        self.world = world
        self.quiet = world.quiet
        super().__init__(schedule, observed)

    def name(self, topic: str) -> str:
        return self.world.name(topic)

    def make_app(self) -> None:
        self.app = faust.App(
            self.world.group,
            broker=f"kafka://{self.world.bootstrap}",
            web_enabled=False,
            topic_disable_leader=True,
            stream_buffer_maxsize=self.schedule.buffer,
            broker_commit_interval=BOUND * 100,  # the steps say when
        )

    async def join(self) -> None:
        await self.app.start()
        self.consumer = self.app.consumer
        await self.app.tables.recovery.completed.wait()

    async def commit(self, topics: tuple[str, ...] | None = None) -> None:
        await super().commit(topics)
        stored = await asyncio.to_thread(self.world.committed)
        for topic, offset in stored.items():
            if offset != self.observed.committed[topic]:
                self.observed.store(topic, offset)

    def note_flow(self, *, stopped: bool) -> None:
        """What aiokafka fetches is not seen from outside."""

    async def produce(self, count: int) -> None:
        for offset in await asyncio.to_thread(self.world.produce, count):
            self.observed.produce("t", offset)


def run_on_kafka(schedule: Schedule, world: KafkaWorld) -> Observed:
    """Put Faust through a schedule on a real Kafka."""
    observed = Observed(schedule)

    async def main() -> None:
        side = _KafkaSide(schedule, observed, world)
        try:
            await side.main()
        finally:
            # What is in the hands of a schedule would be waited for without end.
            side.app.conf.stream_wait_empty = False
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(side.app.stop(), 10)

    asyncio.run(main())
    return observed
