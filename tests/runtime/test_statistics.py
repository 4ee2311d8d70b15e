"""What holds the commit back: the answer of ``statistics()``."""

from __future__ import annotations

import pytest
import trio

from trio_consumer import CommitFailedError, Stream, Whereabouts

from .support import T0, T1, broker, consuming, offsets, run, take


async def keep(stream: Stream) -> None:
    """Take a message and keep it."""
    async for _ in stream:
        await trio.sleep_forever()


def test_the_oldest_message_is_told_with_its_age_and_its_task() -> None:
    """Only whoever has the oldest one is named, and only a finished one is no obstacle."""

    async def main() -> None:
        it = broker(10)
        async with (
            consuming(it, commit_interval=1000) as consumer,
            consumer.stream("t", ack="manual") as stream,
            trio.open_nursery() as nursery,
        ):
            taken = await take(stream, 3, ack=False)
            nursery.start_soon(keep, stream, name="worker-7")
            await trio.sleep(20)
            partition = consumer.statistics().partitions[T0]
            assert partition.oldest is not None
            assert partition.oldest.offset == partition.oldest_unfinished == 0
            assert partition.oldest.whereabouts is Whereabouts.HAND
            assert 20 <= partition.oldest.seconds < 22
            assert (partition.start, partition.committed, partition.commit_lag) == (0, None, 10)
            for message in taken:
                message.ack()
            partition = consumer.statistics().partitions[T0]
            assert partition.oldest is not None
            assert (partition.oldest.offset, partition.oldest.streams) == (3, (repr(stream),))
            assert partition.oldest.tasks == ("worker-7",)
            assert partition.held_back_by == (
                f"offset 3 unfinished for {partition.oldest.seconds:.1f} s, in hand of worker-7"
            )
            assert (partition.replay, partition.finished_uncommitted) == (10, 3)
            await consumer.commit()
            partition = consumer.statistics().partitions[T0]
            assert (partition.committed, partition.commit_lag) == (3, 7)
            assert (partition.replay, partition.finished_uncommitted) == (7, 0)
            nursery.cancel_scope.cancel()

    run(main)


def test_message_is_unfinished_since_it_was_delivered() -> None:
    """Not since the consumer was opened: one that comes late is young."""

    async def main() -> None:
        it = broker(0)
        async with consuming(it) as consumer, consumer.stream("t", ack="manual") as stream:
            await trio.sleep(100)
            it.produce("t", b"late", partition=0)
            await take(stream, 1, ack=False)
            await trio.sleep(20)
            oldest = consumer.statistics().partitions[T0].oldest
            assert oldest is not None
            assert 20 <= oldest.seconds < 22

    run(main)


def test_the_hand_of_one_stream_goes_before_the_buffer_of_another() -> None:
    """Two streams: the message is in hand of one of them, then in the buffer only, then left."""

    async def main() -> None:
        it = broker(2)
        async with (
            consuming(it, commit_interval=1000) as consumer,
            consumer.stream("t", ack="manual") as quick,
            consumer.stream("t", ack="manual") as lazy,
        ):
            [first] = await take(quick, 1, ack=False)
            oldest = consumer.statistics().partitions[T0].oldest
            assert oldest is not None
            assert oldest.whereabouts is Whereabouts.HAND
            assert oldest.streams == tuple(sorted([repr(quick), repr(lazy)]))
            first.ack()
            oldest = consumer.statistics().partitions[T0].oldest
            assert oldest is not None
            assert (oldest.whereabouts, oldest.tasks) == (Whereabouts.BUFFER, ())
            assert oldest.streams == (repr(lazy),)
            assert str(oldest) == f"offset 0 unfinished for {oldest.seconds:.1f} s, in the buffer"

    run(main)


def test_what_a_loop_left_behind_is_told() -> None:
    """Nobody has it: it waits for another stream, or for the next member."""

    async def main() -> None:
        it = broker(2)
        async with consuming(it) as consumer, consumer.stream("t") as stream:
            async for _ in stream:
                break
            await trio.sleep(1)
            oldest = consumer.statistics().partitions[T0].oldest
            assert oldest is not None
            assert (oldest.offset, oldest.whereabouts) == (0, Whereabouts.LEFT)
            assert (oldest.streams, oldest.tasks) == ((), ())

    run(main)


def test_what_holds_back_is_told_in_words_the_oldest_first() -> None:
    """A failing commit comes before everything; what is finished is no obstacle."""

    async def main() -> None:
        it = broker(3, 2)
        async with consuming(it, commit_interval=1000) as consumer:
            assert consumer.statistics().what_holds_back() == []
            assert consumer.statistics().seconds_since_commit is None
            assert (consumer.statistics().lag, consumer.statistics().commit_lag) == (None, None)
            async with consumer.stream("t", ack="manual") as stream:
                taken = await take(stream, 6, ack=False)
                for message in taken:
                    if message.tp == T0 or message.offset != 1:
                        message.ack()
                statistics = consumer.statistics()
                assert statistics.partitions[T0].held_back_by == (
                    "nothing, the next commit carries it all"
                )
                [line] = statistics.what_holds_back()
                assert line.startswith("t[1]: offset 1 unfinished for ")
                assert line.endswith("; 3 come again after a crash now")
                it.fail_next_commits(1)
                with pytest.raises(CommitFailedError, match=r"."):
                    await consumer.commit()
                failed = consumer.statistics()
                assert failed.commit_failures == 1
                assert failed.commit_error is not None
                assert (
                    failed.what_holds_back()[0] == f"the last commit failed: {failed.commit_error}"
                )
                await consumer.commit()
                await trio.sleep(3)
                good = consumer.statistics()
                assert good.commit_error is None
                assert good.seconds_since_commit == pytest.approx(3)
                assert good.partitions[T0].held_back_by == ""
                assert good.what_holds_back()[0].startswith("t[1]: offset 1")
                assert offsets(taken, T1) == [0, 1, 2]

    run(main)


def test_a_partition_that_goes_says_so() -> None:
    """While it is handed over its state is no longer open."""

    async def main() -> None:
        it = broker(2)
        async with (
            consuming(it) as consumer,
            consumer.stream("t", ack="manual") as stream,
        ):
            [message] = await take(stream, 1, ack=False)
            assert consumer.statistics().partitions[T0].state == "open"
            it.rebalance("g")
            await trio.sleep(5)
            assert consumer.statistics().partitions[T0].state == "revoking"
            message.ack()
            await trio.sleep(5)
            assert consumer.statistics().partitions[T0].state == "open"
            await take(stream, 1)

    run(main)
