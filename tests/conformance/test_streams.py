"""Streams: fan-out, batches, subsets, streams that come late."""

from __future__ import annotations

import itertools

import anyio
import pytest

from trio_consumer import (
    TP,
    DeserializationError,
    Message,
    Stream,
)

from .backends import Backend, new_group
from .support import numbered, take


def test_two_streams_both_see_each_message_once(backend: Backend) -> None:
    """Fan-out: every subscribed stream gets every message, and both have to finish it."""

    async def main() -> None:
        topic, group = await backend.topic(2), new_group()
        for partition in range(2):
            await backend.produce(topic, numbered(50), partition)
        seen: list[list[Message]] = [[], []]
        async with (
            backend.consumer(group) as consumer,
            consumer.stream(topic) as one,
            consumer.stream(topic) as two,
            anyio.create_task_group() as nursery,
        ):

            async def drain(index: int, stream: Stream) -> None:
                seen[index] = await take(stream, 100)

            nursery.start_soon(drain, 0, one)
            nursery.start_soon(drain, 1, two)
        for messages in seen:
            assert len({(m.partition, m.offset) for m in messages}) == len(messages) == 100
        assert [await backend.committed(group, TP(topic, p)) for p in range(2)] == [50, 50]

    backend.run(main)


def test_observers_hold_no_reference(backend: Backend) -> None:
    """A topic that only an observer reads is never committed; an observer holds nothing back."""

    async def main() -> None:
        watched, worked, group = await backend.topic(), await backend.topic(), new_group()
        await backend.produce(watched, numbered(5))
        await backend.produce(worked, numbered(5))
        async with (
            backend.consumer(group) as consumer,
            consumer.stream(watched, worked, ack="none") as observer,
            consumer.stream(worked) as worker,
        ):
            await take(worker, 5)
            observed = []
            async for message in observer:
                observed.append(message)
                assert not message.ack()
                if len(observed) == 10:
                    break
        assert await backend.committed(group, TP(watched, 0)) is None
        assert await backend.committed(group, TP(worked, 0)) == 5

    backend.run(main)


def test_batches_are_finished_as_a_whole(backend: Backend) -> None:
    """A batch is finished when the loop comes back; the one in hand at a break is not."""

    async def main() -> None:
        topic, group = await backend.topic(), new_group()
        await backend.produce(topic, numbered(100))
        offsets: list[int] = []
        async with backend.consumer(group) as consumer, consumer.stream(topic) as stream:
            async for batch in stream.batches(max_size=30, max_wait=0.2):
                assert len(batch) == 30
                if offsets and batch[0].offset == 60:
                    break
                offsets += [message.offset for message in batch]
        assert offsets == list(range(60))
        assert await backend.committed(group, TP(topic, 0)) == 60

    backend.run(main)


def test_several_tasks_share_a_stream(backend: Backend) -> None:
    """Each message goes to one of the tasks that iterate."""

    async def main() -> None:
        topic, group = await backend.topic(2), new_group()
        for partition in range(2):
            await backend.produce(topic, numbered(50), partition)
        seen: list[tuple[int, int]] = []
        async with backend.consumer(group) as consumer, consumer.stream(topic) as stream:

            async def work() -> None:
                async for message in stream:
                    await anyio.sleep(0.001)
                    seen.append((message.partition, message.offset))

            async with anyio.create_task_group() as nursery:
                for _ in range(5):
                    nursery.start_soon(work)
                while len(seen) < 100:
                    await anyio.sleep(0.01)
                consumer.close()
        assert sorted(seen) == sorted(itertools.product(range(2), range(50)))
        assert [await backend.committed(group, TP(topic, p)) for p in range(2)] == [50, 50]

    backend.run(main)


