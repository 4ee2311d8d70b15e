"""One simulation: a schedule, carried out on a memory broker under a virtual clock.

The actions happen at their times.  Then every fault stops, and the group has a
bounded time to process and commit everything (:data:`BOUND`).  Then comes one more
burst of records, in the middle of which all members leave in order, and one member
that finishes what they left.  Last, nothing may be left: no task, no thread, no
socket.
"""

from __future__ import annotations

import itertools
import math
import os
import threading
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from .._errors import ConfigurationError, ConsumerError
from .._runtime.message import Message
from .._types import TopicPartition
from ..transports.memory import AcceptedCommit, Faults, MemoryBroker
from ._actions import Actions
from ._member import GROUP, Life, Member, Program
from ._observer import Delivery, Observer, Partition, Violation, plain
from ._schedule import Action, Schedule
from ._seeded import run_seeded

__all__ = ["BOUND", "Outcome", "World"]

BOUND = 400.0
"""Virtual seconds within which everything is committed once the faults have stopped: a
session timeout, a few rebalances and the longest back-off of a commit, and much to
spare.  Arbitrary."""


@dataclass(frozen=True)
class Outcome:
    """What became of one simulation.

    Attributes:
        schedule: What was simulated.
        violation: What must not have happened, or None.
        trace: What happened, line by line.
        digest: A number that is equal for equal runs, down to each step of a task.
        counts: How often what happened.
        checked: How often each check was made.
        virtual: Virtual seconds.
        steps: Steps of all tasks, which is what it cost.
        lives: Consumers that were opened.
        errors: What consumers ended with, one example of each kind.
    """

    schedule: Schedule
    violation: Violation | None
    trace: tuple[str, ...]
    digest: int
    counts: Counter[str]
    checked: Counter[str]
    virtual: float
    steps: int
    lives: int
    errors: Mapping[str, str]


class _Steps(trio.abc.Instrument):
    """Counts the steps of all tasks: for the digest, and to cancel between two of them."""

    def __init__(self) -> None:
        self.digest = 0
        self._waiting: list[tuple[int, trio.CancelScope]] = []
        self.made = 0

    def cancel_after(self, steps: int, scope: trio.CancelScope) -> None:
        """Cancel a scope when so many steps more were made."""
        self._waiting.append((self.made + steps, scope))

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.made += 1
        self.digest = zlib.crc32(task.name.encode(), self.digest)
        if self._waiting:
            due = [scope for step, scope in self._waiting if step <= self.made]
            if due:
                self._waiting = [each for each in self._waiting if each[0] > self.made]
                for scope in due:
                    scope.cancel()


