"""The names that Faust's consumer has, on either broker."""

from __future__ import annotations

import anyio

from trio_consumer import TP, Activity, Livelock, Message, Symptom

from .backends import Backend, new_group
from .support import numbered, take, until_committed


def test_wait_for_stopped_flow_truly_waits(backend: Backend) -> None:
    """Stopped in mid-batch: after it nothing arrives, after resuming everything does."""

    async def main() -> None:
        topic, group = await backend.topic(2), new_group()
        tps = [TP(topic, 0), TP(topic, 1)]
        for tp in tps:
            await backend.produce(topic, numbered(2000), tp.partition)
        options = {"max_poll_records": 100}
        async with (
            backend.consumer(group, client_options=options, max_buffered=300) as consumer,
            consumer.stream(topic) as stream,
        ):
            got: list[tuple[int, int]] = []
            for rounds in range(5):
                for message in await take(stream, 150):
                    got.append((message.partition, message.offset))
                consumer.stop_flow()
                with anyio.fail_after(10):
                    await consumer.wait_for_stopped_flow()
                assert Activity.FETCHING not in consumer.diag.flags
                # Where reading begins may still be found out, which is no record.
                before = {tp: consumer.position(tp) or 0 for tp in consumer.assignment}
                buffered = stream.buffered
                await anyio.sleep(0.3)
                assert before == {tp: consumer.position(tp) or 0 for tp in consumer.assignment}
                assert buffered == stream.buffered, f"round {rounds}"
                consumer.resume_flow()
            for message in await take(stream, 4000 - len(got)):
                got.append((message.partition, message.offset))
            assert sorted(got) == [(p, o) for p in (0, 1) for o in range(2000)]
        for tp in tps:
            assert await backend.committed(group, tp) == 2000

    backend.run(main)


def test_getmany_and_a_message_given_back(backend: Backend) -> None:
    """One fetch after another, each message acknowledged by name; one comes twice."""

    async def main() -> None:
        topic, group = await backend.topic(), new_group()
        await backend.produce(topic, numbered(200))
        async with backend.consumer(group, topics=[topic]) as consumer:
            seen: list[int] = []
            with anyio.fail_after(30):
                while len(seen) < 201:
                    async for tp, message in consumer.getmany(1.0):
                        assert tp == TP(topic, 0)
                        seen.append(message.offset)
                        if seen.count(7) == 1 and message.offset == 7:
                            assert consumer.nack(message)
                            assert not consumer.track_message(message)
                        else:
                            assert consumer.ack(message)
            assert sorted(seen) == sorted([*range(200), 7])
            assert not consumer.unacked
            assert await consumer.force_commit()
        assert await backend.committed(group, TP(topic, 0)) == 200

    backend.run(main)


def test_callback_instead_of_streams(backend: Backend) -> None:
    """It gets each message once; only what it acknowledges is committed."""

    async def main() -> None:
        topic, group = await backend.topic(), new_group()
        await backend.produce(topic, numbered(50))
        done = anyio.Event()
        seen: list[int] = []

        async def handle(message: Message) -> None:
            seen.append(message.offset)
            if message.offset != 40:
                message.ack()
            if message.offset == 49:
                done.set()

        async with backend.consumer(group, topics=[topic], callback=handle, drain_timeout=0):
            with anyio.fail_after(30):
                await done.wait()
        assert seen == list(range(50))
        assert await backend.committed(group, TP(topic, 0)) == 40

    backend.run(main)


