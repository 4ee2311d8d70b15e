"""Scopes that are cancelled when a message, or a partition, is no longer this member's."""

# The blocks nest as those of a program do.
# ruff: noqa: SIM117

from __future__ import annotations

import math

import pytest
import trio
import trio.lowlevel

from trio_consumer import TP, ConfigurationError, Consumer, DeserializationError, Message, Stream
from trio_consumer.testing import MemoryBroker

from .support import (
    COOPERATIVE,
    GROUP,
    T0,
    T1,
    CancelAtStep,
    Journal,
    broker,
    committed,
    consuming,
    offsets,
    run,
    take,
    tasks_living,
)


def expire(it: MemoryBroker) -> None:
    """Throw the one member out."""
    [member] = it.members(GROUP)
    it.expire(member)


# -- lost, sought ------------------------------------------------------------------


@pytest.mark.parametrize("event", ["lost", "sought", "truncated"])
@pytest.mark.parametrize("ack", ["auto", "manual", "none"])
def test_work_ends_at_once_when_the_message_is_stale(event: str, ack: str) -> None:
    """Lost, sought, or gone from the log: no wait, and nothing is finished by the loop."""

    async def main() -> None:
        it = broker(3)
        ended: list[tuple[float, bool, bool]] = []
        async with consuming(it, commit_interval=1000) as consumer:
            async with (
                consumer.stream("t", ack=ack) as stream,  # type: ignore[arg-type]
                trio.open_nursery() as nursery,
            ):

                async def work() -> None:
                    async for message in stream:
                        with message.while_assigned() as scope:
                            await trio.sleep(math.inf)
                        ended.append((trio.current_time(), scope.cancelled_caught, message.ack()))

                nursery.start_soon(work)
                await trio.sleep(1)
                if event == "lost":
                    expire(it)
                elif event == "sought":
                    await consumer.seek(T0, 1)
                else:
                    it.truncate(T0, 0)
                    it.produce("t", b"new")
                await trio.sleep(5)
                [(time, caught, acked)] = ended
                # A member learns with its next heartbeat that it was thrown out.
                assert time <= (4 if event == "lost" else 1.1)
                assert (caught, acked) == (True, False)
                await consumer.commit()
                assert committed(it) is None
                nursery.cancel_scope.cancel()

    run(main)


def test_scope_of_a_stale_message_is_cancelled_from_the_beginning() -> None:
    """A message that was queued until its partition had gone is not begun."""

    async def main() -> None:
        it = broker(2)
        async with consuming(it) as consumer:
            async with consumer.stream("t", ack="manual") as stream:
                first, _ = await take(stream, 2, ack=False)
                await consumer.seek(T0, 0)
                again, _ = await take(stream, 2, ack=False)
                expire(it)
                await trio.sleep(10)
                [newest] = await take(stream, 1, ack=False)
                for message, stale in ((first, True), (again, True), (newest, False)):
                    with message.while_assigned() as scope:
                        await trio.lowlevel.checkpoint()
                    assert scope.cancelled_caught is stale
                    assert message.ack() is not stale
        assert committed(it) == 1

    run(main)


@pytest.mark.parametrize("what", ["message", "partition"])
def test_scope_that_was_made_before_and_is_entered_late_is_cancelled(what: str) -> None:
    """What counts is the moment in which it is entered."""

    async def main() -> None:
        it = broker(1)
        async with consuming(it) as consumer, consumer.stream("t", ack="manual") as stream:
            [message] = await take(stream, 1, ack=False)
            late = message.while_assigned() if what == "message" else consumer.while_assigned(T0)
            expire(it)
            await trio.sleep(10)
            with late as scope:
                await trio.lowlevel.checkpoint()
            assert scope.cancelled_caught

    run(main)


# -- revoked -----------------------------------------------------------------------


def test_revocation_lets_work_finish_within_its_deadline() -> None:
    """Nothing is cancelled while the drain may still wait, and the message is committed."""

    async def main() -> None:
        it = broker(2)
        caught: list[bool] = []
        async with consuming(it, drain_timeout=10, commit_interval=1000) as consumer:
            async with consumer.stream("t") as stream, trio.open_nursery() as nursery:

                async def work() -> None:
                    async for message in stream:
                        with message.while_assigned() as scope:
                            await trio.sleep(7)
                        caught.append(scope.cancelled_caught)

                nursery.start_soon(work)
                await trio.sleep(1)
                it.rebalance(GROUP)
                await trio.sleep(8)
                assert caught == [False]
                assert committed(it) == 1
                nursery.cancel_scope.cancel()

    run(main)


