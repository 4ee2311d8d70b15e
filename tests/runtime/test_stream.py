"""Streams: what finishes a message and what does not, closing, batches, pace, decoding."""

# The blocks nest as those of a program do, an error leaves a whole block, and a
# loop that sleeps costs nothing under a virtual clock.
# ruff: noqa: SIM117

from __future__ import annotations

import functools
import gc
import json
import operator
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
import trio
import trio.lowlevel
from trio.testing import wait_all_tasks_blocked

from trio_consumer import (
    TP,
    ConfigurationError,
    Consumer,
    DeserializationError,
    Message,
    RoundRobin,
    Stream,
)

from .support import GROUP, T0, T1, broker, committed, consuming, offsets, run, take, values

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


# -- closing with a buffer -----------------------------------------------------------


def test_sole_stream_that_closes_gives_its_buffer_to_the_next_one() -> None:
    """Nothing in the buffer is finished; a later stream gets it, once each and in order."""

    async def main() -> None:
        it = broker(10)
        async with consuming(it, client_options={"max_poll_records": 3}) as consumer:
            async with consumer.stream("t") as stream:
                await take(stream, 4)
                await trio.sleep(1)
                assert stream.buffered > 0
            await consumer.commit()
            assert committed(it) == 4
            async with consumer.stream("t") as stream:
                assert offsets(await take(stream)) == [4, 5, 6, 7, 8, 9]
        assert committed(it) == 10

    run(main)


def test_message_in_hand_at_the_close_goes_to_the_next_stream_alone() -> None:
    """What the closed stream finished beyond its unfinished message is not delivered again."""

    async def main() -> None:
        it = broker(6)
        async with consuming(it) as consumer:
            async with consumer.stream("t", ack="manual") as stream:
                taken = await take(stream, 4, ack=False)
                for message in (taken[0], taken[2], taken[3]):
                    message.ack()
            async with consumer.stream("t") as stream:
                assert offsets(await take(stream)) == [1, 4, 5]
            assert taken[1].ack() is False
        assert committed(it) == 6

    run(main)


def test_message_acked_after_its_stream_closed_is_finished() -> None:
    """Whoever still holds a message may finish it until somebody else gets it."""

    async def main() -> None:
        it = broker(2)
        async with consuming(it) as consumer:
            async with consumer.stream("t", ack="manual") as stream:
                first, second = await take(stream, 2, ack=False)
            assert first.ack() is True
            assert first.ack() is False
            await consumer.commit()
            assert committed(it) == 1
            assert second.ack() is True
            await consumer.commit()
            assert committed(it) == 2

    run(main)


def test_other_streams_decide_what_a_closed_one_never_handed_out() -> None:
    """A record that another acknowledging stream finished is committable without the closed one."""

    async def main() -> None:
        it = broker(5)
        async with consuming(it) as consumer, consumer.stream("t") as stream:
            async with consumer.stream("t"):
                assert offsets(await take(stream)) == [0, 1, 2, 3, 4]
                await consumer.commit()
                assert committed(it) is None
            await consumer.commit()
            assert committed(it) == 5

    run(main)


def test_stream_left_by_an_error_keeps_its_records_for_its_successor() -> None:
    """What it never handed out holds the commit back, although another stream finished it."""

    async def main() -> None:
        it = broker(5)
        async with consuming(it) as consumer, consumer.stream("t") as stays:
            with pytest.raises(ValueError, match="boom"):
                async with consumer.stream("t") as fails:
                    assert offsets(await take(fails, 2)) == [0, 1]
                    assert offsets(await take(stays)) == [0, 1, 2, 3, 4]
                    raise ValueError("boom")
            await consumer.commit()
            assert committed(it) == 2
            async with consumer.stream("t") as successor:
                assert offsets(await take(successor)) == [2, 3, 4]
            assert offsets(await take(stays)) == []
            await consumer.commit()
            assert committed(it) == 5

    run(main)


@pytest.mark.parametrize("way", ["close", "cancel", "error"])
def test_stop_does_not_let_one_stream_decide_for_another(way: str) -> None:
    """What a slow stream still has in its buffer comes again in the next run."""

    async def main() -> None:
        it = broker(5)
        with trio.CancelScope() as scope, suppress(ValueError):
            async with (
                consuming(it) as consumer,
                consumer.stream("t") as fast,
                consumer.stream("t") as slow,
            ):
                assert offsets(await take(slow, 2)) == [0, 1]
                assert offsets(await take(fast)) == [0, 1, 2, 3, 4]
                if way == "close":
                    consumer.close()
                elif way == "cancel":
                    scope.cancel()
                    await trio.sleep_forever()
                else:
                    raise ValueError(way)
        assert committed(it) == 2

    run(main)


