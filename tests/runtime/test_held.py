"""Who holds what, and waiting until nobody does."""

from __future__ import annotations

import logging
from contextlib import suppress

import pytest
import trio

from trio_consumer import Activity, HeldMessages, Stream, Whereabouts

from .support import T0, T1, broker, committed, consuming, offsets, run, take


async def hold(stream: Stream, *, by_hand: bool = False, batches: bool = False) -> None:
    """Take one message, or one batch, and keep it."""
    if batches:
        async for _ in stream.batches(2):
            await trio.sleep_forever()
    async for message in stream:
        if by_hand:
            async with message:
                await trio.sleep_forever()
        await trio.sleep_forever()


@pytest.mark.parametrize("way", ["auto", "manual", "with", "batches"])
def test_held_names_the_task(way: str) -> None:
    """Whoever has a message in hand, by whichever way it took it."""

    async def main() -> None:
        it = broker(4)
        async with (
            consuming(it) as consumer,
            consumer.stream("t", ack="auto" if way in ("auto", "batches") else "manual") as stream,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(
                lambda: hold(stream, by_hand=way == "with", batches=way == "batches"),
                name="worker-7",
            )
            await trio.sleep(10)
            (held,) = consumer.held()
            assert held == HeldMessages(
                T0, 0, 4, held.seconds, Whereabouts.HAND, repr(stream), ("worker-7",)
            )
            assert 9 < held.seconds <= 10
            assert str(held) == (
                f"t[0]: 4 unfinished, the oldest at offset 0 for {held.seconds:.1f} s in hand"
                f" of worker-7 ({stream!r})"
            )
            nursery.cancel_scope.cancel()

    run(main)


def test_each_of_several_workers_is_told_apart() -> None:
    """The oldest message belongs to one of them, and that one is named."""

    async def main() -> None:
        it = broker(3)
        first_done = trio.Event()

        async def first() -> None:
            async for _ in stream:
                await first_done.wait()
                await trio.sleep_forever()

        async with (
            consuming(it) as consumer,
            consumer.stream("t") as stream,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(first, name="first")
            await trio.sleep(1)
            nursery.start_soon(hold, stream, name="second")
            await trio.sleep(1)
            assert [held.tasks for held in consumer.held()] == [("first",)]
            nursery.cancel_scope.cancel()

    run(main)


def test_task_inside_of_the_message_is_named_alone() -> None:
    """With manual acknowledgements any loop might have it, but one has said so."""

    async def main() -> None:
        it = broker(2)
        async with (
            consuming(it) as consumer,
            consumer.stream("t", ack="manual") as stream,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(lambda: hold(stream, by_hand=True), name="inside")
            await trio.sleep(1)
            nursery.start_soon(lambda: hold(stream), name="outside")
            await trio.sleep(1)
            assert [held.tasks for held in consumer.held()] == [("inside",)]
            nursery.cancel_scope.cancel()

    run(main)


@pytest.mark.parametrize("how", ["finished", "failed"])
def test_task_that_has_left_the_message_is_not_named_alone(how: str) -> None:
    """What it left unfinished may be in anybody's hand; what it finished is in nobody's."""

    async def main() -> None:
        it = broker(2)

        async def once() -> None:
            async for message in stream:
                with suppress(KeyError):
                    async with message:
                        if how == "failed":
                            raise KeyError
                await trio.sleep_forever()

        async with (
            consuming(it) as consumer,
            consumer.stream("t", ack="manual") as stream,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(once, name="left")
            await trio.sleep(1)
            nursery.start_soon(lambda: hold(stream), name="other")
            await trio.sleep(1)
            (held,) = consumer.held()
            assert held.oldest == (0 if how == "failed" else 1)
            assert held.tasks == ("left", "other")
            assert not stream._entered  # or it would grow with each message
            nursery.cancel_scope.cancel()

    run(main)


def test_batches_of_several_workers_are_told_apart() -> None:
    """Also where they come out of one chunk, and where one is half done."""

    async def main() -> None:
        it = broker(4)
        taken = []

        async def work() -> None:
            async for batch in stream.batches(2):
                taken.append(batch)
                await trio.sleep_forever()

        async with (
            consuming(it) as consumer,
            consumer.stream("t") as stream,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(work, name="first")
            await trio.sleep(1)
            nursery.start_soon(work, name="second")
            await trio.sleep(1)
            assert [held.tasks for held in consumer.held()] == [("first",)]
            taken[0].ack()
            assert [held.tasks for held in consumer.held()] == [("second",)]
            nursery.cancel_scope.cancel()

    run(main)


def test_loop_that_no_task_has_begun_is_nobodys() -> None:
    """An iterator that was made in a thread has no task to be named."""

    async def main() -> None:
        it = broker(1)
        async with consuming(it) as consumer, consumer.stream("t", ack="manual") as stream:
            unused = await trio.to_thread.run_sync(stream.batches)
            kept = aiter(stream)
            await anext(kept)
            (held,) = consumer.held()
            assert held.tasks == (trio.lowlevel.current_task().name,)
            del unused

    trio.run(main)


def test_held_by_stream_and_partition_and_what_was_left() -> None:
    """A buffer, a hand, and a loop that is gone; observers hold nothing."""

    async def main() -> None:
        it = broker(2, 2)
        async with (
            consuming(it) as consumer,
            consumer.stream("t", ack="none") as observer,
            consumer.stream("t", partitions=[0]) as left,
            consumer.stream("t", partitions=[1]) as untouched,
        ):
            assert len(await take(observer)) == 4
            async for _ in left:
                break
            await trio.sleep(1)
            told = [(h.tp, h.oldest, h.count, h.whereabouts, h.tasks) for h in consumer.held()]
            assert told == [
                (T0, 0, 1, Whereabouts.LEFT, ()),
                (T0, 1, 1, Whereabouts.BUFFER, ()),
                (T1, 0, 2, Whereabouts.BUFFER, ()),
            ]
            await take(untouched)
            assert {held.tp for held in consumer.held()} == {T0}

    run(main)


def test_wait_empty_waits_for_what_is_delivered_and_commits_it() -> None:
    """Not for what comes in meanwhile, or it would never end."""

    async def main() -> None:
        it = broker(5)

        async def work() -> None:
            async for message in stream:
                await trio.sleep(1)
                if message.offset < 200:
                    it.produce("t", b"more", partition=0)

        async with (
            consuming(it, commit_interval=10_000) as consumer,
            consumer.stream("t") as stream,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(work)
            await trio.sleep(0.5)
            started = trio.current_time()
            async with trio.open_nursery() as inner:
                inner.start_soon(consumer.wait_empty)
                await trio.sleep(1)
                assert Activity.WAIT_EMPTY in consumer.diag.flags
            assert trio.current_time() - started < 50
            assert (committed(it) or 0) >= 5
            assert await consumer.wait_empty(50)
            nursery.cancel_scope.cancel()

    run(main)


def test_wait_empty_gives_up_at_its_deadline_and_says_what_is_held(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """False, what is finished is committed, and the log names offset, time and task."""
    caplog.set_level(logging.INFO, "trio_consumer.consumer")

    async def main() -> None:
        it = broker(3)
        async with (
            consuming(it, commit_interval=10_000) as consumer,
            consumer.stream("t", ack="manual") as stream,
            trio.open_nursery() as nursery,
        ):
            (first,) = await take(stream, 1, ack=False)
            nursery.start_soon(lambda: hold(stream, by_hand=True), name="slow")
            await trio.sleep(1)
            first.ack()
            assert not await consumer.wait_empty(12.0)
            assert committed(it) == 1
            nursery.cancel_scope.cancel()

    run(main)
    lines = [r for r in caplog.records if r.name == "trio_consumer.consumer"]
    assert [line.levelname for line in lines] == ["INFO", "INFO", "WARNING"]
    assert lines[0].getMessage().startswith("waiting since 5.0 s for messages to be finished: t[0]")
    assert "gave up after 12.0 s" in lines[2].getMessage()
    assert "the oldest at offset 1" in lines[2].getMessage()
    assert "in hand of slow" in lines[2].getMessage()


@pytest.mark.parametrize("how", ["seek", "lost", "left", "cancelled"])
def test_wait_empty_does_not_wait_for_what_cannot_be_finished(how: str) -> None:
    """A seek, a lost partition, a stream that is closed; cancelling changes nothing."""

    async def main() -> None:
        it = broker(3)
        async with (
            consuming(it, client_options={"session_timeout_ms": 6000}) as consumer,
            consumer.stream("t", ack="manual") as stream,
        ):
            messages = await take(stream, 1, ack=False)
            waited = trio.Event()

            async def wait() -> None:
                await consumer.wait_empty()
                waited.set()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait)
                await trio.sleep(1)
                assert not waited.is_set()
                if how == "seek":
                    await consumer.seek(T0, 3)
                elif how == "lost":
                    it.expire(*it.members("g"))
                elif how == "left":
                    await stream.__aexit__(None, None, None)
                else:
                    nursery.cancel_scope.cancel()
            if how == "cancelled":
                assert not waited.is_set()
                assert messages[0].ack()
                assert offsets(await take(stream)) == [1, 2]
            else:
                assert waited.is_set()

    run(main)