@pytest.mark.parametrize("ack", ["auto", "manual", "batches", "abandoned"])
def test_revocation_cancels_work_at_its_deadline_and_finishes_nothing_of_it(ack: str) -> None:
    """The loop of a cancelled body comes back, and the last commit does not pass its message."""

    async def main() -> None:
        it = broker(3)
        events: list[tuple[str, float]] = []
        acked: list[bool] = []

        def on_revoked(tps: frozenset[TP]) -> None:
            events.append(("revoked", trio.current_time()))

        async def handle(message: Message) -> None:
            with message.while_assigned() as scope:
                if message.offset:
                    await trio.sleep(math.inf)
            if scope.cancelled_caught:
                events.append(("cancelled", trio.current_time()))
                acked.append(message.ack())

        async def work(stream: Stream) -> None:
            if ack == "batches":
                async for batch in stream.batches(2):
                    for message in batch:
                        await handle(message)
            elif ack == "abandoned":
                # The loop has gone, its message is still worked on.
                async for message in stream:
                    await handle(message)
                    if message.offset == 0:
                        message.ack()
                        break
                message = await anext(aiter(stream))
                async with message:
                    await handle(message)
            else:
                async for message in stream:
                    async with message:
                        await handle(message)

        async with consuming(
            it, drain_timeout=4, commit_interval=1000, on_partitions_revoked=on_revoked
        ) as consumer:
            mode = "manual" if ack == "manual" else "auto"
            async with (
                consumer.stream("t", ack=mode) as stream,  # type: ignore[arg-type]
                trio.open_nursery() as nursery,
            ):
                nursery.start_soon(work, stream)
                await trio.sleep(1)
                it.rebalance(GROUP)
                await trio.sleep(7)
                # Learnt at 3; a message whose loop has gone is not waited for.
                deadline = 3.0 if ack == "abandoned" else 7.0
                # In any order: nobody waits for a body that was cancelled.
                assert sorted(events) == [("cancelled", deadline), ("revoked", deadline)]
                assert acked == [False]
                # A batch is finished when its loop comes back, or nothing of it.
                expected = {None, 1} if ack == "batches" else {1}
                assert committed(it) in expected
                nursery.cancel_scope.cancel()
        assert committed(it) in expected

    run(main)


def test_scope_entered_after_the_drain_is_cancelled_from_the_beginning() -> None:
    """Until the partition has gone, a message in a scope can be finished no more."""

    async def main() -> None:
        it = broker(2)
        messages: list[Message] = []

        async def on_revoked(tps: frozenset[TP]) -> None:
            first, second = messages
            with first.while_assigned() as scope:
                await trio.lowlevel.checkpoint()
            assert scope.cancelled_caught
            assert first.ack() is False
            assert second.ack() is True

        async with consuming(it, drain_timeout=1, on_partitions_revoked=on_revoked) as consumer:
            async with consumer.stream("t", ack="manual") as stream:
                messages += await take(stream, 2, ack=False)
                it.rebalance(GROUP)
                await trio.sleep(10)
                assert consumer.statistics().rebalances == 2
                assert offsets(await take(stream)) == [0, 1]
        assert committed(it) == 2

    run(main)


def test_partitions_that_stay_are_not_cancelled() -> None:
    """In a cooperative hand-over only the work on what goes is cancelled."""

    async def main() -> None:
        it = broker(1, 2)
        caught: dict[TP, bool] = {}
        options = {"client_options": COOPERATIVE, "drain_timeout": 1.0}
        async with consuming(it, **options) as consumer:
            async with consumer.stream("t") as stream, trio.open_nursery() as nursery:

                async def work() -> None:
                    async for message in stream:
                        with message.while_assigned() as scope:
                            await trio.sleep(30)
                        caught[message.tp] = scope.cancelled_caught

                nursery.start_soon(work)
                nursery.start_soon(work)
                await trio.sleep(1)
                async with consuming(it, **options) as other:
                    async with other.stream("t") as rest:
                        [message] = await take(rest, 1, wait=20)
                        assert caught == {message.tp: True}
                        await trio.sleep(30)
                        assert caught == {T0: False, T1: False} | {message.tp: True}
                nursery.cancel_scope.cancel()

    run(main)


def test_function_for_decode_errors_can_use_the_scope() -> None:
    """A function that was cut off by it finishes nothing, though it returns."""

    async def main() -> None:
        it = broker(0)
        it.produce("t", b"x")
        caught: list[bool] = []

        async def handler(error: DeserializationError, message: Message) -> None:
            with message.while_assigned() as scope:
                await trio.sleep(6)
            caught.append(scope.cancelled_caught)

        async with consuming(it, drain_timeout=1) as consumer:
            async with (
                consumer.stream("t", value_deserializer=int, on_decode_error=handler) as stream,
                trio.open_nursery() as nursery,
            ):
                nursery.start_soon(lambda: take(stream, wait=100))
                await trio.sleep(0.5)
                it.rebalance(GROUP)
                await trio.sleep(5)
                assert caught == [True]
                assert committed(it) is None
                await trio.sleep(10)
                nursery.cancel_scope.cancel()
        assert caught == [True, False]
        assert committed(it) == 1

    run(main)


