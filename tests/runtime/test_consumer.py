"""The consumer: what it refuses, subscriptions, flow, seeks, commits, statistics."""

# The blocks nest as those of a program do, an error leaves a whole block, and a
# loop that sleeps costs nothing under a virtual clock.
# ruff: noqa: SIM117

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.lowlevel

from trio_consumer import (
    TP,
    BrokerUnavailableError,
    ConfigurationError,
    FencedError,
    OldestUnfinished,
    PartitionStatistics,
    RoundRobin,
    UnknownTopicError,
    Whereabouts,
    open_consumer,
)
from trio_consumer.testing import MemoryBroker

from .support import (
    GROUP,
    T0,
    T1,
    add_topic,
    broker,
    committed,
    consuming,
    offsets,
    run,
    take,
    values,
)

if sys.version_info < (3, 11):
    pass


# -- what is refused -----------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"group": ""}, "^a consumer needs a group to commit under"),
        ({"group": None}, "^a consumer needs a group to commit under"),
        ({"max_buffered": 0}, "^max_buffered must be at least 1, not 0$"),
        ({"commit_timeout": -1.0}, "^commit_timeout must not be negative, not -1.0$"),
        ({"drain_timeout": -0.5}, "^drain_timeout must not be negative, not -0.5$"),
        ({"commit_interval": 0.0}, "^commit_interval must be positive, not 0.0$"),
        ({"commit_every": 0}, "^commit_every must be at least 1, not 0$"),
        ({"auto_offset_reset": "first"}, "^auto_offset_reset must be one of earliest, latest"),
        (
            {"isolation_level": "none"},
            "^isolation_level must be one of read_uncommitted, read_comm",
        ),
        (
            {"client_options": {"enable_auto_commit": True}},
            "^the client option 'enable_auto_commit' is refused",
        ),
        (
            {"client_options": {"value_deserializer": str}},
            "^the client option 'value_deserializer' is refused",
        ),
        ({"transport": "localhost:9092"}, "^'localhost:9092' is not a URL"),
        ({"transport": "amqp://host"}, "^unknown scheme 'amqp'"),
        ({"transport": "kafka://"}, "^'kafka://' names no address"),
        ({"transport": "kafka://host/topic"}, "^'kafka://host/topic': only an address"),
        ({"transport": 3}, "^cannot consume from 3: pass a URL"),
    ],
)
def test_argument_that_cannot_work_is_refused(options: dict[str, Any], match: str) -> None:
    """Nothing is started, and the message says what was wrong."""

    async def main() -> None:
        arguments = {"transport": broker(1), "group": GROUP} | options
        with pytest.raises(ConfigurationError, match=match):
            async with open_consumer(arguments.pop("transport"), **arguments):
                pytest.fail("it opened")

    run(main)


@pytest.mark.parametrize(
    ("topics", "options", "match"),
    [
        ([], {}, "^a stream needs at least one topic, or a pattern$"),
        (["t"], {"ack": "always"}, "^ack must be 'auto', 'manual' or 'none', not 'always'$"),
        (["t"], {"max_buffered": 0}, "^max_buffered must be at least 1, not 0$"),
    ],
)
def test_stream_that_cannot_work_is_refused(
    topics: list[str], options: dict[str, Any], match: str
) -> None:
    """The mistake is told where it was made."""

    async def main() -> None:
        async with consuming(broker(1)) as consumer:
            with pytest.raises(ConfigurationError, match=match):
                consumer.stream(*topics, **options)

    run(main)


def test_broker_that_is_away_is_an_error_within_the_time() -> None:
    """Opening gives up after ``connect_timeout``."""

    async def main() -> None:
        it = broker(1)
        it.down()
        with pytest.raises(BrokerUnavailableError, match=r"^cannot connect to the memory broker"):
            async with consuming(it, connect_timeout=2):
                pytest.fail("it opened")
        assert trio.current_time() == pytest.approx(2)

    run(main)