def test_records_left_by_one_stream_do_not_come_again_to_another_that_had_them() -> None:
    """Each stream gets each record once within an assignment, whatever the others do (I9)."""

    async def main() -> None:
        it = broker(6)
        async with consuming(it) as consumer, consumer.stream("t") as stays:
            async with consumer.stream("t", ack="manual") as goes:
                held = await take(goes, 2, ack=False)
            assert offsets(await take(stays)) == [0, 1, 2, 3, 4, 5]
            await consumer.commit()
            # The closed one had 0 and 1 in hand: nobody may decide that for it.
            assert committed(it) is None
            assert [message.ack() for message in held] == [True, True]
            await consumer.commit()
            assert committed(it) == 6

    run(main)


def test_observer_alone_keeps_nothing_from_a_later_stream() -> None:
    """What only an observer saw is not processed: a later stream gets all of it."""

    async def main() -> None:
        it = broker(4)
        async with consuming(it) as consumer, consumer.stream("t", ack="none") as observer:
            async with consumer.stream("t") as stream:
                assert offsets(await take(stream, 1)) == [0]
            it.produce_many("t", values(2))
            seen = offsets(await take(observer, ack=False))
            await consumer.commit()
            assert committed(it) == 1
            async with consumer.stream("t") as stream:
                assert offsets(await take(stream)) == [1, 2, 3, 4, 5]
            assert seen + offsets(await take(observer, ack=False)) == [0, 1, 2, 3, 4, 5]
        assert committed(it) == 6

    run(main)


def test_late_stream_begins_where_the_others_are() -> None:
    """A stream opened beside others gets what is delivered from then on, once each."""

    async def main() -> None:
        it = broker(4)
        async with consuming(it) as consumer, consumer.stream("t") as early:
            assert offsets(await take(early)) == [0, 1, 2, 3]
            async with consumer.stream("t") as late:
                it.produce_many("t", values(3))
                assert offsets(await take(early)) == [4, 5, 6]
                assert offsets(await take(late)) == [4, 5, 6]
        assert committed(it) == 7

    run(main)


def test_late_stream_gets_the_buffer_of_an_early_one_once() -> None:
    """What an early stream leaves behind goes to the late one, without doubles or gaps."""

    async def main() -> None:
        it = broker(10)
        async with consuming(it, client_options={"max_poll_records": 3}) as consumer:
            early = consumer.stream("t", ack="manual")
            async with early:
                taken = await take(early, 6, ack=False)
                for message in (taken[0], taken[2], taken[4]):
                    message.ack()
                await trio.sleep(1)
                late = consumer.stream("t")
                await late.__aenter__()
                it.produce_many("t", values(5))
                await trio.sleep(1)
            got = offsets(await take(late))
            assert sorted(got) == [1, 3, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]
            await late.__aexit__(None, None, None)
        assert committed(it) == 15

    run(main)


def test_records_put_aside_survive_a_stream_that_closes() -> None:
    """Records of a partition that a full buffer held back are not dropped with the stream."""

    async def main() -> None:
        it = broker(5, 2)
        async with consuming(it) as consumer:
            async with consumer.stream("t", max_buffered=5) as stream:
                async for _ in stream:
                    await trio.sleep(1)
                    break
            async with consumer.stream("t") as stream:
                it.produce_many("t", values(4))
                taken = await take(stream)
                assert offsets(taken, T0) == list(range(7))
                assert offsets(taken, T1) == list(range(7))

    run(main)


def test_stream_that_stays_gets_records_in_order_when_a_full_one_closes() -> None:
    """What a full stream held back comes after what it leaves behind, not before (I8)."""

    async def main() -> None:
        it = broker(20)
        async with consuming(it, scheduler=RoundRobin(5)) as consumer:
            async with consumer.stream("t") as stays:
                async with consumer.stream("t", max_buffered=5):
                    assert offsets(await take(stays)) == [0, 1, 2, 3, 4]
                assert offsets(await take(stays)) == list(range(5, 20))
        assert committed(it) == 20

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


# -- batches ---------------------------------------------------------------------------


