"""Handing partitions over: what goes on meanwhile, what is given up, what callbacks do."""

from __future__ import annotations

from collections import Counter
from typing import Any

import anyio
import pytest

from trio_consumer import TP, Message

from .backends import Backend, new_group
from .support import numbered, take, until_committed, wait_for

STRATEGIES = ["range", "cooperative-sticky"]


def test_partitions_that_stay_flow_while_others_are_handed_over(backend: Backend) -> None:
    """A cooperative member that waits for a message in hand reads on for what it keeps."""

    async def main() -> None:
        topic, group = await backend.topic(2), new_group()
        for partition in range(2):
            await backend.produce(topic, numbered(5), partition)
        options = {"partition_assignment_strategy": "cooperative-sticky"}
        async with (
            backend.consumer(group, client_options=options, commit_interval=0.2) as first,
            first.stream(topic, ack="manual") as stream,
        ):
            in_hand = [await anext(aiter(stream)) for _ in range(10)]
            async with (
                backend.consumer(group, topics=[topic], client_options=options) as second,
                second.stream() as other,
            ):
                await wait_for(lambda: len(first.assignment) == 1)
                [stays] = first.assignment
                for message in in_hand:
                    if message.tp == stays:
                        message.ack()
                # Not buffered and not even there when the hand-over began.
                await backend.produce(topic, numbered(20, 5), stays.partition)
                messages = aiter(stream)
                for offset in range(5, 25):
                    with anyio.fail_after(20):
                        message = await anext(messages)
                    assert (message.tp, message.offset) == (stays, offset)
                    message.ack()
                await until_committed(backend, group, stays, 25)
                assert second.assignment == frozenset()
                [goes] = {TP(topic, 0), TP(topic, 1)} - {stays}
                assert await backend.committed(group, goes) is None
                assert all(message.ack() for message in in_hand if message.tp == goes)
                await wait_for(lambda: second.assignment == {goes})
                assert first.assignment == {stays}
                assert await backend.committed(group, goes) == 5
                await backend.produce(topic, numbered(1, 5), goes.partition)
                [next_message] = await take(other, 1)
                assert (next_message.tp, next_message.offset) == (goes, 5)

    backend.run(main)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_member_that_is_not_done_in_time_gives_up_and_the_next_owner_gets_it(
    backend: Backend, strategy: str
) -> None:
    """The drain ends well before the group would throw the member out, whatever was asked."""

    async def main() -> None:
        topic, group = await backend.topic(2), new_group()
        for partition in range(2):
            await backend.produce(topic, numbered(5), partition)
        options = {"partition_assignment_strategy": strategy, "max_poll_interval_ms": 6000}
        lost: list[frozenset[TP]] = []
        async with (
            backend.consumer(
                group, client_options=options, drain_timeout=1000.0, on_partitions_lost=lost.append
            ) as first,
            first.stream(topic, ack="manual") as stream,
        ):
            held = [await anext(aiter(stream)) for _ in range(10)]
            for message in held:
                if message.offset < 2:
                    assert message.ack()
            async with (
                backend.consumer(group, topics=[topic], client_options=options) as second,
                second.stream() as other,
            ):
                await wait_for(lambda: len(second.assignment) == len(first.assignment) == 1)
                [moved] = second.assignment
                got = await take(other, 3)
                assert [(m.tp, m.offset) for m in got] == [(moved, n) for n in (2, 3, 4)]
                assert not any(m.ack() for m in held if m.tp == moved)
        assert lost == []
        assert await backend.committed(group, moved) == 5

    backend.run(main)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_callback_that_outlasts_the_rebalance_costs_no_message(
    backend: Backend, strategy: str
) -> None:
    """Who holds up a rebalance too long may be thrown out, but nothing is lost."""

    async def main() -> None:
        topic, group = await backend.topic(4), new_group()
        for partition in range(4):
            await backend.produce(topic, numbered(20), partition)
        options = {
            "partition_assignment_strategy": strategy,
            "max_poll_interval_ms": 2000,
            "session_timeout_ms": 2000,
            "heartbeat_interval_ms": 300,
        }
        slow = True
        done: Counter[tuple[int, int]] = Counter()

        async def on_revoked(tps: frozenset[TP]) -> None:
            nonlocal slow
            if slow:
                slow = False
                await anyio.sleep(4)

        async def work(name: str, **more: Any) -> None:
            async with (
                backend.consumer(
                    group, client_options=options, commit_interval=0.2, **more
                ) as consumer,
                consumer.stream(topic) as stream,
            ):
                async for message in stream:
                    await anyio.sleep(0.02)
                    done[message.partition, message.offset] += 1

        async with anyio.create_task_group() as nursery:
            nursery.start_soon(lambda: work("one", on_partitions_revoked=on_revoked))
            await wait_for(lambda: len(done) >= 5)
            nursery.start_soon(work, "two")
            await wait_for(lambda: not slow)
            await wait_for(lambda: len(done) == 80)
            for partition in range(4):
                await backend.produce(topic, numbered(5, 20), partition)
            await wait_for(lambda: len(done) == 100)
            for partition in range(4):
                await until_committed(backend, group, TP(topic, partition), 25)
            nursery.cancel_scope.cancel()

    backend.run(main)


@pytest.mark.parametrize("event", ["assigned", "revoked", "lost"])
def test_callback_that_raises_ends_the_consumer_as_itself(backend: Backend, event: str) -> None:
    """Also out of the client's own thread: no group, no hang, the partitions are free."""

    async def main() -> None:
        topic, group = await backend.topic(), new_group()
        await backend.produce(topic, numbered(3))
        got: list[Message] = []

        async def callback(tps: frozenset[TP]) -> None:
            await anyio.sleep(0.05)
            raise LookupError(event)

        options: dict[str, Any] = {f"on_partitions_{event}": callback}
        with pytest.raises(LookupError, match=f"^{event}$"):
            async with (
                backend.consumer(group, commit_interval=1000.0, **options) as consumer,
                consumer.stream(topic) as stream,
            ):
                got += await take(stream, 2)
                if event == "lost":
                    await backend.expel(consumer)
                async with backend.consumer(group, topics=[topic]):
                    await anyio.sleep_forever()
        # What was finished when the callback of a revocation raised had been committed.
        async with backend.consumer(group) as consumer, consumer.stream(topic) as stream:
            first = {"assigned": 0, "revoked": 2, "lost": 0}[event]
            again = await take(stream, 3 - first)
            assert [message.offset for message in again] == list(range(first, 3))

    backend.run(main)


def test_no_message_comes_before_the_assigned_callback_has_returned(backend: Backend) -> None:
    """Also if it fails: the client must not read on as if it had done its part."""

    async def main() -> None:
        topic = await backend.topic()
        await backend.produce(topic, numbered(3))
        for _ in range(8):
            got: list[Message] = []

            async def callback(tps: frozenset[TP]) -> None:
                await anyio.sleep(0.05)
                raise LookupError("assigned")

            with pytest.raises(LookupError):
                async with (
                    backend.consumer(new_group(), on_partitions_assigned=callback) as consumer,
                    consumer.stream(topic) as stream,
                ):
                    async for message in stream:
                        got.append(message)
            assert got == []

    backend.run(main)
