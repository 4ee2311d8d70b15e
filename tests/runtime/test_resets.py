"""What happens when the log is not what it was: truncated, made anew, deleted."""

# The blocks nest as those of a program do, an error leaves a whole block, and a
# loop that sleeps costs nothing under a virtual clock.

from __future__ import annotations

import trio

from trio_consumer import (
    TP,
    RoundRobin,
)
from trio_consumer._runtime.conductor import Conductor, Parcel, Transit
from trio_consumer.transports.base import (
    PolledBatch,
)

from .support import (
    T0,
    broker,
    committed,
    consuming,
    offsets,
    run,
    take,
    values,
)


def test_truncated_log_goes_back_and_makes_old_messages_stale() -> None:
    """When the log is made anew its messages are new ones, whatever their offsets."""

    async def main() -> None:
        it = broker(5)
        async with consuming(it) as consumer, consumer.stream("t", ack="manual") as stream:
            old = await take(stream, ack=False)
            it.truncate(T0, 0)
            it.produce_many("t", values(3))
            new = await take(stream, ack=False)
            assert offsets(new) == [0, 1, 2]
            assert [message.ack() for message in old] == [False] * 5
            assert [message.ack() for message in new] == [True] * 3
            await consumer.commit()
            assert committed(it) == 3

    run(main)


def test_polls_noted_before_the_position_went_back_are_handed_on() -> None:
    """The fetcher may be a poll ahead of the conductor when a log is made anew: it counts."""

    async def main() -> None:
        it = broker(6)
        async with consuming(it, topics=["t"]) as consumer, consumer.stream("t") as stream:
            await take(stream)
            it.truncate(T0, 0)
            partitions = consumer._partitions
            [assignment] = partitions
            _, receive = trio.open_memory_channel[list[Parcel]](0)
            conductor = Conductor(partitions, receive, RoundRobin(), Transit())
            it.create_topic("u", 1)
            it.produce_many("u", values(6), partition=0)
            records = it.records(TP("u", 0))
            noted = [
                Parcel(assignment, assignment.reading, PolledBatch(T0, records[:3], 3)),
                Parcel(assignment, assignment.reading, PolledBatch(T0, records[3:], 6)),
            ]
            for parcel in noted:
                conductor.take([parcel])
            assert [m.offset for m in await take(stream)] == [0, 1, 2, 3, 4, 5]

    run(main)
