"""The group coordinator: one consumer group as a state machine without I/O.

:class:`Group` owns the members, the generation and the committed offsets of one
group.  It reads no clock (``now`` is an argument, in seconds) and waits for
nothing: a request that Kafka leaves unanswered for a while (a join until
everybody has joined, a sync until the leader has assigned) is put in with
:meth:`Group.join` or :meth:`Group.sync` and asked after with
:meth:`Group.join_answer` or :meth:`Group.sync_answer`, which say None until
there is one.  ``version`` changes whenever a waiting answer may have come.

The states and the errors are those of Kafka's classic protocol:

* ``EMPTY`` -> ``PREPARING`` when a member joins.  Everybody learns from its
  heartbeat that it must join again, and has until the longest rebalance timeout
  of the members.  Who does not is removed, except static members: those stay,
  with their partitions, until their session expires.
* ``PREPARING`` -> ``COMPLETING``: the generation goes up by one, the joins are
  answered, the first member leads.
* ``COMPLETING`` -> ``STABLE`` when the leader has asked for the assignment,
  which the coordinator computes in its place.
* Any member that leaves, expires, or joins with another subscription brings the
  group back to ``PREPARING``.

A commit is checked for member and generation, not for ownership: a member may
commit a partition that another one owns, as in Kafka.  It is accepted while the
group is ``PREPARING``, because a member that revokes commits just then.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from ..._types import OffsetAndMetadata, TopicPartition
from .assign import Assignor, assign
from .protocol import (
    AcceptedCommit,
    GroupError,
    GroupObserver,
    GroupState,
    JoinAnswer,
    JoinRequest,
    Member,
    MemberPhase,
    SyncAnswer,
)

__all__ = ["METADATA_LIMIT", "Group"]

METADATA_LIMIT = 4096
"""Bytes of metadata that a commit may carry for each partition (Kafka's default)."""


class Group:
    """One group: members, generation, committed offsets.

    Args:
        name: Name of the group.
        new_member_id: Makes an id from a client id; no two may be equal.
        initial_delay: Seconds that the first join of an empty group waits for
            others (``group.initial.rebalance.delay.ms``).
        observer: Told of rebalances, assignments and commits, or None.
    """

    def __init__(
        self,
        name: str,
        new_member_id: Callable[[str], str],
        *,
        initial_delay: float = 0.0,
        observer: GroupObserver | None = None,
    ) -> None:
        self.name = name
        self.state: GroupState = GroupState.EMPTY
        self.generation: int = 0
        self.version: int = 0
        self.assignor: Assignor = Assignor.RANGE
        self.leader: str | None = None
        self.members: dict[str, Member] = {}
        self.offsets: dict[TopicPartition, OffsetAndMetadata] = {}
        # Offsets that a transaction is about to move, and by which.
        self.pending: dict[TopicPartition, set[int]] = {}
        self.history: list[AcceptedCommit] = []
        self.assigned_from: dict[str, int] = {}
        # Partitions that the leader assigns to nobody; an administrator's wish.
        self.withheld: frozenset[TopicPartition] = frozenset()
        self._new_member_id = new_member_id
        self._observer = observer
        self._initial_delay = initial_delay
        self._static_ids: dict[str, str] = {}
        self._not_before = -math.inf
        self._deadline = math.inf

    def __repr__(self) -> str:
        return (
            f"<Group {self.name!r} {self.state.value}, generation {self.generation},"
            f" {len(self.members)} members>"
        )

    # Requests of members

    def join(self, request: JoinRequest, now: float) -> str | GroupError:
        """Take a join; ask :meth:`join_answer` for its outcome.

        Returns:
            The member id to use from now on, or why the join is refused.
        """
        member_id = request.member_id
        if member_id and (error := self._unknown(member_id, request.instance_id)) is not None:
            return error
        replaced = None
        if not member_id and request.instance_id is not None:
            replaced = self.members.get(self._static_ids.get(request.instance_id, ""))
        known = self.members.get(member_id) if member_id else replaced
        others = [m.request for m in self.members.values() if m is not known]
        if not _common_assignors([request, *others]):
            return GroupError.INCONSISTENT_GROUP_PROTOCOL
        if replaced is not None:
            return self._replace_static(replaced, request, now)
        if known is None:
            member_id = self._new_member_id(request.client_id)
            self.members[member_id] = Member(member_id, request, MemberPhase.JOINING, math.inf)
            if request.instance_id is not None:
                self._static_ids[request.instance_id] = member_id
            self._prepare_rebalance(now)
            return member_id
        # A follower that merely lost the answer is told again; a leader that joins
        # has seen something that the assignment must take into account.
        changed = request.claim != known.request.claim or not request.same_protocol(known.request)
        known.request = request
        settled = self.state in (GroupState.COMPLETING, GroupState.STABLE)
        if settled and not changed and member_id != self.leader:
            self._answer_join(known, now)
        else:
            known.phase = MemberPhase.JOINING
            known.join_answer = None
            self._prepare_rebalance(now)
        return member_id

    def join_answer(self, member_id: str, instance_id: str | None = None) -> JoinAnswer | None:
        """The answer to this member's join, None while it waits for the others."""
        if (error := self._unknown(member_id, instance_id)) is not None:
            return JoinAnswer(error)
        return self.members[member_id].join_answer

    def sync(
        self,
        member_id: str,
        generation: int,
        partitions: Mapping[str, int],
        now: float,
        instance_id: str | None = None,
    ) -> None:
        """Take a sync; ask :meth:`sync_answer` for its outcome.

        Args:
            member_id: Who asks.
            generation: Generation that its join was answered with.
            partitions: Number of partitions of each topic, for the leader.
            now: Seconds.
            instance_id: Name of a static member, or None.
        """
        if self._unknown(member_id, instance_id) is not None:
            return
        member = self.members[member_id]
        member.sync_answer = None
        if generation != self.generation:
            return
        member.expires = now + member.request.session_timeout
        if self.state is GroupState.STABLE:
            self._answer_sync(member, now)
        elif self.state is GroupState.PREPARING:
            member.sync_answer = SyncAnswer(GroupError.REBALANCE_IN_PROGRESS)
        else:
            member.phase = MemberPhase.SYNCING
            if member_id == self.leader:
                self._assign(partitions, now)
        self._changed()

    def sync_answer(
        self, member_id: str, generation: int, instance_id: str | None = None
    ) -> SyncAnswer | None:
        """The answer to this member's sync, None while it waits for the leader."""
        if (error := self._unknown(member_id, instance_id)) is not None:
            return SyncAnswer(error)
        answer = self.members[member_id].sync_answer
        if answer is None and generation != self.generation:
            return SyncAnswer(GroupError.ILLEGAL_GENERATION)
        return answer

    def heartbeat(
        self, member_id: str, generation: int, now: float, instance_id: str | None = None
    ) -> GroupError | None:
        """Keep a session alive; None if all is well."""
        if (error := self._refusal(member_id, generation, instance_id)) is not None:
            return error
        member = self.members[member_id]
        member.expires = now + member.request.session_timeout
        if self.state is GroupState.PREPARING:
            return GroupError.REBALANCE_IN_PROGRESS
        return None

    def leave(self, member_id: str, now: float) -> None:
        """Remove a member at its own wish, or because its session has expired."""
        if member_id not in self.members:
            return
        self._remove(member_id)
        if self.state is GroupState.PREPARING:
            self._try_complete_join(now)
        else:
            self._prepare_rebalance(now)

    def commit(
        self,
        member_id: str,
        generation: int,
        offsets: Mapping[TopicPartition, OffsetAndMetadata],
        now: float,
        instance_id: str | None = None,
    ) -> dict[TopicPartition, GroupError | None]:
        """Store offsets; the answer is given for each partition, as in Kafka.

        Partitions whose metadata is too large are refused, the others stored.
        """
        administrator = not member_id and generation < 0 and not self.members
        if not administrator:
            error = self._refusal(member_id, generation, instance_id)
            if error is None and self.state is GroupState.COMPLETING:
                error = GroupError.REBALANCE_IN_PROGRESS
            if error is not None:
                return dict.fromkeys(offsets, error)
            member = self.members[member_id]
            member.expires = now + member.request.session_timeout
        answer: dict[TopicPartition, GroupError | None] = {
            tp: GroupError.OFFSET_METADATA_TOO_LARGE
            if len(stored.metadata.encode()) > METADATA_LIMIT
            else None
            for tp, stored in offsets.items()
        }
        accepted = {tp: stored for tp, stored in offsets.items() if answer[tp] is None}
        if accepted:
            self.store(member_id, generation, accepted, now)
        return answer

    # Time, and the administrator

    def store(
        self,
        member_id: str,
        generation: int,
        offsets: Mapping[TopicPartition, OffsetAndMetadata],
        now: float,
    ) -> None:
        """Store offsets without asking whether the member may."""
        self.offsets.update(offsets)
        commit = AcceptedCommit(now, member_id, generation, dict(offsets))
        self.history.append(commit)
        if self._observer is not None:
            self._observer.committed(self.name, commit)

    def forget_topic(self, topic: str) -> None:
        """Drop the offsets of a topic that was deleted."""
        for tp in [tp for tp in self.offsets if tp.topic == topic]:
            del self.offsets[tp]
        self.withheld = frozenset(tp for tp in self.withheld if tp.topic != topic)

    def check(
        self, member_id: str, generation: int, instance_id: str | None = None
    ) -> GroupError | None:
        """Why a transactional commit of this member would be refused, if it would.

        Nobody in particular may commit, as in Kafka: producers older than KIP-447
        do not say for which member they do.
        """
        if generation < 0 and not member_id and instance_id is None:
            return None
        return self._refusal(member_id, generation, instance_id)

    def force_rebalance(self, now: float) -> None:
        """Begin a rebalance, as if a member had asked for one."""
        if self.members:
            self._prepare_rebalance(now)

    def withhold(self, tps: frozenset[TopicPartition], now: float) -> None:
        """Assign these to nobody from now on, and all others as before, by a rebalance."""
        self.withheld = tps
        self.force_rebalance(now)

    def next_deadline(self) -> float:
        """When :meth:`tick` has something to do, seconds; infinity if never."""
        expiry = min((m.expires for m in self.members.values() if not m.waiting), default=math.inf)
        not_before = self._not_before if self._all_joined() else math.inf
        return min(expiry, self._deadline, not_before)

    def tick(self, now: float) -> None:
        """Let time pass: sessions expire, a rebalance stops waiting."""
        for member in list(self.members.values()):
            if not member.waiting and member.expires <= now:
                self.leave(member.member_id, now)
        if self._deadline <= now:
            self._stop_waiting(now)
        self._try_complete_join(now)

    def topics(self) -> frozenset[str]:
        """Every topic that a member subscribes to."""
        return frozenset(topic for m in self.members.values() for topic in m.request.topics)

    # Inside

    def _changed(self) -> None:
        self.version += 1

    def _unknown(self, member_id: str, instance_id: str | None) -> GroupError | None:
        if instance_id is not None:
            current = self._static_ids.get(instance_id)
            if current is not None and current != member_id:
                return GroupError.FENCED_INSTANCE_ID
        return None if member_id in self.members else GroupError.UNKNOWN_MEMBER_ID

    def _refusal(
        self, member_id: str, generation: int, instance_id: str | None
    ) -> GroupError | None:
        if (error := self._unknown(member_id, instance_id)) is not None:
            return error
        return None if generation == self.generation else GroupError.ILLEGAL_GENERATION

    def _replace_static(self, old: Member, request: JoinRequest, now: float) -> str:
        """A static member has restarted: its new id fences the old one.

        If nothing else changed the group does not rebalance: the newcomer gets
        the assignment of the one before it.
        """
        new_id = self._new_member_id(request.client_id)
        member = Member(new_id, request, MemberPhase.JOINING, math.inf, old.assignment)
        # In the place of the old one: the order of members decides who leads.
        self.members = {
            new_id if key == old.member_id else key: member if value is old else value
            for key, value in self.members.items()
        }
        assert request.instance_id is not None
        self._static_ids[request.instance_id] = new_id
        if self.leader == old.member_id:
            self.leader = new_id
        if self.state is GroupState.STABLE and request.same_protocol(old.request):
            self._answer_join(member, now)
            if self._observer is not None:
                self._observer.assigned(self.name, self.generation, {new_id: old.assignment})
        else:
            self._prepare_rebalance(now)
        return new_id

    def _remove(self, member_id: str) -> None:
        member = self.members.pop(member_id)
        if member.request.instance_id is not None:
            del self._static_ids[member.request.instance_id]
        if self.leader == member_id:
            self.leader = next(iter(self.members), None)
        self._changed()

    def _prepare_rebalance(self, now: float) -> None:
        if self.state is not GroupState.PREPARING:
            was_empty = self.state is GroupState.EMPTY
            self.state = GroupState.PREPARING
            self._not_before = now + (self._initial_delay if was_empty else 0.0)
            for member in self.members.values():
                if member.phase is not MemberPhase.JOINING:
                    if member.waiting:
                        member.expires = now + member.request.session_timeout
                        member.sync_answer = SyncAnswer(GroupError.REBALANCE_IN_PROGRESS)
                    member.phase = MemberPhase.MUST_JOIN
            self._deadline = now + self._rebalance_timeout()
            if self._observer is not None:
                self._observer.rebalancing(self.name)
        self._changed()
        self._try_complete_join(now)

    def _rebalance_timeout(self) -> float:
        return max((m.request.rebalance_timeout for m in self.members.values()), default=0.0)

    def _all_joined(self) -> bool:
        return self.state is GroupState.PREPARING and all(
            member.phase is MemberPhase.JOINING for member in self.members.values()
        )

    def _try_complete_join(self, now: float) -> None:
        if self._all_joined() and (now >= self._not_before or not self.members):
            self._complete_join(now)

    def _complete_join(self, now: float) -> None:
        self.generation += 1
        self._changed()
        if not self.members:
            self.state, self.leader, self._deadline = GroupState.EMPTY, None, math.inf
            return
        self.state = GroupState.COMPLETING
        joining = [m for m in self.members.values() if m.phase is MemberPhase.JOINING]
        if self.leader not in {member.member_id for member in joining}:
            self.leader = joining[0].member_id
        requests = [member.request for member in self.members.values()]
        common = _common_assignors(requests)
        preferred = self.members[self.leader].request.assignors
        self.assignor = next(assignor for assignor in preferred if assignor in common)
        for member in joining:
            self._answer_join(member, now)
        self._deadline = now + self._rebalance_timeout()

    def _answer_join(self, member: Member, now: float) -> None:
        member.phase = MemberPhase.JOINED
        member.expires = now + member.request.session_timeout
        member.join_answer = JoinAnswer(None, self.generation, self.assignor)
        self._changed()

    def _answer_sync(self, member: Member, now: float) -> None:
        member.phase = MemberPhase.STABLE
        member.expires = now + member.request.session_timeout
        member.sync_answer = SyncAnswer(None, member.assignment)

    def _assign(self, partitions: Mapping[str, int], now: float) -> None:
        """The leader's part: assign, and answer everybody who has asked."""
        claims = {member_id: member.request.claim for member_id, member in self.members.items()}
        topics = self.topics()
        self.assigned_from = {t: n for t, n in partitions.items() if t in topics}
        result = {
            member_id: tps - self.withheld
            for member_id, tps in assign(self.assignor, claims, self.assigned_from).items()
        }
        for member_id, member in self.members.items():
            member.assignment = result[member_id]
            if member.phase is MemberPhase.SYNCING:
                self._answer_sync(member, now)
        self.state = GroupState.STABLE
        if self._observer is not None:
            self._observer.assigned(self.name, self.generation, result)
        self._deadline = math.inf
        self._changed()

    def _stop_waiting(self, now: float) -> None:
        """The rebalance has waited long enough: go on without the missing ones."""
        if self.state is GroupState.COMPLETING:
            for member in list(self.members.values()):
                if member.phase is MemberPhase.JOINED and not member.static:
                    self._remove(member.member_id)
            self._prepare_rebalance(now)
            return
        missing = [m for m in self.members.values() if m.phase is MemberPhase.MUST_JOIN]
        for member in missing:
            if not member.static:
                self._remove(member.member_id)
        if not self.members or any(
            member.phase is MemberPhase.JOINING for member in self.members.values()
        ):
            self._complete_join(now)
        else:
            # Only static members that are away: wait for one of them, or for
            # their sessions to expire.
            self._deadline = now + self._rebalance_timeout()


def _common_assignors(requests: list[JoinRequest]) -> frozenset[Assignor]:
    common = frozenset(requests[0].assignors)
    for request in requests[1:]:
        common &= frozenset(request.assignors)
    return common
