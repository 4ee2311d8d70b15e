"""The group coordinator, driven without a clock and without I/O."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_consumer._types import TP, OffsetAndMetadata
from trio_consumer.transports.memory.assign import Assignor
from trio_consumer.transports.memory.group import METADATA_LIMIT, Group
from trio_consumer.transports.memory.protocol import (
    GroupError,
    GroupState,
    JoinAnswer,
    JoinRequest,
    MemberPhase,
    SyncAnswer,
)

PARTITIONS = {"t": 6}
TOPICS = frozenset(PARTITIONS)


def new_group(delay: float = 0.0) -> Group:
    """An empty group whose members are m1, m2 and so on."""
    numbers = itertools.count(1)
    return Group("g", lambda client_id: f"{client_id}{next(numbers)}", initial_delay=delay)


def request(member_id: str = "", **given: object) -> JoinRequest:
    """What a member says, with short timeouts."""
    defaults: dict[str, object] = {
        "topics": TOPICS,
        "client_id": "m",
        "session_timeout": 10.0,
        "rebalance_timeout": 30.0,
    }
    return JoinRequest(member_id=member_id, **{**defaults, **given})  # type: ignore[arg-type]


def join(group: Group, member_id: str = "", now: float = 0.0, **given: object) -> str:
    """Join and expect to be taken."""
    answer = group.join(request(member_id, **given), now)
    assert isinstance(answer, str)
    return answer


def sync(group: Group, *members: str, now: float = 0.0) -> None:
    """Let these ask for their assignments, in this order."""
    for member in members:
        group.sync(member, group.generation, PARTITIONS, now)


def stable(n: int, group: Group | None = None) -> tuple[Group, list[str]]:
    """A stable group of this many members at time 0."""
    group = group or new_group()
    members: list[str] = []
    for _ in range(n):
        newest = join(group)
        for member in members:
            join(group, member)
        members.append(newest)
        sync(group, *members)
    assert group.state is GroupState.STABLE
    return group, members


def owned(group: Group, member: str) -> set[int]:
    """The partitions that this member was told to have."""
    answer = group.sync_answer(member, group.generation)
    assert answer is not None
    assert answer.error is None
    return {tp.partition for tp in answer.assignment}


def test_first_member_gets_everything() -> None:
    """A single member leads its own generation."""
    group = new_group()
    member = join(group)
    assert group.join_answer(member) == JoinAnswer(None, 1, Assignor.RANGE)
    assert group.sync_answer(member, 1) is None
    sync(group, member)
    assert owned(group, member) == set(range(6))
    assert repr(group) == "<Group 'g' stable, generation 1, 1 members>"


def test_join_waits_for_every_member() -> None:
    """A newcomer's join is answered when the old members have joined too."""
    group, [a] = stable(1)
    b = join(group)
    assert group.state is GroupState.PREPARING
    assert group.join_answer(b) is None
    assert group.heartbeat(a, 1, 1.0) is GroupError.REBALANCE_IN_PROGRESS
    join(group, a)
    assert group.join_answer(a) == group.join_answer(b) == JoinAnswer(None, 2, Assignor.RANGE)


def test_sync_waits_for_the_leader() -> None:
    """A follower's sync is answered when the leader has asked."""
    group, [a, b] = stable(2)
    group.force_rebalance(0.0)
    join(group, a)
    join(group, b)
    sync(group, b)
    assert group.sync_answer(b, 3) is None
    assert group.heartbeat(b, 3, 0.0) is None
    sync(group, a)
    assert (owned(group, a), owned(group, b)) == ({0, 1, 2}, {3, 4, 5})


def test_initial_delay_gathers_members() -> None:
    """With an initial delay the first generation has everybody who came in time."""
    group = new_group(delay=3.0)
    a, b = join(group, now=0.0), join(group, now=1.0)
    assert group.join_answer(a) is None
    assert group.next_deadline() == 3.0
    group.tick(3.0)
    assert group.generation == 1
    assert group.join_answer(b) == JoinAnswer(None, 1, Assignor.RANGE)