def test_commit_holds_to_its_filter(backend: Backend) -> None:
    """By topic name and by partition; what is left out stays uncommitted."""

    async def main() -> None:
        left, right, group = await backend.topic(2), await backend.topic(), new_group()
        for topic, partition in ((left, 0), (left, 1), (right, 0)):
            await backend.produce(topic, numbered(3), partition)
        async with (
            backend.consumer(group, commit_interval=1000) as consumer,
            consumer.stream(left, right) as stream,
        ):
            await take(stream, 9)

            async def all_committed() -> list[int | None]:
                places = (TP(left, 0), TP(left, 1), TP(right, 0))
                return [await backend.committed(group, tp) for tp in places]

            assert await consumer.commit([right])
            assert await all_committed() == [None, None, 3]
            assert await consumer.commit({TP(left, 1)}, start_new_transaction=False)
            assert await all_committed() == [None, 3, 3]
            assert not await consumer.force_commit([right])
            assert not await consumer.maybe_wait_for_commit_to_finish()
            await consumer.commit_and_end_transactions()
            assert await all_committed() == [3, 3, 3]

    backend.run(main)


def test_perform_seek_goes_back_to_what_is_committed(backend: Backend) -> None:
    """Finished and not committed comes again, also in a partition without an offset."""

    async def main() -> None:
        topic, group = await backend.topic(2), new_group()
        for partition in (0, 1):
            await backend.produce(topic, numbered(10), partition)
        async with (
            backend.consumer(group, commit_interval=1000) as consumer,
            consumer.stream(topic, ack="manual") as stream,
        ):
            first = await take(stream, 20)
            for message in first:
                message.ack()
            await consumer.commit([TP(topic, 0)])
            await consumer.perform_seek()
            again = await take(stream, 10)
            assert [(m.partition, m.offset) for m in again] == [(1, o) for o in range(10)]
            for message in again:
                message.ack()
        for partition in (0, 1):
            assert await backend.committed(group, TP(topic, partition)) == 10

    backend.run(main)


def test_restart_begins_at_the_committed_offsets(backend: Backend) -> None:
    """Membership goes on, everything else begins anew."""

    async def main() -> None:
        topic, group = await backend.topic(), new_group()
        await backend.produce(topic, numbered(20))
        async with (
            backend.consumer(group, commit_interval=1000) as consumer,
            consumer.stream(topic, ack="manual") as stream,
        ):
            messages = await take(stream, 10)
            for message in messages[:4]:
                message.ack()
            await consumer.commit()
            consumer.pause_partitions([TP(topic, 0)])
            consumer.stop_flow()
            generation = consumer.generation
            await consumer.on_restart()
            assert not messages[5].ack()
            assert [m.offset for m in await take(stream, 16)] == list(range(4, 20))
            assert consumer.generation == generation
            await consumer.on_task_error(ValueError("one of them failed"))
        await until_committed(backend, group, TP(topic, 0), 4)

    backend.run(main)


def test_stream_that_hangs_at_the_end_is_told_with_its_task(backend: Backend) -> None:
    """Everything is read, nothing is waiting, and one message is never finished."""

    async def main() -> None:
        topic, group = await backend.topic(2), new_group()
        await backend.produce(topic, numbered(5))
        alarms: list[Livelock] = []

        async def charge() -> None:
            async for message in stream:
                if message.offset == 3:
                    await anyio.sleep_forever()

        async with (
            backend.consumer(
                group,
                on_livelock=alarms.append,
                commit_interval=0.2,
                commit_livelock_soft_timeout=2.0,
                drain_timeout=0,
            ) as consumer,
            consumer.stream(topic) as stream,
            anyio.create_task_group() as nursery,
        ):
            nursery.start_soon(charge, name="charge-worker")
            with anyio.fail_after(30):
                while not alarms:
                    await anyio.sleep(0.1)
            # The partition without a message makes no alarm, nor does a second look.
            await anyio.sleep(3)
            (alarm,) = alarms
            assert (alarm.tp, alarm.symptom) == (TP(topic, 0), Symptom.NOT_FINISHED)
            assert (alarm.position, alarm.committed, alarm.end) == (5, 3, 5)
            (held,) = alarm.held
            assert (held.oldest, held.count, held.tasks) == (3, 2, ("charge-worker",))
            assert not await consumer.wait_empty(1.0)
            nursery.cancel_scope.cancel()
        assert await backend.committed(group, TP(topic, 0)) == 3

    backend.run(main)
