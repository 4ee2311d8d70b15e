"""What becomes of the records of a stream that closes."""

# The blocks nest as those of a program do, an error leaves a whole block, and a
# loop that sleeps costs nothing under a virtual clock.
# ruff: noqa: SIM117

from __future__ import annotations

from contextlib import suppress

import pytest
import trio
import trio.lowlevel

from trio_consumer import (
    RoundRobin,
)

from .support import T0, T1, broker, committed, consuming, offsets, run, take, values


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


@pytest.mark.parametrize("left_first", [True, False])
def test_what_a_task_left_behind_is_not_finished_for_its_stream_by_a_successor(
    left_first: bool,
) -> None:
    """The successor of a failed stream has no part in what another stream, still open, owes."""

    async def main() -> None:
        it = broker(3)
        async with consuming(it) as consumer:
            async with consumer.stream("t") as stays:
                worker = trio.CancelScope()

                async def work() -> None:
                    with worker:
                        async for _ in stays:
                            await trio.sleep_forever()

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(work)
                    with pytest.raises(ValueError, match="boom"):
                        async with consumer.stream("t"):
                            await trio.sleep(1)
                            if left_first:
                                worker.cancel()
                                await trio.sleep(1)
                            raise ValueError("boom")
                    worker.cancel()
                async with consumer.stream("t") as successor:
                    await take(successor)
                    assert offsets(await take(stays)) == [1, 2]
                    await consumer.commit()
                    assert committed(it) is None
                assert consumer.unacked == {(T0, 0)}
            async with consumer.stream("t") as last:
                assert offsets(await take(last)) == [0]
        assert committed(it) == 3

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


def test_record_that_observers_had_before_a_rewind_still_comes_to_who_acknowledges() -> None:
    """Read again for a stream that left at once, it goes to nobody, and is not forgotten."""

    async def main() -> None:
        it = broker(2)
        options = {"max_poll_records": 1}
        async with (
            consuming(it, client_options=options) as consumer,
            consumer.stream("t", ack="none") as observer,
        ):
            assert offsets(await take(observer)) == [0, 1]
            async with consumer.stream("t"):
                pass
            await trio.sleep(1)
            it.produce("t", b"more", partition=0)
            async with consumer.stream("t") as stream:
                assert offsets(await take(stream)) == [0, 1, 2]
            assert offsets(await take(observer)) == [2]
        assert committed(it) == 3

    run(main)


@pytest.mark.parametrize("how", ["compacted", "deleted"])
def test_record_that_was_left_behind_and_has_gone_holds_nothing_back(how: str) -> None:
    """It was in hand when its stream closed; it cannot come again, and the commit goes on."""
    it = broker(5)

    async def main() -> None:
        async with consuming(it) as consumer:
            async with consumer.stream("t", ack="manual") as stream:
                await take(stream, 2, ack=False)
            if how == "compacted":
                it.delete_offsets(T0, [0, 1])
            else:
                it.delete_records(T0, 2)
            async with consumer.stream("t") as stream:
                assert offsets(await take(stream)) == [2, 3, 4]
            assert consumer.held() == []
            await consumer.commit()
            assert committed(it) == 5

    run(main)
