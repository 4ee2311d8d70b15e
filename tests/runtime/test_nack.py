"""Giving a message back: it comes again, and nothing passes it meanwhile."""

from __future__ import annotations

from typing import Literal

import pytest
import trio

from trio_consumer import Message, Stream, TransportError
from trio_consumer.testing import MemoryBroker

from .support import GROUP, T0, broker, committed, consuming, offsets, run, take


def test_nack_hands_the_message_out_again_behind_what_is_buffered() -> None:
    """It comes once more to the same stream; the old object finishes nothing."""

    async def main() -> None:
        it = broker(4)
        async with consuming(it) as consumer, consumer.stream("t", ack="manual") as stream:
            first, *others = await take(stream, 3, ack=False)
            assert first.nack()
            assert not first.nack()
            assert not first.ack()
            assert [message.ack() for message in others] == [True, True]
            await consumer.commit()
            assert committed(it) is None
            again = await take(stream)
            assert offsets(again) == [3, 0]
            assert again[1].value == first.value
            await consumer.commit()
            assert committed(it) == 4

    run(main)


@pytest.mark.parametrize("ack", ["auto", "manual"])
def test_nack_inside_of_a_loop(ack: Literal["auto", "manual"]) -> None:
    """The loop that comes back does not finish what its body gave back."""

    async def main() -> None:
        it = broker(3)
        seen = []
        async with consuming(it) as consumer, consumer.stream("t", ack=ack) as stream:
            async for message in stream:
                seen.append(message.offset)
                if len(seen) == 4:
                    await consumer.commit()
                    assert committed(it) == 1
                    message.ack()
                    break
                if message.offset == 1:
                    assert consumer.nack(message)
                elif ack == "manual":
                    message.ack()
            assert seen == [0, 1, 2, 1]
        assert committed(it) == 3

    run(main)


def test_nack_of_one_stream_leaves_the_other_alone() -> None:
    """Each stream has its own part, and both have to finish theirs."""

    async def main() -> None:
        it = broker(2)
        async with (
            consuming(it) as consumer,
            consumer.stream("t", ack="manual") as left,
            consumer.stream("t", ack="manual") as right,
        ):
            for message in await take(left, 2, ack=False):
                assert message.nack()
            assert offsets(await take(right)) == [0, 1]
            await consumer.commit()
            assert committed(it) is None
            assert offsets(await take(left)) == [0, 1]
            assert offsets(await take(right)) == []
            await consumer.commit()
            assert committed(it) == 2

    run(main)


def test_nack_after_the_end_of_the_assignment_is_nothing() -> None:
    """A sought partition has a new account, an observer never had one."""

    async def main() -> None:
        it = broker(2)
        async with consuming(it) as consumer:
            async with consumer.stream("t", ack="manual") as stream:
                (message,) = await take(stream, 1, ack=False)
                await consumer.seek(T0, 0)
                assert not message.nack()
            async with consumer.stream("t", ack="none") as stream:
                (message,) = await take(stream, 1, ack=False)
                assert not message.nack()

    run(main)


async def left_by_its_loop(stream: Stream) -> Message:
    """A message of a loop that was left with it in hand."""
    async for message in stream:
        return message
    raise AssertionError("the stream has ended")


def test_nack_of_what_a_loop_left_behind() -> None:
    """Whoever has the message of a loop that is gone may have it handed out again."""

    async def main() -> None:
        it = broker(3)
        async with consuming(it) as consumer, consumer.stream("t") as stream:
            message = await left_by_its_loop(stream)
            await trio.sleep(1)  # the iterator has gone, so nobody is waited for
            assert consumer.track_message(message)
            assert message.nack()
            assert not message.nack()
            assert not message.ack()
            assert offsets(await take(stream)) == [1, 2, 0]
        assert committed(it) == 3

    run(main)


def test_nack_of_what_a_closed_stream_left_behind() -> None:
    """It comes to the next stream, and the old object finishes nothing before that."""

    async def main() -> None:
        it = broker(3)
        async with consuming(it) as consumer:
            async with consumer.stream("t", ack="manual") as stream:
                first, second = await take(stream, 2, ack=False)
            assert first.nack()
            assert not first.ack()
            assert second.ack()
            assert not second.nack()
            async with consumer.stream("t") as stream:
                assert offsets(await take(stream)) == [0, 2]
        assert committed(it) == 3

    run(main)