class _Coordinator:
    """Translates what the broker's coordinator does into the observer's words."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer

    def rebalancing(self, group: str) -> None:
        self._observer.rebalancing()

    def assigned(
        self, group: str, generation: int, assignment: Mapping[str, frozenset[TopicPartition]]
    ) -> None:
        self._observer.given(
            generation, {m: [plain(tp) for tp in a] for m, a in assignment.items()}
        )

    def committed(self, group: str, commit: AcceptedCommit) -> None:
        offsets: dict[Partition, int] = {
            (tp.topic, tp.partition): stored.offset for tp, stored in commit.offsets.items()
        }
        self._observer.committed(commit.member_id, commit.generation, offsets)


class World:
    """Everything of one simulation.

    Args:
        schedule: What happens.
        program: What each member does, instead of what is drawn.
        users_errors: Whether what is not a ``ConsumerError`` comes from the user's
            handler and only ends its member.
        value: Makes the value of the n-th record.
        within: Virtual seconds within which everything has to be done once the
            faults have stopped.
    """

    def __init__(
        self,
        schedule: Schedule,
        *,
        program: Program | None = None,
        users_errors: bool = False,
        value: Callable[[int], bytes] | None = None,
        within: float = BOUND,
    ) -> None:
        settings = schedule.settings
        self.schedule = schedule
        self.settings = settings
        self.program = program
        self.life_numbers = itertools.count(1)
        self.lives = 0
        self.last_errors: dict[str, str] = {}
        self.members: dict[str, Member] = {}
        self.calm: trio.Event
        self.on_start: Callable[[], None] = lambda: None
        self._value = value or _text
        self._within = within
        # By place: values are the user's business.
        self._numbers: dict[tuple[str, int, int], int] = {}
        self._delivered: dict[tuple[str, int, int], Delivery] = {}
        self._users_errors = users_errors
        self._began = 0.0
        self._noise = 0
        self._noisy_until = -math.inf
        self.steps = _Steps()
        self._stop: trio.CancelScope | None = None
        streams: dict[str, frozenset[int]] = {
            topic: frozenset(
                number
                for number, (name, ack) in enumerate(settings.streams)
                if name == topic and ack != "none"
            )
            for topic in settings.partitions
        }
        # Streams that end by themselves leave the decision to those that stay.
        one = settings.reopening or program is not None
        self.observer = Observer(
            now=self.now,
            needed={topic: 1 if one else len(numbers) for topic, numbers in streams.items()},
            streams=streams,
            read_committed=settings.read_committed,
            ordered=not settings.reopening,
            eager=not settings.cooperative,
            quiet_since=self.quiet_since,
            on_violation=self._end,
        )
        self.broker = MemoryBroker(
            seed=schedule.seed,
            faults=self.base_faults(),
            observer=_Coordinator(self.observer),
        )
        self._actions = Actions(self)
        self._nursery: trio.Nursery

    # -- what members ask ----------------------------------------------------------------

    def now(self) -> float:
        """Virtual seconds since the beginning."""
        return trio.current_time() - self._began if trio.lowlevel.in_trio_run() else 0.0

    def is_users(self, error: BaseException) -> bool:
        """Whether an exception comes from the handler of the simulation's user."""
        return self._users_errors and not isinstance(error, ConsumerError)

    def consumer_options(self, member: str, life: str) -> dict[str, Any]:
        """Arguments of ``open_consumer`` for one life."""
        settings = self.settings
        client: dict[str, Any] = {
            "client_id": life,
            "max_poll_records": settings.max_poll_records,
            "session_timeout_ms": settings.session_timeout * 1000,
            "heartbeat_interval_ms": settings.heartbeat * 1000,
            "max_poll_interval_ms": settings.rebalance_timeout * 1000,
            "partition_assignment_strategy": "cooperative-sticky"
            if settings.cooperative
            else "range",
        }
        if settings.static:
            client["group_instance_id"] = member
        return {
            "client_options": client,
            "commit_interval": settings.commit_interval,
            "commit_every": settings.commit_every,
            "commit_timeout": settings.commit_timeout,
            "drain_timeout": settings.drain_timeout,
            "max_buffered": settings.max_buffered,
            "isolation_level": "read_committed" if settings.read_committed else "read_uncommitted",
        }

    def received(self, life: str, message: Message, number: int, stream: object) -> Delivery:
        """A handler gets a message."""
        place = (message.topic, message.partition, message.offset)
        # The place says less than the value where a log was truncated.
        value = message.value if self.program is None else None
        record = self._numbers.get(place, -1) if value is None else int(value)
        delivery = self.observer.delivered(life, stream, number, place[:2], place[2], record)
        self._delivered[place] = delivery
        return delivery

    def processed(self, message: Message) -> None:
        """A handler says that a message is processed."""
        place = (message.topic, message.partition, message.offset)
        self.observer.processed(self._delivered[place])

    def freeze(self, life: str) -> bool:
        """Cut a life off from the broker; False if it is not connected."""
        try:
            self.broker.freeze(life)
        except ConfigurationError:
            return False
        return True

    def quiet_since(self) -> float:
        """When the last fault ended, infinity while there is one."""
        return math.inf if self._noise else self._noisy_until

    # -- the run -------------------------------------------------------------------------

    def run(self) -> Outcome:
        """Carry the schedule out, in a Trio run of its own."""
        run_seeded(self._main, self.schedule.seed, (self.steps,))
        observer = self.observer
        return Outcome(
            self.schedule,
            observer.violation,
            tuple(observer.trace),
            zlib.crc32(self.steps.digest.to_bytes(4, "big"), observer.digest),
            observer.counts,
            observer.checked,
            self._virtual,
            self.steps.made,
            self.lives,
            self.last_errors,
        )

    async def _main(self) -> None:
        self._began = trio.current_time()
        self.calm = trio.Event()
        self._stop = trio.CancelScope()
        self.on_start()
        before = trio.lowlevel.current_statistics().tasks_living
        threads, files = threading.active_count(), _open_files()
        self._make_topics()
        with self._stop:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                await self._play()
                await self._settle()
                await self._part()
                nursery.cancel_scope.cancel()
        self._virtual = self.now()
        left = [
            f"{now - then} {what} left"
            for what, then, now in [
                ("tasks", before, trio.lowlevel.current_statistics().tasks_living),
                ("threads", threads, threading.active_count()),
                ("files and sockets", files, _open_files()),
            ]
            if now > then  # fewer: something of before has ended, as idle threads do
        ]
        self.observer.check_left_behind(", ".join(left))

    async def _play(self) -> None:
        for action in self.schedule.actions:
            await trio.sleep_until(self._began + action.at)
            self._audit()
            self.observer.note("ACTION", action.kind, sorted(action.args.items()))
            self._nursery.start_soon(self._perform, action)
        await trio.sleep_until(self._began + self.schedule.horizon)

    async def _settle(self) -> None:
        """The faults stop; everything has to be done in bounded time."""
        self.observer.note("CALM")
        self.calm.set()
        # What waited for the calm undoes its fault first.
        await trio.testing.wait_all_tasks_blocked()
        self.broker.heal()
        if not any(not member.gone for member in self.members.values()):
            self.join("z", 1.0)
        if self.settings.static and self.settings.cooperative:
            # Kafka's own gap: a static member that dies between giving a partition up
            # and joining again is replaced without a rebalance, and nobody gets the
            # partition before the next one.
            await trio.sleep(2 * self.settings.session_timeout)
            self.broker.rebalance(GROUP)
        await self._until_complete()

    async def _until_complete(self) -> None:
        began = trio.current_time()
        while not self.observer.is_complete() and trio.current_time() < began + self._within:
            await trio.sleep(1)
            self._audit()
        if not self.observer.is_complete():
            self._note_state()
        self.observer.check_complete(trio.current_time() - began)

    async def _part(self) -> None:
        """All members leave in order, in the middle of their work; one more ends it."""
        for tp in self._partitions():
            self.produce(tp, 7)
        await trio.sleep(0.2)
        for member in self.members.values():
            self.leave(member)
        with trio.move_on_after(BOUND) as scope:
            for member in self.members.values():
                await member.ended.wait()
        if scope.cancelled_caught:
            self.observer.fail("I11", f"a member is still there {BOUND:g} s after it was to leave")
        self.join("z", 1.0)
        await self._until_complete()
        self.leave(self.members["z"])
        with trio.move_on_after(BOUND):
            await self.members["z"].ended.wait()

    def _end(self) -> None:
        if self._stop is not None:
            self._stop.cancel()

    def _audit(self) -> None:
        """Ask each consumer for its numbers and hold them against the history."""
        settings = self.settings
        for member in self.members.values():
            life = member.life
            if life is None or life.consumer is None:
                continue
            statistics = life.consumer.statistics()
            for tp, partition in statistics.partitions.items():
                self.observer.replayable(life.name, (tp.topic, tp.partition), partition.replay)
            given_back = self.observer.counts["given back"]
            for stream in statistics.streams:
                bound = settings.max_buffered + settings.max_poll_records + given_back
                self.observer.buffered(life.name, stream.buffered, bound)

    def _note_state(self) -> None:
        """For whoever reads the trace: what the consumers think that they are waiting for."""
        for member in self.members.values():
            life = member.life
            if life is not None and life.consumer is not None:
                for held in life.consumer.held():
                    self.observer.note("HELD", life.name, held)
                for tp, partition in life.consumer.statistics().partitions.items():
                    self.observer.note("STATE", life.name, tp, partition)

    # -- records --------------------------------------------------------------------------

    def _make_topics(self) -> None:
        for topic, count in self.settings.partitions.items():
            self.broker.create_topic(topic, count)
        for tp in self._partitions():
            self.produce(tp, self.settings.records)

    def _partitions(self) -> list[TopicPartition]:
        topics = self.broker.topics
        return [TopicPartition(topic, n) for topic, count in topics.items() for n in range(count)]

    def tp(self, number: int) -> TopicPartition:
        partitions = self._partitions()
        return partitions[number % len(partitions)]

    def produce(self, tp: TopicPartition, count: int) -> None:
        """Append records."""
        for _ in range(count):
            self.append(tp, self.broker.produce)

    def append(self, tp: TopicPartition, produce: Callable[..., int]) -> int:
        """Append one record, in a transaction or not; its number."""
        number = self.observer.number()
        offset = produce(tp.topic, self._value(number), partition=tp.partition)
        self._numbers[tp.topic, tp.partition, offset] = number
        self.observer.produced(plain(tp), offset, number)
        return number

    # -- actions --------------------------------------------------------------------------

    async def _perform(self, action: Action) -> None:
        method: Callable[..., Awaitable[None]] = getattr(self._actions, action.kind)
        await method(**action.args)

    def join(self, name: str, delay: float) -> None:
        """Start a member, unless it runs; it is started again so long after a failure."""
        known = self.members.get(name)
        if known is not None and not known.gone:
            return
        self.members[name] = member = Member(self, name, delay)
        self._nursery.start_soon(member.run)

    def leave(self, member: Member) -> None:
        """Let a member stop in order."""
        member.gone = True
        if member.life is not None:
            member.life.leave()

    def life(self, name: str) -> Life | None:
        """What a member lives now."""
        member = self.members.get(name)
        return None if member is None else member.life

    def member_id(self, life: Life) -> str:
        """What the coordinator knows it by, "" if it does not."""
        return "" if life.consumer is None else life.consumer.group_metadata.member_id

    async def wait(self, seconds: float) -> None:
        """Let time pass, but no longer than until the faults have to stop."""
        with trio.move_on_after(seconds):
            await self.calm.wait()

    async def disturbed(self, seconds: float) -> None:
        """The same, as a time in which a fault goes on."""
        self._noise += 1
        await self.wait(seconds)

    def undisturbed(self) -> None:
        """That fault is over."""
        self._noise -= 1
        self._noisy_until = self.now()

    def blip(self) -> None:
        """Something happened that is over at once."""
        self._noisy_until = self.now()

    def base_faults(self) -> Faults:
        """What is always so with these settings."""
        return Faults(latency=self.settings.latency)

    _virtual = 0.0


def _text(number: int) -> bytes:
    return b"%d" % number


def _open_files() -> int:
    """File descriptors of this process; 0 where the system does not tell."""
    folder = Path("/proc/self/fd")
    return len(os.listdir(folder)) if folder.exists() else 0
