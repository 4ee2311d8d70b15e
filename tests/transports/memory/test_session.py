"""One session: opening, questions, and leaving."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio

from trio_consumer._errors import (
    BrokerUnavailableError,
    ConfigurationError,
    FencedError,
    TransportError,
    UnknownTopicError,
)
from trio_consumer._types import GroupMetadata, OffsetAndMetadata, TopicPartition
from trio_consumer.transports.base import Session, Transport
from trio_consumer.transports.memory import MemoryBroker

from .support import T0, T1, Recorder, at, broker, poll_offsets, run, settings

TOPICS = frozenset({"t"})


def test_broker_is_a_transport() -> None:
    """The broker and its sessions have the types of the seam."""

    async def main() -> None:
        b: Transport = MemoryBroker()
        assert isinstance(b, Transport)
        async with b.connect(settings(), Recorder()) as session:
            typed: Session = session
            assert typed.group_metadata() == GroupMetadata("g")
            assert repr(session) == (
                "<MemorySession without a member id, group 'g', generation -1, out of the group>"
            )

    run(main)


def test_questions_are_answered() -> None:
    """Offsets and partitions, also of what is not subscribed."""

    async def main() -> None:
        b = broker(partitions=2, records=3)
        async with b.connect(settings(), Recorder()) as session:
            assert await session.partitions_for("t") == {0, 1}
            assert await session.partitions_for("nothing") == frozenset()
            assert await session.topics() == {"t"}
            assert await session.beginning_offsets([T0]) == {T0: 0}
            assert await session.end_offsets([T0, T1]) == {T0: 3, T1: 3}
            with pytest.raises(
                UnknownTopicError, match=r"^cannot use x\[0\]: .*; there are the to"
            ):
                await session.end_offsets([TopicPartition("x", 0)])
            assert session.rebalance_timeout == 300.0
            assert session.metadata_max_age == 300.0

    run(main)


def test_questions_time_out_in_an_outage() -> None:
    """They are retriable, and say what was asked."""

    async def main() -> None:
        b = broker(partitions=1)
        async with b.connect(settings(), Recorder()) as session:
            b.down()
            for call, what in (
                (session.committed([T0]), "read the committed offsets"),
                (session.beginning_offsets([T0]), "read the beginning offsets"),
                (session.end_offsets([T0]), "read the end offsets"),
                (session.partitions_for("t"), "look up the topic 't'"),
                (session.topics(), "list the topics"),
                (session.subscribe(TOPICS), "subscribe to t"),
            ):
                with pytest.raises(TransportError, match=rf"^cannot {what}: no answer") as caught:
                    await call
                assert caught.value.retriable

    run(main)


def test_unknown_topic_leaves_the_subscription() -> None:
    """A refused subscription changes nothing."""

    async def main() -> None:
        b = broker(partitions=1)
        listener = Recorder()
        async with b.connect(settings(), listener) as session:
            await session.subscribe(TOPICS)
            await trio.sleep(5)
            with pytest.raises(UnknownTopicError, match=r"^cannot find the topic 'x', 'y' on the"):
                await session.subscribe(frozenset({"t", "x", "y"}))
            await trio.sleep(20)
            assert listener.names == ["assigned"]
            assert b.members("g") == {session.member_id: {T0}}

    run(main)


def test_connect_to_a_broker_that_is_down() -> None:
    """It fails after connect_timeout with the remedy, and waits for one that comes up."""

    async def main() -> None:
        b = broker()
        b.down()
        with pytest.raises(BrokerUnavailableError, match=r"^cannot connect .* within 3.0 s\. Call"):
            async with b.connect(settings(connect_timeout=3.0), Recorder()):
                pytest.fail("connected")
        assert trio.current_time() == 3
        async with trio.open_nursery() as nursery:

            async def up() -> None:
                await trio.sleep(1)
                b.up()

            nursery.start_soon(up)
            async with b.connect(settings(), Recorder()):
                assert trio.current_time() == 4

    run(main)


def test_connect_refuses_options() -> None:
    """A bad option is found before anything begins."""

    async def main() -> None:
        with pytest.raises(ConfigurationError, match=r"^the client option 'enable_auto_commit'"):
            async with broker().connect(settings(client={"enable_auto_commit": True}), Recorder()):
                pytest.fail("connected")

    run(main)


def test_leaving_calls_no_listener_and_leaves_no_task() -> None:
    """The group sees it go, and everything that it started has ended."""

    async def main() -> None:
        b = broker()
        listener = Recorder()
        before = trio.lowlevel.current_statistics().tasks_living
        async with b.connect(settings(), listener) as session:
            await session.subscribe(TOPICS)
            await trio.sleep(5)
            assert repr(b) == "<MemoryBroker up, 1 topics, 1 sessions>"
        assert trio.lowlevel.current_statistics().tasks_living == before
        assert listener.names == ["assigned"]
        assert b.members("g") == {}
        assert session.group_metadata() == GroupMetadata("g")
        assert repr(b) == "<MemoryBroker up, 1 topics, 0 sessions>"

    run(main)


@pytest.mark.parametrize("phase", [0.5, 1.5, 2.5, 4.0, 6.0, 30.0])
def test_cancelled_block_leaves_the_group(phase: float) -> None:
    """Cancelled at any point of joining, nothing stays in the group."""

    async def main() -> None:
        b = broker(latency=2.0)
        with trio.move_on_after(phase) as scope:
            async with b.connect(settings(), Recorder()) as session:
                await session.subscribe(TOPICS)
                await trio.sleep_forever()
        assert scope.cancelled_caught
        assert b.members("g") == {}

    run(main)


def test_cancelled_listener_leaves_the_group() -> None:
    """A block that is left while the listener works interrupts it."""

    async def main() -> None:
        b = broker()
        listener = Recorder()

        async def forever(name: str, tps: object) -> None:
            await trio.sleep_forever()

        listener.hook = forever
        async with b.connect(settings(), listener) as session:
            await session.subscribe(TOPICS)
            await trio.sleep(5)
        assert trio.current_time() == 5
        assert (listener.running, b.members("g")) == (0, {})

    run(main)


def test_leaving_in_an_outage_is_bounded() -> None:
    """It gives up after commit_timeout; the member stays until its session expires."""

    async def main() -> None:
        b = broker()
        with trio.CancelScope() as scope:
            async with b.connect(settings(commit_timeout=2.0), Recorder()) as session:
                await session.subscribe(TOPICS)
                await trio.sleep(5)
                b.down()
                scope.cancel()
        assert trio.current_time() == 7
        assert len(b.members("g")) == 1
        await trio.sleep(45)
        assert b.members("g") == {}

    run(main)


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt("mine")])
def test_exception_of_the_block_leaves_as_itself(error: BaseException) -> None:
    """The nursery inside is not to be seen."""

    async def main() -> None:
        async def block() -> None:
            async with broker().connect(settings(), Recorder()) as session:
                await session.subscribe(TOPICS)
                await trio.sleep(5)
                raise error

        with pytest.raises(type(error)) as caught:
            await block()
        assert caught.value is error

    run(main)


def test_group_raised_by_the_block_stays_a_group() -> None:
    """Only the wrapping of the session's own nursery is taken off."""

    async def main() -> None:
        async def fail() -> None:
            raise ValueError("mine")

        with pytest.RaisesGroup(ValueError) as caught:
            async with (
                broker().connect(settings(), Recorder()),
                trio.open_nursery() as nursery,
            ):
                nursery.start_soon(fail)
        assert len(caught.value.exceptions) == 1

    run(main)