# -- partitions ------------------------------------------------------------------------


def test_scope_of_a_partition_lasts_as_long_as_its_assignment() -> None:
    """It is not cancelled by a seek, at once by a loss, and by a hand-over at its very end."""

    async def main() -> None:
        it = broker(2)
        events: list[tuple[str, float]] = []

        async def watch(consumer: Consumer) -> None:
            with consumer.while_assigned(T0) as scope:
                await trio.sleep(math.inf)
            assert scope.cancelled_caught
            events.append(("ended", trio.current_time()))

        async def on_revoked(tps: frozenset[TP]) -> None:
            await trio.sleep(0.5)
            events.append(("revoked", trio.current_time()))

        async with consuming(it, drain_timeout=2, on_partitions_revoked=on_revoked) as consumer:
            async with consumer.stream("t", ack="manual") as stream:
                with pytest.raises(ConfigurationError, match=r"^t\[0\] is not assigned"):
                    consumer.while_assigned(T0)
                [_] = await take(stream, 1, ack=False)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(watch, consumer)
                    await trio.sleep(0.1)
                    await consumer.seek(T0, 1)
                    [_] = await take(stream, 1, ack=False)
                    assert events == []
                    it.rebalance(GROUP)
                assert events == [("revoked", 5.5), ("ended", 5.5)]
                await take(stream, 1, ack=False)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(watch, consumer)
                    await trio.sleep(0.1)
                    expire(it)
                assert [name for name, _ in events] == ["revoked", "ended", "ended"]

    run(main)


def test_end_of_the_consumer_cancels_what_outlives_it() -> None:
    """Work in a task outside of the block ends with the consumer, and finishes nothing."""

    async def main() -> None:
        it = broker(1)
        ended: list[bool] = []

        async def work(message: Message) -> None:
            with message.while_assigned():
                await trio.sleep(math.inf)
            ended.append(message.ack())

        async def watch(consumer: Consumer) -> None:
            with consumer.while_assigned(T0):
                await trio.sleep(math.inf)
            ended.append(False)

        async with trio.open_nursery() as nursery:
            async with consuming(it, drain_timeout=3) as consumer:
                async with consumer.stream("t", ack="manual") as stream:
                    [message] = await take(stream, 1, ack=False)
                    nursery.start_soon(work, message)
                    nursery.start_soon(watch, consumer)
                    await trio.sleep(1)
        assert ended == [False, False]
        assert committed(it) is None

    run(main)


def test_scopes_leave_nothing_behind() -> None:
    """However many messages were worked on in one assignment, nothing of them is kept."""

    async def main() -> None:
        it = broker(100)
        async with consuming(it) as consumer:
            async with consumer.stream("t") as stream:
                async for message in stream:
                    with message.while_assigned(), message.while_assigned():
                        await trio.lowlevel.checkpoint()
                        assert len(message._chunk.assignment._scopes) == 2
                    if message.offset == 99:
                        break
                assert message._chunk.assignment._scopes == {}

    run(main)


# -- cancellation at each step ---------------------------------------------------------------


def test_cancellation_at_every_step_of_a_hand_over_loses_nothing() -> None:
    """Work that is cut off by a revocation, a loss or a cancellation is never committed."""
    step = 0
    fired = True
    while fired:
        step += 1
        it = broker(4, 2)
        journal = Journal(it)
        instrument = CancelAtStep(step)

        async def process(consumer: Consumer, seconds: float, journal: Journal = journal) -> None:
            async with consumer.stream("t") as stream:
                with trio.move_on_after(seconds):
                    async for message in stream:
                        with message.while_assigned():
                            await trio.sleep(0.7)
                            journal.add(message)

        async def main(
            it: MemoryBroker = it, journal: Journal = journal, instrument: CancelAtStep = instrument
        ) -> None:
            before = tasks_living()
            with trio.CancelScope() as scope:
                instrument.scope = scope
                async with (
                    consuming(it, drain_timeout=0.5) as consumer,
                    trio.open_nursery() as nursery,
                ):
                    nursery.start_soon(process, consumer, 5)
                    await trio.sleep(1)
                    it.rebalance(GROUP)
                    await trio.sleep(2.5)
                    if it.members(GROUP):
                        expire(it)
            instrument.scope = None
            assert tasks_living() == before
            journal.check_commits()
            async with consuming(it) as consumer:
                await process(consumer, 20)
            journal.check_commits()
            journal.check_complete()

        run(main, seed=step, instruments=(instrument,))
        fired = instrument.fired
    assert step > 30
