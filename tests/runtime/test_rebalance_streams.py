"""Streams and their buffers when partitions come and go."""

# The blocks nest as those of a program do, an error leaves a whole block, and a
# loop that sleeps costs nothing under a virtual clock.
# ruff: noqa: SIM117

from __future__ import annotations

import trio

from trio_consumer import (
    TP,
)

from .support import (
    COOPERATIVE,
    GROUP,
    T0,
    T1,
    broker,
    committed,
    consuming,
    offsets,
    run,
    take,
    values,
)


def test_cooperative_hand_over_leaves_other_partitions_alone() -> None:
    """A partition that stays keeps its buffer, its messages in hand and its account."""

    async def main() -> None:
        it = broker(10, 2)
        async with consuming(it, client_options=COOPERATIVE) as consumer:
            async with consumer.stream("t", ack="manual") as stream:
                taken = await take(stream, 20, ack=False)
                assert len(taken) == 20
                for message in taken[:-1]:
                    if message.tp == T0 or message.offset < 5:
                        message.ack()
                async with consuming(it, topics=["t"], client_options=COOPERATIVE) as other:
                    async with other.stream("t") as second:
                        await trio.sleep(60)
                        [stays] = consumer.assignment
                        [goes] = other.assignment
                        assert {stays, goes} == {T0, T1}
                        held = [m for m in taken if m.tp == stays and not m.ack()]
                        assert len(held) + sum(m.ack() for m in taken) <= 10
                        assert [m for m in await take(second) if m.tp != goes] == []
                        assert await take(stream, ack=False) == []
        for tp in (T0, T1):
            assert committed(it, tp) in (5, 10)

    run(main)


def test_cooperative_hand_over_keeps_the_buffer_of_what_stays() -> None:
    """Records that lie in the buffer of a partition that stays are handed out once."""

    async def main() -> None:
        it = broker(10, 2)
        async with consuming(it, client_options=COOPERATIVE, drain_timeout=1) as consumer:
            async with consumer.stream("t") as stream:
                await trio.sleep(5)
                first = await take(stream, 1)
                assert stream.buffered > 0
                async with consuming(it, topics=["t"], client_options=COOPERATIVE) as other:
                    async with other.stream("t") as second:
                        await trio.sleep(60)
                        mine = first + await take(stream)
                        yours = await take(second)
                [stays] = {m.tp for m in mine if m.offset > 0}
                assert offsets(mine, stays) == list(range(10))
                [goes] = {m.tp for m in yours}
                assert offsets(yours, goes) in (list(range(10)), list(range(1, 10)))
        assert (committed(it, T0), committed(it, T1)) == (10, 10)

    run(main)


def test_hand_over_to_a_second_member_replays_the_unfinished_only() -> None:
    """What is committed in the revocation is not delivered to the next owner."""

    async def main() -> None:
        it = broker(10, 2)
        got: dict[str, list[tuple[TP, int]]] = {"one": [], "two": []}

        async def member(name: str) -> None:
            async with consuming(it, commit_interval=1000) as consumer:
                async with consumer.stream("t") as stream:
                    async for message in stream:
                        got[name].append((message.tp, message.offset))
                        await trio.sleep(0.7)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(member, "one")
            await trio.sleep(4)
            nursery.start_soon(member, "two")
            await trio.sleep(60)
            nursery.cancel_scope.cancel()
        together = got["one"] + got["two"]
        assert len(together) == len(set(together)) == 20
        assert got["two"]
        assert (committed(it, T0), committed(it, T1)) == (10, 10)

    run(main)


def test_stream_that_closes_while_a_revocation_waits_ends_the_wait() -> None:
    """What its loop had in hand is waited for no longer; it is not finished either."""

    async def main() -> None:
        it = broker(3, 1)
        async with consuming(it, drain_timeout=30) as consumer:
            async with consumer.stream("t", ack="none"):
                async with consumer.stream("t", ack="manual") as stream:
                    await take(stream, 2, ack=False)
                    it.rebalance(GROUP)
                    await trio.sleep(5)
                    assert consumer.assignment == frozenset()
                await trio.sleep(1)
                assert consumer.assignment == {T0}
                assert consumer.statistics().rebalances == 2
            async with consumer.stream("t") as stream:
                assert offsets(await take(stream)) == [0, 1, 2]
        assert committed(it) == 3

    run(main)


def test_stream_that_opens_while_a_revocation_waits_gets_the_next_assignment() -> None:
    """A partition that is going is not handed to a new stream."""

    async def main() -> None:
        it = broker(3, 1)
        async with consuming(it, drain_timeout=8) as consumer:
            async with consumer.stream("t", ack="manual") as stream:
                [first, *_] = await take(stream, ack=False)
                it.rebalance(GROUP)
                await trio.sleep(3)
                async with consumer.stream("t") as late:
                    assert await take(late) == []
                    first.ack()
                    await trio.sleep(10)
                    assert offsets(await take(late)) == offsets(await take(stream)) == [1, 2]
        assert committed(it) == 3

    run(main)


def test_two_streams_and_a_revocation_lose_nothing_of_either() -> None:
    """A record that one stream finished and the other never got comes again to both."""

    async def main() -> None:
        it = broker(4)
        async with consuming(it) as consumer:
            async with consumer.stream("t") as ahead, consumer.stream("t") as behind:
                assert offsets(await take(ahead)) == [0, 1, 2, 3]
                assert offsets(await take(behind, 1)) == [0]
                it.rebalance(GROUP)
                await trio.sleep(10)
                assert committed(it) == 1
                assert offsets(await take(ahead)) == [1, 2, 3]
                assert offsets(await take(behind)) == [1, 2, 3]
        assert committed(it) == 4

    run(main)


def test_paused_partition_is_not_paused_after_it_came_back() -> None:
    """A user's pause ends with the assignment; a stopped flow does not."""

    async def main() -> None:
        it = broker(2)
        async with consuming(it) as consumer, consumer.stream("t") as stream:
            await take(stream)
            consumer.pause_partitions([T0])
            it.produce_many("t", values(1))
            it.rebalance(GROUP)
            await trio.sleep(10)
            assert offsets(await take(stream)) == [2]
            consumer.stop_flow()
            it.produce_many("t", values(1))
            it.rebalance(GROUP)
            await trio.sleep(10)
            assert await take(stream) == []
            consumer.resume_flow()
            assert offsets(await take(stream)) == [3]

    run(main)
