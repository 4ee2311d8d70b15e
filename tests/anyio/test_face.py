"""The AnyIO face on asyncio, on uvloop and on Trio: the same programs, the same outcome."""

from __future__ import annotations

import logging
import sys
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import sniffio

from trio_consumer import (
    TP,
    CommitFailedError,
    ConfigurationError,
    CorruptRecordError,
    TransactionAbortedError,
)
from trio_consumer.anyio import Message, open_consumer
from trio_consumer.testing import MemoryBroker

from ..runtime.test_fetching import StrayTransport
from .support import T0, T1, Run, broker, committed, take

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup


# -- the plain way -------------------------------------------------------------------


def test_everything_arrives_and_is_committed(run: Run) -> None:
    made = broker(1000, 2)

    async def main() -> None:
        async with open_consumer(made, group="g") as consumer, consumer.stream("t") as stream:
            got = await take(stream, 2000)
            assert {(m.partition, m.offset) for m in got} == {
                (p, o) for p in range(2) for o in range(1000)
            }
            assert got[0].value == b"0"

    run(main)
    assert committed(made) == committed(made, T1) == 1000


def test_left_loop_leaves_its_message_unfinished(run: Run) -> None:
    made = broker()

    async def main() -> None:
        async with open_consumer(made, group="g") as consumer, consumer.stream("t") as stream:
            async for message in stream:
                if message.offset == 4:
                    break
            await consumer.commit()
            assert committed(made) == 4

    run(main)
    assert committed(made) == 4


def test_manual_acks_and_blocks(run: Run) -> None:
    made = broker()

    async def main() -> None:
        async with (
            open_consumer(made, group="g") as consumer,
            consumer.stream("t", ack="manual") as stream,
        ):
            async for message in stream:
                if message.offset == 3:
                    with pytest.raises(ZeroDivisionError):
                        async with message:
                            raise ZeroDivisionError
                else:
                    async with message:
                        pass
                if message.offset == 9:
                    break
            assert await consumer.commit()
            assert committed(made) == 3

    run(main)
    assert committed(made) == 3


def test_batches(run: Run) -> None:
    made = broker(100)

    async def main() -> None:
        async with open_consumer(made, group="g") as consumer, consumer.stream("t") as stream:
            seen = 0
            async for batch in stream.batches(30, max_wait=0.01):
                seen += len(batch)
                if seen == 100:
                    batch.ack()
                    break

    run(main)
    assert committed(made) == 100


def test_waiting_for_messages_that_come_later(run: Run) -> None:
    made = broker(0)

    async def main() -> None:
        async with (
            open_consumer(made, group="g") as consumer,
            consumer.stream("t") as stream,
            anyio.create_task_group() as group,
        ):

            async def later() -> None:
                for n in range(20):
                    await anyio.sleep(0.005)
                    made.produce("t", b"%d" % n)

            group.start_soon(later)
            assert [m.value for m in await take(stream, 20)] == [b"%d" % n for n in range(20)]

    run(main)
    assert committed(made) == 20


def test_several_tasks_on_one_stream_and_a_nack(run: Run) -> None:
    made = broker(200)
    seen: list[int] = []

    async def main() -> None:
        async with (
            open_consumer(made, group="g") as consumer,
            consumer.stream("t") as stream,
        ):

            async def work() -> None:
                async for message in stream:
                    await anyio.lowlevel.checkpoint()
                    if message.offset == 50 and 50 not in seen:
                        seen.append(50)
                        assert message.nack()
                        continue
                    seen.append(message.offset)

            async with anyio.create_task_group() as group:
                for _ in range(4):
                    group.start_soon(work)
                while len(seen) < 201:
                    await anyio.sleep(0.01)
                assert await consumer.wait_empty(5)
                group.cancel_scope.cancel()

    run(main)
    assert sorted(seen) == sorted([*range(200), 50])
    assert committed(made) == 200


def test_getmany_callback_and_flow(run: Run) -> None:
    made = broker(30)

    async def main() -> None:
        async with open_consumer(made, group="g", topics=["t"]) as consumer:
            got = []
            while len(got) < 30:
                async for tp, message in consumer.getmany(timeout=1.0):
                    assert tp == T0
                    got.append(message.offset)
                    message.ack()
            assert got == list(range(30))
            consumer.stop_flow()
            await consumer.wait_for_stopped_flow()
            consumer.resume_flow()

    run(main)
    assert committed(made) == 30


def test_seek_and_questions(run: Run) -> None:
    made = broker(10)

    async def main() -> None:
        async with open_consumer(made, group="g") as consumer, consumer.stream("t") as stream:
            await take(stream, 10)
            await consumer.seek(T0, 7)
            assert [m.offset for m in await take(stream, 3)] == [7, 8, 9]
            assert await consumer.end_offsets([T0]) == {T0: 10}
            await consumer.commit()
            assert consumer.statistics().partitions

    run(main)
    assert committed(made) == 10


