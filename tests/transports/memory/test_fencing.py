"""Members that are thrown out, expire, sleep, restart or are replaced."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from trio_consumer._errors import CommitFailedError, FencedError
from trio_consumer._types import TopicPartition
from trio_consumer.transports.memory import MemorySession
from trio_consumer.transports.memory.protocol import GroupError

from .support import (
    ALL,
    COOPERATIVE,
    T0,
    T1,
    T2,
    T3,
    Recorder,
    at,
    broker,
    poll_offsets,
    run,
    settings,
    settle,
)

TOPICS = frozenset({"t"})


@pytest.mark.parametrize("client", [{}, COOPERATIVE])
def test_listener_beyond_the_rebalance_timeout_is_thrown_out(client: dict[str, Any]) -> None:
    """The group goes on without it; it learns of it, loses the rest and joins again."""

    async def main() -> None:
        b = broker()
        first, second = Recorder(), Recorder()
        refused: list[CommitFailedError] = []
        slow: list[MemorySession] = []

        async def too_slow(name: str, tps: frozenset[TopicPartition]) -> None:
            if name == "revoked" and not refused:
                await trio.sleep(60)
                with pytest.raises(CommitFailedError) as caught:
                    await slow[0].commit({tp: at(7) for tp in tps})
                refused.append(caught.value)

        first.hook = too_slow
        own = settings(client={**client, "max_poll_interval_ms": 20_000})
        async with b.connect(own, first) as one, b.connect(own, second) as two:
            slow.append(one)
            await one.subscribe(TOPICS)
            assert one.rebalance_timeout == 20.0
            await settle()
            old_id = one.member_id
            if client:
                # Cooperative: the second round is the one that waits for it.
                await two.subscribe(TOPICS)
                await trio.sleep(5)
                b.rebalance("g")
            else:
                await two.subscribe(TOPICS)
            await trio.sleep(40)
            assert b.members("g") == {two.member_id: ALL}
            assert second.held == ALL
            await settle(60)
            assert [e.stale for e in refused] == [True]
            if client:
                assert ("lost", {T0, T1}) in first.calls
            else:
                assert first.names == ["assigned", "revoked", "assigned"]
            assert one.member_id != old_id
            assert len(first.held) == len(second.held) == 2

    run(main)


def test_expired_member_loses_its_partitions_and_joins_again() -> None:
    """After a session expiry the next heartbeat reports lost, never revoked."""

    async def main() -> None:
        b = broker()
        listener = Recorder()
        async with b.connect(settings(), listener) as session:
            await session.subscribe(TOPICS)
            await settle()
            old = session.group_metadata()
            b.expire(session.member_id)
            assert b.members("g") == {}
            await settle()
            assert listener.calls == [("assigned", ALL), ("lost", ALL), ("assigned", ALL)]
            assert session.group_metadata().generation > old.generation
            assert session.group_metadata().member_id != old.member_id

    run(main)


def test_zombie_is_fenced_after_its_freeze() -> None:
    """A frozen member's partitions go to another; thawed, its commits are stale."""

    async def main() -> None:
        b = broker(records=3)
        first, second = Recorder(), Recorder()
        async with b.connect(settings(), first) as one, b.connect(settings(), second) as two:
            await one.subscribe(TOPICS)
            assert await poll_offsets(one) == {tp: [0, 1, 2] for tp in ALL}
            await two.subscribe(TOPICS)
            await settle()
            zombie = one.member_id
            b.freeze(zombie)
            await trio.sleep(60)
            assert first.held == {T0, T1}
            assert second.held == ALL
            await two.commit({T0: at(2)})
            b.thaw(zombie)
            with pytest.raises(
                CommitFailedError,
                match=r"^cannot commit t\[0\]=1 for the group 'g' as member .* does not know this",
            ) as caught:
                await one.commit({T0: at(1)})
            assert (caught.value.stale, caught.value.retriable) == (True, False)
            assert caught.value.offsets == {T0: at(1)}
            await settle()
            assert ("lost", {T0, T1}) in first.calls
            assert b.committed("g", T0) == at(2)
            assert len(first.held) == len(second.held) == 2

    run(main)


