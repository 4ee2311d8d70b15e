"""Where reading starts, and where it goes on when somebody seeks."""

from __future__ import annotations

from random import Random

import anyio
import pytest

from trio_consumer import (
    TP,
    ConfigurationError,
    Consumer,
    Message,
    OffsetOutOfRangeError,
)

from .backends import Backend, new_group
from .support import numbered, take, wait_for


def test_reset_latest_starts_at_the_end(backend: Backend) -> None:
    """Without a committed offset ``latest`` delivers only what comes afterwards."""

    async def main() -> None:
        topic, group = await backend.topic(), new_group()
        await backend.produce(topic, numbered(10))
        async with (
            backend.consumer(group, auto_offset_reset="latest") as consumer,
            consumer.stream(topic) as stream,
            anyio.create_task_group() as nursery,
        ):
            got: list[Message] = []

            async def drain() -> None:
                got.extend(await take(stream, 5))

            nursery.start_soon(drain)
            with anyio.fail_after(30):
                while not consumer.assignment or consumer.position(TP(topic, 0)) is None:
                    await anyio.sleep(0.05)
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


def test_seek_to_committed_gives_up_what_is_finished_and_not_committed(backend: Backend) -> None:
    """It goes back to what the broker has: the rest comes again, old messages are dead."""

    async def main() -> None:
        topic, group = await backend.topic(2), new_group()
        one, two = TP(topic, 0), TP(topic, 1)
        for tp in (one, two):
            await backend.produce(topic, numbered(10), tp.partition)
        async with (
            backend.consumer(group, commit_interval=1000.0) as consumer,
            consumer.stream(topic, ack="manual") as stream,
        ):
            first = [await anext(aiter(stream)) for _ in range(20)]
            for message in first:
                if message.tp == one and message.offset < 4:
                    assert message.ack()
            await consumer.commit()
            for message in first:
                if message.offset < 7:
                    message.ack()
            assert await consumer.seek_to_committed() == {one: 4, two: 0}
            assert not any(message.ack() for message in first)
            again = [await anext(aiter(stream)) for _ in range(16)]
            assert [m.offset for m in again if m.tp == one] == list(range(4, 10))
            assert [m.offset for m in again if m.tp == two] == list(range(10))
            assert all(message.ack() for message in again)
        assert [await backend.committed(group, tp) for tp in (one, two)] == [10, 10]

    backend.run(main)


def test_paused_partition_can_be_sought(backend: Backend) -> None:
    """It stays paused, and goes on at the new place."""

    async def main() -> None:
        topic, group = await backend.topic(), new_group()
        tp = TP(topic, 0)
        await backend.produce(topic, numbered(30))
        async with backend.consumer(group) as consumer, consumer.stream(topic) as stream:
            await take(stream, 5)
            consumer.pause_partitions([tp])
            await consumer.seek(tp, 20)
            with anyio.move_on_after(0.7) as scope:
                await take(stream, 1)
            assert scope.cancelled_caught
            consumer.resume_partitions([tp])
            assert [m.offset for m in await take(stream, 10)] == list(range(20, 30))
        assert await backend.committed(group, tp) == 30

    backend.run(main)


@pytest.mark.parametrize("strategy", ["range", "cooperative-sticky"])
def test_seek_in_the_callback_of_an_assignment_holds(backend: Backend, strategy: str) -> None:
    """The place is where the new owner begins, in every assignment."""

    async def main() -> None:
        topic, group = await backend.topic(2), new_group()
        for partition in range(2):
            await backend.produce(topic, numbered(10), partition)
        options = {"partition_assignment_strategy": strategy}
        first: Consumer
        second: Consumer

        async def first_assigned(tps: frozenset[TP]) -> None:
            for tp in tps:
                await first.seek(tp, 7)

        async def second_assigned(tps: frozenset[TP]) -> None:
            for tp in tps:
                await second.seek(tp, 7)

        async with (
            backend.consumer(
                group, client_options=options, on_partitions_assigned=first_assigned
            ) as first,
            first.stream(topic) as stream,
        ):
            assert [m.offset for m in await take(stream, 6)] == [7, 8, 9, 7, 8, 9]
            async with (
                backend.consumer(
                    group, client_options=options, on_partitions_assigned=second_assigned
                ) as second,
                second.stream(topic) as other,
            ):
                got = await take(other, 3)
                assert [m.offset for m in got] == [7, 8, 9]
                assert {m.tp for m in got} == second.assignment

    backend.run(main)


def test_seek_while_the_partition_is_handed_over_is_refused(backend: Backend) -> None:
    """It is not this member's any more: the error says so, and the hand-over is exact."""

    async def main() -> None:
        topic, group = await backend.topic(), new_group()
        tp = TP(topic, 0)
        await backend.produce(topic, numbered(10))
        async with (
            backend.consumer(group, commit_interval=1000.0) as first,
            first.stream(topic, ack="manual") as stream,
        ):
            held = [await anext(aiter(stream)) for _ in range(3)]
            assert held[0].ack()
            async with backend.consumer(group, topics=[topic]) as second:
                await wait_for(lambda: not first.assignment)
                with pytest.raises(ConfigurationError, match=r"is not assigned"):
                    await first.seek(tp, 0)
                assert all(message.ack() for message in held[1:])
                await wait_for(lambda: bool(first.assignment | second.assignment))
                assert await backend.committed(group, tp) == 3

    backend.run(main)


def test_many_seeks_deliver_all_after_the_last_one_exactly_once(backend: Backend) -> None:
    """Whatever is on its way between the threads: nothing stale, no gap, nothing twice."""
    seed = Random().randrange(1_000_000)
    print(f"seed {seed}")
    chance = Random(seed)

    async def main() -> None:
        topic, group = await backend.topic(2), new_group()
        tps = [TP(topic, 0), TP(topic, 1)]
        for tp in tps:
            await backend.produce(topic, numbered(400), tp.partition)
        async with (
            backend.consumer(
                group, client_options={"max_poll_records": 30}, commit_interval=0.05
            ) as consumer,
            consumer.stream(topic, max_buffered=50) as stream,
        ):
            expected = dict.fromkeys(tps, 0)
            messages = aiter(stream)
            # Only what is assigned can be sought.
            message = await anext(messages)
            expected[message.tp] += 1
            for number in range(300):
                for _ in range(chance.choice([0, 1, 3, 40])):
                    if all(offset == 400 for offset in expected.values()):
                        break
                    message = await anext(messages)
                    assert message.offset == expected[message.tp], f"seed {seed}, seek {number}"
                    expected[message.tp] += 1
                if chance.random() < 0.1:
                    await anyio.sleep(chance.random() * 0.05)
                tp = chance.choice(tps)
                offset = chance.choice([0, chance.randrange(400), chance.randrange(400)])
                await consumer.seek(tp, offset)
                expected[tp] = offset
            while any(offset < 400 for offset in expected.values()):
                message = await anext(messages)
                assert message.offset == expected[message.tp], f"seed {seed}, at the end"
                expected[message.tp] += 1
            message.ack()
            with anyio.move_on_after(0.3):
                extra = await anext(messages)
                pytest.fail(f"seed {seed}: {extra} came twice")
        for tp in tps:
            assert await backend.committed(group, tp) == 400, f"seed {seed}"

    backend.run(main)