def test_stream_with_a_subset_takes_only_its_partitions(backend: Backend) -> None:
    """What no stream takes is neither read nor committed."""

    async def main() -> None:
        topic, group = await backend.topic(3), new_group()
        for partition in range(3):
            await backend.produce(topic, numbered(10), partition)
        async with (
            backend.consumer(group) as consumer,
            consumer.stream(topic, partitions={1}) as stream,
            consumer.stream(topic, partitions=()),
        ):
            messages = await take(stream, 10)
        assert {m.partition for m in messages} == {1}
        assert await backend.committed(group, TP(topic, 1)) == 10
        assert await backend.committed(group, TP(topic, 0)) is None

    backend.run(main)


def test_late_stream_joins_the_subscription(backend: Backend) -> None:
    """A stream for another topic, opened later, gets its messages; the first goes on."""

    async def main() -> None:
        one, two, group = await backend.topic(), await backend.topic(), new_group()
        await backend.produce(one, numbered(10))
        await backend.produce(two, numbered(10))
        async with backend.consumer(group) as consumer, consumer.stream(one) as first:
            await take(first, 5)
            async with consumer.stream(two) as second:
                assert [m.offset for m in await take(second, 10)] == list(range(10))
                assert [m.offset for m in await take(first, 5)] == list(range(5, 10))
        assert await backend.committed(group, TP(one, 0)) == 10
        assert await backend.committed(group, TP(two, 0)) == 10

    backend.run(main)


def test_messages_a_stream_never_handed_out_go_to_the_next_one(backend: Backend) -> None:
    """Closing a stream gives back its buffer; a later stream continues without a gap."""

    async def main() -> None:
        topic, group = await backend.topic(), new_group()
        await backend.produce(topic, numbered(100))
        async with backend.consumer(group) as consumer:
            async with consumer.stream(topic) as stream:
                assert [m.offset for m in await take(stream, 20)] == list(range(20))
            async with consumer.stream(topic) as stream:
                assert [m.offset for m in await take(stream, 80)] == list(range(20, 100))
        assert await backend.committed(group, TP(topic, 0)) == 100

    backend.run(main)


def test_deserializers_apply_and_failures_name_the_field(backend: Backend) -> None:
    """A deserializer that raises leaves its message unfinished and says which one it was."""

    async def main() -> None:
        topic, group = await backend.topic(), new_group()
        await backend.produce(topic, [b"1", b"2", None, b"x", b"5"])
        async with (
            backend.consumer(group) as consumer,
            consumer.stream(topic, value_deserializer=int) as stream,
        ):
            got = []
            with pytest.raises(DeserializationError, match=r"^cannot deserialize the value of .*3"):
                async for message in stream:
                    got.append(message.value)
        assert got == [1, 2, None]
        assert await backend.committed(group, TP(topic, 0)) == 3

    backend.run(main)


def test_pattern_means_topics_that_are_there_and_topics_that_come_later(backend: Backend) -> None:
    """A stream of a pattern waits for its first topic, and takes in each one that appears."""

    async def main() -> None:
        group = new_group()
        prefix = f"pattern-of-{group}"
        options = {"client_options": {"metadata_max_age_ms": 1000}}
        await backend.topic(prefix="unwanted")
        async with (
            backend.consumer(group, **options) as consumer,
            consumer.stream(pattern=f"(conformance-)?{prefix}-[0-9]+") as stream,
        ):
            with anyio.move_on_after(3) as scope:
                await take(stream, 1)
            assert scope.cancelled_caught
            assert consumer.assignment == frozenset()
            seen: dict[str, list[int]] = {}
            for expected in (1, 2):
                topic = await backend.topic(2, prefix=prefix)
                await backend.produce(topic, numbered(5), 1)
                with anyio.fail_after(60):
                    for message in await take(stream, 5):
                        seen.setdefault(message.topic, []).append(message.offset)
                assert seen[topic] == [0, 1, 2, 3, 4]
                assert len(seen) == expected
            assert {tp.topic for tp in consumer.assignment} == set(seen)
        for topic in seen:
            assert await backend.committed(group, TP(topic, 1)) == 5

    backend.run(main)