def test_session_expires_without_heartbeats() -> None:
    """A silent member is removed, and the others rebalance."""
    group, [a, b] = stable(2)
    assert group.heartbeat(a, 2, 8.0) is None
    assert group.next_deadline() == 10.0
    group.tick(9.9)
    assert b in group.members
    group.tick(10.0)
    assert list(group.members) == [a]
    assert group.heartbeat(a, 2, 10.0) is GroupError.REBALANCE_IN_PROGRESS
    assert group.heartbeat(b, 2, 10.0) is GroupError.UNKNOWN_MEMBER_ID


def test_waiting_member_does_not_expire() -> None:
    """Who waits for an answer sends no heartbeats and is kept."""
    group, [a] = stable(1)
    b = join(group)
    group.heartbeat(a, 1, 9.0)
    group.tick(15.0)
    assert list(group.members) == [a, b]


def test_rebalance_timeout_removes_who_does_not_join() -> None:
    """A member that revokes for too long is left out, though it sends heartbeats."""
    group, [a] = stable(1)
    b = join(group, now=1.0)
    for now in range(5, 31, 5):
        group.heartbeat(a, 1, float(now))
        group.tick(float(now))
    assert group.join_answer(b) is None
    group.tick(31.0)
    assert list(group.members) == [b]
    assert group.leader == b
    assert group.join_answer(b) == JoinAnswer(None, 2, Assignor.RANGE)
    assert group.join(request(a), 31.0) is GroupError.UNKNOWN_MEMBER_ID
    assert group.join_answer(a) == JoinAnswer(GroupError.UNKNOWN_MEMBER_ID)


def test_rebalance_timeout_removes_who_does_not_sync() -> None:
    """A member that takes no assignment is left out after the rebalance timeout."""
    group, [a, b] = stable(2)
    group.force_rebalance(0.0)
    join(group, a)
    join(group, b)
    sync(group, b)
    for now in (8.0, 16.0, 24.0, 30.0):
        group.heartbeat(a, 3, now)
        group.tick(now)
    assert list(group.members) == [b]
    assert group.sync_answer(b, 3) == SyncAnswer(GroupError.REBALANCE_IN_PROGRESS)


def test_answer_stands_once_it_is_given() -> None:
    """What happens before a member reads its answer does not change the answer."""
    group, [a] = stable(1)
    b = join(group)
    join(group, a)
    sync(group, b, a)
    group.force_rebalance(0.0)
    assert group.join_answer(b) == JoinAnswer(None, 2, Assignor.RANGE)
    assert owned(group, b) == {3, 4, 5}
    sync(group, b)
    assert group.sync_answer(b, 2) == SyncAnswer(GroupError.REBALANCE_IN_PROGRESS)
    group.sync(b, 1, PARTITIONS, 0.0)
    assert group.sync_answer(b, 1) == SyncAnswer(GroupError.ILLEGAL_GENERATION)


def test_leave_of_last_member_empties_the_group() -> None:
    """An empty group has no leader and keeps its offsets."""
    group, [a] = stable(1)
    group.commit(a, 1, {TP("t", 0): OffsetAndMetadata(3)}, 1.0)
    group.leave(a, 2.0)
    group.leave(a, 2.0)
    assert (group.state, group.leader, group.generation) == (GroupState.EMPTY, None, 2)
    assert group.offsets == {TP("t", 0): OffsetAndMetadata(3)}
    assert group.next_deadline() == math.inf


def test_leave_completes_a_rebalance() -> None:
    """Nobody waits for a member that has left."""
    group, [a, b] = stable(2)
    c = join(group)
    join(group, a)
    assert group.join_answer(c) is None
    group.leave(b, 0.0)
    assert group.join_answer(c) == JoinAnswer(None, 3, Assignor.RANGE)


