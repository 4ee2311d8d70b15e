"""Where reading starts, and where it goes on when somebody seeks."""

from __future__ import annotations

import pytest
import trio

from trio_consumer import (
    TP,
    Message,
    OffsetOutOfRangeError,
)

from .backends import Backend, new_group
from .support import numbered, take


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
