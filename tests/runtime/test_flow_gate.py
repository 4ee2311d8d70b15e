"""Stopping and resuming flow, and knowing when it has stopped."""

from __future__ import annotations

from random import Random

import pytest
import trio

from trio_consumer import Activity

from .support import T0, broker, committed, consuming, offsets, run, take


def test_wait_for_stopped_flow_waits_for_what_is_on_its_way() -> None:
    """After it returns nothing arrives: positions and buffers stand still."""

    async def main() -> None:
        it = broker(5, latency=0.5)
        async with consuming(it) as consumer, consumer.stream("t") as stream:
            await take(stream, 1, wait=10)
            assert not consumer.not_waiting_next_records.is_set()
            consumer.stop_flow()
            assert consumer.suspend_flow.is_set()
            assert not consumer.can_resume_flow.is_set()
            await consumer.wait_for_stopped_flow()
            assert consumer.not_waiting_next_records.is_set()
            assert Activity.FETCHING not in consumer.diag.flags
            seen = (consumer.position(T0), stream.buffered, consumer._partitions.get(T0).cursor)  # type: ignore[union-attr]
            it.produce_many("t", [b"new"] * 50, partition=0)
            await trio.sleep(100)
            assert seen == (
                consumer.position(T0),
                stream.buffered,
                consumer._partitions.get(T0).cursor,  # type: ignore[union-attr]
            )
            consumer.resume_flow()
            assert not consumer.not_waiting_next_records.is_set()
            assert consumer.can_resume_flow.is_set()
            assert Activity.FETCHING in consumer.diag.flags
            assert len(await take(stream, wait=10)) == 54

    run(main)


def test_wait_for_stopped_flow_waits_for_somebody_to_stop_it() -> None:
    """While flow is active a fetch is always in progress."""

    async def main() -> None:
        it = broker(5)
        async with consuming(it) as consumer, consumer.stream("t"):
            with trio.move_on_after(10) as scope:
                await consumer.wait_for_stopped_flow()
            assert scope.cancelled_caught
            async with trio.open_nursery() as nursery:
                nursery.start_soon(consumer.wait_for_stopped_flow)
                await trio.sleep(1)
                consumer.stop_flow()
            await consumer.suspend_flow.wait()

    run(main)


def test_stopped_again_before_the_first_stop_was_over() -> None:
    """Each stop is waited for by itself."""

    async def main() -> None:
        it = broker(5, latency=0.5)
        async with consuming(it) as consumer, consumer.stream("t") as stream:
            await take(stream, 1, wait=10)
            for _ in range(5):
                consumer.stop_flow()
                consumer.stop_flow()
                await trio.lowlevel.checkpoint()
                consumer.resume_flow()
                consumer.resume_flow()
                assert not consumer.not_waiting_next_records.is_set()
            consumer.stop_flow()
            await consumer.wait_for_stopped_flow()
            consumer.resume_flow()
            await consumer.can_resume_flow.wait()
            assert offsets(await take(stream, wait=10)) == [1, 2, 3, 4]
            consumer.stop_flow()
            await consumer.wait_for_stopped_flow()

    run(main)


