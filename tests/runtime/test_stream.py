"""Streams: what finishes a message and what does not, tasks, threads, pace."""

# The blocks nest as those of a program do, an error leaves a whole block, and a
# loop that sleeps costs nothing under a virtual clock.
# ruff: noqa: SIM117

from __future__ import annotations

import functools
import gc
import operator
import threading

import pytest
import trio
import trio.lowlevel
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_consumer import (
    TP,
    ConfigurationError,
    Consumer,
    Message,
    RoundRobin,
    Stream,
)
from trio_consumer._runtime.stream import PACE

from .support import T0, broker, committed, consuming, offsets, run, take

# -- finishing and not finishing -------------------------------------------------


def test_loop_coming_back_finishes_the_message() -> None:
    """With ``ack="auto"`` a message is finished when the next one is asked for, not before."""

    async def main() -> None:
        it = broker(3)
        async with consuming(it) as consumer, consumer.stream("t") as stream:
            unfinished = []
            async for message in stream:
                unfinished.append(consumer.statistics().partitions[T0].oldest_unfinished)
                if message.offset == 2:
                    break
            assert unfinished == [0, 1, 2]
            await consumer.commit()
            assert committed(it) == 2

    run(main)


def test_break_leaves_the_message_in_hand_unfinished() -> None:
    """A ``break`` costs one replay."""

    async def main() -> None:
        it = broker(3)
        async with consuming(it) as consumer, consumer.stream("t") as stream:
            async for message in stream:
                if message.offset == 1:
                    break
        assert committed(it) == 1

    run(main)


def test_ack_before_the_break_finishes_the_message() -> None:
    """Who acknowledges before the ``break`` sees no replay."""

    async def main() -> None:
        it = broker(3)
        async with consuming(it) as consumer, consumer.stream("t") as stream:
            async for message in stream:
                if message.offset == 1:
                    assert message.ack() is True
                    break
        assert committed(it) == 2

    run(main)


def test_exception_in_the_body_leaves_the_message_unfinished() -> None:
    """An error in the loop's body acknowledges nothing of what is in hand."""

    async def main() -> None:
        it = broker(3)
        with pytest.raises(KeyError):
            async with consuming(it) as consumer, consumer.stream("t") as stream:
                async for message in stream:
                    if message.offset == 1:
                        raise KeyError
        assert committed(it) == 1

    run(main)


def test_cancelled_scope_inside_the_stream_leaves_the_message_unfinished() -> None:
    """A scope around the loop, inside the stream's block, finishes nothing when it is cancelled."""

    async def main() -> None:
        it = broker(3)
        async with consuming(it) as consumer, consumer.stream("t") as stream:
            with trio.move_on_after(1):
                async for message in stream:
                    if message.offset == 1:
                        await trio.sleep_forever()
            await consumer.commit()
            assert committed(it) == 1
        assert committed(it) == 1

    run(main)


def test_cancelled_worker_does_not_finish_its_message_while_others_go_on() -> None:
    """The messages of the other workers are finished, the commit stays at the cancelled one."""

    async def main() -> None:
        it = broker(6)
        done = []

        async def work(stream: Stream, scope: trio.CancelScope) -> None:
            with scope:
                async for message in stream:
                    if message.offset == 2:
                        await trio.sleep_forever()
                    await trio.sleep(0.1)
                    done.append(message.offset)

        async with consuming(it) as consumer, consumer.stream("t") as stream:
            async with trio.open_nursery() as nursery:
                scopes = [trio.CancelScope() for _ in range(2)]
                for scope in scopes:
                    nursery.start_soon(work, stream, scope)
                await trio.sleep(5)
                nursery.cancel_scope.cancel()
            assert sorted(done) == [0, 1, 3, 4, 5]
            await consumer.commit()
        assert committed(it) == 2

    run(main)


def test_manual_stream_finishes_by_ack_alone() -> None:
    """With ``ack="manual"`` the loop coming back finishes nothing."""

    async def main() -> None:
        it = broker(3)
        async with consuming(it) as consumer, consumer.stream("t", ack="manual") as stream:
            taken = await take(stream, 3, ack=False)
            await consumer.commit()
            assert committed(it) is None
            assert [message.ack() for message in taken] == [True, True, True]
            assert [consumer.ack(message) for message in taken] == [False, False, False]
        assert committed(it) == 3

    run(main)