def test_follower_that_joins_again_gets_the_same_answer() -> None:
    """Only a leader, or a new subscription, makes a settled group rebalance."""
    group, [a, b] = stable(2)
    join(group, b)
    assert (group.state, group.generation) == (GroupState.STABLE, 2)
    assert group.members[b].phase is MemberPhase.JOINED
    sync(group, b)
    assert owned(group, b) == {3, 4, 5}
    join(group, b, topics=frozenset({"t", "u"}))
    assert group.state is GroupState.PREPARING
    join(group, a)
    sync(group, a, b)
    join(group, a)
    assert group.join_answer(a) is None


def test_strategies_must_have_one_in_common() -> None:
    """A member whose strategy the others do not know is refused, and changes nothing."""
    group, [_] = stable(1)
    refused = group.join(request(assignors=(Assignor.COOPERATIVE_STICKY,)), 0.0)
    assert refused is GroupError.INCONSISTENT_GROUP_PROTOCOL
    assert group.state is GroupState.STABLE
    both = (Assignor.COOPERATIVE_STICKY, Assignor.RANGE)
    assert group.join_answer(join(group, assignors=both)) is None


def test_static_member_restarts_without_rebalance() -> None:
    """Its new id gets the old partitions, and the old id is fenced."""
    group = new_group()
    a = join(group, instance_id="i")
    sync_static = group.sync
    sync_static(a, 1, PARTITIONS, 0.0, "i")
    a2 = join(group, now=5.0, instance_id="i")
    assert a2 != a
    assert (group.state, group.generation, group.leader) == (GroupState.STABLE, 1, a2)
    assert group.join_answer(a2, "i") == JoinAnswer(None, 1, Assignor.RANGE)
    group.sync(a2, 1, PARTITIONS, 5.0, "i")
    assert owned(group, a2) == set(range(6))
    fenced = GroupError.FENCED_INSTANCE_ID
    assert group.heartbeat(a, 1, 6.0, "i") is fenced
    assert group.join(request(a, instance_id="i"), 6.0) is fenced
    assert group.join_answer(a, "i") == JoinAnswer(fenced)
    assert group.commit(a, 1, {TP("t", 0): OffsetAndMetadata(1)}, 6.0, "i") == {TP("t", 0): fenced}


def test_static_member_with_new_topics_rebalances() -> None:
    """A restart with another subscription is a change like any other."""
    group = new_group()
    a = join(group, instance_id="i")
    group.sync(a, 1, PARTITIONS, 0.0, "i")
    join(group, instance_id="i", topics=frozenset({"u"}))
    assert (group.state, group.generation) == (GroupState.COMPLETING, 2)


def test_static_member_that_is_away_keeps_its_place() -> None:
    """The rebalance timeout does not remove it, its session timeout does."""
    group = new_group()
    a = join(group, instance_id="i", session_timeout=100.0)
    group.sync(a, 1, PARTITIONS, 0.0, "i")
    b = join(group)
    group.tick(30.0)
    assert group.leader == b
    group.sync(b, 2, PARTITIONS, 30.0)
    assert {len(m.assignment) for m in group.members.values()} == {3}
    assert group.heartbeat(a, 1, 31.0, "i") is GroupError.ILLEGAL_GENERATION
    for now in range(35, 105, 5):
        group.heartbeat(b, 2, float(now))
        group.tick(float(now))
    assert list(group.members) == [b]
    assert group.state is GroupState.PREPARING


def test_rebalance_waits_on_if_only_static_members_are_missing() -> None:
    """With nobody there to lead, the rebalance goes on waiting."""
    group = new_group()
    a = join(group, instance_id="i", session_timeout=100.0)
    group.sync(a, 1, PARTITIONS, 0.0, "i")
    group.force_rebalance(0.0)
    group.tick(30.0)
    assert (group.state, group.generation) == (GroupState.PREPARING, 1)
    group.tick(100.0)
    assert group.state is GroupState.EMPTY


