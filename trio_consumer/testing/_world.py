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
from ..transports.memory import AcceptedCommit, CommitFault, Faults, MemoryBroker
from ._member import GROUP, Life, Member, Program
from ._observer import Delivery, Observer, Partition, Violation
from ._schedule import Action, Schedule
from ._seeded import run_seeded

__all__ = ["BOUND", "Outcome", "World", "run_schedule"]

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
    lives: int
    errors: Mapping[str, str]


class _Steps(trio.abc.Instrument):
    """Counts the steps of all tasks: for the digest, and to cancel between two of them."""

    def __init__(self) -> None:
        self.digest = 0
        self._waiting: list[tuple[int, trio.CancelScope]] = []
        self._step = 0

    def cancel_after(self, steps: int, scope: trio.CancelScope) -> None:
        """Cancel a scope when so many steps more were made."""
        self._waiting.append((self._step + steps, scope))

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._step += 1
        self.digest = zlib.crc32(task.name.encode(), self.digest)
        if self._waiting:
            due = [scope for step, scope in self._waiting if step <= self._step]
            if due:
                self._waiting = [each for each in self._waiting if each[0] > self._step]
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
        self._observer.given(generation, {m: [tuple(tp) for tp in a] for m, a in assignment.items()})

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
        needed: How many streams have to process a record; by default as the
            settings say.
        users_errors: Whether what is not a ``ConsumerError`` comes from the user's
            handler and only ends its member.
    """

    def __init__(
        self, schedule: Schedule, *, program: Program | None = None, users_errors: bool = False
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
        self._users_errors = users_errors
        self._began = 0.0
        self._noise = 0
        self._noisy_until = -math.inf
        self._steps = _Steps()
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
            quiet_since=self.quiet_since,
            on_violation=self._end,
        )
        self.broker = MemoryBroker(
            seed=schedule.seed,
            faults=self._base_faults(),
            observer=_Coordinator(self.observer),
        )
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
        return self.observer.delivered(
            life,
            stream,
            number,
            (message.topic, message.partition),
            message.offset,
            int(message.value),
        )

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
        run_seeded(self._main, self.schedule.seed, (self._steps,))
        observer = self.observer
        return Outcome(
            self.schedule,
            observer.violation,
            tuple(observer.trace),
            zlib.crc32(self._steps.digest.to_bytes(4, "big"), observer.digest),
            observer.counts,
            observer.checked,
            self._virtual,
            self.lives,
            self.last_errors,
        )

    async def _main(self) -> None:
        self._began = trio.current_time()
        self.calm = trio.Event()
        self._stop = trio.CancelScope()
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
            if now != then
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
        self._noise = 0
        self._noisy_until = trio.current_time()
        if not any(not member.gone for member in self.members.values()):
            self._join("z", 1.0)
        if self.settings.static and self.settings.cooperative:
            # Kafka's own gap: a static member that dies between giving a partition up
            # and joining again is replaced without a rebalance, and nobody gets the
            # partition before the next one.
            await trio.sleep(2 * self.settings.session_timeout)
            self.broker.rebalance(GROUP)
        await self._until_complete()

    async def _until_complete(self) -> None:
        began = trio.current_time()
        while not self.observer.is_complete() and trio.current_time() < began + BOUND:
            await trio.sleep(1)
            self._audit()
        if not self.observer.is_complete():
            self._note_state()
        self.observer.check_complete(trio.current_time() - began)

    async def _part(self) -> None:
        """All members leave in order, in the middle of their work; one more ends it."""
        for tp in self._partitions():
            self._produce(tp, 7)
        await trio.sleep(0.2)
        for member in self.members.values():
            self._leave(member)
        with trio.move_on_after(BOUND) as scope:
            while any(member.running for member in self.members.values()):
                await trio.sleep(1)
        if scope.cancelled_caught:
            self.observer.fail("I11", f"a member is still there {BOUND:g} s after it was to leave")
        self._join("z", 1.0)
        await self._until_complete()
        self._leave(self.members["z"])
        with trio.move_on_after(BOUND):
            while self.members["z"].running:
                await trio.sleep(1)

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
            self._produce(tp, self.settings.records)

    def _partitions(self) -> list[TopicPartition]:
        topics = self.broker.topics
        return [TopicPartition(topic, n) for topic, count in topics.items() for n in range(count)]

    def _tp(self, number: int) -> TopicPartition:
        partitions = self._partitions()
        return partitions[number % len(partitions)]

    def _produce(self, tp: TopicPartition, count: int) -> None:
        for _ in range(count):
            number = self.observer.number()
            offset = self.broker.produce(tp.topic, b"%d" % number, partition=tp.partition)
            self.observer.produced(tuple(tp), offset, number)

    # -- actions --------------------------------------------------------------------------

    async def _perform(self, action: Action) -> None:
        method: Callable[..., Awaitable[None]] = getattr(self, f"_do_{action.kind}")
        await method(**action.args)

    def _join(self, name: str, delay: float) -> None:
        known = self.members.get(name)
        if known is not None and not known.gone:
            return
        self.members[name] = member = Member(self, name, delay)
        self._nursery.start_soon(member.run)

    def _leave(self, member: Member) -> None:
        member.gone = True
        if member.life is not None:
            member.life.leave()

    def _life(self, name: str) -> Life | None:
        member = self.members.get(name)
        return None if member is None else member.life

    def _member_id(self, life: Life) -> str:
        return "" if life.consumer is None else life.consumer.group_metadata.member_id

    async def _wait(self, seconds: float) -> None:
        """Let time pass, but no longer than until the faults have to stop."""
        with trio.move_on_after(seconds):
            await self.calm.wait()

    async def _disturbed(self, seconds: float) -> None:
        """The same, as a time in which a fault goes on."""
        self._noise += 1
        await self._wait(seconds)

    def _undisturbed(self) -> None:
        self._noise -= 1
        self._noisy_until = trio.current_time()

    def _blip(self) -> None:
        """Something happened that is over at once."""
        self._noisy_until = trio.current_time()

    async def _do_join(self, member: str, delay: float) -> None:
        self._join(member, delay)

    async def _do_leave(self, member: str) -> None:
        if member in self.members:
            self._leave(self.members[member])

    async def _do_crash(self, member: str) -> None:
        self._blip()
        if member in self.members:
            self.members[member].gone = True
            if (life := self.members[member].life) is not None:
                life.crash()

    async def _do_freeze(self, member: str, seconds: float, asleep: bool) -> None:
        life = self._life(member)
        if life is None or self.members[member].asleep is not None or not self.freeze(life.name):
            return
        if asleep:
            self.members[member].asleep = trio.Event()
        await self._disturbed(seconds)
        self._undisturbed()
        if not life.crashed and self._life(member) is life:
            # What was frozen and has ended since is gone; a killed process stays so.
            try:
                self.broker.thaw(life.name)
            except ConfigurationError:
                self.observer.note("not thawed", life.name)
        event, self.members[member].asleep = self.members[member].asleep, None
        if event is not None:
            event.set()

    async def _do_cancel(self, member: str, place: str, steps: int) -> None:
        life = self._life(member)
        scope = None if life is None else life.scope(place)
        if scope is not None:
            self._blip()
            self._steps.cancel_after(steps, scope)

    async def _do_expire(self, member: str) -> None:
        life = self._life(member)
        if life is not None and (member_id := self._member_id(life)) in self.broker.members(GROUP):
            self._blip()
            self.broker.expire(member_id)

    async def _do_rebalance(self) -> None:
        self.broker.rebalance(GROUP)

    async def _do_produce(self, tp: int, count: int) -> None:
        self._produce(self._tp(tp), count)

    async def _do_marker(self, tp: int, share: float) -> None:
        chosen = self._tp(tp)
        self.broker.append_marker(chosen)
        self.observer.marked(tuple(chosen))

    async def _do_transaction(
        self, tps: list[int], count: int, seconds: float, commit: bool
    ) -> None:
        transaction = self.broker.transaction(f"producer-{self.observer.number()}")
        written: dict[TopicPartition, list[int]] = {}
        for _ in range(count):
            for each in tps:
                tp = self._tp(each)
                number = self.observer.number()
                offset = transaction.produce(tp.topic, b"%d" % number, partition=tp.partition)
                self.observer.produced(tuple(tp), offset, number)
                written.setdefault(tp, []).append(number)
        await self._wait(seconds)
        if commit:
            transaction.commit()
        else:
            for tp, records in written.items():
                self.observer.aborted(tuple(tp), records)
            transaction.abort()
        for tp in written:
            self.observer.log(tuple(tp)).end = self.broker.end_offset(tp)

    async def _do_compact(self, tp: int, share: float) -> None:
        chosen = self._tp(tp)
        offsets = [record.offset for record in self.broker.records(chosen)]
        # By a rule, not at random: the same offsets when other actions are left out.
        gone = [o for o in offsets if zlib.crc32(b"%d" % (o * 7919)) % 100 < share * 100]
        self.broker.delete_offsets(chosen, gone)
        self.observer.compacted(tuple(chosen), gone)

    async def _do_delete_records(self, tp: int, share: float) -> None:
        chosen = self._tp(tp)
        start, end = self.broker.beginning_offset(chosen), self.broker.end_offset(chosen)
        before = start + int((end - start) * share)
        self.broker.delete_records(chosen, before)
        self.observer.deleted(tuple(chosen), before)

    async def _do_truncate(self, tp: int, share: float) -> None:
        chosen = self._tp(tp)
        start, end = self.broker.beginning_offset(chosen), self.broker.end_offset(chosen)
        offset = end - int((end - start) * share)
        self._blip()
        self.observer.truncated(tuple(chosen), offset)
        self.broker.truncate(chosen, offset)

    async def _do_add_partitions(self, tp: int, share: float) -> None:
        topic = self._tp(tp).topic
        total = self.broker.topics[topic] + 1
        if total <= 4:
            self.broker.add_partitions(topic, total)
            self._produce(TopicPartition(topic, total - 1), self.settings.records)

    async def _do_seek(self, member: str, tp: int, share: float, where: str) -> None:
        life = self._life(member)
        consumer = None if life is None else life.consumer
        if life is None or consumer is None:
            return
        try:
            if where in ("committed", "restart"):
                # What the broker has is what the observer saw it store.
                await (
                    consumer.seek_to_committed() if where == "committed" else consumer.on_restart()
                )
                for mine in sorted(consumer.assignment):
                    committed = self.observer.log(tuple(mine)).committed
                    self.observer.sought(life.name, tuple(mine), committed or 0)
                return
            assigned = sorted(consumer.assignment)
            if not assigned:
                return
            chosen = assigned[tp % len(assigned)]
            log = self.observer.log(tuple(chosen))
            committed = log.committed or log.start
            if where == "back":
                target = log.start + int(max(0, committed - log.start) * share)
            else:
                position = consumer.position(chosen) or committed
                target = position + int(max(0, log.end - position) * share)
            await consumer.seek(chosen, target)
            if where == "forward":
                self.observer.excuse(tuple(chosen), target)
            self.observer.sought(life.name, tuple(chosen), target)
        except (ConsumerError, trio.ClosedResourceError) as exc:
            self.observer.note("not sought", type(exc).__name__)

    async def _do_commit(self, member: str) -> None:
        life = self._life(member)
        if life is not None and life.consumer is not None:
            try:
                await life.consumer.commit()
            except (ConsumerError, trio.ClosedResourceError) as exc:
                self.observer.note("not committed", type(exc).__name__)

    async def _do_pause(self, member: str, seconds: float) -> None:
        life = self._life(member)
        consumer = None if life is None else life.consumer
        if consumer is not None:
            paused = sorted(consumer.assignment)
            consumer.pause_partitions(paused)
            await self._wait(seconds)
            consumer.resume_partitions(paused)

    async def _do_stop_flow(self, member: str, seconds: float) -> None:
        life = self._life(member)
        consumer = None if life is None else life.consumer
        if life is not None and consumer is not None:
            consumer.stop_flow()
            await self._wait(seconds)
            if life.leaving is None:
                consumer.resume_flow()

    async def _do_outage(self, seconds: float) -> None:
        self.broker.down()
        await self._disturbed(seconds)
        self._undisturbed()
        self.broker.up()

    async def _do_hold_answers(self, seconds: float) -> None:
        self.broker.pause_answers()
        await self._disturbed(seconds)
        self._undisturbed()
        self.broker.resume_answers()

    async def _do_faults(
        self,
        seconds: float,
        failures: float,
        answers_lost: float,
        latency: list[float],
        commit_latency: list[float],
    ) -> None:
        self.broker.faults = Faults(
            commit_failure_rate=failures,
            answer_lost_rate=answers_lost,
            latency=(latency[0], latency[1]),
            commit_latency=(commit_latency[0], commit_latency[1]),
        )
        await self._disturbed(seconds)
        self._undisturbed()
        self.broker.faults = self._base_faults()

    async def _do_fail_commits(self, count: int, fault: str) -> None:
        self.broker.fail_next_commits(count, CommitFault(fault))
        # Nobody knows when they are met; the calm forgets those that were not.
        await self._disturbed(math.inf)
        self._undisturbed()

    def _base_faults(self) -> Faults:
        return Faults(latency=self.settings.latency)

    _virtual = 0.0


def _open_files() -> int:
    """File descriptors of this process; 0 where the system does not tell."""
    folder = Path("/proc/self/fd")
    return len(os.listdir(folder)) if folder.exists() else 0


def run_schedule(
    schedule: Schedule, *, program: Program | None = None, users_errors: bool = False
) -> Outcome:
    """Carry out one schedule."""
    return World(schedule, program=program, users_errors=users_errors).run()
