"""What is delivered, finished and committed, without any rebalance."""

from __future__ import annotations

import itertools

import pytest
import trio

from trio_consumer import (
    TP,
    DeserializationError,
    Message,
    OffsetOutOfRangeError,
    Stream,
    UnknownTopicError,
)

from .backends import Backend, new_group


def numbered(count: int, start: int = 0) -> list[bytes | None]:
    return [b"%d" % number for number in range(start, start + count)]


async def take(stream: Stream, count: int) -> list[Message]:
    """Take so many messages, all of them finished by an acknowledgement or by coming back."""
    messages: list[Message] = []
    async for message in stream:
        messages.append(message)
        if len(messages) == count:
            message.ack()
            break
    return messages


async def until_committed(backend: Backend, group: str, tp: TP, offset: int) -> None:
    with trio.fail_after(30):
        while await backend.committed(group, tp) != offset:
            await trio.sleep(0.05)


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
            trio.open_nursery() as nursery,
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
        with trio.CancelScope() as scope:
            async with backend.consumer(group) as consumer, consumer.stream(topic) as stream:
                async for message in stream:
                    if message.offset == 42:
                        scope.cancel()
                    await trio.lowlevel.checkpoint()
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
            with trio.fail_after(20):
                while consumer.position(tp) != end:
                    await trio.sleep(0.05)
        assert [m.value for m in messages] == numbered(5)
        assert await backend.committed(group, tp) == end > messages[-1].offset + 1

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
                    await trio.sleep(0.001)
                    seen.append((message.partition, message.offset))

            async with trio.open_nursery() as nursery:
                for _ in range(5):
                    nursery.start_soon(work)
                while len(seen) < 100:
                    await trio.sleep(0.01)
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


def test_full_buffer_holds_back_only_its_own_topic(backend: Backend) -> None:
    """A stuck stream stops its partitions; another stream's go on, and nothing is lost."""

    async def main() -> None:
        slow, fast, group = await backend.topic(), await backend.topic(), new_group()
        await backend.produce(slow, numbered(3000))
        await backend.produce(fast, numbered(3000))
        async with (
            backend.consumer(group, client_options={"max_poll_records": 100}) as consumer,
            consumer.stream(slow, max_buffered=200) as stuck,
            consumer.stream(fast, max_buffered=200) as going,
        ):
            await take(stuck, 1)
            await take(going, 3000)
            assert stuck.buffered < 200 + 100
            assert [m.offset for m in await take(stuck, 2999)] == list(range(1, 3000))
        assert await backend.committed(group, TP(slow, 0)) == 3000

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


def test_reset_latest_starts_at_the_end(backend: Backend) -> None:
    """Without a committed offset ``latest`` delivers only what comes afterwards."""

    async def main() -> None:
        topic, group = await backend.topic(), new_group()
        await backend.produce(topic, numbered(10))
        async with (
            backend.consumer(group, auto_offset_reset="latest") as consumer,
            consumer.stream(topic) as stream,
            trio.open_nursery() as nursery,
        ):
            got: list[Message] = []

            async def drain() -> None:
                got.extend(await take(stream, 5))

            nursery.start_soon(drain)
            with trio.fail_after(30):
                while not consumer.assignment or consumer.position(TP(topic, 0)) is None:
                    await trio.sleep(0.05)
            await backend.produce(topic, numbered(5, 10))
        assert [m.offset for m in got] == list(range(10, 15))
        assert await backend.committed(group, TP(topic, 0)) == 15

    backend.run(main)


def test_reset_none_is_an_error_that_names_the_partition(backend: Backend) -> None:
    """Without a committed offset ``none`` ends the consumer instead of guessing."""

    async def main() -> None:
        topic = await backend.topic()
        await backend.produce(topic, numbered(1))
        with pytest.raises(OffsetOutOfRangeError) as caught:
            async with (
                backend.consumer(new_group(), auto_offset_reset="none") as consumer,
                consumer.stream(topic) as stream,
            ):
                await take(stream, 1)
        assert caught.value.tp == TP(topic, 0)

    backend.run(main)


def test_seek_back_delivers_again_and_makes_old_messages_stale(backend: Backend) -> None:
    """After a seek to offset 0 everything comes again and an old acknowledgement is False."""

    async def main() -> None:
        topic, group = await backend.topic(), new_group()
        tp = TP(topic, 0)
        await backend.produce(topic, numbered(20))
        async with (
            backend.consumer(group) as consumer,
            consumer.stream(topic, ack="manual") as stream,
        ):
            first = [await anext(aiter(stream)) for _ in range(10)]
            await consumer.seek(tp, 0)
            assert not first[3].ack()
            again = [await anext(aiter(stream)) for _ in range(20)]
            assert [m.offset for m in again] == list(range(20))
            assert all(m.ack() for m in again)
        assert await backend.committed(group, tp) == 20

    backend.run(main)


