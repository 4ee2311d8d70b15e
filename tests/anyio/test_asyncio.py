"""Cancellation by asyncio's own means, and what else an event loop of asyncio has of its own."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace

import anyio
import pytest

from trio_consumer.anyio import Consumer, Stream, open_consumer
from trio_consumer.testing import MemoryBroker

from .support import Run, broker, committed, take

Wait = Callable[[Awaitable[object], float], Awaitable[object]]

WAYS: list[Wait] = [asyncio.wait_for]
"""How asyncio cuts a wait short."""

if sys.version_info >= (3, 11):

    async def within_timeout(awaited: Awaitable[object], seconds: float) -> object:
        async with asyncio.timeout(seconds):
            return await awaited

    WAYS.append(within_timeout)


def test_native_cancellation_loses_nothing(run_asyncio: Run) -> None:
    made = broker(100)
    seen: list[int] = []

    async def consume() -> None:
        async with open_consumer(made, group="g") as consumer, consumer.stream("t") as stream:
            async for message in stream:
                seen.append(message.offset)
                await asyncio.sleep(0.001)

    async def main() -> None:
        while len(seen) < 100 or seen[-1] != 99:
            task = asyncio.create_task(consume())
            await asyncio.sleep(0.03)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            first = committed(made) or 0
            assert first <= (seen[-1] + 1 if seen else 0)
            assert seen[-1:] == [] or first >= seen[-1]

    run_asyncio(main)
    assert sorted(set(seen)) == list(range(100))


def test_cancelled_twice_still_ends_in_order(run_asyncio: Run) -> None:
    made = broker(10)
    made.faults = replace(made.faults, latency=0.05)

    async def consume(taken: asyncio.Event) -> None:
        async with open_consumer(made, group="g") as consumer, consumer.stream("t") as stream:
            await take(stream, 10)
            taken.set()
            await asyncio.sleep(1000)

    async def main() -> None:
        taken = asyncio.Event()
        task = asyncio.create_task(consume(taken))
        await taken.wait()
        for _ in range(5):
            task.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await task

    run_asyncio(main)
    assert committed(made) == 10


@pytest.mark.parametrize("wait", WAYS)
def test_timeout_of_asyncio(run_asyncio: Run, wait: Wait) -> None:
    made = broker(3)

    async def main() -> None:
        async with open_consumer(made, group="g") as consumer, consumer.stream("t") as stream:
            await take(stream, 3)
            # Another name for TimeoutError since Python 3.11.
            with pytest.raises(asyncio.TimeoutError):
                await wait(take(stream, 1), 0.02)
            made.produce("t", b"3")
            assert [m.value for m in await take(stream, 1)] == [b"3"]

    run_asyncio(main)
    assert committed(made) == 4


def test_every_await_of_a_program_cancelled_in_turn(run_asyncio: Run) -> None:
    """At each step of the event loop in turn; what follows finishes the work."""
    steps = 0
    while True:
        made = broker(6)
        seen: list[int] = []

        async def program(made: MemoryBroker = made, seen: list[int] = seen) -> None:
            async with (
                open_consumer(made, group="g", commit_every=2) as consumer,
                consumer.stream("t") as stream,
            ):
                async for message in stream:
                    await asyncio.sleep(0)
                    seen.append(message.offset)
                    if message.offset == 3:
                        await consumer.commit()
                    if message.offset == 5:
                        message.ack()
                        break

        async def main(
            program: Callable[[], Awaitable[None]] = program, after: int = steps
        ) -> bool:
            task = asyncio.ensure_future(program())
            for _ in range(after):
                if task.done():
                    await task
                    return True
                await asyncio.sleep(0)
            task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                return False
            return True

        ended = run_asyncio(main)
        offset = committed(made) or 0
        assert offset <= (seen[-1] + 1 if seen else 0)
        before = len(seen)
        if offset < 6:
            run_asyncio(program)
        assert committed(made) == 6
        assert sorted(set(seen)) == list(range(6))
        assert seen[before:] == list(range(offset, 6))
        if ended:
            break
        steps += 1
    assert steps > 20


def test_two_consumers_share_the_guest_and_the_last_one_ends_it(run_asyncio: Run) -> None:
    made, other = broker(3), broker(3)

    async def main() -> None:
        async with open_consumer(made, group="g") as one:
            async with open_consumer(other, group="g") as two, two.stream("t") as stream:
                await take(stream, 3)
            async with one.stream("t") as stream:
                await take(stream, 3)
        async with open_consumer(made, group="h") as again, again.stream("t") as stream:
            await take(stream, 3)

    run_asyncio(main)
    assert committed(made) == committed(other) == committed(made, group="h") == 3


def test_consumer_that_opens_while_the_last_one_ends_gets_a_guest_of_its_own(
    run_asyncio: Run,
) -> None:
    """At whichever step of the other one's end it comes."""
    made = broker(2)

    async def consume(group: str, steps: int) -> None:
        for _ in range(steps):
            await asyncio.sleep(0)
        async with open_consumer(made, group=group) as consumer, consumer.stream("t") as stream:
            await take(stream, 2)
        assert committed(made, group=group) == 2

    async def main() -> None:
        async with open_consumer(made, group="first"):
            pass
        for steps in range(60):
            with anyio.fail_after(5):
                await asyncio.gather(consume(f"a{steps}", 0), consume(f"b{steps}", steps))

    run_asyncio(main)


