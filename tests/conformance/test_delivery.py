"""What is delivered, finished and committed, without any rebalance."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

from trio_consumer import (
    TP,
    UnknownTopicError,
)

from .backends import Backend, new_group
from .support import numbered, take, until_committed


def test_messages_arrive_in_order_and_a_clean_exit_commits_the_end(backend: Backend) -> None:
    """Every message of every partition comes once, and leaving commits all of them."""

    async def main() -> None:
        topic, group = await backend.topic(3), new_group()
        for partition in range(3):
            await backend.produce(topic, numbered(100), partition)
        async with backend.consumer(group) as consumer, consumer.stream(topic) as stream:
            messages = await take(stream, 300)
        for partition in range(3):
            offsets = [m.offset for m in messages if m.partition == partition]
            assert offsets == list(range(100))
            assert await backend.committed(group, TP(topic, partition)) == 100
        assert messages[0].value == b"%d" % messages[0].offset

    backend.run(main)


def test_message_carries_what_was_produced(backend: Backend) -> None:
    """Topic, partition, offset, key, tombstone, headers and a timestamp in seconds."""

    async def main() -> None:
        topic, group = await backend.topic(2), new_group()
        await backend.produce(topic, [b"one", None], 1)
        async with backend.consumer(group) as consumer, consumer.stream(topic) as stream:
            first, second = await take(stream, 2)
        assert (first.topic, first.partition, first.offset) == (topic, 1, 0)
        assert first.tp == TP(topic, 1)
        assert (first.key, first.value, list(first.headers)) == (None, b"one", [])
        assert second.value is None
        assert first.timestamp is not None
        assert 1e9 < first.timestamp < 1e10

    backend.run(main)


def test_acking_only_the_last_of_six_commits_nothing(backend: Backend) -> None:
    """In a fresh group an acknowledgement of offset 5 alone moves nothing (Faust: 6)."""

    async def main() -> None:
        topic, group = await backend.topic(), new_group()
        await backend.produce(topic, numbered(6))
        async with (
            backend.consumer(group) as consumer,
            consumer.stream(topic, ack="manual") as stream,
        ):
            messages = []
            async for message in stream:
                messages.append(message)
                if len(messages) == 6:
                    break
            assert messages[5].ack()
            assert not await consumer.commit()
            assert await backend.committed(group, TP(topic, 0)) is None
            assert messages[0].ack()
            assert await consumer.commit()
            assert await backend.committed(group, TP(topic, 0)) == 1
        assert await backend.committed(group, TP(topic, 0)) == 1

    backend.run(main)


def test_acknowledging_twice_is_nothing(backend: Backend) -> None:
    """The first acknowledgement of a stream counts, the second spends nobody's reference."""

    async def main() -> None:
        topic, group = await backend.topic(), new_group()
        await backend.produce(topic, numbered(1))
        async with (
            backend.consumer(group) as consumer,
            consumer.stream(topic, ack="manual") as one,
            consumer.stream(topic, ack="manual") as two,
        ):
            (first,) = await take(one, 1)
            assert not first.ack()
            assert not await consumer.commit()
            (second,) = await take(two, 1)
            assert second.offset == first.offset
            assert await consumer.commit()

    backend.run(main)


def test_failed_block_leaves_its_message_unfinished(backend: Backend) -> None:
    """``async with message`` finishes on a clean exit and not on an error; it is replayed."""

    async def main() -> None:
        topic, group = await backend.topic(), new_group()
        await backend.produce(topic, numbered(10))
        async with (
            backend.consumer(group) as consumer,
            consumer.stream(topic, ack="manual") as stream,
        ):
            with pytest.raises(LookupError, match=r"^seven$"):
                async for message in stream:
                    async with message:
                        if message.offset == 7:
                            raise LookupError("seven")
        assert await backend.committed(group, TP(topic, 0)) == 7
        async with backend.consumer(group) as consumer, consumer.stream(topic) as stream:
            assert [m.offset for m in await take(stream, 3)] == [7, 8, 9]
        assert await backend.committed(group, TP(topic, 0)) == 10

    backend.run(main)


def test_break_leaves_the_message_in_hand_unfinished(backend: Backend) -> None:
    """A ``break`` costs one replay; nothing but coming back finishes a message."""

    async def main() -> None:
        topic, group = await backend.topic(), new_group()
        await backend.produce(topic, numbered(10))
        async with backend.consumer(group) as consumer, consumer.stream(topic) as stream:
            async for message in stream:
                if message.offset == 4:
                    break
        assert await backend.committed(group, TP(topic, 0)) == 4

    backend.run(main)


def test_cancelled_program_loses_nothing(backend: Backend) -> None:
    """What was finished is committed on the way out, what was in hand comes again."""

    async def main() -> None:
        topic, group = await backend.topic(), new_group()
        await backend.produce(topic, numbered(100))
        with anyio.CancelScope() as scope:
            async with backend.consumer(group) as consumer, consumer.stream(topic) as stream:
                async for message in stream:
                    if message.offset == 42:
                        scope.cancel()
                    await anyio.lowlevel.checkpoint()
        assert scope.cancelled_caught
        assert await backend.committed(group, TP(topic, 0)) == 42
        async with backend.consumer(group) as consumer, consumer.stream(topic) as stream:
            assert [m.offset for m in await take(stream, 58)] == list(range(42, 100))

    backend.run(main)