@pytest.mark.parametrize(
    ("member", "generation", "error"),
    [
        ("m1", 2, None),
        ("m1", 1, GroupError.ILLEGAL_GENERATION),
        ("m1", -1, GroupError.ILLEGAL_GENERATION),
        ("nobody", 2, GroupError.UNKNOWN_MEMBER_ID),
        ("", -1, GroupError.UNKNOWN_MEMBER_ID),
    ],
)
def test_commit_is_checked_for_member_and_generation(
    member: str, generation: int, error: GroupError | None
) -> None:
    """Only a member of the current generation commits; ownership is not asked."""
    group, _ = stable(2)
    tp = TP("t", 5)
    answer = group.commit(member, generation, {tp: OffsetAndMetadata(9)}, 1.0)
    assert answer == {tp: error}
    assert (tp in group.offsets) == (error is None)
    assert [c.generation for c in group.history] == ([2] if error is None else [])


def test_commit_is_accepted_while_members_revoke() -> None:
    """It is refused only between the joins' answers and the assignment."""
    group, [a] = stable(1)
    tp = TP("t", 0)
    b = join(group)
    assert group.commit(a, 1, {tp: OffsetAndMetadata(1)}, 1.0) == {tp: None}
    join(group, a)
    rebalancing = GroupError.REBALANCE_IN_PROGRESS
    assert group.commit(a, 2, {tp: OffsetAndMetadata(2)}, 1.0) == {tp: rebalancing}
    assert group.commit(b, 1, {tp: OffsetAndMetadata(2)}, 1.0) == {
        tp: GroupError.ILLEGAL_GENERATION
    }
    assert group.offsets == {tp: OffsetAndMetadata(1)}


def test_commit_keeps_a_session_alive() -> None:
    """A commit counts as a heartbeat."""
    group, [a] = stable(1)
    group.commit(a, 1, {TP("t", 0): OffsetAndMetadata(1)}, 9.0)
    assert group.next_deadline() == 19.0