# -- hooks ----------------------------------------------------------------------------


def test_hooks_run_in_the_loop_of_the_user(run: Run) -> None:
    made = broker(5)
    calls: list[str] = []

    async def main() -> None:
        library = sniffio.current_async_library()

        async def assigned(tps: Any) -> None:
            await anyio.sleep(0.01)
            assert sniffio.current_async_library() == library
            calls.append("assigned")

        def revoked(tps: Any) -> None:
            calls.append("revoked")

        async def callback(message: Message) -> None:
            await anyio.lowlevel.checkpoint()
            assert sniffio.current_async_library() == library
            calls.append(str(message.offset))
            message.ack()

        async with open_consumer(
            made,
            group="g",
            topics=["t"],
            callback=callback,
            on_partitions_assigned=assigned,
            on_partitions_revoked=revoked,
        ):
            while "4" not in calls:
                await anyio.sleep(0.01)
            made.rebalance("g")
            while "revoked" not in calls:
                await anyio.sleep(0.01)

    run(main)
    assert calls[0] == "assigned"
    assert calls[1:6] == ["0", "1", "2", "3", "4"]
    assert committed(made) == 5


def test_decode_errors_go_to_an_async_function(run: Run) -> None:
    made = broker(3)
    made.produce("t", b"no number")
    made.produce("t", b"4")
    dead: list[bytes] = []

    async def main() -> None:
        async def handler(error: Any, message: Message) -> None:
            await anyio.sleep(0.01)
            dead.append(message.value)

        async with (
            open_consumer(made, group="g") as consumer,
            consumer.stream("t", value_deserializer=int, on_decode_error=handler) as stream,
        ):
            assert [m.value for m in await take(stream, 4)] == [0, 1, 2, 4]

    run(main)
    assert dead == [b"no number"]
    assert committed(made) == 5


def test_scope_of_a_message_is_cancelled_when_its_partition_goes(run: Run) -> None:
    made = broker(5)

    async def main() -> None:
        async with open_consumer(made, group="g") as consumer, consumer.stream("t") as stream:
            async for message in stream:
                with message.while_assigned() as scope:
                    await consumer.seek(T0, 0)
                    await anyio.sleep_forever()
                assert scope.cancelled_caught
                assert not message.ack()
                break

    run(main)


def test_scope_of_a_message_of_a_randomly_assigned_topic_can_be_entered(run: Run) -> None:
    made = broker(1)
    made.create_topic("other", 1)
    made.produce("other", b"stray", partition=0)

    async def main() -> None:
        async with open_consumer(
            StrayTransport(made, TP("other", 0)), group="g", randomly_assigned_topics=["other"]
        ) as consumer:
            consumer._subscription._desired = lambda: frozenset({"t"})
            async with consumer.stream("t", "other") as stream:
                for message in await take(stream, 2):
                    with message.while_assigned() as scope:
                        await anyio.lowlevel.checkpoint()
                    assert not scope.cancelled_caught

    run(main)


# -- groups ---------------------------------------------------------------------------


def test_two_members_hand_over_without_doubles(run: Run) -> None:
    made = broker(50, 2)
    seen: list[tuple[int, int]] = []

    async def member() -> None:
        async with open_consumer(made, group="g") as consumer, consumer.stream("t") as stream:
            async for message in stream:
                await anyio.sleep(0.001)
                seen.append((message.partition, message.offset))

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(member)
            await anyio.sleep(0.02)
            group.start_soon(member)
            while len(set(seen)) < 100:
                await anyio.sleep(0.01)
            await anyio.sleep(0.05)
            group.cancel_scope.cancel()

    run(main)
    assert sorted(seen) == sorted({(p, o) for p in range(2) for o in range(50)})
    # The message in hand when it was cancelled may be unfinished.
    assert min(committed(made) or 0, committed(made, T1) or 0) >= 49


def test_a_held_message_is_named_with_its_task(run: Run, caplog: Any) -> None:
    made = broker(3)
    caplog.set_level(logging.INFO, "trio_consumer")

    async def main() -> None:
        async with open_consumer(made, group="g") as consumer, consumer.stream("t") as stream:
            ready = anyio.Event()

            async def holder() -> None:
                async for _ in stream:
                    ready.set()
                    await anyio.sleep_forever()

            async with anyio.create_task_group() as group:
                group.start_soon(holder, name="the holder")
                await ready.wait()
                held = consumer.held()
                assert "the holder" in str(held)
                group.cancel_scope.cancel()

    run(main)


# -- transactions ------------------------------------------------------------------------


def out(made: MemoryBroker) -> list[bytes | None]:
    return [r.value for r in made.records(TP("out", 0), committed_only=True)]


