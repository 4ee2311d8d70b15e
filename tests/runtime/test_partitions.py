"""The partitions of a member: what each begins with, who takes it, and where reading goes on."""

from __future__ import annotations

import pytest
import trio

from trio_consumer import RoundRobin
from trio_consumer._runtime.conductor import Conductor, Parcel, Transit
from trio_consumer.transports.base import PolledBatch

from .support import COOPERATIVE, T0, T1, broker, committed, consuming, offsets, run, take


def test_nothing_is_known_of_a_partition_before_it_is_read() -> None:
    """It has no end and no lag, and without a commit there is nothing to go back to."""

    async def main() -> None:
        it = broker(3, latency=1.0)
        async with consuming(it, topics=["t"], auto_offset_reset="latest") as consumer:
            consumer.stop_flow()
            while not consumer.assignment:
                await trio.sleep(0.1)
            known = consumer.statistics().partitions[T0]
            assert (known.high_watermark, known.lag, known.position) == (None, None, None)
            assert await consumer.seek_to_committed() == {}

    run(main)


def test_end_at_which_reading_began_is_committed() -> None:
    """With a reset to the end, what comes between two members is not skipped."""

    async def main() -> None:
        it = broker(3)
        async with (
            consuming(it, auto_offset_reset="latest") as consumer,
            consumer.stream("t") as stream,
        ):
            assert await take(stream) == []
        assert committed(it) == 3
        it.produce("t", b"between", partition=0)
        async with (
            consuming(it, auto_offset_reset="latest") as consumer,
            consumer.stream("t") as stream,
        ):
            assert offsets(await take(stream)) == [3]

    run(main)


def test_partition_that_comes_while_flow_is_stopped_is_not_read() -> None:
    """Nothing arrives in the buffers until the flow is resumed."""

    async def main() -> None:
        it = broker(3)
        async with consuming(it) as consumer:
            consumer.stop_flow()
            async with consumer.stream("t") as stream:
                assert await take(stream, wait=10) == []
                assert consumer.assignment == {T0}
                assert stream.buffered == 0
                consumer.resume_flow()
                assert offsets(await take(stream)) == [0, 1, 2]

    run(main)


def test_stream_opened_later_takes_its_own_partitions_only() -> None:
    """What it did not ask for goes to the others, as before."""

    async def main() -> None:
        it = broker(2, 2)
        async with consuming(it) as consumer, consumer.stream("t") as stream:
            await take(stream)
            async with consumer.stream("t", partitions=[1]) as late:
                for tp in (T0, T1):
                    it.produce("t", b"more", partition=tp.partition)
                assert [(m.tp, m.offset) for m in await take(late)] == [(T1, 2)]
                assert len(await take(stream)) == 2
        assert (committed(it, T0), committed(it, T1)) == (3, 3)

    run(main)


def test_partition_that_comes_while_the_buffer_is_full_waits_for_room() -> None:
    """A buffer keeps to its bound when another member leaves its partitions to this one."""

    async def main() -> None:
        it = broker(40, 2)
        options = {"max_poll_records": 5, **COOPERATIVE}
        async with (
            consuming(it, topics=["t"], client_options=options) as consumer,
            consumer.stream("t", max_buffered=10) as stream,
        ):
            async with consuming(it, topics=["t"], client_options=COOPERATIVE) as other:
                await trio.sleep(60)
                assert len(consumer.assignment) == len(other.assignment) == 1
                full = stream.buffered
                assert full >= 10
            await trio.sleep(60)
            assert consumer.assignment == {T0, T1}
            assert stream.buffered == full
            messages = await take(stream)
            assert offsets(messages, T0) == offsets(messages, T1) == list(range(40))

    run(main)


@pytest.mark.parametrize("sought", [False, True])
def test_commit_passes_what_was_aborted_behind_the_last_message(*, sought: bool) -> None:
    """From the beginning of the partition as after a seek, there is no lag that never ends."""

    async def main() -> None:
        it = broker(2)
        async with (
            consuming(it, isolation_level="read_committed") as consumer,
            consumer.stream("t") as stream,
        ):
            if sought:
                await take(stream)
                await consumer.seek(T0, 1)
            await take(stream)
            transaction = it.transaction()
            transaction.produce("t", b"never seen", partition=0)
            transaction.abort()
            assert await take(stream) == []
            await consumer.commit()
            assert committed(it) == it.end_offset(T0) > 3

    run(main)


def test_poll_from_between_two_seeks_is_dropped() -> None:
    """What was read under the first one is not handed on after the second."""

    async def main() -> None:
        it = broker(6)
        async with consuming(it, topics=["t"]) as consumer, consumer.stream("t") as stream:
            await take(stream)
            [assignment] = consumer._partitions
            _, receive = trio.open_memory_channel[list[Parcel]](0)
            conductor = Conductor(consumer._partitions, receive, RoundRobin(), Transit())
            await consumer.seek(T0, 3)
            late = Parcel(assignment, assignment.reading, PolledBatch(T0, it.records(T0)[3:], 6))
            await consumer.seek(T0, 1)
            conductor.take([late])
            assert offsets(await take(stream)) == [1, 2, 3, 4, 5]

    run(main)


def test_rewound_reading_is_not_sent_forwards_again() -> None:
    """An observer gets all that comes, although the first of it has been finished meanwhile."""

    async def main() -> None:
        it = broker(4)
        async with consuming(it, topics=["t"]) as consumer:
            failing = consumer.stream("t", ack="manual")
            await failing.__aenter__()
            first, _ = await take(failing, 2, ack=False)
            await failing.__aexit__(KeyError, KeyError(), None)
            consumer.stop_flow()
            async with consumer.stream("t") as successor:
                assert first.ack()
                async with consumer.stream("t", ack="none") as observer:
                    consumer.resume_flow()
                    assert offsets(await take(successor)) == [1, 2, 3]
                    assert offsets(await take(observer)) == [0, 1, 2, 3]

    run(main)


def test_stream_that_closes_sends_nobody_back_in_partitions_of_others() -> None:
    """What has been read there and waits to be handed on is not read once more."""

    async def main() -> None:
        it = broker(4, 2)
        async with consuming(it) as consumer:
            failing = consumer.stream("t", partitions=[0])
            await failing.__aenter__()
            other = consumer.stream("t", partitions=[1])
            await other.__aenter__()
            await take(failing, 1, ack=False)
            await failing.__aexit__(KeyError, KeyError(), None)
            consumer.stop_flow()
            async with consumer.stream("t", partitions=[0]):
                assignment = consumer._partitions.get(T0)
                assert assignment is not None
                assert assignment.cursor == 0
                _, receive = trio.open_memory_channel[list[Parcel]](0)
                conductor = Conductor(consumer._partitions, receive, RoundRobin(), Transit())
                batch = PolledBatch(T0, it.records(T0), 4)
                conductor.take([Parcel(assignment, assignment.reading, batch)])
                await other.__aexit__(None, None, None)
                assert (assignment.cursor, len(assignment.pending)) == (4, 1)

    run(main)
