"""``Stream.batches``: sizes, waiting, and what finishes a batch."""

# The blocks nest as those of a program do, an error leaves a whole block, and a
# loop that sleeps costs nothing under a virtual clock.
# ruff: noqa: SIM117

from __future__ import annotations

import gc

import pytest
import trio
import trio.lowlevel

from trio_consumer import (
    ConfigurationError,
    MessageBatch,
)

from .support import GROUP, T0, T1, broker, committed, consuming, offsets, run, take, values


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


def test_batch_has_at_most_five_hundred_messages_if_nobody_says() -> None:
    """The size that batches have by default, and the smallest that they may have."""

    async def main() -> None:
        it = broker(600)
        options = {"max_poll_records": 600}
        async with consuming(it, client_options=options) as consumer, consumer.stream("t") as t:
            assert len(await anext(aiter(t.batches()))) == 500
            assert len(await anext(aiter(t.batches(1)))) == 1

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


def test_batch_out_of_the_middle_has_its_own_messages() -> None:
    """Each of them finishes itself, and giving back the batch gives back these alone."""

    async def main() -> None:
        it = broker(5)
        async with consuming(it) as consumer, consumer.stream("t", ack="manual") as stream:
            (first,) = await take(stream, 1, ack=False)
            batch = await anext(aiter(stream.batches(2)))
            assert [message.ack() for message in batch] == [True, True]
            assert first.ack()
            assert committed(it) is None
            await consumer.commit()
            assert committed(it) == 3
            (fourth,) = await take(stream, 1, ack=False)
            batch = await anext(aiter(stream.batches(2)))
            assert batch.nack() == 1
            assert fourth.ack()

    run(main)


def test_batch_of_nothing_finishes_nothing() -> None:
    """No stream hands one out; made by hand it has nothing to finish or to give back."""
    batch = MessageBatch([])
    assert (len(batch), batch.ack(), batch.nack()) == (0, 0, 0)


def test_batch_that_is_just_full_does_not_wait() -> None:
    """As many as it may have are enough, although they did not come at once."""

    async def main() -> None:
        it = broker(1)
        async with consuming(it) as consumer, consumer.stream("t") as stream:
            async with trio.open_nursery() as nursery:

                async def more() -> None:
                    await trio.sleep(1)
                    it.produce_many("t", values(2))

                nursery.start_soon(more)
                assert len(await anext(aiter(stream.batches(3, 1000.0)))) == 3
                assert trio.current_time() < 10

    run(main)


def test_messages_and_batches_of_one_stream_take_turns() -> None:
    """Both kinds of loops take from the same buffer, also if batches are decoded before."""

    async def main() -> None:
        it = broker(7)
        async with (
            consuming(it) as consumer,
            consumer.stream("t", value_deserializer=int, on_decode_error="skip") as stream,
        ):
            messages, batches = aiter(stream), aiter(stream.batches(2))
            seen = []
            for _ in range(2):
                seen.append((await anext(messages)).value)
                seen.extend(message.value for message in await anext(batches))
            seen.append((await anext(messages)).value)
            assert seen == [0, 1, 2, 3, 4, 5, 6]

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


def test_batch_that_is_left_takes_nothing_out_of_other_hands() -> None:
    """A drain waits for the batch of another loop that lies before it."""

    async def main() -> None:
        it = broker(4)

        async def leave() -> None:
            async for batch in stream.batches(2):
                assert offsets(list(batch)) == [2, 3]
                break

        async with consuming(it, commit_interval=1000) as consumer, consumer.stream("t") as stream:
            batches = aiter(stream.batches(2))
            assert offsets(list(await anext(batches))) == [0, 1]
            await leave()
            gc.collect()
            await trio.sleep(1)
            it.rebalance(GROUP)
            await trio.sleep(5)
            assert committed(it) is None
            assert offsets(list(await anext(batches))) == [2, 3]
            assert committed(it) == 2

    run(main)


@pytest.mark.parametrize(("size", "wait"), [(0, 0.0), (1, -1.0)])
def test_batches_with_impossible_bounds_are_refused(size: int, wait: float) -> None:
    """A size below 1 or a negative wait is an error at once."""

    async def main() -> None:
        async with consuming(broker(1)) as consumer, consumer.stream("t") as stream:
            with pytest.raises(ConfigurationError, match=r"^max_(size|wait) must "):
                stream.batches(size, wait)

    run(main)