def test_transactions_commit_and_abort(run: Run) -> None:
    made = broker(10)
    made.create_topic("out", 1)

    async def main() -> None:
        async with (
            open_consumer(made, group="g", transactional_id="x") as consumer,
            consumer.stream("t", ack="manual") as stream,
        ):
            failed = False
            async for message in stream:
                try:
                    async with consumer.transaction() as transaction:
                        await transaction.send("out", message.value)
                        message.ack()
                        if message.offset == 5 and not failed:
                            failed = True
                            raise ZeroDivisionError
                except ZeroDivisionError:
                    continue
                if message.offset == 9:
                    break

    run(main)
    assert out(made) == [b"%d" % n for n in range(10)]
    assert committed(made) == 10


def test_commit_inside_of_a_transaction_does_not_wait_for_itself(run: Run) -> None:
    made = broker(4)
    made.create_topic("out", 1)

    async def main() -> None:
        async with (
            open_consumer(made, group="g", transactional_id="x") as consumer,
            consumer.stream("t", ack="manual") as stream,
            consumer.transaction() as transaction,
        ):
            async for message in stream:
                await transaction.send("out", message.value)
                message.ack()
                if message.offset == 3:
                    break
            await consumer.commit()
            with pytest.raises(ConfigurationError, match="another one"):
                async with consumer.transaction():
                    raise AssertionError

    run(main)
    assert committed(made) == 4
    assert len(out(made)) == 4


def test_cancelled_transaction_aborts(run: Run) -> None:
    made = broker(4)
    made.create_topic("out", 1)

    async def main() -> None:
        async with (
            open_consumer(made, group="g", transactional_id="x") as consumer,
            consumer.stream("t", ack="manual") as stream,
        ):
            async for message in stream:
                with anyio.move_on_after(0.05) as scope:
                    async with consumer.transaction() as transaction:
                        await transaction.send("out", message.value)
                        message.ack()
                        await anyio.sleep_forever()
                assert scope.cancelled_caught
                break

    run(main)
    assert out(made) == []
    assert committed(made) is None


def test_partitions_that_go_doom_the_transaction(run: Run) -> None:
    made = broker(4)
    made.create_topic("out", 1)

    async def main() -> None:
        async with (
            open_consumer(made, group="g", transactional_id="x", drain_timeout=0.1) as consumer,
            consumer.stream("t", ack="manual") as stream,
        ):
            async for message in stream:
                with pytest.raises(TransactionAbortedError, match="gives up"):
                    async with consumer.transaction() as transaction:
                        await transaction.send("out", message.value)
                        message.ack()
                        made.rebalance("g")
                        await anyio.sleep_forever()
                break

    run(main)
    assert out(made) == []


# -- errors ---------------------------------------------------------------------------


def test_error_of_the_block_leaves_it_as_itself(run: Run) -> None:
    made = broker(3)
    raised = KeyError("mine")

    async def main() -> None:
        async with open_consumer(made, group="g") as consumer, consumer.stream("t") as stream:
            async for message in stream:
                if message.offset == 2:
                    raise raised

    with pytest.raises(KeyError) as caught:
        run(main)
    assert caught.value is raised
    assert committed(made) == 2


def test_group_of_the_block_leaves_it_as_itself(run: Run) -> None:
    made = broker(1)
    raised = ExceptionGroup("mine", [ValueError(1), TypeError(2)])

    async def main() -> None:
        async with open_consumer(made, group="g"):
            raise raised

    with pytest.raises(ExceptionGroup) as caught:
        run(main)
    assert caught.value is raised


def test_bad_argument_is_refused(run: Run) -> None:
    async def main() -> None:
        async with open_consumer(broker(), group=""):
            raise AssertionError

    with pytest.raises(ConfigurationError, match="needs a group"):
        run(main)


def test_failure_of_the_consumer_cancels_the_block(run: Run) -> None:
    made = broker(5)

    async def main() -> None:
        async with open_consumer(made, group="g") as consumer, consumer.stream("t") as stream:
            await take(stream, 2)
            made.produce("t", b"5")
            made.corrupt(T0, 5)
            await take(stream, 10)

    with pytest.raises(CorruptRecordError):
        run(main)
    assert committed(made) == 5


def test_commit_that_fails_raises_where_it_was_called(run: Run) -> None:
    made = broker(5)

    async def main() -> None:
        async with open_consumer(made, group="g") as consumer, consumer.stream("t") as stream:
            await take(stream, 5)
            made.fail_next_commits(1)
            with pytest.raises(CommitFailedError):
                await consumer.commit()

    run(main)
    assert committed(made) == 5


def test_face_has_every_name() -> None:
    """What the package has, the face has: the same objects but for the way in."""
    import trio_consumer
    import trio_consumer.anyio as face

    assert face.__all__ == trio_consumer.__all__
    for name in set(face.__all__) - {"open_consumer"}:
        assert getattr(face, name) is getattr(trio_consumer, name)