def test_nack_while_the_stream_ends_leaves_it_to_the_next_member() -> None:
    """It is not handed out any more, and not committed; nobody is waited for."""

    async def main() -> None:
        it = broker(3)
        async with (
            consuming(it, drain_timeout=1000) as consumer,
            consumer.stream("t", ack="manual") as stream,
        ):
            first, second = await take(stream, 2, ack=False)
            assert first.ack()
            consumer.close()
            assert second.nack()
            started = trio.current_time()
        assert trio.current_time() - started < 500
        assert committed(it) == 1
        async with consuming(it) as consumer, consumer.stream("t") as stream:
            assert offsets(await take(stream)) == [1, 2]

    run(main)


def test_nack_while_the_partition_goes_leaves_it_to_the_next_owner() -> None:
    """It is neither handed out nor waited for; its neighbours may still be finished."""

    async def main() -> None:
        it = broker(3)
        async with (
            consuming(it, drain_timeout=1000, commit_interval=1000) as consumer,
            consumer.stream("t", ack="manual") as stream,
        ):
            first, second, third = await take(stream, 3, ack=False)
            it.rebalance(GROUP)
            await trio.sleep(5)
            assert consumer.statistics().partitions[T0].state == "revoking"
            assert first.ack()
            assert not first.nack()
            assert second.nack()
            assert not second.nack()
            assert third.ack()
            started = trio.current_time()
            while consumer.statistics().rebalances < 2:
                await trio.sleep(0.1)
            assert trio.current_time() - started < 20
            assert committed(it) == 1
            assert offsets(await take(stream)) == [1, 2]
        assert committed(it) == 3

    run(main)


def test_nack_of_a_batch_gives_back_what_is_unfinished() -> None:
    """As many as were not finished come again."""

    async def main() -> None:
        it = broker(5)
        async with consuming(it) as consumer, consumer.stream("t", ack="manual") as stream:
            batches = aiter(stream.batches(4))
            batch = await anext(batches)
            assert batch[1].ack()
            assert batch.nack() == 3
            assert batch.nack() == 0
            assert offsets(await take(stream)) == [4, 0, 2, 3]
            await consumer.commit()
            assert committed(it) == 5

    run(main)


def test_nack_from_another_thread() -> None:
    """As an acknowledgement it may come from anywhere."""

    async def main() -> None:
        it = broker(4)
        async with consuming(it) as consumer, consumer.stream("t", ack="manual") as stream:
            (message,) = await take(stream, 1, ack=False)
            batch = await anext(aiter(stream.batches(2)))
            assert await trio.to_thread.run_sync(message.nack)
            assert await trio.to_thread.run_sync(batch.nack) == 2
            assert offsets(await take(stream)) == [3, 0, 1, 2]

    trio.run(main)


def test_nack_keeps_the_deserializers() -> None:
    """The message that comes again is decoded as the first time."""

    async def main() -> None:
        it = broker(2)
        async with (
            consuming(it) as consumer,
            consumer.stream("t", ack="manual", value_deserializer=int) as stream,
        ):
            first, _ = await take(stream, 2, ack=False)
            first.nack()
            (again,) = await take(stream)
            assert (again.offset, again.value) == (0, 0)

    run(main)


def test_tracked_until_it_is_finished() -> None:
    """``track_message`` and ``unacked`` say what an acknowledgement would change."""

    async def main() -> None:
        it = broker(3)
        async with consuming(it) as consumer, consumer.stream("t", ack="manual") as stream:
            messages: list[Message] = await take(stream, 3, ack=False)
            assert all(consumer.track_message(message) for message in messages)
            assert consumer.ack(messages[1])
            assert [consumer.track_message(message) for message in messages] == [True, False, True]
            assert consumer.unacked == {(T0, 0), (T0, 2)}
            await consumer.seek(T0, 1)
            assert not any(consumer.track_message(message) for message in messages)
            assert consumer.unacked == frozenset()

    run(main)


def test_seek_to_committed_moves_nothing_if_the_broker_is_silent() -> None:
    """A question without an answer leaves everything as it was."""

    async def main() -> None:
        it: MemoryBroker = broker(4)
        async with (
            consuming(it, commit_timeout=1) as consumer,
            consumer.stream("t", ack="manual") as stream,
        ):
            (message,) = await take(stream, 1, ack=False)
            it.down()
            with pytest.raises(TransportError, match=r"^cannot read the committed offsets"):
                await consumer.perform_seek()
            it.up()
            assert message.ack()
            assert offsets(await take(stream)) == [1, 2, 3]

    run(main)
