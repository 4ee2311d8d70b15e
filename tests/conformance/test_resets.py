"""Positions outside of the log: truncated heads, recreated and deleted topics, resets."""

from __future__ import annotations

import logging
from typing import Any

import anyio
import pytest

from trio_consumer import TP, Message, OffsetOutOfRangeError

from .backends import Backend, new_group
from .support import numbered, take, until_committed, wait_for

QUICK = {"metadata_max_age_ms": 1000}


@pytest.mark.parametrize(("policy", "expected"), [("earliest", [6, 7, 8, 9]), ("latest", [10, 11])])
def test_committed_offset_that_is_not_in_the_log_any_more_is_reset(
    backend: Backend, policy: str, expected: list[int]
) -> None:
    """The head was deleted below it: reading goes on where the policy says."""

    async def main() -> None:
        topic, group = await backend.topic(), new_group()
        tp = TP(topic, 0)
        await backend.produce(topic, numbered(10))
        await backend.set_committed(group, tp, 2)
        await backend.delete_records(tp, 6)
        async with (
            backend.consumer(group, auto_offset_reset=policy, commit_interval=0.2) as consumer,
            consumer.stream(topic) as stream,
            anyio.create_task_group() as nursery,
        ):
            got: list[Message] = []

            async def collect() -> None:
                got.extend(await take(stream, len(expected)))

            nursery.start_soon(collect)
            await wait_for(lambda: bool(consumer.assignment))
            await wait_for(lambda: consumer.position(tp) == 10)
            if policy == "latest":
                await backend.produce(topic, numbered(2, 10))
        assert [message.offset for message in got] == expected
        assert await backend.committed(group, tp) == expected[-1] + 1

    backend.run(main)


@pytest.mark.parametrize("where", ["below", "beyond"])
def test_reset_none_names_partition_and_offset(backend: Backend, where: str) -> None:
    """An offset out of the log ends the consumer, on either side of the log."""

    async def main() -> None:
        topic, group = await backend.topic(2), new_group()
        tp = TP(topic, 1)
        await backend.produce(topic, numbered(10), 1)
        await backend.set_committed(group, TP(topic, 0), 0)
        await backend.set_committed(group, tp, 2 if where == "below" else 17)
        await backend.delete_records(tp, 6)
        with pytest.raises(OffsetOutOfRangeError) as caught:
            async with (
                backend.consumer(group, auto_offset_reset="none") as consumer,
                consumer.stream(topic) as stream,
            ):
                await take(stream, 1)
        assert (caught.value.tp, caught.value.offset) == (tp, 2 if where == "below" else 17)
        assert await backend.committed(group, tp) == caught.value.offset

    backend.run(main)


def test_records_of_other_partitions_come_although_one_has_no_offset(backend: Backend) -> None:
    """Without a committed offset ``none`` names the partition that has none, and only that."""

    async def main() -> None:
        topic, group = await backend.topic(2), new_group()
        for partition in range(2):
            await backend.produce(topic, numbered(3), partition)
        await backend.set_committed(group, TP(topic, 0), 1)
        with pytest.raises(OffsetOutOfRangeError, match=r"no committed\s+offset") as caught:
            async with (
                backend.consumer(group, auto_offset_reset="none") as consumer,
                consumer.stream(topic) as stream,
            ):
                await take(stream, 4)
        assert (caught.value.tp, caught.value.offset) == (TP(topic, 1), None)
        assert await backend.committed(group, TP(topic, 1)) is None

    backend.run(main)


@pytest.mark.parametrize("offset", [20, 1000])
def test_seek_to_the_end_waits_and_beyond_it_resets(backend: Backend, offset: int) -> None:
    """At the end one waits for what comes; past it the reset policy applies."""

    async def main() -> None:
        topic, group = await backend.topic(), new_group()
        tp = TP(topic, 0)
        await backend.produce(topic, numbered(20))
        async with (
            backend.consumer(group, commit_interval=0.2) as consumer,
            consumer.stream(topic) as stream,
        ):
            await take(stream, 5)
            await consumer.seek(tp, offset)
            first = 20 if offset == 20 else 0
            if first == 0:
                await wait_for(lambda: consumer.position(tp) == 20)
            await backend.produce(topic, numbered(2, 20))
            got = await take(stream, 22 - first)
            assert [message.offset for message in got] == list(range(first, 22))
            await until_committed(backend, group, tp, 22)

    backend.run(main)


def test_seek_beyond_the_end_is_an_error_under_none(backend: Backend) -> None:
    """Nobody said where to go: the error names the place."""

    async def main() -> None:
        topic, group = await backend.topic(), new_group()
        tp = TP(topic, 0)
        await backend.produce(topic, numbered(5))
        await backend.set_committed(group, tp, 0)
        with pytest.raises(OffsetOutOfRangeError) as caught:
            async with (
                backend.consumer(group, auto_offset_reset="none") as consumer,
                consumer.stream(topic) as stream,
            ):
                await take(stream, 5)
                await consumer.seek(tp, 99)
                await take(stream, 1)
        assert (caught.value.tp, caught.value.offset) == (tp, 99)
        assert await backend.committed(group, tp) in (0, 5)

    backend.run(main)


