"""One member of one group, seen from the client: joins, heartbeats, the listener.

:class:`Membership` owns the member id, the generation and the state below, and
is the only one that calls the listener: its ``run`` task, so one call at a time.
``heartbeat`` is a task of its own, because heartbeats go on while the listener
works.  Both only move the state; ``run`` acts on it:

* ``OUT``: no subscription.
* ``DUE``: has to join.  Eager: everything is revoked first.
* ``JOINING``: a join or a sync is under way; no heartbeats, no commits.
* ``STABLE``: has its assignment.
* ``LOST``: the coordinator does not know it any more.  What it holds is gone:
  ``lost`` is called, then it joins as a new member.
* ``FAILED``: cannot go on (fenced); ``lost`` is called, polls raise.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import TypeVar

import trio

from ..._errors import CommitFailedError, FencedError, TransportError
from ..._types import GroupMetadata, OffsetAndMetadata, TopicPartition
from ..base import RebalanceListener, SessionSettings
from .cluster import Cluster, Signal
from .fetcher import Fetcher
from .group import Group
from .link import Link
from .options import ClientOptions
from .protocol import GroupError, JoinRequest

__all__ = ["MemberState", "Membership"]

T = TypeVar("T")

# A deadline never lies this many seconds or less ahead: rounding in the clock
# must not make a timer spin on a virtual clock that stands still.
_TICK = 1e-6


class MemberState(enum.Enum):
    """Where this member is; see the module's text."""

    OUT = "out of the group"
    DUE = "about to join"
    JOINING = "joining"
    STABLE = "stable"
    LOST = "thrown out"
    FAILED = "failed"


