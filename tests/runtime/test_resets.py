"""What happens when the log is not what it was: truncated, made anew, deleted."""

# The blocks nest as those of a program do, an error leaves a whole block, and a
# loop that sleeps costs nothing under a virtual clock.

from __future__ import annotations

import pytest
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
    add_topic,
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


def test_topic_that_is_deleted_while_another_is_asked_for_ends_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A new stream gets its topic although one that was subscribed to has just gone."""

    async def main() -> None:
        it = broker(3)
        add_topic(it, "u", 3)
        async with consuming(it) as consumer, consumer.stream("t") as stream:
            await take(stream)
            it.delete_topic("t")
            async with consumer.stream("u") as late:
                assert offsets(await take(late, wait=20), TP("u", 0)) == [0, 1, 2]
            assert consumer.assignment == {TP("u", 0)}
            add_topic(it, "t", 5)
            assert offsets(await take(stream, 5, wait=10)) == [0, 1, 2, 3, 4]

    run(main)
    told = [r.getMessage() for r in caplog.records if r.name == "trio_consumer.subscription"]
    assert len(told) == 1
    assert told[0].startswith("topic 't' does not exist any more")


def test_outage_while_a_topic_is_asked_for_is_survived(caplog: pytest.LogCaptureFixture) -> None:
    """A consumer that runs is not ended because it wants a topic more at that moment."""

    async def main() -> None:
        it = broker(3)
        add_topic(it, "u", 3)
        async with consuming(it) as consumer, consumer.stream("t") as stream:
            await take(stream)
            it.down()
            async with consumer.stream("u") as late:
                assert await take(late, wait=20) == []
                it.up()
                assert offsets(await take(late, wait=10), TP("u", 0)) == [0, 1, 2]
        assert committed(it, TP("u", 0)) == 3

    run(main)
    told = [r.getMessage() for r in caplog.records if r.name == "trio_consumer.subscription"]
    assert len(told) == 1
    assert told[0].startswith("not subscribed yet, trying again: cannot subscribe to")


def test_partition_of_a_deleted_topic_does_not_hold_up_a_rebalance() -> None:
    """The last commit leaves it out, and the others of the same commit are stored."""

    async def main() -> None:
        it = broker(3)
        add_topic(it, "u", 3)
        async with (
            consuming(it, commit_interval=1000) as consumer,
            consumer.stream("t", "u") as stream,
        ):
            await take(stream)
            it.delete_topic("u")
            start = trio.current_time()
            while consumer.assignment != {T0}:
                await trio.sleep(0.1)
            # One heartbeat and one commit_timeout, not the group's patience.
            assert trio.current_time() - start < 10
            assert committed(it) == 3

    run(main)