def test_manual_acks_out_of_order_commit_up_to_the_first_gap() -> None:
    """The committed offset stays at the lowest unfinished message (I1)."""

    async def main() -> None:
        it = broker(3)
        async with consuming(it) as consumer, consumer.stream("t", ack="manual") as stream:
            first, second, third = await take(stream, 3, ack=False)
            third.ack()
            first.ack()
            await consumer.commit()
            assert committed(it) == 1
            second.ack()
            await consumer.commit()
            assert committed(it) == 3

    run(main)


def test_message_as_context_manager_finishes_on_a_clean_exit_only() -> None:
    """``async with message`` acknowledges without an error, and leaves it unfinished with one."""

    async def main() -> None:
        it = broker(2)
        async with consuming(it) as consumer, consumer.stream("t", ack="manual") as stream:
            first, second = await take(stream, 2, ack=False)
            async with first as same:
                assert same is first
            with pytest.raises(KeyError):
                async with second:
                    raise KeyError
            with trio.CancelScope() as scope:
                async with second:
                    scope.cancel()
                    await trio.lowlevel.checkpoint()
        assert committed(it) == 1

    run(main)


def test_message_may_be_entered_twice() -> None:
    """A function that gets it may enter it too; the first clean exit finishes it."""

    async def main() -> None:
        it = broker(1)
        async with consuming(it) as consumer, consumer.stream("t", ack="manual") as stream:
            [message] = await take(stream, 1, ack=False)
            async with message:
                async with message:
                    assert consumer.statistics().partitions[T0].unfinished == 1
                assert consumer.statistics().partitions[T0].unfinished == 0
        assert committed(it) == 1

    run(main)


def test_observing_stream_finishes_nothing() -> None:
    """With ``ack="none"`` an acknowledgement is False and nothing is committed."""

    async def main() -> None:
        it = broker(3)
        async with consuming(it) as consumer, consumer.stream("t", ack="none") as stream:
            assert [message.ack() for message in await take(stream, ack=False)] == [False] * 3
            assert await consumer.commit() is False
        assert committed(it) is None

    run(main)


def test_marker_after_observed_records_commits_nothing() -> None:
    """A batch without records does not carry the account over what only observers read."""

    async def main() -> None:
        it = broker(3)
        async with consuming(it) as consumer, consumer.stream("t", ack="none") as observer:
            assert offsets(await take(observer, ack=False)) == [0, 1, 2]
            it.append_marker(T0)
            await trio.sleep(1)
            assert await consumer.commit() is False
            async with consumer.stream("t") as stream:
                assert offsets(await take(stream)) == [0, 1, 2]
        assert committed(it) == 4

    run(main)


def test_iterator_that_is_gone_is_not_waited_for() -> None:
    """After a ``break`` nothing is in hand: a drain ends at once, the message stays unfinished."""

    async def main() -> None:
        it = broker(2)
        async with consuming(it) as consumer, consumer.stream("t") as stream:
            async for message in stream:
                held = message
                break
            gc.collect()
            await trio.sleep(0.1)
            consumer.stop_flow()
            second = consumer.statistics().partitions[T0]
            assert second.oldest_unfinished == 0
            assert held.ack() is True
            assert held.ack() is False
            await consumer.commit()
            assert committed(it) == 1

    run(main)


# -- several tasks -----------------------------------------------------------------


def test_tasks_on_one_stream_share_its_messages() -> None:
    """Each message goes to one of the tasks; together they get all, in order for each."""

    async def main() -> None:
        it = broker(50)
        seen: list[list[int]] = [[], [], []]

        async def work(stream: Stream, mine: list[int]) -> None:
            async for message in stream:
                mine.append(message.offset)
                await trio.sleep(0.01)

        async with consuming(it) as consumer, consumer.stream("t") as stream:
            async with trio.open_nursery() as nursery:
                for mine in seen:
                    nursery.start_soon(work, stream, mine)
                await trio.sleep(5)
                nursery.cancel_scope.cancel()
        assert sorted(functools.reduce(operator.iadd, seen, [])) == list(range(50))
        assert all(mine and mine == sorted(mine) for mine in seen)
        assert committed(it) == 50

    run(main)


def test_closing_stream_ends_the_loops_of_other_tasks() -> None:
    """A loop over a stream that another task closed says so."""

    async def main() -> None:
        it = broker(0)

        async def work(stream: Stream) -> None:
            with pytest.raises(trio.ClosedResourceError, match=r"^<Stream t ack=auto closed"):
                async for _ in stream:
                    pass

        async with consuming(it) as consumer, trio.open_nursery() as nursery:
            async with consumer.stream("t") as stream:
                nursery.start_soon(work, stream)
                await wait_all_tasks_blocked()

    run(main)


