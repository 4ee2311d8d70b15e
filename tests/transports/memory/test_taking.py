"""Partitions taken away, lost and given back at a test's wish, through the group's own ways."""

from __future__ import annotations

import pytest
import trio

from trio_consumer._errors import CommitFailedError, ConfigurationError, UnknownTopicError
from trio_consumer._types import TopicPartition
from trio_consumer.transports.memory import MemoryBroker

from .support import ALL, COOPERATIVE, T0, T1, T2, T3, Recorder, at, broker, run, settings

TOPICS = frozenset({"t"})


def test_revoke_takes_a_partition_by_an_eager_rebalance() -> None:
    """All are revoked, the rest is assigned again, and the member may commit meanwhile."""

    async def main() -> None:
        b = broker()
        listener = Recorder()
        async with b.connect(settings(), listener) as session:

            async def commit(name: str, tps: frozenset[TopicPartition]) -> None:
                if name == "revoked":
                    await session.commit({T0: at(3)})

            listener.hook = commit
            await session.subscribe(TOPICS)
            await b.wait_members("g", 1)
            b.revoke("g", T0, T3)
            assert listener.names == ["assigned"]
            members = await b.wait_settled("g")
            assert members == {session.member_id: {T1, T2}}
            assert listener.calls[1:] == [("revoked", ALL), ("assigned", {T1, T2})]
            assert b.committed("g", T0) == at(3)
            assert b.generation("g") == 2

    run(main)


def test_revoke_takes_only_that_partition_from_a_cooperative_member() -> None:
    """Others stay where they are, and nobody gets what was taken until it is given back."""

    async def main() -> None:
        b = broker()
        one, two = Recorder(), Recorder()
        cooperative = settings(client=COOPERATIVE)
        async with b.connect(cooperative, one) as first, b.connect(cooperative, two) as second:
            await first.subscribe(TOPICS)
            await second.subscribe(TOPICS)
            members = await b.wait_members("g", 2)
            [taken] = sorted(members[first.member_id])[:1]
            before = (len(one.calls), len(two.calls))
            b.revoke("g", taken)
            members = await b.wait_settled("g")
            assert set().union(*members.values()) == ALL - {taken}
            gone = [tps for name, tps in one.calls[before[0] :] if name == "revoked"]
            assert gone == [{taken}]
            assert not any(name == "revoked" for name, _ in two.calls[before[1] :])
            b.give_back("g", taken)
            members = await b.wait_settled("g")
            assert set().union(*members.values()) == ALL
            assert one.held | two.held == ALL

    run(main)


def test_revoke_without_partitions_takes_all_that_members_have() -> None:
    """They stay members without any, and get all back at once."""

    async def main() -> None:
        b = broker()
        listener = Recorder()
        async with b.connect(settings(), listener) as session:
            await session.subscribe(TOPICS)
            await b.wait_members("g", 1)
            b.revoke("g")
            assert await b.wait_settled("g") == {session.member_id: frozenset()}
            assert listener.held == set()
            b.give_back("g")
            assert await b.wait_settled("g") == {session.member_id: ALL}
            generation = b.generation("g")
            b.give_back("g")
            await trio.sleep(20)
            assert b.generation("g") == generation

    run(main)


def test_revoke_holds_for_members_that_come_later() -> None:
    """And ends with the topic: one that is made again is another one."""

    async def main() -> None:
        b = broker()
        b.revoke("g", T0)
        with pytest.raises(UnknownTopicError, match=r"^cannot use \('t', 4\)|^cannot use t"):
            b.revoke("g", TopicPartition("t", 4))
        async with b.connect(settings(), Recorder()) as session:
            await session.subscribe(TOPICS)
            assert await b.wait_members("g", 1) == {session.member_id: ALL - {T0}}
            b.delete_topic("t")
            assert await b.wait_settled("g") == {session.member_id: frozenset()}
            b.create_topic("t", 4)
            assert await b.wait_settled("g") == {session.member_id: ALL}

    run(main)