def test_batches_have_at_most_their_size_and_all_messages() -> None:
    """Batches are filled up to ``max_size``, over partitions, and never empty."""

    async def main() -> None:
        it = broker(5, 2)
        sizes = []
        async with consuming(it) as consumer, consumer.stream("t") as stream:
            with trio.move_on_after(1):
                async for batch in stream.batches(4):
                    assert len(batch) == len(list(batch)) == len(batch[:])
                    assert [m.offset for m in batch] == [batch[i].offset for i in range(len(batch))]
                    assert batch[-1].offset == batch[len(batch) - 1].offset
                    with pytest.raises(IndexError, match=r"^batch index out of range"):
                        batch[len(batch)]
                    assert repr(batch) == f"<MessageBatch of {len(batch)}>"
                    sizes.append(len(batch))
        assert sizes == [4, 4, 2]
        assert committed(it, T0) == committed(it, T1) == 5

    run(main)


def test_batch_waits_for_more_up_to_max_wait() -> None:
    """A batch that is not full waits ``max_wait`` seconds after its first message."""

    async def main() -> None:
        it = broker(1)
        async with consuming(it) as consumer, consumer.stream("t") as stream:
            batches = aiter(stream.batches(3, 2.0))
            async with trio.open_nursery() as nursery:

                async def more() -> None:
                    await trio.sleep(1)
                    it.produce("t", b"")
                    await trio.sleep(2)
                    it.produce_many("t", values(5))

                nursery.start_soon(more)
                start = trio.current_time()
                assert len(await anext(batches)) == 2
                assert trio.current_time() - start == pytest.approx(2.0)
                # Full at once: it does not wait.
                assert len(await anext(batches)) == 3
                assert trio.current_time() - start == pytest.approx(3.0)

    run(main)


def test_batch_larger_than_the_buffer_does_not_wait_in_vain() -> None:
    """A full buffer ends the wait: more cannot come before it is taken."""

    async def main() -> None:
        it = broker(10)
        async with consuming(it, client_options={"max_poll_records": 1}) as consumer:
            async with consumer.stream("t", max_buffered=4) as stream:
                async for batch in stream.batches(100, 60.0):
                    assert 4 <= len(batch) <= 5
                    break
                assert trio.current_time() < 60

    run(main)


def test_cancelling_the_wait_for_a_batch_takes_nothing() -> None:
    """Messages that were waiting for company stay in the buffer."""

    async def main() -> None:
        it = broker(2)
        async with consuming(it) as consumer, consumer.stream("t") as stream:
            with trio.move_on_after(1) as scope:
                async for _ in stream.batches(3, 10.0):
                    pytest.fail("the batch was not full")
            assert scope.cancelled_caught
            assert offsets(await take(stream)) == [0, 1]
        assert committed(it) == 2

    run(main)


def test_batch_left_by_break_or_error_is_not_finished() -> None:
    """Only coming back, ``ack`` or a clean ``async with`` finishes a batch."""

    async def main() -> None:
        it = broker(6)
        async with consuming(it) as consumer, consumer.stream("t") as stream:
            async for batch in stream.batches(2):
                if batch[0].offset == 2:
                    break
            with pytest.raises(KeyError):
                async with batch:
                    raise KeyError
            await consumer.commit()
            assert committed(it) == 2
            assert batch[0].ack() is True
            async with batch:
                pass
            assert batch.ack() == 0
            await consumer.commit()
            assert committed(it) == 4

    run(main)


def test_batches_of_an_observer_finish_nothing() -> None:
    """Batches of an observing stream hold no references."""

    async def main() -> None:
        it = broker(6)
        async with consuming(it) as consumer, consumer.stream("t", ack="none") as stream:
            with trio.move_on_after(1):
                async for batch in stream.batches(4):
                    assert batch.ack() == 0
        assert committed(it) is None

    run(main)


@pytest.mark.parametrize(("size", "wait"), [(0, 0.0), (1, -1.0)])
def test_batches_with_impossible_bounds_are_refused(size: int, wait: float) -> None:
    """A size below 1 or a negative wait is an error at once."""

    async def main() -> None:
        async with consuming(broker(1)) as consumer, consumer.stream("t") as stream:
            with pytest.raises(ConfigurationError, match=r"^batches need max_size >= 1 and max_w"):
                stream.batches(size, wait)

    run(main)


# -- pace --------------------------------------------------------------------------------


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


# -- decoding ------------------------------------------------------------------------------


def counting(calls: list[bytes]) -> Callable[[bytes], Any]:
    """A deserializer that writes down what it is called with."""

    def deserialize(data: bytes) -> Any:
        calls.append(data)
        return json.loads(data)

    return deserialize


