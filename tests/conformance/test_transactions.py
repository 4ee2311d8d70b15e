"""Consume, transform, produce: together or not at all, on either broker."""

from __future__ import annotations

import itertools
import time
from collections import Counter

import anyio
import pytest
import trio

from trio_consumer import (
    TP,
    ConfigurationError,
    Consumer,
    FencedError,
    Message,
    Stream,
    TransactionAbortedError,
)

from .backends import Backend, new_group
from .test_delivery import numbered

_serial = itertools.count(1)


def new_id() -> str:
    """A transactional id that no other test uses."""
    return f"producer-{next(_serial)}"


async def read_all(backend: Backend, topic: str, count: int, *, wait: float = 1.0) -> list[bytes]:
    """What a reader of committed records sees, until it has so many and no more come."""
    values: list[bytes] = []
    async with (
        backend.consumer(new_group(), isolation_level="read_committed") as consumer,
        consumer.stream(topic) as stream,
    ):
        messages = aiter(stream)
        while True:
            with anyio.move_on_after(20 if len(values) < count else wait) as scope:
                values.append((await anext(messages)).value)
            if scope.cancelled_caught:
                return values


async def next_batch(stream: Stream, size: int) -> list[Message]:
    """So many messages, none of them finished."""
    batch: list[Message] = []
    with anyio.fail_after(30):
        async for message in stream:
            batch.append(message)
            if len(batch) == size:
                return batch
    raise AssertionError("the stream ended")


async def transform(consumer: Consumer, batch: list[Message], to: str) -> None:
    """One transaction."""
    async with consumer.transaction() as transaction:
        for message in batch:
            await transaction.send(to, b"out-" + message.value, partition=0)
            message.ack()


def test_records_and_offsets_commit_together(backend: Backend) -> None:
    """Nothing is visible and nothing committed before the end; then both are."""

    async def main() -> None:
        source, to, group = await backend.topic(), await backend.topic(), new_group()
        await backend.produce(source, numbered(10))
        tp, now = TP(source, 0), round(time.time(), 3)
        async with (
            backend.consumer(group, transactional_id=new_id(), commit_interval=0.2) as consumer,
            consumer.stream(source, ack="manual") as stream,
        ):
            batch = await next_batch(stream, 6)
            async with consumer.transaction() as transaction:
                assert consumer.in_transaction
                for message in batch:
                    await transaction.send(
                        to,
                        message.value,
                        partition=0,
                        key=b"k",
                        headers=[("h", b"x")],
                        timestamp=now,
                    )
                    message.ack()
                await transaction.flush()
                # The ticker must not commit by itself what belongs to it.
                await anyio.sleep(1)
                assert await backend.committed(group, tp) is None
            assert not consumer.in_transaction
            assert consumer.statistics().partitions[tp].committed == 6
            with anyio.fail_after(10):
                while await backend.committed(group, tp) != 6:
                    await anyio.sleep(0.1)
            await transform(consumer, await next_batch(stream, 4), to)
        assert await backend.committed(group, tp) == 10
        expected = numbered(6) + [b"out-%d" % n for n in range(6, 10)]
        assert await read_all(backend, to, 10) == expected
        async with backend.consumer(new_group()) as consumer, consumer.stream(to) as stream:
            (first,) = await next_batch(stream, 1)
            assert (first.key, list(first.headers)) == (b"k", [("h", b"x")])
            assert first.timestamp == pytest.approx(now)

    backend.run(main)


@pytest.mark.parametrize("how", ["exception", "cancelled"])
def test_abort_goes_back_and_hands_out_again(backend: Backend, how: str) -> None:
    """What was sent is never seen; what was finished in it is not."""

    async def main() -> None:
        source, to, group = await backend.topic(), await backend.topic(), new_group()
        await backend.produce(source, numbered(10))
        async with (
            backend.consumer(group, transactional_id=new_id()) as consumer,
            consumer.stream(source, ack="manual") as stream,
        ):
            await transform(consumer, await next_batch(stream, 3), to)
            batch = await next_batch(stream, 4)
            if how == "exception":
                with pytest.raises(LookupError, match=r"^no such order$"):
                    async with consumer.transaction() as transaction:
                        for message in batch:
                            await transaction.send(to, b"aborted", partition=0)
                            message.ack()
                        await transaction.flush()
                        raise LookupError("no such order")
            else:
                with anyio.move_on_after(60) as scope:
                    async with consumer.transaction() as transaction:
                        for message in batch:
                            await transaction.send(to, b"aborted", partition=0)
                            message.ack()
                        await transaction.flush()
                        scope.cancel()
                        await anyio.sleep_forever()
            assert not any(message.ack() for message in batch)
            assert consumer.transactions is not None
            assert consumer.transactions.aborted == 1
            again = await next_batch(stream, 7)
            assert [message.offset for message in again] == list(range(3, 10))
            await transform(consumer, again, to)
        assert await backend.committed(group, TP(source, 0)) == 10
        assert await read_all(backend, to, 10) == [b"out-%d" % n for n in range(10)]

    backend.run(main)