def test_frozen_member_that_is_closed_stays_until_it_expires() -> None:
    """A crash sends no goodbye: the group waits for the session timeout."""

    async def main() -> None:
        b = broker()
        first, second = Recorder(), Recorder()
        async with b.connect(settings(), second) as two:
            async with b.connect(settings(), first) as one:
                await one.subscribe(TOPICS)
                await settle()
                b.freeze(one.member_id)
            # Who is asleep does not even wait for the answer to a goodbye.
            assert trio.current_time() == 20
            await two.subscribe(TOPICS)
            await trio.sleep(20)
            assert second.held == set()
            assert len(b.members("g")) == 2
            await trio.sleep(30)
            assert second.held == ALL
        assert first.names == ["assigned"]

    run(main)


def test_static_member_restarts_without_a_rebalance() -> None:
    """The same partitions come back, and the other member notices nothing."""

    async def main() -> None:
        b = broker()
        other = Recorder()
        own = settings(client={"group_instance_id": "i"})
        async with b.connect(settings(), other) as two:
            before, after = Recorder(), Recorder()
            async with b.connect(own, before) as one:
                await one.subscribe(TOPICS)
                await two.subscribe(TOPICS)
                await settle()
                held = set(before.held)
                calls = len(other.calls)
            assert len(b.members("g")) == 2
            generation = b.generation("g")
            async with b.connect(own, after) as one:
                await one.subscribe(TOPICS)
                await settle()
                assert after.held == held
                assert b.generation("g") == generation
                assert one.group_metadata().group_instance_id == "i"
            assert len(other.calls) == calls

    run(main)


def test_second_static_member_of_one_name_fences_the_first() -> None:
    """The older one loses its partitions; its polls and commits say why."""

    async def main() -> None:
        b = broker()
        first, second = Recorder(), Recorder()
        own = settings(client={"group_instance_id": "i"})
        async with b.connect(own, first) as one, b.connect(own, second) as two:
            await one.subscribe(TOPICS)
            await settle()
            await two.subscribe(TOPICS)
            await trio.sleep(0.1)
            with pytest.raises(FencedError, match=r"^cannot commit t\[0\]=1 .* joined as 'i'\. G"):
                await one.commit({T0: at(1)})
            with pytest.raises(FencedError, match=r"^the member .* is fenced: another one joined"):
                await one.poll()
            await settle()
            assert first.names == ["assigned", "lost"]
            assert second.held == ALL
            with pytest.raises(FencedError, match=r"^the member .* is fenced"):
                await one.commit({T0: at(1)})

    run(main)


def test_waiting_poll_is_told_of_the_fencing() -> None:
    """A poll that already waits raises when a heartbeat learns of the fencing."""

    async def main() -> None:
        b = broker()
        own = settings(client={"group_instance_id": "i"})
        async with b.connect(own, Recorder()) as one, b.connect(own, Recorder()) as two:
            await one.subscribe(TOPICS)
            await one.poll()  # where reading starts
            async with trio.open_nursery() as nursery:
                nursery.start_soon(two.subscribe, TOPICS)
                with pytest.raises(FencedError, match=r"^the member .* is fenced"):
                    await one.poll()

    run(main)


def test_session_survives_an_outage_shorter_than_its_timeout() -> None:
    """Nothing is lost if the broker comes back in time."""

    async def main() -> None:
        b = broker(records=1)
        listener = Recorder()
        async with b.connect(settings(), listener) as session:
            await session.subscribe(TOPICS)
            await settle()
            b.down()
            with trio.move_on_after(30) as scope:
                await session.poll()
            assert scope.cancelled_caught
            b.up()
            assert await poll_offsets(session) == {tp: [0] for tp in ALL}
            await settle()
            assert listener.names == ["assigned"]

    run(main)


def test_session_expires_in_a_long_outage() -> None:
    """The coordinator hears no heartbeat and removes the member."""

    async def main() -> None:
        b = broker()
        listener = Recorder()
        async with b.connect(settings(), listener) as session:
            await session.subscribe(TOPICS)
            await settle()
            b.down()
            await trio.sleep(60)
            assert b.members("g") == {}
            assert listener.names == ["assigned"]
            b.up()
            await settle()
            assert listener.names == ["assigned", "lost", "assigned"]

    run(main)


