"""A member of the simulated group: a real consumer, started again when it fails.

A :class:`Member` is what an operator would see, a name that is kept running; each
time that it is started is a :class:`Life` with a consumer of its own.  What a life
does with messages is either the program of the simulation's user, or the one below,
whose handlers misbehave in every way that a handler may.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

import trio

from .._errors import CommitFailedError, ConsumerError, FencedError
from .._runtime.consumer import Consumer
from .._runtime.message import Message
from .._runtime.opening import open_consumer
from .._runtime.stream import Stream
from ._observer import Delivery

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

if TYPE_CHECKING:
    from ._world import World

__all__ = ["GROUP", "HandlerFailedError", "Life", "Member", "Program", "Treatment", "leaves"]

GROUP = "simulated"

GRACE = 40.0
"""Seconds after a fault in which it explains that a consumer ends: a drain and a commit
each may take its time until it is given up."""

ATTEMPTS = 3
"""After so many attempts a handler does what it should: the end must be reached."""


class HandlerFailedError(Exception):
    """What a simulated handler raises."""


@dataclass(frozen=True)
class Treatment:
    """How a handler treats one message.

    Attributes:
        seconds: How long it takes; None is no checkpoint at all.
        guarded: Whether it works in ``message.while_assigned()``.
        outcome: ``"done"``, ``"raise"``, ``"nack"``, ``"break"``.
        late: Seconds after which a message that is done is acknowledged by hand.
        twice: Whether it is acknowledged once more.
        entered: Whether ``async with message`` acknowledges it.
    """

    seconds: float | None = None
    guarded: bool = False
    outcome: str = "done"
    late: float = 0.0
    twice: bool = False
    entered: bool = False

    @classmethod
    def of(cls, seed: int, trouble: float, delivery: Delivery) -> Treatment:
        """The treatment of a message: it depends on these arguments and nothing else."""
        random = Random(f"{seed}/{delivery.number}/{delivery.record}/{delivery.attempt}")
        if random.random() >= trouble:
            return cls(seconds=random.choice([None, None, 0.0]), entered=random.random() < 0.3)
        outcomes = ["done"] * 6 + ["raise", "nack", "nack", "break"]
        return cls(
            seconds=random.choice([0.0, 0.0, random.uniform(0, 0.6), random.uniform(0, 12)]),
            guarded=random.random() < 0.3,
            outcome=random.choice(outcomes) if delivery.attempt < ATTEMPTS else "done",
            late=random.choice([0.0, 0.0, random.uniform(0, 15)]),
            twice=random.random() < 0.3,
            entered=random.random() < 0.3,
        )


class Member:
    """A name that is kept running.

    Attributes:
        life: The one that is lived now, or None.
        gone: Whether it is not to be started again.
        asleep: Set to an event while its process sleeps.
        ended: Set when it has stopped for good.
    """

    def __init__(self, world: World, name: str, delay: float) -> None:
        self.name = name
        self.life: Life | None = None
        self.gone = False
        self.asleep: trio.Event | None = None
        self.ended = trio.Event()
        self._world = world
        self._delay = delay

    async def run(self) -> None:
        """Live, and live again after each failure, until it is gone."""
        world = self._world
        try:
            while not self.gone:
                self.life = life = Life(world, self)
                world.observer.note("begins", life.name)
                try:
                    await life.run()
                except Exception as exc:
                    self._judge(life, exc)
                finally:
                    self.life = None
                    world.observer.ended(life.name)
                    world.lives += 1
                if not self.gone:
                    await trio.sleep(self._delay)
        finally:
            self.ended.set()

    def _judge(self, life: Life, exc: Exception) -> None:
        world = self._world
        for error in leaves(exc):
            world.observer.note("failed", life.name, type(error).__name__)
            world.last_errors[type(error).__name__] = repr(error)
            if isinstance(error, HandlerFailedError) or world.is_users(error):
                continue
            # A fault excuses what comes a while later: requests have their time-outs.
            explained = isinstance(error, ConsumerError) and (
                life.crashed or world.quiet_since() + GRACE > world.now()
            )
            # One that leaves slowly may meet its successor of the same name.
            explained |= isinstance(error, FencedError) and world.settings.static
            # Nothing is committed while a member joins, and joining may take longer
            # than the last commit is tried.
            explained |= isinstance(error, CommitFailedError) and (
                life.leaving is not None and world.observer.rebalanced_since(life.leaving)
            )
            if not explained:
                world.observer.fail("error", f"{life.name} ends with {error!r}")


class Life:
    """One consumer of a member.

    Attributes:
        name: Also the ``client_id``.
        consumer: While it is open.
        crashed: Whether it was ended without a word.
        leaving: Since when it stops in order, or None.
    """

    def __init__(self, world: World, member: Member) -> None:
        self.name = f"{member.name}{next(world.life_numbers)}"
        self.consumer: Consumer | None = None
        self.crashed = False
        self.leaving: float | None = None
        self._world = world
        self._member = member
        self._program = trio.CancelScope()
        self._body = trio.CancelScope()
        self._streams: list[trio.CancelScope] = []
        self._stream_numbers = itertools.count()

    # -- what can be done to it --------------------------------------------------------

    def leave(self) -> None:
        """Begin to stop in order."""
        if self.consumer is not None and self.leaving is None:
            self.leaving = self._world.now()
            self._world.observer.leaving(self.name)
            self.consumer.close()
        elif self.consumer is None:
            self._program.cancel()

    def crash(self) -> None:
        """End without a word, as a killed process does."""
        if not self.crashed:
            self.crashed = True
            self._world.freeze(self.name)
            self._program.cancel()

    def scope(self, place: str) -> trio.CancelScope | None:
        """The scope at a place: ``"program"``, ``"body"`` or ``"stream"``."""
        if place == "stream":
            return self._streams[0] if self._streams else None
        return self._program if place == "program" else self._body

    # -- its life ----------------------------------------------------------------------

    async def run(self) -> None:
        """Open a consumer and consume until it is stopped or fails."""
        world = self._world
        observer = world.observer
        options = world.consumer_options(self._member.name, self.name)
        with self._program:
            async with trio.open_nursery() as late:
                async with open_consumer(
                    world.broker,
                    group=GROUP,
                    on_partitions_assigned=lambda tps: observer.assigned(self.name, tps),
                    on_partitions_revoked=lambda tps: observer.revoked(self.name, tps),
                    on_partitions_lost=lambda tps: observer.lost(self.name, tps),
                    **options,
                ) as consumer:
                    self.consumer = consumer
                    try:
                        with self._body:
                            if world.program is not None:
                                await world.program(world, self, consumer)
                            else:
                                await self._consume(consumer, late)
                    finally:
                        self.consumer = None
                if self.leaving is not None and not self._body.cancelled_caught:
                    observer.left(self.name, self.leaving)
                observer.ended(self.name)

    async def _consume(self, consumer: Consumer, late: trio.Nursery) -> None:
        settings = self._world.settings
        if settings.reopening:
            async with trio.open_nursery() as nursery:
                for number, (topic, ack) in enumerate(settings.streams):
                    nursery.start_soon(self._reopen, consumer, late, number, topic, ack)
            return
        async with AsyncExitStack() as stack:
            streams: list[Stream] = []
            for topic, ack in settings.streams:
                stream = consumer.stream(topic, ack=ack)  # type: ignore[arg-type]  # drawn
                streams.append(await stack.enter_async_context(stream))
            async with trio.open_nursery() as nursery:
                for number, stream in enumerate(streams):
                    self._start_workers(nursery, late, number, stream)

    async def _reopen(
        self, consumer: Consumer, late: trio.Nursery, number: int, topic: str, ack: Any
    ) -> None:
        """One stream after another: each is left after a while, by its end or by an error."""
        world = self._world
        for turn in itertools.count():
            if self.leaving is not None:
                return
            random = Random(f"{world.schedule.seed}/{self.name}/{number}/{turn}")
            seconds = 1e9 if world.calm.is_set() else random.uniform(0.5, 25)
            scope = trio.CancelScope(deadline=trio.current_time() + seconds)
            self._streams.append(scope)
            try:
                async with consumer.stream(topic, ack=ack) as stream:
                    with scope:
                        async with trio.open_nursery() as nursery:
                            self._start_workers(nursery, late, number, stream)
            except Exception as exc:
                if world.settings.on_error != "stream" or not all(
                    isinstance(error, HandlerFailedError) for error in leaves(exc)
                ):
                    raise
            finally:
                self._streams.remove(scope)
            if random.random() < 0.3:
                await trio.sleep(random.uniform(0, 2))

    def _start_workers(
        self, nursery: trio.Nursery, late: trio.Nursery, number: int, stream: Stream
    ) -> None:
        settings = self._world.settings
        key = next(self._stream_numbers)
        for worker in range(settings.workers):
            batched = settings.batches and worker == 0
            work = self._batches if batched else self._messages
            nursery.start_soon(work, late, number, stream, key)

    def _received(self, message: Message, number: int, key: int) -> Delivery:
        return self._world.received(self.name, message, number, (self.name, key))

    def _treatment(self, delivery: Delivery) -> Treatment:
        world = self._world
        if world.calm.is_set():
            return Treatment()
        chosen = Treatment.of(world.schedule.seed, world.settings.trouble, delivery)
        if chosen.outcome == "break" and not world.settings.reopening:
            # What is left in hand would wait for a new stream, and none comes.
            return Treatment(outcome="nack")
        return chosen

    async def _messages(self, late: trio.Nursery, number: int, stream: Stream, key: int) -> None:
        mode = stream.ack_mode.value
        async for message in stream:
            delivery = self._received(message, number, key)
            how = self._treatment(delivery)
            if how.guarded:
                with message.while_assigned() as scope:
                    await self._work(how)
                if scope.cancelled_caught:
                    continue  # not processed, so nothing may come of it
            else:
                await self._work(how)
            if mode == "none":
                continue
            if how.outcome == "break":
                break
            if not self._goes_on(how, [(message, delivery)]):
                continue
            self._world.observer.processed(delivery)
            if mode == "auto":
                self._world.observer.finished(delivery)
            elif how.entered and not how.late:
                async with message:
                    pass
                self._world.observer.finished(delivery)
            else:
                self._acknowledge(late, how, message, delivery)

    async def _batches(self, late: trio.Nursery, number: int, stream: Stream, key: int) -> None:
        mode = stream.ack_mode.value
        async for batch in stream.batches(7, 0.5):
            both = [(message, self._received(message, number, key)) for message in batch]
            how = self._treatment(both[0][1])
            await self._work(how)
            if mode == "none" or not self._goes_on(how, both):
                continue
            for _, delivery in both:
                self._world.observer.processed(delivery)
            for message, delivery in both:
                if mode == "auto":
                    self._world.observer.finished(delivery)
                else:
                    self._acknowledge(late, how, message, delivery)

    def _goes_on(self, how: Treatment, both: list[tuple[Message, Delivery]]) -> bool:
        """Whether the message is done; else it was given back.

        Raises:
            HandlerFailedError: That is how it is treated.
        """
        fails = how.outcome == "raise"
        if fails and self._world.settings.on_error != "nack":
            raise HandlerFailedError
        if not fails and how.outcome != "nack":
            return True
        for message, delivery in both:
            self._world.observer.given_back(delivery, message.nack())
        return False

    def _acknowledge(
        self, late: trio.Nursery, how: Treatment, message: Message, delivery: Delivery
    ) -> None:
        if how.late:
            late.start_soon(self._acknowledge_late, how, message, delivery)
            return
        observer = self._world.observer
        for _ in range(1 + how.twice):
            observer.acknowledged(delivery, message.ack())

    async def _acknowledge_late(self, how: Treatment, message: Message, delivery: Delivery) -> None:
        await self._awake(how.late)
        observer = self._world.observer
        for _ in range(1 + how.twice):
            observer.acknowledged(delivery, message.ack())

    async def _work(self, how: Treatment) -> None:
        if how.seconds is not None:
            await self._awake(how.seconds)

    async def _awake(self, seconds: float) -> None:
        """Let time pass; a process that sleeps does nothing when it is over."""
        await trio.sleep(seconds)
        while self._member.asleep is not None:
            await self._member.asleep.wait()


def leaves(error: BaseException) -> Iterator[BaseException]:
    """What is inside of the groups that nurseries made."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves(inner)
    else:
        yield error


Program = Callable[["World", "Life", Consumer], Awaitable[None]]