def test_head_that_is_deleted_under_a_slow_consumer_is_skipped(backend: Backend) -> None:
    """Retention overtakes the reader: what is gone is gone, the rest comes, commits go on."""

    async def main() -> None:
        topic, group = await backend.topic(), new_group()
        tp = TP(topic, 0)
        for start in range(0, 300, 50):  # a batch each: Kafka gives out whole ones
            await backend.produce(topic, numbered(50, start))
        options = {"max_poll_records": 10, "max_partition_fetch_bytes": 700}
        if backend.name == "memory":
            del options["max_partition_fetch_bytes"]
        async with (
            backend.consumer(group, client_options=options, commit_interval=0.1) as consumer,
            consumer.stream(topic, max_buffered=10) as stream,
        ):
            await take(stream, 5)
            await backend.delete_records(tp, 280)
            seen: list[int] = []
            async for message in stream:
                seen.append(message.offset)
                if message.offset == 299:
                    message.ack()
                    break
            assert seen == sorted(set(seen))
            assert seen[-20:] == list(range(280, 300))
            assert len(seen) < 280
            await until_committed(backend, group, tp, 300)

    backend.run(main)


def test_topic_that_was_made_again_is_read_from_its_beginning(backend: Backend) -> None:
    """A committed offset beyond the new end leads to a reset, and the commits follow."""

    async def main() -> None:
        topic, group = await backend.topic(), new_group()
        tp = TP(topic, 0)
        await backend.produce(topic, numbered(20))
        async with backend.consumer(group) as consumer, consumer.stream(topic) as stream:
            await take(stream, 20)
        assert await backend.committed(group, tp) == 20
        await backend.delete_topic(topic)
        await backend.create_again(topic)
        await backend.produce(topic, numbered(3))
        # Kafka forgets it with the topic, in its own time; a copy of it stays here.
        await backend.set_committed(group, tp, 20)
        async with (
            backend.consumer(group, commit_interval=0.2) as consumer,
            consumer.stream(topic) as stream,
        ):
            got = await take(stream, 3)
            assert [message.offset for message in got] == [0, 1, 2]
            await until_committed(backend, group, tp, 3)

    backend.run(main)


def test_deleted_topic_is_waited_for_and_said_so(
    backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    """Its partitions go, other topics flow, commits succeed; made again it is read again."""

    async def main() -> None:
        gone, stays, group = await backend.topic(), await backend.topic(), new_group()
        late = await backend.topic()
        await backend.produce(late, numbered(3))
        await backend.produce(gone, numbered(5))
        await backend.produce(stays, numbered(5))
        async with (
            backend.consumer(
                group, commit_interval=1000.0, commit_timeout=2.0, client_options=QUICK
            ) as consumer,
            consumer.stream(gone) as first,
            consumer.stream(stays) as second,
        ):
            await take(second, 5)
            await take(first, 3)
            # What was finished of it cannot be committed, and that holds up nothing.
            await backend.delete_topic(gone)
            await wait_for(lambda: f"topic {gone!r} does not exist any more" in caplog.text)
            await wait_for(lambda: consumer.assignment == {TP(stays, 0)})
            await backend.produce(stays, numbered(5, 5))
            await take(second, 5)
            assert await consumer.commit()
            assert await backend.committed(group, TP(stays, 0)) == 10
            await until_committed(backend, group, TP(gone, 0), None)
            async with consumer.stream(late) as third:
                await take(third, 3)
            await backend.create_again(gone)
            await backend.produce(gone, numbered(4))
            got = await take(first, 4)
            assert [message.offset for message in got] == [0, 1, 2, 3]
        assert await backend.committed(group, TP(gone, 0)) == 4

    caplog.set_level(logging.INFO, "trio_consumer")
    backend.run(main)


def test_deleted_topic_of_a_pattern_leaves_the_subscription(backend: Backend) -> None:
    """What a pattern meant goes without an error, and the rest flows."""

    async def main() -> None:
        group = new_group()
        prefix = f"gone-of-{group}"
        one, two = await backend.topic(prefix=prefix), await backend.topic(prefix=prefix)
        for topic in (one, two):
            await backend.produce(topic, numbered(5))
        options: dict[str, Any] = {"client_options": QUICK, "commit_timeout": 2.0}
        async with (
            backend.consumer(group, commit_interval=0.3, **options) as consumer,
            consumer.stream(pattern=f"(conformance-)?{prefix}-[0-9]+") as stream,
        ):
            await take(stream, 10)
            await backend.delete_topic(one)

            async def until_gone() -> None:
                async for _ in stream:
                    pass

            async with anyio.create_task_group() as nursery:
                nursery.start_soon(until_gone)
                await wait_for(lambda: consumer.assignment == {TP(two, 0)})
                nursery.cancel_scope.cancel()
            await backend.produce(two, numbered(5, 5))
            got = await take(stream, 5)
            assert [message.offset for message in got] == list(range(5, 10))
            await until_committed(backend, group, TP(two, 0), 10)

    backend.run(main)


@pytest.mark.parametrize("slow", [False, True], ids=["at once", "seen"])
def test_topic_made_again_under_a_consumer_loses_its_first_records_to_nobody(
    backend: Backend, slow: bool
) -> None:
    """The new topic is longer than the old position: reading begins anew all the same."""

    async def main() -> None:
        topic, group = await backend.topic(), new_group()
        tp = TP(topic, 0)
        await backend.produce(topic, numbered(5))
        async with (
            backend.consumer(group, commit_interval=1000.0, commit_timeout=2.0) as consumer,
            consumer.stream(topic) as stream,
        ):
            old = await take(stream, 5)
            await consumer.commit()
            await backend.delete_topic(topic)
            if slow:
                await wait_for(lambda: not consumer.assignment)
            await backend.create_again(topic)
            await backend.produce(topic, numbered(20))
            got = await take(stream, 20)
            assert [message.offset for message in got] == list(range(20))
            assert not any(message.ack() for message in old)
        assert await backend.committed(group, tp) == 20

    backend.run(main)