def test_commit_reaches_the_end_behind_a_transaction_marker(backend: Backend) -> None:
    """Markers and aborted records leave holes; the commit steps over them to the end."""

    async def main() -> None:
        topic, group = await backend.topic(), new_group()
        tp = TP(topic, 0)
        await backend.produce_transaction(topic, numbered(3))
        await backend.produce_transaction(topic, numbered(4), commit=False)
        await backend.produce_transaction(topic, numbered(2, 3))
        end = await backend.end(tp)
        async with (
            backend.consumer(group, isolation_level="read_committed") as consumer,
            consumer.stream(topic) as stream,
        ):
            messages = await take(stream, 5)
            with anyio.fail_after(20):
                while consumer.position(tp) != end:
                    await anyio.sleep(0.05)
        assert [m.value for m in messages] == numbered(5)
        assert await backend.committed(group, tp) == end > messages[-1].offset + 1

    backend.run(main)


def test_commit_reaches_the_end_of_what_nobody_gets_to_see(backend: Backend) -> None:
    """Also if there is nothing but aborted records behind the committed offset."""

    async def main() -> None:
        topic, group = await backend.topic(), new_group()
        tp = TP(topic, 0)
        await backend.produce(topic, numbered(2))
        await backend.set_committed(group, tp, 2)
        await backend.produce_transaction(topic, numbered(4), commit=False)
        end = await backend.end(tp)
        async with (
            backend.consumer(group, isolation_level="read_committed") as consumer,
            consumer.stream(topic) as stream,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(take, stream, 1)
            with anyio.fail_after(20):
                while tp not in consumer.assignment or consumer.position(tp) != end:
                    await anyio.sleep(0.05)
            tasks.cancel_scope.cancel()
        assert await backend.committed(group, tp) == end >= 6

    backend.run(main)


def test_commit_follows_the_interval(backend: Backend) -> None:
    """The ticker commits without being asked."""

    async def main() -> None:
        topic, group = await backend.topic(), new_group()
        await backend.produce(topic, numbered(5))
        async with (
            backend.consumer(group, commit_interval=0.2) as consumer,
            consumer.stream(topic) as stream,
        ):
            await take(stream, 5)
            await until_committed(backend, group, TP(topic, 0), 5)

    backend.run(main)


def test_commit_every_counts_acknowledgements(backend: Backend) -> None:
    """``commit_every`` commits after so many acknowledgements, long before the interval."""

    async def main() -> None:
        topic, group = await backend.topic(), new_group()
        await backend.produce(topic, numbered(30))
        async with (
            backend.consumer(group, commit_interval=1000.0, commit_every=10) as consumer,
            consumer.stream(topic) as stream,
        ):
            await take(stream, 10)
            await until_committed(backend, group, TP(topic, 0), 10)
            await take(stream, 10)
            await until_committed(backend, group, TP(topic, 0), 20)

    backend.run(main)


def test_commit_takes_a_filter(backend: Backend) -> None:
    """Only the topics and partitions that were named are committed."""

    async def main() -> None:
        one, two, group = await backend.topic(2), await backend.topic(), new_group()
        for topic, partition in ((one, 0), (one, 1), (two, 0)):
            await backend.produce(topic, numbered(2), partition)
        async with (
            backend.consumer(group, commit_interval=1000.0) as consumer,
            consumer.stream(one, two) as stream,
        ):
            await take(stream, 6)
            assert await consumer.commit([TP(one, 1)])
            assert await backend.committed(group, TP(one, 1)) == 2
            assert await backend.committed(group, TP(one, 0)) is None
            assert await consumer.commit({two})
            assert await backend.committed(group, TP(two, 0)) == 2
            assert not await consumer.commit([two])
            assert await backend.committed(group, TP(one, 0)) is None

    backend.run(main)


def test_unknown_topic_ends_the_consumer_with_its_name(backend: Backend) -> None:
    """Subscribing to a topic that does not exist is an error and not a silence."""

    async def main() -> None:
        with pytest.raises(UnknownTopicError, match=r"^cannot .*'no-such-topic'"):
            async with (
                backend.consumer(new_group()) as consumer,
                consumer.stream("no-such-topic") as stream,
            ):
                await take(stream, 1)

    backend.run(main)


def test_lag_of_a_quiet_partition_is_known_without_a_question(backend: Backend) -> None:
    """Nothing is there to be read from the start; ``statistics()`` says that all the same."""

    async def main() -> None:
        topic, group = await backend.topic(), new_group()
        tp = TP(topic, 0)
        await backend.produce(topic, numbered(3))
        await backend.set_committed(group, tp, 3)
        async with (
            backend.consumer(group) as consumer,
            consumer.stream(topic) as stream,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(take, stream, 1)
            while (found := consumer.statistics().partitions.get(tp)) is None or (
                found.lag is None
            ):
                await anyio.sleep(0.05)
            assert (found.position, found.lag, found.commit_lag) == (3, 0, 0)
            await backend.produce(topic, numbered(1))

    backend.run(main)