def test_deserializers_see_bytes_and_never_none() -> None:
    """Keys and values are decoded; a tombstone and a missing key stay None."""

    async def main() -> None:
        it = broker(0)
        it.produce("t", b"[1]", key=b"k")
        it.produce("t", None, key=b"k")
        it.produce("t", b"[2]")
        async with (
            consuming(it) as consumer,
            consumer.stream(
                "t", key_deserializer=bytes.decode, value_deserializer=json.loads
            ) as stream,
        ):
            taken = await take(stream)
            assert [(m.key, m.value) for m in taken] == [("k", [1]), ("k", None), (None, [2])]

    run(main)


def test_streams_with_the_same_deserializers_share_one_decoding() -> None:
    """The same pair is called once a record; distinct pairs are called once each."""

    async def main() -> None:
        it = broker(5)
        calls: list[bytes] = []
        others: list[bytes] = []
        shared, distinct = counting(calls), counting(others)
        async with (
            consuming(it) as consumer,
            consumer.stream("t", value_deserializer=shared) as one,
            consumer.stream("t", value_deserializer=shared, ack="none") as two,
            consumer.stream("t", value_deserializer=distinct) as three,
        ):
            expected = [0, 1, 2, 3, 4]
            for stream in (one, two, three):
                assert [m.value for m in await take(stream)] == expected
        assert calls == others == values(5)

    run(main)


@dataclass
class Unhashable:
    """A deserializer that is an object with a call, compared by value: not hashable."""

    prefix: str

    def __call__(self, data: bytes) -> str:
        return self.prefix + data.decode()


def test_deserializer_need_not_be_hashable() -> None:
    """A callable dataclass works as a deserializer, alone and shared."""

    async def main() -> None:
        it = broker(2)
        async with (
            consuming(it) as consumer,
            consumer.stream("t", value_deserializer=Unhashable("a")) as one,
            consumer.stream("t", value_deserializer=Unhashable("a")) as two,
            consumer.stream("t", value_deserializer=Unhashable("b")) as three,
        ):
            assert [m.value for m in await take(one)] == ["a0", "a1"]
            assert [m.value for m in await take(two)] == ["a0", "a1"]
            assert [m.value for m in await take(three)] == ["b0", "b1"]

    run(main)


@pytest.mark.parametrize("field", ["key", "value"])
@pytest.mark.parametrize("streams", [1, 2])
def test_deserializer_that_raises_leaves_the_message_unfinished(field: str, streams: int) -> None:
    """The error names field, partition and offset; the message is replayed, the next one comes."""

    async def main() -> None:
        it = broker(0)
        for data in (b"1", b"x", b"3"):
            it.produce("t", data, key=data)
        options: dict[str, Any] = {f"{field}_deserializer": int}
        async with consuming(it) as consumer:
            opened = [consumer.stream("t", **options) for _ in range(streams)]
            for stream in opened:
                await stream.__aenter__()
            for stream in opened:
                with pytest.raises(
                    DeserializationError,
                    match=rf"^cannot deserialize the {field} of t\[0\] offset 1:",
                ) as caught:
                    await take(stream)
                assert isinstance(caught.value.__cause__, ValueError)
                assert (caught.value.tp, caught.value.offset, caught.value.field) == (T0, 1, field)
                assert offsets(await take(stream)) == [2]
            await consumer.commit()
            assert committed(it) == 1
            # Nobody has it in hand, so nobody is waited for.
            with trio.fail_after(0.1):
                await consumer.wait_empty()
            for stream in opened:
                await stream.__aexit__(None, None, None)
        assert committed(it) == 1

    run(main)


def test_deserializer_that_raises_does_not_hold_up_a_revocation() -> None:
    """A message that could not be decoded is in nobody's hand: the drain ends at once."""

    async def main() -> None:
        it = broker(1)
        async with consuming(it, drain_timeout=30) as consumer:
            async with consumer.stream("t", value_deserializer=json.loads, ack="manual") as stream:
                it.produce("t", b"{")
                messages = await take(stream, 1)
                with pytest.raises(DeserializationError, match=r"^cannot deserialize"):
                    await take(stream)
                it.rebalance(GROUP)
                await trio.sleep(10)
                assert it.generation(GROUP) == 2
                assert messages[0].ack() is False

    run(main)


# -- what it says ------------------------------------------------------------------------


def test_message_carries_what_was_produced() -> None:
    """A message has the attributes of its record, and a repr that names it."""

    async def main() -> None:
        it = broker(0)
        it.produce("t", b"v", key=b"k", headers=[("h", b"1"), ("h", None)], timestamp=1500)
        it.produce("t", None, timestamp=-1)
        async with consuming(it) as consumer, consumer.stream("t") as stream:
            first, second = await take(stream)
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