def test_unknown_topic_ends_the_consumer() -> None:
    """A stream of a topic that does not exist is an error and no silence."""

    async def main() -> None:
        with pytest.raises(UnknownTopicError, match="nowhere"):
            async with consuming(broker(1)) as consumer:
                async with consumer.stream("nowhere") as stream:
                    await take(stream, wait=60)

    run(main)


# -- subscribing ---------------------------------------------------------------


def test_streams_opened_together_join_once() -> None:
    """Several streams, opened before the first needs data, make one rebalance."""

    async def main() -> None:
        it = MemoryBroker()
        for topic in ("t", "u", "v"):
            add_topic(it, topic, 1)
        async with (
            consuming(it) as consumer,
            consumer.stream("t") as one,
            consumer.stream("u", "v") as two,
            consumer.stream("t", ack="none") as three,
        ):
            assert len(await take(one)) == 1
            assert len(await take(two)) == 2
            assert len(await take(three, ack=False)) == 1
            assert it.generation(GROUP) == 1
            assert consumer.statistics().rebalances == 1

    run(main)


def test_topics_known_beforehand_join_at_once_and_once() -> None:
    """With ``topics`` the member joins without a stream; its streams add no rebalance."""

    async def main() -> None:
        it = broker(2)
        async with consuming(it, topics="t") as consumer:
            await trio.sleep(1)
            assert consumer.assignment == {T0}
            assert consumer.statistics().partitions[T0].pause_reasons == ("unwanted",)
            async with consumer.stream() as stream, consumer.stream("t", ack="none") as other:
                assert offsets(await take(stream)) == offsets(await take(other)) == [0, 1]
            assert it.generation(GROUP) == 1

    run(main)


def test_stream_of_another_topic_joins_the_subscription_later() -> None:
    """One more rebalance, and the first stream loses nothing."""

    async def main() -> None:
        it = broker(3)
        add_topic(it, "u", 2)
        async with consuming(it) as consumer, consumer.stream("t") as first:
            assert offsets(await take(first, 2)) == [0, 1]
            async with consumer.stream("u") as second:
                assert len(await take(second, wait=20)) == 2
                assert offsets(await take(first, wait=20)) == [2]
            assert it.generation(GROUP) == 2
        assert (committed(it), committed(it, TP("u", 0))) == (3, 2)

    run(main)


def test_stream_opened_again_needs_no_rebalance() -> None:
    """A topic whose streams come and go stays subscribed while nobody waits for less."""

    async def main() -> None:
        it = broker(4)
        async with consuming(it) as consumer:
            for expected in range(4):
                async with consumer.stream("t") as stream:
                    assert offsets(await take(stream, 1)) == [expected]
            assert it.generation(GROUP) == 1

    run(main)


# -- flow ----------------------------------------------------------------------


def test_paused_partition_waits_and_others_go_on() -> None:
    """A pause concerns what is not buffered yet; resuming loses nothing."""

    async def main() -> None:
        it = broker(2, 2)
        async with consuming(it) as consumer, consumer.stream("t") as stream:
            await take(stream)
            consumer.pause_partitions([T0, TP("elsewhere", 3)])
            for n in range(2):
                it.produce_many("t", values(3), partition=n)
            taken = await take(stream)
            assert (offsets(taken, T0), offsets(taken, T1)) == ([], [2, 3, 4])
            assert consumer.statistics().partitions[T0].pause_reasons == ("user",)
            consumer.resume_partitions([T0])
            assert offsets(await take(stream)) == [2, 3, 4]

    run(main)


def test_pause_while_records_are_put_aside_keeps_them_until_all_reasons_end() -> None:
    """Records held back by a full buffer and a pause come when both have ended, in order."""

    async def main() -> None:
        it = broker(9, 2)
        async with consuming(it, topics=["t"]) as consumer:
            async with consumer.stream("t", max_buffered=1) as stream:
                await trio.sleep(1)
                consumer.pause_partitions([T0, T1])
                first = await take(stream)
                assert 0 < len(first) < 18
                consumer.resume_partitions([T0, T1])
                taken = first + await take(stream)
                assert offsets(taken, T0) == offsets(taken, T1) == list(range(9))

    run(main)


