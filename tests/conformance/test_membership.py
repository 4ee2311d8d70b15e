"""Members that are thrown out, that come back, or that meet another of their name."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from trio_consumer import TP, CommitFailedError, FencedError, Message

from .backends import Backend, new_group
from .support import numbered, take, until_committed, wait_for


def test_member_that_was_thrown_out_joins_again_and_gets_everything(backend: Backend) -> None:
    """Lost, not revoked: nothing is committed, old messages are dead, all comes again."""

    async def main() -> None:
        topic, group = await backend.topic(2), new_group()
        for partition in range(2):
            await backend.produce(topic, numbered(10), partition)
        calls: list[tuple[str, frozenset[TP]]] = []

        def note(name: str) -> Any:
            return lambda tps: calls.append((name, tps))

        async with (
            backend.consumer(
                group,
                commit_interval=1000.0,
                on_partitions_assigned=note("assigned"),
                on_partitions_revoked=note("revoked"),
                on_partitions_lost=note("lost"),
            ) as consumer,
            consumer.stream(topic, ack="manual") as stream,
        ):
            old = await take(stream, 20)
            both = frozenset(TP(topic, partition) for partition in range(2))
            for message in old[:-1]:
                assert message.ack()
            await backend.expel(consumer)
            await wait_for(lambda: len(calls) == 3)
            assert calls == [("assigned", both), ("lost", both), ("assigned", both)]
            assert not any(message.ack() for message in old)
            for tp in both:
                assert await backend.committed(group, tp) is None
            new = await take(stream, 20)
            assert sorted((m.partition, m.offset) for m in new) == sorted(
                (partition, offset) for partition in range(2) for offset in range(10)
            )
            for message in new:
                message.ack()
        for tp in both:
            assert await backend.committed(group, tp) == 10

    backend.run(main)


def test_commit_of_a_member_that_was_thrown_out_fails_and_it_joins_again(
    backend: Backend,
) -> None:
    """A stale commit is no crash: it is refused, and what was finished comes again."""

    async def main() -> None:
        topic, group = await backend.topic(), new_group()
        await backend.produce(topic, numbered(5))
        # The commit is what learns of it, not a heartbeat.
        options = {"heartbeat_interval_ms": 10_000, "session_timeout_ms": 30_000}
        async with (
            backend.consumer(group, commit_interval=1000.0, client_options=options) as consumer,
            consumer.stream(topic) as stream,
        ):
            await take(stream, 5)
            await backend.expel(consumer)
            with pytest.raises(CommitFailedError) as caught:
                await consumer.commit()
            assert caught.value.stale
            assert await backend.committed(group, TP(topic, 0)) is None
            again = await take(stream, 5)
            assert [message.offset for message in again] == list(range(5))
        assert await backend.committed(group, TP(topic, 0)) == 5

    backend.run(main)


@pytest.mark.parametrize("strategy", ["range", "cooperative-sticky"])
def test_ticker_survives_a_stale_generation(backend: Backend, strategy: str) -> None:
    """The commit that the timetable made is refused; the consumer goes on by itself."""

    async def main() -> None:
        topic, group = await backend.topic(), new_group()
        tp = TP(topic, 0)
        await backend.produce(topic, numbered(5))
        options = {
            "heartbeat_interval_ms": 10_000,
            "session_timeout_ms": 30_000,
            "partition_assignment_strategy": strategy,
        }
        async with (
            backend.consumer(group, commit_interval=0.1, client_options=options) as consumer,
            consumer.stream(topic) as stream,
        ):
            await take(stream, 2)
            await until_committed(backend, group, tp, 2)
            await backend.expel(consumer)
            await take(stream, 1)
            await wait_for(lambda: consumer.statistics().commit_failures > 0)
            # How much of the lost assignment is still handed out is a matter of time.
            seen: list[int] = []
            with anyio.fail_after(30):
                async for message in stream:
                    seen.append(message.offset)
                    if seen[-3:] == [2, 3, 4]:
                        message.ack()
                        break
            await until_committed(backend, group, tp, 5)

    backend.run(main)


def test_static_member_that_comes_back_in_time_gets_the_same_without_a_rebalance(
    backend: Backend,
) -> None:
    """A restart within the session timeout is no event for the group."""

    async def main() -> None:
        topic, group = await backend.topic(4), new_group()
        for partition in range(4):
            await backend.produce(topic, numbered(5), partition)

        def member(name: str) -> Any:
            options = {"group_instance_id": f"{group}-{name}", "session_timeout_ms": 30_000}
            return backend.consumer(group, topics=[topic], client_options=options)

        async with member("stays") as stays, stays.stream() as staying:
            async with member("restarts") as restarts, restarts.stream() as stream:
                await wait_for(lambda: len(stays.assignment) == len(restarts.assignment) == 2)
                before, kept = restarts.assignment, stays.assignment
                # In a rebalance both finish; the second of the two has seen the last one.
                generation = restarts.group_metadata.generation
                await take(stream, 10)
            for tp in before:
                assert await backend.committed(group, tp) == 5
                await backend.produce(topic, numbered(1, 5), tp.partition)
            async with member("restarts") as restarted, restarted.stream() as stream:
                got = await take(stream, 2)
                assert {message.tp for message in got} == restarted.assignment == before
                assert [message.offset for message in got] == [5, 5]
                assert restarted.group_metadata.generation == generation
            assert stays.assignment == kept
            assert stays.group_metadata.generation == generation
            await take(staying, 10)
            assert stays.statistics().rebalances <= 2

    backend.run(main)


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_second_member_of_a_name_fences_the_first(backend: Backend, busy: bool) -> None:
    """The first ends with an error that says so, even if it has nothing to commit."""

    async def main() -> None:
        topic, group = await backend.topic(), new_group()
        await backend.produce(topic, numbered(5))
        options = {"group_instance_id": f"{group}-both", "session_timeout_ms": 30_000}
        fenced = anyio.Event()
        in_hand: list[Message] = []

        async def first() -> None:
            with pytest.raises(FencedError, match=r"group_instance_id|as 'group-[0-9]+-both'"):
                async with (
                    backend.consumer(
                        group,
                        client_options=options,
                        commit_interval=0.2 if busy else 1000.0,
                        drain_timeout=0.0,
                    ) as consumer,
                    consumer.stream(topic, ack="manual") as stream,
                ):
                    async for message in stream:
                        in_hand.append(message)
                        if busy:
                            await anyio.sleep(0.3)
            fenced.set()

        async with anyio.create_task_group() as nursery:
            nursery.start_soon(first)
            await wait_for(lambda: bool(in_hand))
            async with (
                backend.consumer(group, client_options=options) as second,
                second.stream(topic) as stream,
            ):
                got = await take(stream, 5)
                assert [message.offset for message in got] == list(range(5))
                with anyio.fail_after(20):
                    await fenced.wait()
        assert not any(message.ack() for message in in_hand)
        assert await backend.committed(group, TP(topic, 0)) == 5

    backend.run(main)
