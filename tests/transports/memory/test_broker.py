"""The hand that arranges things: topics, records, transactions, registry, clock."""

from __future__ import annotations

from contextlib import suppress

import pytest
import trio

from trio_consumer._errors import (
    CommitFailedError,
    ConfigurationError,
    FencedError,
    TransportError,
    UnknownTopicError,
)
from trio_consumer._types import GroupMetadata, TopicPartition
from trio_consumer.transports.base import Transport
from trio_consumer.transports.memory import (
    CommitFault,
    Faults,
    GroupState,
    MemoryBroker,
    MemoryTransport,
    TransactionState,
)

from .support import T0, T1, Recorder, at, broker, run, settings

TOPICS = frozenset({"t"})


def test_topics_are_created_and_deleted() -> None:
    """The number of partitions grows and never shrinks."""
    b = MemoryBroker()
    b.create_topic("t")
    b.create_topic("u", 3)
    b.add_partitions("t", 2)
    assert b.topics == {"t": 2, "u": 3}
    b.delete_topic("u")
    assert b.topics == {"t": 2}
    with pytest.raises(ConfigurationError, match=r"^cannot create the topic 't': it exists"):
        b.create_topic("t")
    with pytest.raises(ConfigurationError, match=r"^a topic has at least 1 partition, not 0$"):
        b.create_topic("x", 0)
    with pytest.raises(ConfigurationError, match=r"^cannot reduce the topic 't' from 2 to 1"):
        b.add_partitions("t", 1)


def test_unknown_topic_names_the_known_ones() -> None:
    """The message says what there is."""
    b = MemoryBroker()
    with pytest.raises(UnknownTopicError, match=r"^cannot find the topic 'x' .*; there are no top"):
        b.produce("x", b"")
    b.create_topic("t")
    with pytest.raises(UnknownTopicError, match=r"^cannot use t\[7\]: .*; there are the topics t$"):
        b.produce("t", b"", partition=7)


def test_produce_chooses_a_partition() -> None:
    """Equal keys go together, records without a key take turns."""
    b = broker(4)
    for _ in range(3):
        b.produce("t", b"x", key=b"same")
    assert sorted(b.end_offset(TopicPartition("t", n)) for n in range(4)) == [0, 0, 0, 3]
    c = broker(2)
    assert [c.produce("t", b"x") for _ in range(4)] == [0, 0, 1, 1]
    with pytest.raises(TypeError, match=r"^a record's value is bytes or None, not 'text'; encode"):
        b.produce("t", "text")  # type: ignore[arg-type]


def test_produce_many_gives_offsets_by_partition() -> None:
    """In bulk the partitions are chosen as one by one."""
    b = broker(2)
    assert b.produce_many("t", [b"a", b"b", b"c"]) == {T0: range(2), T1: range(1)}
    assert b.produce_many("t", [b"d", b"e"], partition=1) == {T1: range(1, 3)}
    assert b.produce_many("t", [b"x"] * 5) == {T0: range(2, 4), T1: range(3, 6)}
    assert b.produce_many("t", []) == {}
    assert b.produce("t", b"x") == 4
    by_key = b.produce_many("t", [b"f", None], keys=[b"k", b"k"], timestamp=3)
    [(tp, offsets)] = by_key.items()
    assert [(r.key, r.value, r.timestamp) for r in b.records(tp)][offsets.start :] == [
        (b"k", b"f", 3),
        (b"k", None, 3),
    ]
    with pytest.raises(ValueError, match=r"^zip\(\) argument 2"):
        b.produce_many("t", [b"f"], keys=[b"k", b"k"])


def test_timestamps_follow_the_virtual_clock() -> None:
    """They begin at the epoch, and go on with Trio's clock."""

    async def main() -> None:
        b = broker(1, epoch=1000.0)
        b.produce("t", b"x")
        await trio.sleep(2.5)
        b.produce("t", b"x")
        assert [r.timestamp for r in b.records(T0)] == [1_000_000, 1_002_500]

    run(main)