def test_stopped_flow_hands_out_nothing_and_stays_a_member() -> None:
    """Between ``stop_flow`` and ``resume_flow`` the loop waits; the buffer stays."""

    async def main() -> None:
        it = broker(5)
        async with consuming(it) as consumer, consumer.stream("t") as stream:
            assert consumer.flow_active is True
            await take(stream, 2)
            consumer.stop_flow()
            assert consumer.flow_active is False
            it.produce_many("t", values(2))
            assert await take(stream, wait=600) == []
            assert it.generation(GROUP) == 1
            assert consumer.statistics().partitions[T0].pause_reasons == ("flow",)
            consumer.resume_flow()
            assert offsets(await take(stream)) == [2, 3, 4, 5, 6]

    run(main)


def test_flow_stopped_in_the_middle_of_a_loop_stops_at_the_next_message() -> None:
    """The message in hand is finished, the one after it is not handed out."""

    async def main() -> None:
        it = broker(5)
        seen = []
        async with consuming(it) as consumer, consumer.stream("t") as stream:
            with trio.move_on_after(5):
                async for message in stream:
                    seen.append(message.offset)
                    if message.offset == 2:
                        consumer.stop_flow()
            assert seen == [0, 1, 2]
            await consumer.commit()
            assert committed(it) == 3

    run(main)


# -- seek ----------------------------------------------------------------------


def test_seek_back_delivers_again_and_makes_old_messages_stale() -> None:
    """What was in hand or buffered before the seek can finish nothing after it."""

    async def main() -> None:
        it = broker(6)
        async with consuming(it) as consumer, consumer.stream("t", ack="manual") as stream:
            old = await take(stream, 4, ack=False)
            await consumer.seek(T0, 1)
            assert [message.ack() for message in old] == [False] * 4
            assert offsets(await take(stream)) == [1, 2, 3, 4, 5]
        assert committed(it) == 6

    run(main)


def test_seek_under_a_full_buffer_drops_what_was_put_aside() -> None:
    """No record from before the seek is handed out after it, wherever it waited."""

    async def main() -> None:
        it = broker(20)
        async with consuming(it, scheduler=RoundRobin(5)) as consumer:
            async with consumer.stream("t", max_buffered=2) as stream:
                await take(stream, 1)
                assert stream.is_full
                await consumer.seek(T0, 15)
                assert offsets(await take(stream)) == [15, 16, 17, 18, 19]
        assert committed(it) == 20

    run(main)


def test_seek_of_one_partition_under_a_full_buffer_leaves_the_other_alone() -> None:
    """The buffer that drains by the seek takes in what the other partition has waiting."""

    async def main() -> None:
        it = broker(10, 2)
        async with consuming(it, topics=["t"]) as consumer:
            async with consumer.stream("t", max_buffered=5) as stream:
                await trio.sleep(1)
                assert stream.is_full
                await consumer.seek(T0, 7)
                taken = await take(stream)
                assert (offsets(taken, T0), offsets(taken, T1)) == ([7, 8, 9], list(range(10)))

    run(main)


def test_seek_with_two_streams_moves_both() -> None:
    """Each of them goes on at the new place, once each."""

    async def main() -> None:
        it = broker(6)
        async with consuming(it) as consumer:
            async with consumer.stream("t") as one, consumer.stream("t") as two:
                await take(one)
                await take(two, 2)
                await consumer.seek(T0, 4)
                assert offsets(await take(one)) == offsets(await take(two)) == [4, 5]
        assert committed(it) == 6

    run(main)


def test_seek_while_a_commit_is_in_flight_is_not_disturbed_by_its_answer() -> None:
    """The answer belongs to the old account; the new one begins at the seek."""

    async def main() -> None:
        it = broker(6, latency=2)
        async with consuming(it, commit_interval=1000) as consumer:
            async with consumer.stream("t") as stream:
                await take(stream, 6, wait=30)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(consumer.commit)
                    await trio.sleep(0.5)
                    await consumer.seek(T0, 2)
                assert committed(it) == 6
                assert consumer.statistics().partitions[T0].committed is None
                assert offsets(await take(stream, 2, wait=30)) == [2, 3]
                await consumer.commit()
                assert committed(it) == 4

    run(main)