@pytest.mark.parametrize("seed", range(30))
def test_flow_stopped_at_random_loses_nothing(seed: int) -> None:
    """Stops in the middle of polls and batches; each message comes once, in order."""

    async def main() -> None:
        random = Random(seed)
        it = broker(200, 2, latency=(0.0, 0.2), seed=seed)
        got = []

        async def read() -> None:
            async for message in stream:
                got.append(message)
                if random.random() < 0.2:
                    await trio.sleep(random.uniform(0, 0.1))

        options = {"max_poll_records": 17}
        async with (
            consuming(it, client_options=options, max_buffered=40) as consumer,
            consumer.stream("t") as stream,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(read)
            for _ in range(20):
                await trio.sleep(random.uniform(0, 0.5))
                consumer.stop_flow()
                if random.random() < 0.5:
                    await consumer.wait_for_stopped_flow()
                    handed_out = len(got)
                    await trio.sleep(random.uniform(0, 2))
                    assert len(got) == handed_out
                else:
                    await trio.sleep(random.uniform(0, 0.1))
                consumer.resume_flow()
            await trio.sleep(50)
            consumer.close()
        for tp in (T0, T0._replace(partition=1)):
            assert offsets(got, tp) == list(range(200)), f"seed {seed}"
            assert committed(it, tp) == 200, f"seed {seed}"

    run(main, seed=seed)


def test_buffers_of_the_user_hold_until_each_has_drained() -> None:
    """Two of them, and a pause: every reason has to go."""

    async def main() -> None:
        it = broker(4)
        async with (
            consuming(it, client_options={"max_poll_records": 2}) as consumer,
            consumer.stream("t") as stream,
        ):
            assert offsets(await take(stream, 2)) == [0, 1]
            await take(stream)
            for buffer in ("a", "b"):
                consumer.on_buffer_full(T0, buffer)
                consumer.on_buffer_full(T0, buffer)
            consumer.pause_partitions([T0])
            it.produce_many("t", [b"new"] * 2, partition=0)
            assert await take(stream) == []
            assert set(consumer.statistics().partitions[T0].pause_reasons) == {
                "user",
                "full: 'a'",
                "full: 'b'",
            }
            consumer.on_buffer_drop(T0, "a")
            consumer.resume_partitions([T0])
            assert await take(stream) == []
            consumer.on_buffer_drop(T0, "b")
            assert offsets(await take(stream)) == [4, 5]

    run(main)


def test_restart_begins_anew_at_the_committed_offsets() -> None:
    """No acknowledgement, buffer or pause of before survives; membership does."""

    async def main() -> None:
        it = broker(6)
        async with (
            consuming(it, commit_interval=1000) as consumer,
            consumer.stream("t", ack="manual") as stream,
        ):
            messages = await take(stream, 4, ack=False)
            messages[0].ack()
            await consumer.commit()
            messages[1].ack()
            consumer.pause_partitions([T0])
            consumer.on_buffer_full(T0)
            consumer.stop_flow()
            generation = consumer.generation
            await consumer.on_restart()
            assert consumer.flow_active
            assert not any(message.ack() for message in messages)
            assert offsets(await take(stream)) == [1, 2, 3, 4, 5]
            assert consumer.generation == generation
        assert committed(it) == 6

    run(main)


def test_stop_by_name_commits_and_ends_loops() -> None:
    """``on_stop`` does what leaving the block does, but for leaving the group."""

    async def main() -> None:
        it = broker(3)
        async with (
            consuming(it, commit_interval=1000) as consumer,
            consumer.stream("t") as stream,
        ):
            await take(stream)
            assert committed(it) is None
            await consumer.on_stop()
            assert committed(it) == 3
            assert [message async for message in stream] == []

    run(main)


def test_commits_by_their_other_names() -> None:
    """A filter holds for each; waiting tells whether there was something to wait for."""

    async def main() -> None:
        it = broker(3, 2)
        t1 = T0._replace(partition=1)
        async with (
            consuming(it, commit_interval=1000) as consumer,
            consumer.stream("t") as stream,
        ):
            await take(stream)
            assert not await consumer.maybe_wait_for_commit_to_finish()
            assert await consumer.force_commit([T0])
            assert (committed(it), committed(it, t1)) == (3, None)
            assert not await consumer.commit({T0}, start_new_transaction=False)
            await consumer.commit_and_end_transactions()
            assert committed(it, t1) == 3

    run(main)


def test_waiting_for_a_commit_that_is_under_way() -> None:
    """It returns when the broker has answered, and says that there was one."""

    async def main() -> None:
        it = broker(3, latency=0.5)
        async with (
            consuming(it, commit_interval=1000) as consumer,
            consumer.stream("t") as stream,
        ):
            await take(stream, wait=10)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(consumer.commit)
                await trio.sleep(0.1)
                assert Activity.COMMITTING in consumer.diag.flags
                assert Activity.COMMITTING in consumer.statistics().activities
                assert committed(it) is None
                assert await consumer.maybe_wait_for_commit_to_finish()
                assert committed(it) == 3
            assert Activity.COMMITTING not in consumer.diag.flags
            assert repr(consumer.diag) == "<Diagnostics FETCHING>"

    run(main)