def test_second_producer_of_the_same_id_fences_the_first(backend: Backend) -> None:
    """The first one stops with a clear error; the second one does the work once."""

    async def main() -> None:
        source, to, group = await backend.topic(), await backend.topic(), new_group()
        await backend.produce(source, numbered(4))
        name = new_id()
        with pytest.raises(FencedError, match=r"^cannot .*fenced, another producer"):
            async with (
                backend.consumer(new_group(), transactional_id=name) as first,
                first.stream(source, ack="manual") as stream,
            ):
                batch = await next_batch(stream, 4)
                async with first.transaction() as transaction:
                    await transaction.send(to, b"zombie", partition=0)
                    await transaction.flush()
                    async with (
                        backend.consumer(group, transactional_id=name) as second,
                        second.stream(source, ack="manual") as other,
                    ):
                        await transform(second, await next_batch(other, 4), to)
                    await transaction.send(to, b"zombie", partition=0)
                    for message in batch:
                        message.ack()
        assert await backend.committed(group, TP(source, 0)) == 4
        assert await read_all(backend, to, 4) == [b"out-%d" % n for n in range(4)]

    backend.run(main)


def test_finished_without_a_transaction_commits_in_one_of_its_own(backend: Backend) -> None:
    """By ``commit`` and by the end of the consumer; with filter, too."""

    async def main() -> None:
        source, group = await backend.topic(2), new_group()
        for partition in (0, 1):
            await backend.produce(source, numbered(3), partition)
        async with (
            backend.consumer(group, transactional_id=new_id(), commit_interval=1000) as consumer,
            consumer.stream(source, ack="manual") as stream,
        ):
            for message in await next_batch(stream, 6):
                message.ack()
            assert await consumer.commit([TP(source, 1)])
            assert not await consumer.commit([TP(source, 1)])
        assert [await backend.committed(group, TP(source, p)) for p in (0, 1)] == [3, 3]

    backend.run(main)


def test_rebalance_waits_for_the_transaction_and_then_dooms_it(backend: Backend) -> None:
    """A short one is committed before its partitions go, a long one is aborted: each once."""

    async def main() -> None:
        source, to, group = await backend.topic(4), await backend.topic(), new_group()
        for partition in range(4):
            await backend.produce(source, [b"%d-%d" % (partition, n) for n in range(5)], partition)
        aborted: list[TransactionAbortedError] = []

        async def member(pauses: list[float], drain_timeout: float) -> None:
            async with (
                backend.consumer(
                    group,
                    transactional_id=new_id(),
                    drain_timeout=drain_timeout,
                    client_options={"session_timeout_ms": 10_000},
                ) as consumer,
                consumer.stream(source, ack="manual") as stream,
            ):
                async for batch in stream.batches(2):
                    try:
                        async with consumer.transaction() as transaction:
                            for message in batch:
                                await transaction.send(to, message.value, partition=0)
                            await transaction.flush()
                            if pauses:
                                await anyio.sleep(pauses.pop())
                            batch.ack()
                    except TransactionAbortedError as exc:
                        aborted.append(exc)

        with anyio.move_on_after(15):
            async with anyio.create_task_group() as nursery:
                nursery.start_soon(member, [6.0, 0.1], 1.0)
                await anyio.sleep(2)
                nursery.start_soon(member, [0.1], 5.0)
                await anyio.sleep_forever()
        assert len(aborted) == 1
        values = Counter(await read_all(backend, to, 20))
        assert values == Counter(b"%d-%d" % (p, n) for p in range(4) for n in range(5))
        assert [await backend.committed(group, TP(source, p)) for p in range(4)] == [5] * 4

    backend.run(main)


def test_commit_inside_of_a_transaction_begins_a_new_one(backend: Backend) -> None:
    """What is sent after it can be aborted alone; or nothing can be sent any more."""

    async def main() -> None:
        source, to, group = await backend.topic(), await backend.topic(), new_group()
        await backend.produce(source, numbered(6))
        async with (
            backend.consumer(group, transactional_id=new_id()) as consumer,
            consumer.stream(source, ack="manual") as stream,
        ):
            batch = await next_batch(stream, 6)
            with pytest.raises(LookupError):
                async with consumer.transaction() as transaction:
                    for message in batch:
                        await transaction.send(to, b"out-" + message.value, partition=0)
                        message.ack()
                        if message.offset == 3:
                            assert await consumer.commit()
                    raise LookupError
            async with consumer.transaction() as transaction:
                for message in await next_batch(stream, 2):
                    await transaction.send(to, b"out-" + message.value, partition=0)
                    message.ack()
                with pytest.raises(ConfigurationError, match=r"as a whole"):
                    await consumer.commit([source])
                with pytest.raises(ConfigurationError, match=r"^cannot begin another one"):
                    async with consumer.transaction():
                        pass
                assert await consumer.commit(start_new_transaction=False)
                with pytest.raises(trio.ClosedResourceError):
                    await transaction.send(to, b"late")
        assert await backend.committed(group, TP(source, 0)) == 6
        assert await read_all(backend, to, 6) == [b"out-%d" % n for n in range(6)]

    backend.run(main)
