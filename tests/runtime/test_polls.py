"""From polls to streams: holes, ends without records, polls that come late or are put aside."""

# The blocks nest as those of a program do.

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import trio

from trio_consumer import Consumer, RoundRobin, open_consumer
from trio_consumer._runtime.conductor import Conductor, Parcel, Transit
from trio_consumer.testing import MemoryBroker
from trio_consumer.transports import PolledBatch

from .support import (
    GROUP,
    T0,
    T1,
    Poll,
    PollingOtherwise,
    broker,
    committed,
    consuming,
    offsets,
    run,
    take,
)

Change = Callable[[list[PolledBatch]], list[PolledBatch]]


class Changed(PollingOtherwise):
    """A memory broker of which the sessions poll something else."""

    def __init__(self, it: MemoryBroker, change: Change) -> None:
        super().__init__(it)
        self.change = change

    def polling(self, poll: Poll) -> Poll:
        async def poll_changed() -> list[PolledBatch]:
            return self.change(list(await poll()))

        return poll_changed


def changed(it: MemoryBroker, change: Change, **options: Any) -> Any:
    """A consumer of the group of the tests that polls something else."""
    return open_consumer(Changed(it, change), group=GROUP, **options)


@pytest.mark.parametrize("kept", [[0, 3], [1, 2, 4, 5], [2, 3, 4]])
def test_holes_between_records_are_neither_messages_nor_waited_for(kept: list[int]) -> None:
    """Of a compacted log each message has its own offset, and a commit passes the holes."""

    def compact(polled: list[PolledBatch]) -> list[PolledBatch]:
        return [
            replace(batch, records=[r for r in batch.records if r.offset in kept])
            for batch in polled
        ]

    async def main() -> None:
        it = broker(6)
        async with (
            changed(it, compact, commit_interval=1000) as consumer,
            consumer.stream("t", ack="manual") as stream,
        ):
            messages = await take(stream, ack=False)
            assert [(m.offset, m.value) for m in messages] == [(n, b"%d" % n) for n in kept]
            assert messages[0].ack()
            await consumer.commit()
            assert committed(it) == kept[1]
            assert [message.ack() for message in messages[1:]] == [True] * (len(kept) - 1)
            await consumer.commit()
            assert committed(it) == 6

    run(main)


@pytest.mark.parametrize("begins", [0, None])
def test_first_batch_without_records_is_committed_if_its_beginning_is_known(
    begins: int | None,
) -> None:
    """What lies between needs no finishing; without its beginning nothing is known of it."""

    def empty(polled: list[PolledBatch]) -> list[PolledBatch]:
        return [
            replace(batch, records=[], begins=begins) if batch.next_offset == 3 else batch
            for batch in polled
        ]

    async def main() -> None:
        it = broker(3)
        async with (
            changed(it, empty, commit_interval=1000) as consumer,
            consumer.stream("t") as stream,
        ):
            assert await take(stream) == []
            assert consumer.position(T0) == 3
            await consumer.commit()
            assert committed(it) == (None if begins is None else 3)
            it.produce("t", b"next", partition=0)
            assert offsets(await take(stream)) == [3]
        assert committed(it) == 4

    run(main)


def test_position_that_moves_behind_the_last_record_is_committed() -> None:
    """Also if the message before it is finished long after."""

    async def main() -> None:
        it = broker(3)
        async with (
            consuming(it, commit_interval=1000) as consumer,
            consumer.stream("t", ack="manual") as stream,
        ):
            messages = await take(stream, ack=False)
            [assignment] = consumer._partitions
            conductor = conductor_of(consumer)
            conductor.take([Parcel(assignment, assignment.reading, PolledBatch(T0, [], 5))])
            messages[0].ack()
            await consumer.commit()
            assert committed(it) == 1
            for message in messages[1:]:
                message.ack()
            await consumer.commit()
            assert committed(it) == 5

    run(main)


def conductor_of(consumer: Consumer) -> Conductor:
    """One that takes what a test hands to it."""
    _, receive = trio.open_memory_channel[list[Parcel]](0)
    return Conductor(consumer._partitions, receive, RoundRobin(2), Transit())


def test_poll_from_before_a_seek_is_dropped_and_the_rest_of_it_is_not() -> None:
    """It was read under another position; what came with it of another partition counts."""

    async def main() -> None:
        it = broker(0, 2)
        other = broker(4, 2)
        async with consuming(it) as consumer, consumer.stream("t", ack="manual") as stream:
            assert await take(stream) == []
            first, second = consumer._partitions
            conductor_of(consumer).take(
                [
                    Parcel(first, object(), PolledBatch(T0, other.records(T0), 4)),
                    Parcel(second, second.reading, PolledBatch(T1, other.records(T1), 4)),
                ]
            )
            messages = await take(stream, ack=False)
            assert (offsets(messages, T0), offsets(messages, T1)) == ([], [0, 1, 2, 3])

    run(main)


def test_polls_that_are_put_aside_come_once_and_in_order() -> None:
    """Each as a whole, however the scheduler cuts it."""

    async def main() -> None:
        it = broker(0)
        records = broker(6).records(T0)
        async with consuming(it) as consumer, consumer.stream("t", ack="manual") as stream:
            assert await take(stream) == []
            [assignment] = consumer._partitions
            conductor = conductor_of(consumer)
            consumer.pause_partitions([T0])
            for part, end in ((records[:3], 3), (records[3:], 6)):
                conductor.take([Parcel(assignment, assignment.reading, PolledBatch(T0, part, end))])
            assert await take(stream) == []
            consumer.resume_partitions([T0])
            assert offsets(await take(stream, ack=False)) == [0, 1, 2, 3, 4, 5]

    run(main)


def test_transit_is_over_when_the_last_poll_has_arrived() -> None:
    """Two may be on their way: one is handed on while the next waits."""

    async def main() -> None:
        transit = Transit()
        await transit.wait_empty()
        transit.depart()
        transit.depart()
        over = trio.Event()

        async def wait() -> None:
            await transit.wait_empty()
            over.set()

        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait)
                await trio.sleep(1)
                transit.arrive()
                await trio.sleep(1)
                assert not over.is_set()
                transit.arrive()
                await over.wait()
        await transit.wait_empty()

    run(main)


def test_seek_to_committed_without_a_commit_goes_to_the_first_message() -> None:
    """Where reading began at the end of the log, the broker has no place to go back to."""

    async def main() -> None:
        it = broker(2)
        async with (
            consuming(it, auto_offset_reset="latest", commit_interval=1000) as consumer,
            consumer.stream("t") as stream,
        ):
            assert await take(stream) == []
            for _ in range(2):
                it.produce("t", b"late", partition=0)
                await take(stream)
            assert await consumer.seek_to_committed() == {T0: 2}
            assert offsets(await take(stream)) == [2, 3]

    run(main)
