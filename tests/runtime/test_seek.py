"""What a seek moves, and what it leaves alone."""

from __future__ import annotations

import pytest
import trio

from trio_consumer import TransactionAbortedError

from .support import GROUP, T0, T1, broker, committed, consuming, offsets, run, take
from .test_transactions import visible, with_target


def test_seek_leaves_what_is_buffered_of_other_partitions() -> None:
    """They are delivered as if nothing had happened, once."""

    async def main() -> None:
        it = broker(5, 2)
        async with consuming(it) as consumer, consumer.stream("t") as stream:
            before = await take(stream, 1)
            await trio.sleep(1)
            await consumer.seek(T0, 3)
            messages = before + await take(stream)
            assert offsets(messages, T1) == [0, 1, 2, 3, 4]
            assert offsets(messages, T0)[-2:] == [3, 4]
        assert committed(it, T1) == 5

    run(main)


def test_seek_leaves_all_that_lies_behind_in_the_buffer() -> None:
    """Several polls of another partition, before and after what the seek throws away."""

    async def main() -> None:
        it = broker(3, 2)
        async with consuming(it) as consumer, consumer.stream("t") as stream:
            before = await take(stream, 1)
            for _ in range(2):
                for tp in (T0, T1):
                    it.produce_many("t", [b"more"] * 3, partition=tp.partition)
                await trio.sleep(5)
            assert stream.buffered == 17
            await consumer.seek(T1, 8)
            messages = before + await take(stream)
            assert offsets(messages, T0) == list(range(9))
            assert offsets(messages, T1)[-1:] == [8]
        assert (committed(it, T0), committed(it, T1)) == (9, 9)

    run(main)


def test_observer_is_moved_to_the_very_beginning() -> None:
    """Offset 0 comes again, too."""

    async def main() -> None:
        it = broker(3)
        async with consuming(it) as consumer, consumer.stream("t", ack="none") as stream:
            assert offsets(await take(stream)) == [0, 1, 2]
            await consumer.seek(T0, 0)
            assert offsets(await take(stream)) == [0, 1, 2]

    run(main)


def test_what_a_stream_leaves_after_a_seek_does_not_come_twice() -> None:
    """The others had it since the seek, so it is for whoever takes the place of the stream."""

    async def main() -> None:
        it = broker(4)
        async with consuming(it) as consumer, consumer.stream("t") as stays:
            failing = consumer.stream("t")
            await failing.__aenter__()
            await take(failing)
            await take(stays)
            await consumer.seek(T0, 1)
            assert offsets(await take(stays)) == [1, 2, 3]
            await take(failing, 1)
            await failing.__aexit__(KeyError, KeyError(), None)
            assert await take(stays) == []
            await consumer.commit()
            assert committed(it) == 2
            async with consumer.stream("t") as successor:
                assert offsets(await take(successor)) == [2, 3]
                assert await take(stays) == []
        assert committed(it) == 4

    run(main)


def test_seek_behind_the_end_is_reset_and_said(caplog: pytest.LogCaptureFixture) -> None:
    """The reset policy chooses another place than the one that was asked for."""

    async def main() -> None:
        it = broker(3)
        async with (
            consuming(it, auto_offset_reset="earliest") as consumer,
            consumer.stream("t") as stream,
        ):
            await take(stream)
            await consumer.seek(T0, 100)
            assert offsets(await take(stream)) == [0, 1, 2]

    run(main)
    assert [r.getMessage() for r in caplog.records if r.name == "trio_consumer.conductor"] == [
        "t[0]: position went back from 100 to 0 by itself (log truncated or topic made anew);"
        " messages in hand can no longer be acknowledged"
    ]


def test_abort_goes_back_to_where_a_seek_went() -> None:
    """And not to what the broker has; the error names the partition."""

    async def main() -> None:
        it = with_target(6)
        async with (
            consuming(it, transactional_id="p") as consumer,
            consumer.stream("t", ack="manual") as stream,
        ):
            await take(stream)
            await consumer.seek(T0, 3)
            _, second, _ = await take(stream, ack=False)
            with pytest.raises(
                TransactionAbortedError, match=r"t\[0\] was finished up to offset 4 in it"
            ):
                async with consumer.transaction() as transaction:
                    await transaction.send("out", b"too soon", partition=0)
                    second.ack()
            assert offsets(await take(stream)) == [3, 4, 5]
        assert visible(it) == []

    run(main)


def test_abort_moves_nothing_that_was_not_finished_in_it() -> None:
    """The account of a partition without news goes on."""

    async def main() -> None:
        it = with_target(1, 2)
        async with (
            consuming(it, transactional_id="p") as consumer,
            consumer.stream("t", ack="manual") as stream,
        ):
            await take(stream)
            await consumer.commit()
            it.produce("t", b"more", partition=0)
            with pytest.raises(KeyError):
                async with consumer.transaction() as transaction:
                    await transaction.send("out", b"x", partition=0)
                    await take(stream)
                    raise KeyError
            assert consumer.statistics().partitions[T1].committed == 1
            assert offsets(await take(stream)) == [1]

    run(main)


def test_resumed_flow_is_that_of_later_assignments_too() -> None:
    """What comes after the stop has ended is not held back by it."""

    async def main() -> None:
        it = broker(3)
        async with consuming(it) as consumer, consumer.stream("t") as stream:
            consumer.stop_flow()
            await trio.sleep(1)
            consumer.resume_flow()
            it.rebalance(GROUP)
            await trio.sleep(10)
            assert offsets(await take(stream)) == [0, 1, 2]

    run(main)
