"""Pausing, stopping, full buffers, waiting for the end of work."""

from __future__ import annotations

import anyio

from trio_consumer import (
    TP,
    Message,
)

from .backends import Backend, new_group
from .support import numbered, take


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
                    await anyio.sleep(0.002)

            async with anyio.create_task_group() as nursery:
                nursery.start_soon(work)
                while len(seen) < 10:
                    await anyio.sleep(0.002)
                consumer.stop_flow()
                await anyio.sleep(0.01)
                stopped_at = len(seen)
                await anyio.sleep(0.5)
                assert len(seen) == stopped_at < 500
                consumer.resume_flow()
                with anyio.fail_after(30):
                    while len(seen) < 500:
                        await anyio.sleep(0.01)
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
            anyio.create_task_group() as nursery,
        ):

            async def handle(message: Message) -> None:
                await anyio.sleep(0.01 * (20 - message.offset))
                message.ack()

            for _ in range(20):
                nursery.start_soon(handle, await anext(aiter(stream)))
            await consumer.wait_empty()
            assert await backend.committed(group, TP(topic, 0)) == 20

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