def test_stream_is_entered_once_and_iterated_inside() -> None:
    """Iterating outside of its block, or entering it twice, is an error that says so."""

    async def main() -> None:
        it = broker(1)
        async with consuming(it) as consumer:
            stream = consumer.stream("t")
            with pytest.raises(trio.ClosedResourceError, match=r"^<Stream t ack=auto new"):
                await anext(aiter(stream))
            async with stream:
                pass
            with pytest.raises(
                ConfigurationError, match=r"^<Stream t ack=auto closed buffered=0> was"
            ):
                async with stream:
                    pass

    run(main)


# -- threads -------------------------------------------------------------------------


def test_ack_from_another_thread_finishes_the_message() -> None:
    """``ack`` may be called in a worker thread; the second call finds nothing to do."""

    async def main() -> None:
        it = broker(4)
        async with consuming(it) as consumer, consumer.stream("t", ack="manual") as stream:
            first, second = await take(stream, 2, ack=False, wait=10)
            assert await trio.to_thread.run_sync(first.ack) is True
            assert await trio.to_thread.run_sync(first.ack) is False
            assert await trio.to_thread.run_sync(consumer.ack, second) is True
            async for batch in stream.batches(2):
                assert await trio.to_thread.run_sync(batch.ack) == 2
                assert await trio.to_thread.run_sync(batch.ack) == 0
                break
        assert committed(it) == 4

    async def limited() -> None:
        with trio.fail_after(20):
            await main()

    # The real clock: a virtual one jumps while only a thread works.
    trio.run(limited)


def test_ack_from_a_thread_that_trio_does_not_know() -> None:
    """Any thread: also one of the program's own."""
    answers: list[bool | int] = []

    async def main() -> None:
        it = broker(3)
        async with consuming(it) as consumer, consumer.stream("t", ack="manual") as stream:
            batch = await anext(aiter(stream.batches(3)))
            thread = threading.Thread(target=lambda: answers.extend((batch[0].ack(), batch.ack())))
            thread.start()
            await trio.to_thread.run_sync(thread.join)
        assert committed(it) == 3

    trio.run(main)
    assert answers == [True, 2]


def test_ack_from_a_thread_after_the_program_is_false() -> None:
    """A message that outlives the Trio program can no longer be finished."""
    kept: list[Message] = []

    async def main() -> None:
        async with consuming(broker(1)) as consumer, consumer.stream("t", ack="manual") as stream:
            kept.extend(await take(stream, 1, ack=False, wait=10))

    async def other() -> None:
        assert await trio.to_thread.run_sync(kept[0].ack) is False

    trio.run(main)
    trio.run(other)
    assert kept[0].ack() is False


def test_loop_that_outlives_the_program_is_no_trouble() -> None:
    """Its finalizer finds nobody to tell that a message is in nobody's hand any more."""
    kept = []

    async def main() -> None:
        async with consuming(broker(1)) as consumer, consumer.stream("t") as stream:
            kept.append(aiter(stream))
            await anext(kept[0])

    run(main)
    kept.clear()
    gc.collect()


# -- pace --------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["seek", "committed", "restart"])
def test_stream_opened_later_gets_what_only_observers_read_after_a_seek(way: str) -> None:
    """They keep no account, so it begins where reading went on."""

    async def main() -> None:
        it = broker(6)
        async with consuming(it) as consumer:
            async with consumer.stream("t") as stream:
                await take(stream, 2)
            await consumer.commit()
            async with consumer.stream("t", ack="none") as observer:
                await take(observer)
                if way == "seek":
                    await consumer.seek(T0, 2)
                elif way == "committed":
                    await consumer.seek_to_committed()
                else:
                    await consumer.on_restart()
                assert offsets(await take(observer)) == [2, 3, 4, 5]
                async with consumer.stream("t") as late:
                    assert offsets(await take(late)) == [2, 3, 4, 5]
                assert offsets(await take(observer)) == []
        assert committed(it) == 6

    run(main)


def test_loop_that_never_awaits_can_be_cancelled_and_starves_nobody() -> None:
    """A busy loop gives way each few milliseconds, and in any case once a chunk."""

    async def main() -> None:
        it = broker(100_000, 1)
        turns = 0
        count = 0

        async def other() -> None:
            nonlocal turns
            while True:
                await trio.lowlevel.checkpoint()
                turns += 1

        options = {"max_poll_records": 100_000}
        async with consuming(it, client_options=options, scheduler=RoundRobin(100_000)) as consumer:
            async with consumer.stream("t", max_buffered=200_000) as stream:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(other)
                    with trio.CancelScope() as scope:
                        async for _ in stream:
                            count += 1
                            if count == 20_000:
                                turns = 0
                                scope.cancel()
                    nursery.cancel_scope.cancel()
                assert scope.cancelled_caught
                # No more than the longest stride after the cancellation.
                assert count <= 20_000 + 4096

        assert turns > 0

    run(main)