def test_lose_expires_who_has_the_partition() -> None:
    """No commit of it counts any more; it is told, and joins as a new member."""

    async def main() -> None:
        b = broker()
        one, two = Recorder(), Recorder()
        async with b.connect(settings(), one) as first, b.connect(settings(), two) as second:
            await first.subscribe(TOPICS)
            await second.subscribe(TOPICS)
            before = await b.wait_members("g", 2)
            loser = first.member_id
            assert before[loser] == {T0, T1}
            b.lose("g", T0)
            with pytest.raises(CommitFailedError, match=r"the coordinator does not know") as failed:
                await first.commit({T0: at(1)})
            assert failed.value.stale
            after = await b.wait_members("g", 2)
            assert ("lost", {T0, T1}) in one.calls
            assert "lost" not in two.names
            assert loser not in after
            assert b.committed("g", T0) is None
            b.lose("g")
            after_all = await b.wait_members("g", 2)
            assert not set(after) & set(after_all)
            assert two.names.count("lost") == 1

    run(main)


def test_lose_wants_an_owner() -> None:
    """A test that loses too early is told so, and what to do."""

    async def main() -> None:
        b = broker()
        with pytest.raises(ConfigurationError, match=r"^cannot lose anything: no member has it"):
            b.lose("g")
        async with b.connect(settings(), Recorder()) as session:
            await session.subscribe(TOPICS)
            await b.wait_members("g", 1)
            b.revoke("g", T0)
            await b.wait_settled("g")
            with pytest.raises(ConfigurationError, match=r"^cannot lose .*t.*0.*wait_members\(\)$"):
                b.lose("g", T0, T1)
            assert len(b.members("g")) == 1

    run(main)


def test_expire_takes_the_name_of_a_client() -> None:
    """A test knows the names that it gave, not the ids that the broker made of them."""

    async def main() -> None:
        b = broker()
        listener = Recorder()
        async with b.connect(settings(client={"client_id": "me"}), listener) as session:
            await session.subscribe(TOPICS)
            await b.wait_members("g", 1)
            b.expire("me")
            assert await b.wait_members("g", 1) == {"me-0002": ALL}
            assert listener.names == ["assigned", "lost", "assigned"]
            b.expire("me-0002")
            assert await b.wait_members("g", 1) == {"me-0003": ALL}

    run(main)


def test_lag_is_from_committed_to_the_end() -> None:
    """Of a partition or a whole topic; where nothing is committed, from the first offset."""
    b = broker(2, records=5)
    assert (b.lag("g", T0), b.lag("g", "t")) == (5, 10)
    b.set_committed("g", T0, 3)
    b.append_marker(T0)
    assert (b.lag("g", T0), b.lag("g", "t")) == (3, 8)
    b.delete_records(T1, 4)
    assert b.lag("g", T1) == 1
    b.truncate(T0, 1)
    assert b.lag("g", T0) == 0
    with pytest.raises(UnknownTopicError, match=r"^cannot find the topic 'other'"):
        b.lag("g", "other")


def test_faults_that_no_commit_met_are_counted() -> None:
    """A test can tell whether what it ordered has happened."""

    async def main() -> None:
        b = broker(1)
        async with b.connect(settings(), Recorder()) as session:
            await session.subscribe(TOPICS)
            await b.wait_members("g", 1)
            b.fail_next_commits(2)
            assert b.unmet_commit_faults == 2
            with pytest.raises(CommitFailedError):
                await session.commit({T0: at(1)})
            assert b.unmet_commit_faults == 1

    run(main)


def test_broker_with_a_name_has_an_address() -> None:
    """It is what a program that takes a URL is given."""
    b = MemoryBroker(seed=3, name="addressed")
    try:
        assert b.url == "memory://addressed"
        assert MemoryBroker.named("addressed") is b
        with pytest.raises(ConfigurationError, match=r"^cannot call a .* 'addressed': another one"):
            MemoryBroker(name="addressed")
    finally:
        MemoryBroker.forget("addressed")
    with pytest.raises(ConfigurationError, match=r"^cannot call a memory broker '': give it"):
        MemoryBroker(name="")
    with pytest.raises(ConfigurationError, match=r"^this memory broker has no name: make it with"):
        _ = MemoryBroker().url
