"""The schedules with this consumer: its public interface, on the memory broker.

Everything runs under Trio's virtual clock.  The transport is the memory broker
with one thing added: what passes between it and the consumer is written down.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, ClassVar

import trio
from trio.testing import MockClock

from trio_consumer import (
    TP,
    CommitFailedError,
    Consumer,
    Livelock,
    Message,
    OffsetAndMetadata,
    Stream,
    TopicPartition,
    open_consumer,
)
from trio_consumer.testing import MemoryBroker
from trio_consumer.transports import PolledBatch, RebalanceListener, Session, SessionSettings

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

__all__ = ["run"]

GROUP = "g"
T = TP("t", 0)


class BreakOffError(Exception):
    """What the program of a schedule raises."""


class _WatchedSession:
    """A session of the broker; what is fetched and stored is written down."""

    def __init__(self, session: Session, side: _Side) -> None:
        self._session = session
        self._side = side

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    async def poll(self) -> Sequence[PolledBatch]:
        batches = await self._session.poll()
        if self._side.flow_is_stopped:
            self._side.observed.fetched_while_stopped += sum(len(b.records) for b in batches)
        return batches

    async def commit(self, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        await self._session.commit(offsets)
        for tp, stored in offsets.items():
            self._side.observed.store(tp.topic, stored.offset)


class _WatchedBroker:
    """The memory broker as a transport, with watched sessions."""

    closed_errors: ClassVar[tuple[type[BaseException], ...]] = MemoryBroker.closed_errors

    def __init__(self, side: _Side) -> None:
        self._side = side

    @asynccontextmanager
    async def connect(
        self, settings: SessionSettings, listener: RebalanceListener
    ) -> AsyncGenerator[Any, None]:
        async with self._side.broker.connect(settings, listener) as session:
            yield _WatchedSession(session, self._side)


class _Program:
    """One stream, and what is in the hands of its program."""

    def __init__(self, side: _Side, number: int, reader: Reader) -> None:
        self.side = side
        self.number = number
        self.reader = reader
        self.stream: Stream
        self.hand: dict[int, Message] = {}
        self.may_fail = True

    def open(self) -> Stream:
        return self.side.consumer.stream(
            self.reader.topic,
            ack="manual" if self.reader.fails_at is None else "auto",
            value_deserializer=json.loads if self.reader.json else None,
            on_decode_error="skip",
            max_buffered=self.side.observed.schedule.buffer,
        )

    async def take(self) -> Message | None:
        """The next message, or None if none comes."""
        with trio.move_on_after(QUIET):
            message = await anext(aiter(self.stream))
            self.side.observed.give(self.number, message.offset)
            self.hand[message.offset] = message
            return message
        return None

    def finish(self, step: Finish) -> None:
        for offset in step.offsets:
            self.side.observed.do(self.number, offset)
            for _ in range(step.times):
                self.hand[offset].ack()

    async def work(self, count: int | None) -> None:
        if self.reader.fails_at is not None:
            while not await self.agent():
                pass
            return
        while count is None or count > 0:
            message = await self.take()
            if message is None:
                return
            self.finish(Finish((message.offset,)))
            count = None if count is None else count - 1

    async def agent(self) -> bool:
        """Iterate until nothing comes; False if it broke off."""
        try:
            with trio.CancelScope() as scope:
                async with self.open() as stream:
                    while True:
                        with trio.move_on_after(QUIET) as patience:
                            async for message in stream:
                                patience.deadline = trio.current_time() + QUIET
                                await self.handle(message, scope)
                        return True
        except BreakOffError:
            pass
        return False

    async def handle(self, message: Message, scope: trio.CancelScope) -> None:
        self.side.observed.give(self.number, message.offset)
        if message.offset == self.reader.fails_at and self.may_fail:
            self.may_fail = False
            if self.reader.failing == "raise":
                raise BreakOffError
            scope.cancel()
        await trio.lowlevel.checkpoint()
        self.side.observed.do(self.number, message.offset)


class _Side:
    def __init__(self, schedule: Schedule, observed: Observed) -> None:
        self.schedule = schedule
        self.observed = observed
        self.flow_is_stopped = False
        self.revoked = trio.Event()
        meeting = any(isinstance(step, CommitMeanwhile) for step in schedule.steps)
        self.broker = MemoryBroker(latency=1.0 if meeting else 0.0)
        for topic, offsets in schedule.topics.items():
            self.broker.create_topic(topic)
            self.broker.produce_many(topic, [self.value(n) for n in range(max(offsets) + 1)])
            self.broker.delete_offsets(TP(topic, 0), set(range(max(offsets))) - set(offsets))
        if schedule.committed is not None:
            self.broker.set_committed(GROUP, T, schedule.committed)
        self.consumer: Consumer

    def value(self, offset: int) -> bytes:
        return b"no JSON" if offset in self.schedule.not_json else b"%d" % offset

    async def on_livelock(self, livelock: Livelock) -> None:
        await trio.lowlevel.checkpoint()
        self.observed.alarms.append(livelock.symptom.value)

    def on_revoked(self, revoked: frozenset[TopicPartition]) -> None:
        self.revoked.set()

    async def main(self) -> None:
        with trio.CancelScope() as scope:
            async with open_consumer(
                _WatchedBroker(self),
                group=GROUP,
                topics=list(self.schedule.topics),
                commit_interval=BOUND * 100,  # the steps say when
                on_livelock=self.on_livelock,
                on_partitions_revoked=self.on_revoked,
            ) as self.consumer:
                self.programs = [
                    _Program(self, n, reader) for n, reader in enumerate(self.schedule.readers)
                ]
                for program in self.programs:
                    if program.reader.fails_at is None:
                        program.stream = await program.open().__aenter__()
                async with trio.open_nursery() as self.nursery:
                    for step in self.schedule.steps:
                        await self.step(step)
                    if not self.revoked.is_set():
                        await self.commit()
                    self.observed.close()
                    # What leaving would do is not part of any schedule.
                    self.observed = Observed(self.schedule)
                    scope.cancel()

    async def commit(self, topics: tuple[str, ...] | None = None) -> None:
        with suppress(CommitFailedError):
            await self.consumer.commit(topics)

    async def step(self, step: Step) -> None:
        match step:
            case Background(work):
                self.nursery.start_soon(self.programs[work.reader].work, work.count)
                await trio.sleep(1)
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
                self.nursery.start_soon(self.commit)
                await trio.sleep(0.1)
                self.programs[finish.reader].finish(finish)
                await self.commit()
                self.observed.checkpoint()
            case RefuseCommit():
                self.broker.fail_next_commits(1, "rebalance in progress")
            case HandOver(finishes):
                await self.hand_over(finishes)
            case Pause():
                self.consumer.pause_partitions([T])
            case Resume():
                self.consumer.resume_partitions([T])
            case StopFlow():
                self.consumer.stop_flow()
            case ResumeFlow():
                self.flow_is_stopped = False
                self.consumer.resume_flow()
            case WaitForStoppedFlow():
                with trio.move_on_after(BOUND) as scope:
                    await self.consumer.wait_for_stopped_flow()
                if scope.cancelled_caught:
                    self.observed.hung.append("wait_for_stopped_flow()")
                self.flow_is_stopped = True
            case Seek(offset):
                self.observed.seek("t", offset)
                await self.consumer.seek(T, offset)
            case Produce(count):
                for _ in range(count):
                    self.observed.produce("t", self.broker.produce("t", b"1"))
            case Wait(seconds) | Watch(seconds):
                await trio.sleep(seconds)

    async def hand_over(self, finishes: tuple[Finish, ...]) -> None:
        self.broker.rebalance(GROUP)
        with trio.move_on_after(BOUND) as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.revoked.wait)
                for finish in finishes:
                    # The heartbeat that brings the news comes every 3 seconds.
                    await trio.sleep(5)
                    self.programs[finish.reader].finish(finish)
        if scope.cancelled_caught:
            self.observed.hung.append("the hand-over")
        self.observed.checkpoint()


def _virtually(main: Callable[[], Awaitable[None]]) -> None:
    trio.run(main, clock=MockClock(autojump_threshold=0))


def run(
    schedule: Schedule,
    start: Callable[[Callable[[], Awaitable[None]]], None] = _virtually,
) -> Observed:
    """Put this consumer through a schedule.

    Args:
        schedule: What happens.
        start: Runs the program, under a virtual clock.
    """
    observed = Observed(schedule)

    async def main() -> None:
        await _Side(schedule, observed).main()

    start(main)
    return observed