def test_commit_refuses_large_metadata_by_partition() -> None:
    """The limit is in bytes, and the other partitions of the request are stored."""
    group, [a] = stable(1)
    fits = OffsetAndMetadata(1, "x" * METADATA_LIMIT)
    large = OffsetAndMetadata(1, "ü" * (METADATA_LIMIT // 2) + "x")
    answer = group.commit(a, 1, {TP("t", 0): fits, TP("t", 1): large}, 1.0)
    assert answer == {TP("t", 0): None, TP("t", 1): GroupError.OFFSET_METADATA_TOO_LARGE}
    assert group.offsets == {TP("t", 0): fits}


def test_commit_without_a_member_needs_an_empty_group() -> None:
    """Who manages its partitions itself may commit while nobody is a member."""
    group = new_group()
    tp = TP("t", 0)
    assert group.commit("", -1, {tp: OffsetAndMetadata(1)}, 0.0) == {tp: None}


@dataclass
class Client:
    """A member that follows the protocol one small step at a time."""

    group: Group
    assignor: Assignor
    member_id: str = ""
    generation: int = -1
    held: frozenset[TP] = frozenset()
    held_since: int = -1
    todo: str = "join"
    target: frozenset[TP] = frozenset()
    seen: list[int] = field(default_factory=list)

    def step(self, now: float) -> None:
        getattr(self, "_" + self.todo)(now)

    def _join(self, now: float) -> None:
        if not self.assignor.cooperative:
            self.held = frozenset()
        answer = self.group.join(
            request(
                self.member_id,
                assignors=(self.assignor,),
                owned=self.held,
                owned_generation=self.held_since if self.held else -1,
            ),
            now,
        )
        if isinstance(answer, GroupError):
            self._refused(answer)
        else:
            self.member_id, self.todo = answer, "joining"

    def _joining(self, now: float) -> None:
        answer = self.group.join_answer(self.member_id)
        if answer is None:
            return
        if answer.error is not None:
            self._refused(answer.error)
            return
        self.generation = answer.generation
        self.group.sync(self.member_id, self.generation, PARTITIONS, now)
        self.todo = "syncing"

    def _syncing(self, now: float) -> None:
        answer = self.group.sync_answer(self.member_id, self.generation)
        if answer is None:
            return
        if answer.error is not None:
            self._refused(answer.error)
            return
        self.target, self.todo, self.held_since = answer.assignment, "revoke", self.generation
        self.seen.append(self.generation)

    def _revoke(self, now: float) -> None:
        # It may have been thrown out meanwhile and not know it.
        gone = self.held - self.target
        self.held = self.target
        self.todo = "join" if gone else "beat"

    def _beat(self, now: float) -> None:
        error = self.group.heartbeat(self.member_id, self.generation, now)
        if error is not None:
            self._refused(error)

    def _refused(self, error: GroupError) -> None:
        if error is not GroupError.REBALANCE_IN_PROGRESS:
            self.held = frozenset()
        if error is GroupError.UNKNOWN_MEMBER_ID:
            self.member_id = ""
        self.todo = "join"


actions = st.lists(
    st.one_of(
        st.tuples(st.just("step"), st.integers(0, 4)),
        st.tuples(st.just("step"), st.integers(0, 4)),
        st.tuples(st.just("step all"), st.just(0)),
        st.tuples(st.just("new"), st.just(0)),
        st.tuples(st.just("leave"), st.integers(0, 4)),
        st.tuples(st.just("expire"), st.integers(0, 4)),
        st.tuples(st.just("wait"), st.integers(1, 12)),
        st.tuples(st.just("force"), st.just(0)),
    ),
    max_size=60,
)


def check_owners(group: Group, clients: list[Client]) -> None:
    """No partition is held by two members that the coordinator still knows."""
    held = [tp for c in clients if c.member_id in group.members for tp in c.held]
    assert len(held) == len(set(held))
    given = [tp for m in group.members.values() for tp in m.assignment]
    if group.state is GroupState.STABLE:
        assert len(given) == len(set(given))


@pytest.mark.parametrize("assignor", list(Assignor))
@settings(max_examples=300, deadline=None)
@given(actions)
def test_group_never_has_two_owners_and_settles(
    assignor: Assignor, actions: list[tuple[str, int]]
) -> None:
    """Whatever happens to the members: one owner a partition, and in the end balance."""
    group, now = new_group(), 0.0
    clients = [Client(group, assignor)]
    for action, n in actions:
        client = clients[n % len(clients)] if clients else None
        if action == "new" and len(clients) < 5:
            clients.append(Client(group, assignor))
        elif action == "wait":
            now += n
            group.tick(now)
        elif action == "force":
            group.force_rebalance(now)
        elif action == "step all":
            for each in clients:
                each.step(now)
        elif client is not None and action == "step":
            client.step(now)
        elif client is not None and action == "expire":
            group.leave(client.member_id, now)
        elif client is not None and action == "leave":
            group.leave(client.member_id, now)
            clients.remove(client)
        check_owners(group, clients)
        assert group.next_deadline() > now
    for _ in range(60):
        now += 1.0
        group.tick(now)
        for client in clients:
            client.step(now)
            check_owners(group, clients)
    if not clients:
        assert group.state is GroupState.EMPTY
        return
    assert group.state is GroupState.STABLE
    assert {c.generation for c in clients} == {group.generation}
    assert sorted(tp for c in clients for tp in c.held) == [TP("t", n) for n in range(6)]
    loads = [len(c.held) for c in clients]
    assert max(loads) - min(loads) <= 1
    for client in clients:
        assert client.held == group.members[client.member_id].assignment
        assert client.seen == sorted(client.seen)