def test_seek_forward_leaves_out_what_is_between_and_commits_again(backend: Backend) -> None:
    """A forward seek drops the buffer, delivers from there, and the commit follows."""

    async def main() -> None:
        topic, group = await backend.topic(), new_group()
        tp = TP(topic, 0)
        await backend.produce(topic, numbered(100))
        async with backend.consumer(group) as consumer, consumer.stream(topic) as stream:
            await take(stream, 3)
            await consumer.seek(tp, 90)
            assert [m.offset for m in await take(stream, 10)] == list(range(90, 100))
            await consumer.commit()
            assert await backend.committed(group, tp) == 100

    backend.run(main)


def test_paused_partition_waits_and_loses_nothing(backend: Backend) -> None:
    """A user's pause in the middle stops fetching this partition only."""

    async def main() -> None:
        topic, group = await backend.topic(2), new_group()
        for partition in range(2):
            await backend.produce(topic, numbered(1000), partition)
        async with (
            backend.consumer(group, client_options={"max_poll_records": 50}) as consumer,
            consumer.stream(topic, max_buffered=100) as stream,
        ):
            seen: dict[int, list[int]] = {0: [], 1: []}
            # Whichever comes first: Kafka may give the whole of one before the other.
            paused: int | None = None
            async for message in stream:
                offsets = seen[message.partition]
                offsets.append(message.offset)
                if paused is None and len(offsets) == 10:
                    paused = message.partition
                    consumer.pause_partitions([TP(topic, paused)])
                if paused not in (None, message.partition) and len(offsets) == 1000:
                    assert len(seen[paused]) < 1000
                    consumer.resume_partitions([TP(topic, paused)])
                if len(seen[0]) + len(seen[1]) == 2000:
                    message.ack()
                    break
        assert seen == {0: list(range(1000)), 1: list(range(1000))}
        assert [await backend.committed(group, TP(topic, p)) for p in range(2)] == [1000, 1000]

    backend.run(main)


def test_stopped_flow_hands_out_nothing(backend: Backend) -> None:
    """Between ``stop_flow`` and ``resume_flow`` no message is handed out, then all are."""

    async def main() -> None:
        topic, group = await backend.topic(), new_group()
        await backend.produce(topic, numbered(500))
        seen: list[int] = []
        async with backend.consumer(group) as consumer, consumer.stream(topic) as stream:

            async def work() -> None:
                async for message in stream:
                    seen.append(message.offset)
                    await trio.sleep(0.002)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(work)
                while len(seen) < 10:
                    await trio.sleep(0.002)
                consumer.stop_flow()
                await trio.sleep(0.01)
                stopped_at = len(seen)
                await trio.sleep(0.5)
                assert len(seen) == stopped_at < 500
                consumer.resume_flow()
                with trio.fail_after(30):
                    while len(seen) < 500:
                        await trio.sleep(0.01)
                consumer.close()
        assert seen == list(range(500))
        assert await backend.committed(group, TP(topic, 0)) == 500

    backend.run(main)


def test_wait_empty_returns_when_everything_is_finished_and_committed(backend: Backend) -> None:
    """It waits for the handlers and leaves nothing uncommitted."""

    async def main() -> None:
        topic, group = await backend.topic(), new_group()
        await backend.produce(topic, numbered(20))
        async with (
            backend.consumer(group, commit_interval=1000.0) as consumer,
            consumer.stream(topic, ack="manual") as stream,
            trio.open_nursery() as nursery,
        ):

            async def handle(message: Message) -> None:
                await trio.sleep(0.01 * (20 - message.offset))
                message.ack()

            for _ in range(20):
                nursery.start_soon(handle, await anext(aiter(stream)))
            await consumer.wait_empty()
            assert await backend.committed(group, TP(topic, 0)) == 20

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
            with trio.move_on_after(3) as scope:
                await take(stream, 1)
            assert scope.cancelled_caught
            assert consumer.assignment == frozenset()
            seen: dict[str, list[int]] = {}
            for expected in (1, 2):
                topic = await backend.topic(2, prefix=prefix)
                await backend.produce(topic, numbered(5), 1)
                with trio.fail_after(60):
                    for message in await take(stream, 5):
                        seen.setdefault(message.topic, []).append(message.offset)
                assert seen[topic] == [0, 1, 2, 3, 4]
                assert len(seen) == expected
            assert {tp.topic for tp in consumer.assignment} == set(seen)
        for topic in seen:
            assert await backend.committed(group, TP(topic, 1)) == 5

    backend.run(main)