class Membership:
    """The membership of one session.

    Attributes:
        failure: Why the session cannot go on, or None.
        changed: Woken when the state has changed.
    """

    def __init__(
        self,
        cluster: Cluster,
        link: Link,
        settings: SessionSettings,
        options: ClientOptions,
        listener: RebalanceListener,
        fetcher: Fetcher,
        wake_poll: Callable[[], None],
    ) -> None:
        self.failure: TransportError | None = None
        self.changed: Signal = Signal()
        self._cluster = cluster
        self._link = link
        self._group = settings.group
        self._options = options
        self._listener = listener
        self._fetcher = fetcher
        self._wake_poll = wake_poll
        self._state = MemberState.OUT
        self._topics: frozenset[str] = frozenset()
        self._member_id = ""
        self._generation = -1
        self._owned_generation = -1
        self._idle = False

    @property
    def state(self) -> MemberState:
        """The state now."""
        return self._state

    @property
    def topics(self) -> frozenset[str]:
        """The subscription."""
        return self._topics

    @property
    def holds(self) -> frozenset[TopicPartition] | None:
        """What the listener was told; None while it is, or is about to be, told something else."""
        settled = self._in(MemberState.OUT, MemberState.STABLE, MemberState.FAILED)
        return self._fetcher.held if settled and self._idle else None

    def metadata(self) -> GroupMetadata:
        """Who this member is now."""
        return GroupMetadata(
            self._group, self._generation, self._member_id, self._options.group_instance_id
        )

    def subscribe(self, topics: frozenset[str]) -> None:
        """Replace the subscription; the joining follows."""
        if topics == self._topics:
            return
        self._topics = topics
        # While joining, the difference is found when that round is over.
        if self._in(MemberState.OUT, MemberState.STABLE):
            self._set(MemberState.DUE)

    def check_commit(self, offsets: dict[TopicPartition, OffsetAndMetadata]) -> None:
        """Refuse a commit that this member need not send.

        Raises:
            CommitFailedError: It is joining, or no member of the group.
            TransportError: It has failed.
        """
        if self.failure is not None:
            raise self.failure
        what = f"cannot commit for the group {self._group!r}"
        if self._in(MemberState.JOINING):
            raise CommitFailedError(
                f"{what}: the member {self._member_id!r} is joining a new generation;"
                f" commit again once the rebalance is over, for what is still assigned",
                offsets=offsets,
                retriable=True,
                stale=True,
            )
        if self._in(MemberState.LOST) or self._generation < 0:
            raise CommitFailedError(
                f"{what}: this session is {self._state.value}; it joins by itself once it has a"
                f" subscription; commit only what is assigned then",
                offsets=offsets,
                stale=True,
            )

    def refused(self, identity: GroupMetadata, error: GroupError) -> None:
        """Draw the consequences of an error that answers a request of ``identity``.

        Nothing follows if the member has joined again since.
        """
        current = self.metadata()
        if identity != current or not self._in(MemberState.STABLE, MemberState.DUE):
            return
        self._follow(error)

    # Tasks

    async def run(self) -> None:
        """Join when due and tell the listener; ends only when it failed.

        Cancelling it interrupts the listener.
        """
        while True:
            if self._in(MemberState.DUE):
                await self._rejoin()
            elif self._in(MemberState.LOST):
                await self._tell_lost()
                if self._in(MemberState.LOST):
                    self._set(MemberState.DUE)
            elif self._in(MemberState.FAILED):
                await self._tell_lost()
                self._rest()
                return
            else:
                self._rest()
                await self.changed.wait()
                self._idle = False

    async def heartbeat(self) -> None:
        """Send heartbeats while a member and not joining; runs until cancelled."""
        while True:
            await trio.sleep(self._options.heartbeat_interval)
            if not self._in(MemberState.STABLE, MemberState.DUE) or self._generation < 0:
                continue
            identity = self.metadata()
            error = await self._link.exchange(lambda: self._ask(self._beat))
            if error is not None:
                self.refused(identity, error)

    async def drive(self) -> None:
        """Let the group's timers fire; runs until cancelled.

        The coordinator's own work: it goes on when the session is frozen.
        """
        signal = self._cluster.signal(self._group)
        clock = self._cluster.clock
        while True:
            deadline = clock.trio_time(self._cluster.group(self._group).next_deadline())
            with trio.move_on_at(max(deadline, trio.current_time() + _TICK)):
                await signal.wait()

    async def leave(self) -> None:
        """Leave the group, unless static: a static member's place waits for its return.

        Cancelling it leaves the member to the coordinator's session timeout.
        """
        member_id = self._member_id
        if member_id and self._options.group_instance_id is None:
            await self._link.exchange(
                lambda: self._ask(lambda group, now: group.leave(member_id, now))
            )
        self._forget()

    # Inside

    def _in(self, *states: MemberState) -> bool:
        # A call, because mypy would go on believing what a comparison has shown.
        return self._state in states

    def _set(self, state: MemberState) -> None:
        self._state = state
        self.changed.notify()

    def _rest(self) -> None:
        self._idle = True
        self._cluster.watchers.changed()

    def _forget(self) -> None:
        self._member_id = ""
        self._generation = -1

    def _ask(self, request: Callable[[Group, float], T]) -> T:
        return self._cluster.ask(self._group, request)

    def _beat(self, group: Group, now: float) -> GroupError | None:
        error = group.heartbeat(
            self._member_id, self._generation, now, self._options.group_instance_id
        )
        if error is None and group.leader == self._member_id:
            # Only the leader looks at the metadata, as in Kafka: its join brings
            # the others along.
            counts = self._cluster.partition_counts(group.topics())
            if counts != group.assigned_from:
                return GroupError.REBALANCE_IN_PROGRESS
        return error

    def _follow(self, error: GroupError) -> None:
        if error is GroupError.REBALANCE_IN_PROGRESS:
            self._set(MemberState.DUE)
        elif error is GroupError.UNKNOWN_MEMBER_ID:
            self._forget()
            self._set(MemberState.LOST)
        elif error is GroupError.ILLEGAL_GENERATION:
            self._generation = -1
            self._set(MemberState.LOST)
        elif error is GroupError.FENCED_INSTANCE_ID:
            self._fail(
                FencedError(
                    f"the member {self._member_id!r} of the group {self._group!r} is fenced:"
                    f" another one joined as {self._options.group_instance_id!r}."
                    f" Give each process a group_instance_id of its own"
                )
            )
        elif error is GroupError.INCONSISTENT_GROUP_PROTOCOL:
            self._fail(
                TransportError(
                    f"cannot join the group {self._group!r}: its members do not use the"
                    f" strategy {self._options.assignor.value!r}. Give all of them the same"
                    f" partition_assignment_strategy"
                )
            )

    def _fail(self, failure: TransportError) -> None:
        self.failure = failure
        self._set(MemberState.FAILED)
        self._wake_poll()

    async def _rejoin(self) -> None:
        """One round: revoke what the protocol says, join, sync, tell the outcome."""
        cooperative = self._options.assignor.cooperative
        held = self._fetcher.held
        await self._revoke(
            frozenset(tp for tp in held if not cooperative or tp.topic not in self._topics)
        )
        if not self._in(MemberState.DUE):
            return
        topics = self._topics
        if not topics:
            await self.leave()
            self._set(MemberState.DUE if self._topics else MemberState.OUT)
            return
        self._set(MemberState.JOINING)
        assignment = await self._join(topics)
        if assignment is None:
            return
        self._owned_generation = generation = self._generation
        self._set(MemberState.STABLE)
        held = self._fetcher.held
        gone = held - assignment
        await self._revoke(gone)
        if self._in(MemberState.LOST, MemberState.FAILED):
            return
        added = assignment - held
        self._fetcher.add(added)
        await self._listener.assigned(added, generation)
        self._fetcher.make_ready(added)
        self._wake_poll()
        if self._in(MemberState.STABLE) and (gone or topics != self._topics):
            self._set(MemberState.DUE)

    async def _join(self, topics: frozenset[str]) -> frozenset[TopicPartition] | None:
        """Join and sync; None if refused, with the state set to what follows."""
        options = self._options
        held = self._fetcher.held
        request = JoinRequest(
            topics=topics,
            member_id=self._member_id,
            assignors=(options.assignor,),
            instance_id=options.group_instance_id,
            client_id=options.client_id,
            owned=held,
            owned_generation=self._owned_generation if held else -1,
            session_timeout=options.session_timeout,
            rebalance_timeout=options.rebalance_timeout,
        )
        instance_id = options.group_instance_id
        travel = await self._link.arrive()
        taken = self._ask(lambda group, now: group.join(request, now))
        if isinstance(taken, GroupError):
            await self._link.answer(travel)
            self._follow(taken)
            return None
        # Known before the answer, as with Kafka's "member id required": who leaves
        # now leaves no ghost behind.
        self._member_id = taken
        join = await self._answered(lambda group: group.join_answer(taken, instance_id))
        await self._link.answer(travel)
        if join.error is not None:
            self._follow(join.error)
            return None
        self._generation = generation = join.generation
        travel = await self._link.arrive()
        self._ask(
            lambda group, now: group.sync(
                taken, generation, self._cluster.partition_counts(group.topics()), now, instance_id
            )
        )
        sync = await self._answered(lambda group: group.sync_answer(taken, generation, instance_id))
        await self._link.answer(travel)
        if sync.error is not None:
            self._follow(sync.error)
            return None
        return sync.assignment

    async def _answered(self, ask: Callable[[Group], T | None]) -> T:
        """Wait until the coordinator has an answer."""
        signal = self._cluster.signal(self._group)
        while (answer := ask(self._cluster.group(self._group))) is None:
            await signal.wait()
        return answer

    async def _revoke(self, tps: frozenset[TopicPartition]) -> None:
        if tps:
            self._fetcher.hide(tps)
            await self._listener.revoked(tps)
            self._fetcher.drop(tps)

    async def _tell_lost(self) -> None:
        tps = self._fetcher.held
        if tps:
            self._fetcher.hide(tps)
            await self._listener.lost(tps)
            self._fetcher.drop(tps)