def test_membership_needs_no_poll() -> None:
    """A session that is never polled stays in its group."""

    async def main() -> None:
        b = broker()
        listener = Recorder()
        async with b.connect(settings(), listener) as session:
            await session.subscribe(TOPICS)
            await trio.sleep(3600)
            assert listener.names == ["assigned"]
            assert list(b.members("g")) == [session.member_id]

    run(main)


@pytest.mark.parametrize("client", [{}, COOPERATIVE])
def test_member_that_expired_learns_it_from_its_join(client: dict[str, Any]) -> None:
    """Without a heartbeat in between, the join is the next contact."""

    async def main() -> None:
        b = broker()
        first, second = Recorder(), Recorder()
        own = settings(client={**client, "heartbeat_interval_ms": 10_000})

        async def expire(name: str, tps: object) -> None:
            if name == "revoked":
                first.hook = None
                await trio.sleep(1)
                b.expire(one.member_id)

        first.hook = expire
        async with b.connect(own, first) as one, b.connect(own, second) as two:
            await one.subscribe(TOPICS)
            await trio.sleep(5)
            await two.subscribe(TOPICS)
            await settle(100)
            assert ("lost" in first.names) == bool(client)
            assert first.held | second.held == ALL
            assert len(first.held) == len(second.held) == 2

    run(main)


def test_member_that_expires_while_it_waits_joins_again() -> None:
    """A join that waits for the others is answered when its member is removed."""

    async def main() -> None:
        b = broker()
        first, second = Recorder(), Recorder()

        async def slow(name: str, tps: object) -> None:
            if name == "revoked":
                await trio.sleep(20)

        first.hook = slow
        async with b.connect(settings(), first) as one, b.connect(settings(), second) as two:
            await one.subscribe(TOPICS)
            await settle()
            await two.subscribe(TOPICS)
            await trio.sleep(10)
            waiting = two.member_id
            b.expire(waiting)
            await settle(60)
            assert two.member_id != waiting
            assert second.names == ["assigned"]
            assert len(first.held) == len(second.held) == 2

    run(main)


def test_static_member_that_was_away_finds_another_generation() -> None:
    """It keeps its member id, loses what it had, and joins again."""

    async def main() -> None:
        b = broker()
        first, second = Recorder(), Recorder()
        static = settings(
            client={
                "group_instance_id": "i",
                "session_timeout_ms": 100_000,
                "max_poll_interval_ms": 20_000,
            }
        )
        other = settings(client={"max_poll_interval_ms": 20_000})
        async with b.connect(static, first) as one, b.connect(other, second) as two:
            await one.subscribe(TOPICS)
            await settle()
            member_id = one.member_id
            b.freeze(member_id)
            await two.subscribe(TOPICS)
            await trio.sleep(40)
            assert second.held == {T2, T3}
            b.thaw(member_id)
            await settle(40)
            assert first.names == ["assigned", "lost", "assigned"]
            assert (one.member_id, first.held) == (member_id, {T0, T1})

    run(main)


def test_refused_commit_is_a_contact() -> None:
    """A commit that the coordinator refuses reports lost without waiting for a heartbeat."""

    async def main() -> None:
        b = broker()
        listener = Recorder()
        async with b.connect(settings(), listener) as session:
            await session.subscribe(TOPICS)
            await trio.sleep(10)
            b.expire(session.member_id)
            with pytest.raises(CommitFailedError, match=r"^cannot commit .* does not know this"):
                await session.commit({T0: at(1)})
            await trio.sleep(0.1)
            assert listener.names == ["assigned", "lost", "assigned"]

    run(main)


def test_answer_to_an_older_identity_changes_nothing() -> None:
    """A refusal that was on its way while the member joined again is out of date."""

    async def main() -> None:
        b = broker()
        listener = Recorder()
        async with b.connect(settings(), listener) as session:
            await session.subscribe(TOPICS)
            await trio.sleep(10)
            old = session.group_metadata()
            b.rebalance("g")
            await trio.sleep(10)
            session._membership.refused(old, GroupError.UNKNOWN_MEMBER_ID)
            await trio.sleep(10)
            assert listener.names == ["assigned", "revoked", "assigned"]

    run(main)