class Steps(trio.abc.Instrument):
    """Counts the steps of the main task."""

    made = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.made += "main" in task.name


def test_busy_loop_passes_a_checkpoint_now_and_then_only() -> None:
    """The longer its body is quick, the more messages it takes between two of them."""

    async def main() -> None:
        it = broker(10_000)
        options = {"max_poll_records": 10_000}
        async with (
            consuming(it, client_options=options, scheduler=RoundRobin(10_000)) as consumer,
            consumer.stream("t", max_buffered=20_000) as stream,
        ):
            await trio.sleep(100)
            before = steps.made
            async for message in stream:
                if message.offset == 9_999:
                    break
            assert steps.made - before < 100

    steps = Steps()
    run(main, instruments=(steps,))


def test_loop_that_becomes_slower_takes_fewer_messages_between_checkpoints() -> None:
    """In proportion to the time that the last ones took."""

    async def main() -> None:
        it = broker(10_000)
        clock = trio.lowlevel.current_clock()
        assert isinstance(clock, MockClock)
        stretches = [0]
        options = {"max_poll_records": 10_000}
        async with (
            consuming(it, client_options=options, scheduler=RoundRobin(10_000)) as consumer,
            consumer.stream("t", max_buffered=20_000) as stream,
        ):
            await trio.sleep(100)
            before = steps.made
            async for message in stream:
                if steps.made > before:
                    before = steps.made
                    if stretches[-1] == 1024:
                        clock.jump(2 * PACE)
                    stretches.append(0)
                stretches[-1] += 1
                if message.offset == 5_500:
                    break
            # The last one was left in the middle.
            assert stretches[-4:-1] == [1024, 2048, pytest.approx(1024, abs=1)]

    steps = Steps()
    run(main, instruments=(steps,))


# -- what it says ------------------------------------------------------------------------


def test_message_carries_what_was_produced() -> None:
    """A message has the attributes of its record, and a repr that names it."""

    async def main() -> None:
        it = broker(0)
        it.produce("t", b"v", key=b"k", headers=[("h", b"1"), ("h", None)], timestamp=1500)
        it.produce("t", None, timestamp=-1)
        it.produce("t", None, timestamp=0)
        async with consuming(it) as consumer, consumer.stream("t") as stream:
            first, second, third = await take(stream)
            assert third.timestamp == 0.0
            assert (first.topic, first.partition, first.offset, first.tp) == ("t", 0, 0, TP("t", 0))
            assert (first.key, first.value, first.timestamp) == (b"k", b"v", 1.5)
            assert list(first.headers) == [("h", b"1"), ("h", None)]
            assert (second.value, second.timestamp) == (None, None)
            assert repr(first) == "<Message t[0] offset=0>"

    run(main)


def test_stream_subset_takes_its_partitions_only() -> None:
    """``partitions`` narrows a stream; an empty collection takes nothing at all."""

    async def main() -> None:
        it = broker(2, 3)
        async with (
            consuming(it) as consumer,
            consumer.stream("t", partitions=[1]) as stream,
            consumer.stream("t", partitions=[]) as nothing,
        ):
            assert {m.partition for m in await take(stream)} == {1}
            assert await take(nothing) == []
        assert [committed(it, TP("t", n)) for n in range(3)] == [None, 2, None]

    run(main)


def test_full_stream_stays_below_its_bound_plus_one_poll() -> None:
    """Back-pressure holds the buffer below its bound plus one poll (I10)."""

    async def main() -> None:
        it = broker(200, 3)
        levels = []

        async def watch(consumer: Consumer, stream: Stream) -> None:
            while True:
                levels.append(stream.buffered)
                await trio.sleep(0.05)

        async with consuming(it, client_options={"max_poll_records": 7}) as consumer:
            async with consumer.stream("t", max_buffered=10) as stream:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(watch, consumer, stream)
                    count = 0
                    async for _ in stream:
                        count += 1
                        levels.append(stream.buffered)
                        await trio.sleep(0.01)
                        if count == 600:
                            break
                    nursery.cancel_scope.cancel()
        assert max(levels) <= 10 + 7

    run(main)
