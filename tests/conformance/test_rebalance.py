"""What happens when members come and go, under both rebalance protocols."""

from __future__ import annotations

from collections import Counter
from contextlib import AbstractAsyncContextManager

import anyio
import anyio.abc
import pytest

from trio_consumer import TP, Consumer, Message, Stream

from .backends import Backend, new_group
from .support import numbered, take, wait_for

STRATEGIES = ["range", "cooperative-sticky"]


class Journal:
    """What handlers did, kept apart from the library."""

    def __init__(self) -> None:
        self.finished: Counter[tuple[int, int]] = Counter()
        self.started: Counter[tuple[int, int]] = Counter()

    async def handle(self, message: Message, seconds: float) -> None:
        place = (message.partition, message.offset)
        self.started[place] += 1
        await anyio.sleep(seconds)
        self.finished[place] += 1


async def consume(
    backend: Backend,
    topic: str,
    group: str,
    journal: Journal,
    seconds: float,
    strategy: str,
    *,
    task_status: anyio.abc.TaskStatus[Consumer] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """One member, until it is told to stop by ``consumer.close()``."""
    options = {"partition_assignment_strategy": strategy, "max_poll_records": 20}
    async with (
        backend.consumer(group, client_options=options, commit_interval=0.3) as consumer,
        consumer.stream(topic) as stream,
    ):
        task_status.started(consumer)
        async for message in stream:
            await journal.handle(message, seconds)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_members_joining_and_leaving_lose_and_double_nothing(
    backend: Backend, strategy: str
) -> None:
    """Clean hand-overs: every message is finished exactly once, and all is committed."""

    async def main() -> None:
        topic, group, journal = await backend.topic(4), new_group(), Journal()
        for partition in range(4):
            await backend.produce(topic, numbered(150), partition)
        async with anyio.create_task_group() as nursery:

            async def join() -> Consumer:
                return await nursery.start(  # type: ignore[no-any-return]
                    consume, backend, topic, group, journal, 0.005, strategy
                )

            first = await join()
            await wait_for(lambda: sum(journal.finished.values()) >= 50)
            second = await join()
            await wait_for(lambda: bool(second.assignment))
            await wait_for(lambda: sum(journal.finished.values()) >= 200)
            third = await join()
            await wait_for(lambda: bool(third.assignment))
            first.close()
            await wait_for(lambda: len(journal.finished) == 600)
            second.close()
            third.close()
        assert set(journal.finished.values()) == {1}
        assert set(journal.started.values()) == {1}
        for partition in range(4):
            assert await backend.committed(group, TP(topic, partition)) == 150

    backend.run(main)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_revocation_waits_for_messages_in_hand_and_commits_them(
    backend: Backend, strategy: str
) -> None:
    """The next owner's first message is exactly the one after the last that was finished."""

    async def main() -> None:
        topic, group = await backend.topic(2), new_group()
        for partition in range(2):
            await backend.produce(topic, numbered(50), partition)
        options = {"partition_assignment_strategy": strategy}
        committed_at_revocation: dict[TP, int | None] = {}

        async def on_revoked(tps: frozenset[TP]) -> None:
            for tp in tps:
                committed_at_revocation[tp] = await backend.committed(group, tp)

        async with (
            backend.consumer(
                group,
                client_options=options,
                commit_interval=1000.0,
                on_partitions_revoked=on_revoked,
            ) as first,
            first.stream(topic, ack="manual") as stream,
            anyio.create_task_group() as nursery,
        ):
            in_hand: list[Message] = []
            async for message in stream:
                in_hand.append(message)
                if len(in_hand) == 10:
                    break
            handed = Counter(m.partition for m in in_hand)

            async def finish_slowly() -> None:
                await anyio.sleep(1.0)
                for message in in_hand:
                    message.ack()

            nursery.start_soon(finish_slowly)
            async with (
                backend.consumer(group, client_options=options) as second,
                second.stream(topic) as other,
            ):
                async for message in other:
                    # Unfinished at the revocation, finished during the drain.
                    moved = message.tp
                    assert message.offset == handed[message.partition]
                    assert committed_at_revocation[moved] in (message.offset, None)
                    assert not first.assignment & {moved}
                    break

    backend.run(main)


def test_late_acknowledgement_changes_nothing_for_the_next_owner(backend: Backend) -> None:
    """A message that outlives the drain is not committed, and its ack returns False."""

    async def main() -> None:
        topic, group = await backend.topic(1), new_group()
        tp = TP(topic, 0)
        await backend.produce(topic, numbered(10))
        assigned: list[frozenset[TP]] = []
        again: list[Message] = []
        async with (
            backend.consumer(
                group, drain_timeout=0.2, on_partitions_assigned=assigned.append
            ) as first,
            first.stream(topic, ack="manual") as stream,
        ):
            iterator = aiter(stream)
            held = [await anext(iterator) for _ in range(4)]
            assert held[0].ack()
            async with (
                backend.consumer(group) as second,
                second.stream(topic, ack="manual") as other,
                anyio.create_task_group() as nursery,
            ):

                async def collect(each: Stream) -> None:
                    async for message in each:
                        again.append(message)

                # Whoever gets the partition: it begins where the commit ended.
                nursery.start_soon(collect, stream)
                nursery.start_soon(collect, other)
                await wait_for(lambda: len(assigned) == 2 and len(again) == 15)
                assert not any(message.ack() for message in held)
                assert await backend.committed(group, tp) == 1
                nursery.cancel_scope.cancel()
        # The rest of the first assignment, and all but the first message again.
        assert sorted(m.offset for m in again) == sorted([*range(4, 10), *range(1, 10)])

    backend.run(main)


def test_member_that_leaves_while_it_joins_commits_first(backend: Backend) -> None:
    """A cooperative member keeps partitions through a join; its last commit waits for the end."""

    async def main() -> None:
        topic, group = await backend.topic(6), new_group()
        for partition in range(6):
            await backend.produce(topic, numbered(3), partition)

        def member() -> AbstractAsyncContextManager[Consumer]:
            options = {"partition_assignment_strategy": "cooperative-sticky"}
            return backend.consumer(
                group, topics=[topic], client_options=options, commit_interval=1000.0
            )

        async with (
            member() as holding,
            holding.stream(topic, ack="manual") as stream,
            anyio.create_task_group() as nursery,
        ):
            async with member() as leaving, leaving.stream(topic) as other:
                await wait_for(lambda: len(holding.assignment) == len(leaving.assignment) == 3)
                in_hand = [await anext(aiter(stream)) for _ in range(9)]
                finished = {message.tp for message in await take(other, 9)}
                third = await nursery.start(enter, member())
                # One has to give up a partition and waits for what is in hand of it;
                # the other has given up one and waits for the first to join.
                await wait_for(lambda: len(leaving.assignment) == 2)
                await anyio.sleep(0.5)

                async def finish_later() -> None:
                    await anyio.sleep(1.0)
                    for message in in_hand:
                        message.ack()

                nursery.start_soon(finish_later)
            for tp in finished:
                assert await backend.committed(group, tp) == 3
            third.set()

    backend.run(main)


async def enter(
    member: AbstractAsyncContextManager[Consumer],
    *,
    task_status: anyio.abc.TaskStatus[anyio.Event] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Be a member until the event is set."""
    leave = anyio.Event()
    async with member:
        task_status.started(leave)
        await leave.wait()