def test_cancellation_while_the_guest_ends_is_not_lost(run_asyncio: Run) -> None:
    """The end is waited for, then the task that was cancelled does not go on."""
    made = broker(1)

    async def consume(group: str) -> None:
        async with open_consumer(made, group=group) as consumer, consumer.stream("t") as stream:
            await take(stream, 1)

    async def main() -> None:
        steps, ended = 0, False
        while not ended:
            task = asyncio.create_task(consume(f"g{steps}"))
            for _ in range(steps):
                await asyncio.sleep(0)
            ended = task.done()
            if not ended:
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            steps += 1
        assert steps > 20

    run_asyncio(main)


def test_ack_from_a_thread(run: Run) -> None:
    made = broker(3)

    async def main() -> None:
        async with (
            open_consumer(made, group="g") as consumer,
            consumer.stream("t", ack="manual") as stream,
        ):
            async for message in stream:
                assert await anyio.to_thread.run_sync(message.ack)
                if message.offset == 2:
                    break

    run(main)
    assert committed(made) == 3


def test_face_on_trio_is_the_plain_one() -> None:
    """No wrapper, no cost: the very classes."""
    import trio

    from trio_consumer import Consumer as Plain

    async def main() -> None:
        async with open_consumer(broker(), group="g") as consumer:
            assert type(consumer) is Plain is Consumer
            assert type(consumer.stream("t")) is Stream

    trio.run(main)


def test_consumer_is_left_in_another_task(run_asyncio: Run) -> None:
    """As by the fixtures of pytest-asyncio: the task that opened it has ended by then."""
    made = broker(3)

    async def main() -> None:
        opened = open_consumer(made, group="g")
        consumer = await asyncio.create_task(opened.__aenter__())
        async with consumer.stream("t") as stream:
            await take(stream, 3)
        await asyncio.create_task(opened.__aexit__(None, None, None))

    run_asyncio(main)
    assert committed(made) == 3
    assert made.members("g") == {}


def test_error_of_the_consumer_waits_for_who_leaves_in_another_task(run_asyncio: Run) -> None:
    """There is no task to cancel."""
    made = broker(1)

    def refuse(tps: object) -> None:
        raise ZeroDivisionError

    async def main() -> None:
        opened = open_consumer(made, group="g", topics=["t"], on_partitions_assigned=refuse)
        await asyncio.create_task(opened.__aenter__())
        await asyncio.sleep(0.05)
        with pytest.raises(ZeroDivisionError):
            await asyncio.create_task(opened.__aexit__(None, None, None))

    run_asyncio(main)
    assert made.members("g") == {}


def test_leaving_in_another_task_while_the_first_one_works_is_an_error(run_asyncio: Run) -> None:
    """As it is for the scopes of AnyIO; the consumer is closed all the same."""
    made = broker(3)

    async def main() -> None:
        opened = open_consumer(made, group="g", topics=["t"])
        await opened.__aenter__()
        with pytest.raises(RuntimeError, match="different task"):
            await asyncio.create_task(opened.__aexit__(None, None, None))

    run_asyncio(main)
    assert made.members("g") == {}