def test_closed_session_refuses_work() -> None:
    """After the block everything says so, and a poll elsewhere ends."""

    async def main() -> None:
        b = broker()
        async with trio.open_nursery() as nursery, b.connect(settings(), Recorder()) as session:
            await session.subscribe(TOPICS)
            await session.poll()  # where reading starts

            async def poller() -> None:
                with pytest.raises(b.closed_errors, match=r"^this session of the memory tra"):
                    await session.poll()

            nursery.start_soon(poller)
            await trio.sleep(5)
        with pytest.raises(trio.ClosedResourceError, match=r"^this session .* is closed; open a"):
            await session.commit({T0: at(1)})
        with pytest.raises(trio.ClosedResourceError, match=r"^this session"):
            await session.committed([T0])
        with pytest.raises(trio.ClosedResourceError, match=r"^this session"):
            session.seek(T0, 1)

    run(main)


def test_two_groups_are_independent() -> None:
    """Each group has its own members, positions and offsets."""

    async def main() -> None:
        b = broker(partitions=1, records=2)
        async with (
            b.connect(settings("g"), Recorder()) as one,
            b.connect(settings("h"), Recorder()) as two,
        ):
            await one.subscribe(TOPICS)
            await two.subscribe(TOPICS)
            assert await poll_offsets(one) == await poll_offsets(two) == {T0: [0, 1]}
            await one.commit({T0: at(2)})
            assert b.committed("h", T0) is None
            assert b.members("g").keys() != b.members("h").keys()

    run(main)


def test_offsets_that_a_transaction_holds_are_waited_for() -> None:
    """Readers of committed records get no offset that is about to move (KIP-447)."""

    async def main() -> None:
        b = broker(partitions=1)
        stable = replace(settings(), isolation_level="read_committed")
        async with (
            b.connect(stable, Recorder()) as session,
            b.connect(settings(), Recorder()) as other,
        ):
            await other.subscribe(TOPICS)
            await trio.sleep(5)
            transaction = b.transaction("p", timeout=30)
            transaction.send_offsets({T0: OffsetAndMetadata(3)}, other.group_metadata())
            assert await other.committed([T0]) == {T0: None}
            with pytest.raises(TransportError, match=r"^cannot read .* a transaction that is open"):
                await session.committed([T0])
            async with trio.open_nursery() as nursery:

                async def look() -> None:
                    assert await session.committed([T0]) == {T0: OffsetAndMetadata(3)}

                nursery.start_soon(look)
                await trio.sleep(1)
                transaction.commit()
            # One that nobody ends is ended by its timeout.
            transaction = b.transaction("p", timeout=3)
            transaction.send_offsets({T0: OffsetAndMetadata(4)}, other.group_metadata())
            assert await session.committed([T0]) == {T0: OffsetAndMetadata(3)}
            with pytest.raises(FencedError, match=r"^cannot commit in .*: fenced, it took longer"):
                transaction.commit()

    run(main)
