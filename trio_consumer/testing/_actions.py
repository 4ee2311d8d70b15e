"""What an action of a schedule does: one method for each kind, with its arguments."""

from __future__ import annotations

import math
import zlib
from typing import TYPE_CHECKING

import trio

from .._errors import ConfigurationError, ConsumerError
from .._types import TopicPartition
from ..transports.memory import CommitFault, Faults
from ._member import GROUP
from ._observer import plain

if TYPE_CHECKING:
    from ._world import World

__all__ = ["Actions"]


class Actions:
    """The actions on one world; their names are those of :data:`._schedule.KINDS`."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._broker = world.broker
        self._observer = world.observer

    async def join(self, member: str, delay: float) -> None:
        self._world.join(member, delay)

    async def leave(self, member: str) -> None:
        if member in self._world.members:
            self._world.leave(self._world.members[member])

    async def crash(self, member: str) -> None:
        self._world.blip()
        if member in self._world.members:
            self._world.members[member].gone = True
            if (life := self._world.members[member].life) is not None:
                life.crash()

    async def freeze(self, member: str, seconds: float, asleep: bool) -> None:
        life = self._world.life(member)
        if (
            life is None
            or self._world.members[member].asleep is not None
            or not self._world.freeze(life.name)
        ):
            return
        if asleep:
            self._world.members[member].asleep = trio.Event()
        await self._world.disturbed(seconds)
        self._world.undisturbed()
        if not life.crashed and self._world.life(member) is life:
            # What was frozen and has ended since is gone; a killed process stays so.
            try:
                self._broker.thaw(life.name)
            except ConfigurationError:
                self._observer.note("not thawed", life.name)
        event, self._world.members[member].asleep = self._world.members[member].asleep, None
        if event is not None:
            event.set()

    async def cancel(self, member: str, place: str, steps: int) -> None:
        life = self._world.life(member)
        scope = None if life is None else life.scope(place)
        if scope is not None:
            self._world.blip()
            self._world.steps.cancel_after(steps, scope)

    async def expire(self, member: str) -> None:
        life = self._world.life(member)
        if life is not None and (member_id := self._world.member_id(life)) in self._broker.members(
            GROUP
        ):
            self._world.blip()
            self._broker.expire(member_id)

    async def rebalance(self) -> None:
        self._broker.rebalance(GROUP)

    async def produce(self, tp: int, count: int) -> None:
        self._world.produce(self._world.tp(tp), count)

    async def marker(self, tp: int, share: float) -> None:
        chosen = self._world.tp(tp)
        self._broker.append_marker(chosen)
        self._observer.marked(plain(chosen))

    async def transaction(self, tps: list[int], count: int, seconds: float, commit: bool) -> None:
        transaction = self._broker.transaction(f"producer-{self._observer.number()}")
        written: dict[TopicPartition, list[int]] = {}
        for _ in range(count):
            for each in tps:
                tp = self._world.tp(each)
                number = self._world.append(tp, transaction.produce)
                written.setdefault(tp, []).append(number)
        await self._world.wait(seconds)
        if commit:
            transaction.commit()
        else:
            for tp, records in written.items():
                self._observer.aborted(plain(tp), records)
            transaction.abort()
        for tp in written:
            self._observer.log(plain(tp)).end = self._broker.end_offset(tp)

    async def compact(self, tp: int, share: float) -> None:
        chosen = self._world.tp(tp)
        offsets = [record.offset for record in self._broker.records(chosen)]
        # By a rule, not at random: the same offsets when other actions are left out.
        gone = [o for o in offsets if zlib.crc32(b"%d" % (o * 7919)) % 100 < share * 100]
        self._broker.delete_offsets(chosen, gone)
        self._observer.compacted(plain(chosen), gone)

    async def delete_records(self, tp: int, share: float) -> None:
        chosen = self._world.tp(tp)
        start, end = (
            self._broker.beginning_offset(chosen),
            self._broker.end_offset(chosen),
        )
        before = start + int((end - start) * share)
        self._broker.delete_records(chosen, before)
        self._observer.deleted(plain(chosen), before)

    async def truncate(self, tp: int, share: float) -> None:
        chosen = self._world.tp(tp)
        start, end = (
            self._broker.beginning_offset(chosen),
            self._broker.end_offset(chosen),
        )
        offset = end - int((end - start) * share)
        self._world.blip()
        self._observer.truncated(plain(chosen), offset)
        self._broker.truncate(chosen, offset)

    async def add_partitions(self, tp: int, share: float) -> None:
        topic = self._world.tp(tp).topic
        total = self._broker.topics[topic] + 1
        if total <= 4:
            self._broker.add_partitions(topic, total)
            self._world.produce(TopicPartition(topic, total - 1), self._world.settings.records)

    async def seek(self, member: str, tp: int, share: float, where: str) -> None:
        life = self._world.life(member)
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
                    committed = self._observer.log(plain(mine)).committed
                    self._observer.sought(life.name, plain(mine), committed or 0)
                return
            assigned = sorted(consumer.assignment)
            if not assigned:
                return
            chosen = assigned[tp % len(assigned)]
            log = self._observer.log(plain(chosen))
            committed = log.committed or log.start
            if where == "back":
                target = log.start + int(max(0, committed - log.start) * share)
            else:
                position = consumer.position(chosen) or committed
                target = position + int(max(0, log.end - position) * share)
            await consumer.seek(chosen, target)
            if where == "forward":
                self._observer.excuse(plain(chosen), target)
            self._observer.sought(life.name, plain(chosen), target)
        except (ConsumerError, trio.ClosedResourceError) as exc:
            self._observer.note("not sought", type(exc).__name__)

    async def commit(self, member: str) -> None:
        life = self._world.life(member)
        if life is not None and life.consumer is not None:
            try:
                await life.consumer.commit()
            except (ConsumerError, trio.ClosedResourceError) as exc:
                self._observer.note("not committed", type(exc).__name__)

    async def pause(self, member: str, seconds: float) -> None:
        life = self._world.life(member)
        consumer = None if life is None else life.consumer
        if consumer is not None:
            paused = sorted(consumer.assignment)
            consumer.pause_partitions(paused)
            await self._world.wait(seconds)
            consumer.resume_partitions(paused)

    async def stop_flow(self, member: str, seconds: float) -> None:
        life = self._world.life(member)
        consumer = None if life is None else life.consumer
        if life is not None and consumer is not None:
            consumer.stop_flow()
            await self._world.wait(seconds)
            if life.leaving is None:
                consumer.resume_flow()

    async def outage(self, seconds: float) -> None:
        self._broker.down()
        await self._world.disturbed(seconds)
        self._world.undisturbed()
        self._broker.up()

    async def hold_answers(self, seconds: float) -> None:
        self._broker.pause_answers()
        await self._world.disturbed(seconds)
        self._world.undisturbed()
        self._broker.resume_answers()

    async def faults(
        self,
        seconds: float,
        failures: float,
        answers_lost: float,
        latency: list[float],
        commit_latency: list[float],
    ) -> None:
        self._broker.faults = Faults(
            commit_failure_rate=failures,
            answer_lost_rate=answers_lost,
            latency=(latency[0], latency[1]),
            commit_latency=(commit_latency[0], commit_latency[1]),
        )
        await self._world.disturbed(seconds)
        self._world.undisturbed()
        self._broker.faults = self._world.base_faults()

    async def fail_commits(self, count: int, fault: str) -> None:
        self._broker.fail_next_commits(count, CommitFault(fault))
        # Nobody knows when they are met; the calm forgets those that were not.
        await self._world.disturbed(math.inf)
        self._world.undisturbed()