def test_compact_keeps_what_it_is_told() -> None:
    """Explicitly, or the last record of each key."""
    b = broker(1, records=4)
    b.compact(T0, keep={1, 3})
    assert [r.offset for r in b.records(T0)] == [1, 3]
    b.produce("t", b"x", key=b"k")
    b.produce("t", b"x", key=b"k")
    b.compact(T0)
    assert [r.offset for r in b.records(T0)] == [1, 3, 5]
    assert (b.beginning_offset(T0), b.end_offset(T0)) == (0, 6)
    b.corrupt(T0, 3)
    assert len(b.records(T0)) == 1
    b.repair(T0, 3)
    assert len(b.records(T0)) == 3


def test_transaction_marks_every_partition_it_wrote() -> None:
    """A commit and an abort both take an offset in each of them."""
    b = broker(2)
    with b.transaction("p") as transaction:
        assert transaction.produce("t", b"x", partition=0) == 0
        assert transaction.produce("t", b"y", partition=1, key=b"k", timestamp=1) == 0
    assert transaction.state is TransactionState.COMMITTED
    assert (b.end_offset(T0), b.end_offset(T1)) == (2, 2)
    other = b.begin_transaction("p")
    other.produce("t", b"z", partition=0)
    with suppress(ZeroDivisionError), other:
        raise ZeroDivisionError
    assert b.end_offset(T0) == 4
    assert [r.value for r in b.records(T0, committed_only=True)] == [b"x"]
    assert repr(other) == "<Transaction 2 of 'p', aborted>"
    with pytest.raises(TransportError, match=r"^cannot commit in <Trans.*>: it has ended; begin"):
        other.commit()


def test_transaction_fences_an_older_one_of_the_same_id() -> None:
    """The older one is aborted and may do nothing any more."""
    b = broker(1)
    old = b.transaction("p")
    old.produce("t", b"x")
    new = b.transaction("p")
    with pytest.raises(FencedError, match=r"^cannot produce in .*: fenced, it took longer"):
        old.produce("t", b"x")
    new.commit()
    assert b.records(T0, committed_only=True) == []


def test_transaction_commits_offsets_with_the_records() -> None:
    """Offsets count when it commits; a stale member is refused at once."""

    async def main() -> None:
        b = broker(1)
        async with b.connect(settings(), Recorder()) as session:
            await session.subscribe(TOPICS)
            await trio.sleep(5)
            with b.transaction("p") as transaction:
                transaction.send_offsets({T0: at(3)}, session.group_metadata())
                assert b.committed("g", T0) is None
            assert b.committed("g", T0) == at(3)
            aborted = b.transaction("p")
            aborted.send_offsets({T0: at(4)}, session.group_metadata())
            aborted.abort()
            assert b.committed("g", T0) == at(3)
            [commit] = b.commit_history("g")
            assert (commit.member_id, commit.generation) == (session.member_id, 1)
            stale = GroupMetadata("g", 0, session.member_id)
            with pytest.raises(CommitFailedError, match=r"^cannot add offsets of the group") as e:
                b.transaction("p").send_offsets({T0: at(4)}, stale)
            assert e.value.stale

    run(main)


def test_groups_can_be_looked_at() -> None:
    """Committed offsets, history, members, generation and state."""

    async def main() -> None:
        b = broker(1)
        assert (b.members("g"), b.generation("g")) == ({}, 0)
        b.set_committed("g", T0, 5)
        b.set_committed("g", T1, at(6, "m"))
        assert (b.committed("g", T0), b.committed("g", T1)) == (at(5), at(6, "m"))
        assert [c.member_id for c in b.commit_history("g")] == ["", ""]
        async with b.connect(settings(client={"client_id": "me"}), Recorder()) as session:
            await session.subscribe(TOPICS)
            await trio.sleep(5)
            assert b.members("g") == {"me-0001": {T0}}
            assert (b.generation("g"), b.group_state("g")) == (1, GroupState.STABLE)
            b.rebalance("g")
            assert b.group_state("g") is GroupState.PREPARING
        assert b.group_state("g") is GroupState.EMPTY

    run(main)


def test_unknown_members_are_named() -> None:
    """A hand that reaches for nobody is told so."""
    b = MemoryBroker()
    with pytest.raises(ConfigurationError, match=r"^cannot remove the member 'x': no group"):
        b.kick("x")
    with pytest.raises(ConfigurationError, match=r"^no session of this broker is the member 'x'"):
        b.freeze("x")
    with pytest.raises(ConfigurationError, match=r"^no session of this broker is the member 'x'"):
        b.thaw("x")