def test_seek_to_committed_goes_back_to_what_the_broker_has() -> None:
    """Finished but uncommitted messages come again; it says where it went."""

    async def main() -> None:
        it = broker(6, 2)
        async with consuming(it, commit_interval=1000) as consumer:
            async with consumer.stream("t", partitions=[0]) as stream:
                await take(stream, 2)
                await consumer.commit()
                await take(stream, 2)
                assert await consumer.seek_to_committed() == {T0: 2, T1: 0}
                assert offsets(await take(stream)) == [2, 3, 4, 5]

    run(main)


@pytest.mark.parametrize(
    ("tp", "offset", "match"),
    [
        (T0, -1, r"^offset must be at least 0, not -1$"),
        (TP("u", 0), 0, r"^u\[0\] is not assigned to this member; it has \['t\[0\]'\]$"),
    ],
)
def test_seek_that_cannot_work_is_refused(tp: TP, offset: int, match: str) -> None:
    """The error says what this member has."""

    async def main() -> None:
        async with consuming(broker(1)) as consumer, consumer.stream("t") as stream:
            await take(stream)
            with pytest.raises(ConfigurationError, match=match):
                await consumer.seek(tp, offset)

    run(main)


# -- commit and wait -----------------------------------------------------------


@pytest.mark.parametrize(
    ("choose", "expected"),
    [
        (lambda: "t", (2, 2, None)),
        (lambda: ["u"], (None, None, 1)),
        (lambda: [T1], (None, 2, None)),
        (lambda: [T1, "u"], (None, 2, 1)),
        (lambda: iter([("t", 0)]), (2, None, None)),
        (list, (None, None, None)),
        (lambda: None, (2, 2, 1)),
    ],
)
def test_commit_takes_topics_and_partitions(
    choose: Callable[[], Any], expected: tuple[int | None, ...]
) -> None:
    """Only what was named is committed; the answer says whether anything was."""

    async def main() -> None:
        it = broker(2, 2)
        add_topic(it, "u", 1)
        async with consuming(it, commit_interval=1000) as consumer:
            async with consumer.stream("t", "u") as stream:
                await take(stream)
                assert await consumer.commit(choose()) is any(expected)
                found = (committed(it, T0), committed(it, T1), committed(it, TP("u", 0)))
                assert found == expected

    run(main)


def test_wait_empty_waits_for_hands_and_buffers_and_commits() -> None:
    """It returns when nothing delivered is unfinished, and all of it is committed."""

    async def main() -> None:
        it = broker(4, 2)
        async with consuming(it, commit_interval=1000) as consumer:
            async with consumer.stream("t") as stream, trio.open_nursery() as nursery:

                async def work() -> None:
                    async for _ in stream:
                        await trio.sleep(1)

                nursery.start_soon(work)
                await trio.sleep(2.5)
                with trio.move_on_after(1) as scope:
                    await consumer.wait_empty()
                assert scope.cancelled_caught
                await consumer.wait_empty()
                assert (committed(it, T0), committed(it, T1)) == (4, 4)
                nursery.cancel_scope.cancel()

    run(main)


# -- what it tells -------------------------------------------------------------