def test_named_brokers_are_shared() -> None:
    """One name is one broker until it is forgotten."""
    try:
        first = MemoryBroker.named("common")
        transport = MemoryTransport("memory://common/")
        assert isinstance(transport, Transport)
        assert MemoryBroker.named("common") is transport.broker is first
        assert repr(transport) == "<MemoryTransport memory://common>"
        first.create_topic("t")

        async def main() -> None:
            async with transport.connect(settings(), Recorder()) as session:
                assert await session.partitions_for("t") == {0}

        run(main)
    finally:
        MemoryBroker.forget("common")
    assert MemoryBroker.named("common") is not first
    MemoryBroker.forget("common")
    MemoryBroker.forget("common")
    with pytest.raises(ConfigurationError, match=r"^cannot use 'memory://' as an address"):
        MemoryTransport("memory://")


def test_broker_outlives_a_run() -> None:
    """Offsets stay, and a member that was left behind expires in the next run."""
    b = broker(1, records=2)

    async def first() -> None:
        await trio.sleep(1000)
        async with b.connect(settings(), Recorder()) as session:
            await session.subscribe(TOPICS)
            await trio.sleep(5)
            await session.commit({T0: at(1)})
            b.freeze(session.member_id)

    async def second() -> None:
        assert trio.current_time() == 0
        assert len(b.members("g")) == 1
        listener = Recorder()
        async with b.connect(settings(), listener) as session:
            await session.subscribe(TOPICS)
            [batch] = await session.poll()
            assert [r.offset for r in batch.records] == [1]
            assert 30 < trio.current_time() <= 45

    run(first)
    run(second)


def test_produce_from_outside_of_the_run_wakes_a_poll() -> None:
    """A host loop's callback, or another thread, may produce."""

    async def main() -> None:
        b = broker(1)
        async with b.connect(settings(), Recorder()) as session, trio.open_nursery() as nursery:
            await session.subscribe(TOPICS)

            async def produce() -> None:
                await trio.sleep(0.05)
                await trio.to_thread.run_sync(b.produce, "t", b"x")

            nursery.start_soon(produce)
            with trio.fail_after(10):
                assert len(await session.poll()) == 1

    trio.run(main)


def test_faults_are_checked() -> None:
    """A rate is a share, a latency is not negative."""
    assert Faults(latency=2.0).latency_range == (2.0, 2.0)
    with pytest.raises(ConfigurationError, match=r"^commit_failure_rate is a share from 0 to 1"):
        Faults(commit_failure_rate=2.0)
    with pytest.raises(ConfigurationError, match=r"^answer_lost_rate is a share from 0 to 1, not"):
        Faults(answer_lost_rate=-1.0)
    with pytest.raises(ConfigurationError, match=r"^latency is in seconds, at least 0, or a"):
        MemoryBroker(latency=(2.0, 1.0))
    with pytest.raises(ValueError, match=r"^'nonsense' is not a valid CommitFault$"):
        MemoryBroker().fail_next_commits(error="nonsense")
    assert CommitFault("timeout") is CommitFault.TIMEOUT


def test_latency_takes_the_place_of_the_one_in_faults() -> None:
    """Both may be given, and the faults may be changed later."""
    b = MemoryBroker(faults=Faults(answer_lost_rate=0.5, latency=1.0), latency=2.0)
    assert b.faults == Faults(answer_lost_rate=0.5, latency=2.0)
    b.faults = Faults()
    assert b.faults.latency_range == (0.0, 0.0)


def test_heal_ends_every_fault_but_frozen_sessions() -> None:
    """Ordered and chance faults, outage and held answers are over; the broker is as new."""
    b = MemoryBroker(faults=Faults(commit_failure_rate=1.0, latency=2.0, commit_latency=1.0))
    b.fail_next_commits(3)
    b.down()
    b.pause_answers()
    b.heal()
    assert b.faults == Faults()
    assert repr(b).startswith("<MemoryBroker up")
    assert b._cluster.answering
    assert b._cluster.injector.ordered == 0