def test_statistics_tell_what_is_going_on() -> None:
    """Position, committed, unfinished, replay, lag, pause reasons and streams, at one moment."""

    async def main() -> None:
        it = broker(10)
        async with consuming(it, commit_interval=1000) as consumer:
            empty = consumer.statistics()
            assert (empty.generation, empty.rebalances, empty.partitions) == (-1, 0, {})
            assert (empty.unfinished, empty.replay) == (0, 0)
            async with consumer.stream("t", ack="manual", max_buffered=5) as stream:
                taken = await take(stream, 6, ack=False)
                for index in (0, 1, 3):
                    taken[index].ack()
                await consumer.commit()
                taken[2].ack()
                statistics = consumer.statistics()
                assert statistics.partitions == {
                    T0: PartitionStatistics(
                        position=10,
                        start=0,
                        committed=2,
                        committable=4,
                        high_watermark=10,
                        unfinished=6,
                        oldest_unfinished=4,
                        oldest=OldestUnfinished(4, 0.0, Whereabouts.HAND, (repr(stream),), ()),
                        replay=8,
                        pause_reasons=(f"full: {stream!r}",),
                        state="open",
                    )
                }
                assert statistics.partitions[T0].lag == 0
                assert (statistics.group, statistics.generation) == (GROUP, 1)
                assert (statistics.commits, statistics.commit_failures) == (1, 0)
                assert (statistics.unfinished, statistics.replay) == (6, 8)
                assert (statistics.commit_error, statistics.seconds_since_commit) == (None, 0)
                assert (statistics.lag, statistics.commit_lag) == (0, 8)
                [one] = statistics.streams
                assert (one.topics, one.ack) == ({"t"}, "manual")
                assert (one.buffered, one.is_full) == (4, True)
                assert consumer.position(T0) == 10
                with pytest.raises(AttributeError, match=r"^cannot assign to field"):
                    statistics.group = "other"  # type: ignore[misc]

    run(main)


def test_replay_is_known_beforehand() -> None:
    """After a crash exactly ``statistics().replay`` messages come again (I7)."""

    async def main() -> None:
        it = broker(10)
        known = 0
        with trio.CancelScope() as scope:
            async with consuming(it, commit_interval=1000) as consumer:
                async with consumer.stream("t", ack="manual") as stream:
                    taken = await take(stream, 10, ack=False)
                    for index in (0, 1, 2, 5, 6):
                        taken[index].ack()
                    await consumer.commit()
                    taken[7].ack()
                    known = consumer.statistics().replay
                    # A process that died: nothing of it reaches the broker any more.
                    it.freeze(next(iter(it.members(GROUP))))
                    scope.cancel()
                    await trio.lowlevel.checkpoint()
        async with consuming(it) as consumer, consumer.stream("t") as stream:
            assert len(await take(stream, wait=100)) == known == 7

    run(main)


def test_consumer_and_stream_have_telling_reprs() -> None:
    """A repr names group, partitions and streams; a stream its topics, mode and fill."""

    async def main() -> None:
        it = broker(3)
        add_topic(it, "u", 0)
        async with consuming(it) as consumer:
            assert repr(consumer) == "<Consumer group='g' partitions=0 streams=0>"
            stream = consumer.stream("u", "t", ack="manual")
            assert repr(stream) == "<Stream t, u ack=manual new buffered=0>"
            async with stream:
                await take(stream, 1)
                assert repr(consumer) == "<Consumer group='g' partitions=2 streams=1>"
                assert repr(stream) == "<Stream t, u ack=manual open buffered=2>"
            assert repr(stream) == "<Stream t, u ack=manual closed buffered=0>"

    run(main)


def test_offsets_and_membership_can_be_asked_for() -> None:
    """The broker's view: committed, first and last offsets, the membership."""

    async def main() -> None:
        it = broker(4)
        it.delete_records(T0, 1)
        async with consuming(it) as consumer, consumer.stream("t") as stream:
            await take(stream)
            assert await consumer.committed() == {T0: None}
            await consumer.commit()
            assert await consumer.committed([("t", 0)]) == {T0: (4, "", -1)}  # type: ignore[list-item]
            assert await consumer.beginning_offsets([T0]) == {T0: 1}
            assert await consumer.end_offsets([T0]) == {T0: 4}
            metadata = consumer.group_metadata
            assert (metadata.group, metadata.generation) == (GROUP, 1)
            assert metadata.member_id in it.members(GROUP)

    run(main)


def test_fenced_member_ends_with_the_error() -> None:
    """A second process with the same static name ends the first one, as itself."""

    async def main() -> None:
        it = broker(1)
        client = {"group_instance_id": "one"}
        with pytest.raises(FencedError, match="fenced"):
            async with consuming(it, client_options=client) as consumer:
                async with consumer.stream("t") as stream:
                    await take(stream)
                    async with consuming(it, topics=["t"], client_options=client):
                        await trio.sleep(60)

    run(main)
