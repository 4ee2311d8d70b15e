"""Members of a real group in trouble: frozen, stuck, and with a coordinator that goes."""

from __future__ import annotations

import itertools
import signal
import time
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
import trio
from kafka import KafkaConsumer
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor

from trio_consumer import TP, Stream, open_consumer

from ..kafka.cluster import Cluster
from ..kafka.fixtures import TopicFactory
from ..kafka.produce import produce_numbered
from .test_crash import committed, end, journaled, member, wait_until

pytestmark = pytest.mark.kafka

_serial = itertools.count(1)


def new_group() -> str:
    return f"membership-{next(_serial)}"


@pytest.mark.parametrize("strategy", ["range", "cooperative-sticky"])
def test_process_that_is_frozen_commits_nothing_when_it_wakes_up(
    kafka_cluster: Cluster, topic: TopicFactory, tmp_path: Path, strategy: str
) -> None:
    """Its partitions went to another; it learns that they are lost, joins again and works on."""
    partitions, count = 4, 4000
    name, group = topic(partitions), new_group()
    produce_numbered(kafka_cluster.bootstrap, name, count, partitions)
    journals = [tmp_path / "frozen", tmp_path / "other"]

    def start(journal: Path) -> list[str]:
        return [kafka_cluster.bootstrap, group, name, str(journal), strategy, "0.02"]

    def handled() -> Counter[tuple[int, int]]:
        return Counter(place for journal in journals for place in journaled(journal))

    def check_commits() -> list[int]:
        # Read before the journals: what is committed by now was journaled before.
        stored = committed(kafka_cluster, group, name, partitions)
        done = handled()
        for partition, offset in enumerate(stored):
            missing = [o for o in range(offset) if not done[partition, o]]
            assert not missing, f"{partition}@{offset} passes {missing[:5]}"
        return stored

    with member(*start(journals[0])) as frozen:
        wait_until(lambda: len(journaled(journals[0])) > 300)
        frozen.send_signal(signal.SIGSTOP)
        with member(*start(journals[1])) as other:
            wait_until(lambda: len(handled()) == count)
            wait_until(
                lambda: check_commits() == [count // partitions] * partitions,
            )
            frozen.send_signal(signal.SIGCONT)
            deadline = time.monotonic() + 2
            while time.monotonic() < deadline:
                # What the frozen one had finished is older: it must not go back either.
                assert check_commits() == [count // partitions] * partitions
                time.sleep(0.1)
            wait_until(lambda: len(kafka_cluster.describe_group(group)["members"]) == 2)
            produce_numbered(kafka_cluster.bootstrap, name, count, partitions, start=count)
            before = len(journaled(journals[0]))
            wait_until(lambda: len(handled()) == 2 * count)
            check_commits()
            end(other, journals[1])
            end(frozen, journals[0])
        assert len(journaled(journals[0])) > before, "the frozen one took no part afterwards"
    assert check_commits() == [2 * count // partitions] * partitions


def test_member_that_is_thrown_out_while_it_joins_loses_its_partitions(
    kafka_cluster: Cluster, topic: TopicFactory
) -> None:
    """It learns of it from the answer to its join, and keeps nothing that it could commit."""
    name, group = topic(4), new_group()
    produce_numbered(kafka_cluster.bootstrap, name, 400, 4)
    lost: list[frozenset[TP]] = []
    revoked: list[frozenset[TP]] = []
    expelled: list[str] = []
    options = {
        "session_timeout_ms": 6000,
        "heartbeat_interval_ms": 300,
        "partition_assignment_strategy": "cooperative-sticky",
    }
    opened = partial(
        open_consumer,
        f"kafka://{kafka_cluster.bootstrap}",
        group=group,
        client_options=options,
    )

    async def main() -> None:
        async with (
            opened(on_partitions_lost=lost.append, on_partitions_revoked=revoked.append) as first,
            first.stream(name) as stream,
        ):
            with trio.fail_after(60):
                async for message in stream:
                    message.ack()
                    break
            coordinator = first._session._client._coordinator  # type: ignore[attr-defined]
            join = coordinator._do_join_and_sync_async

            async def join_too_late() -> object:
                if not expelled:
                    expelled.append(coordinator._generation.member_id)
                    kafka_cluster.expel(group, expelled[0])
                return await join()

            coordinator._do_join_and_sync_async = join_too_late
            async with opened(topics=[name]) as second:
                with trio.fail_after(60):
                    # None is left to nobody, either.
                    while len(first.assignment) != 2 or len(second.assignment) != 2:
                        await trio.sleep(0.1)
                assert lost == [frozenset(TP(name, number) for number in range(4))]
                assert revoked == []

    trio.run(main)


def test_what_a_member_keeps_is_read_while_its_join_waits_for_another(
    kafka_cluster: Cluster, topic: TopicFactory
) -> None:
    """The other one is busy and joins late: that is no business of partitions that stay."""
    name, group = topic(4), new_group()
    produce_numbered(kafka_cluster.bootstrap, name, 40, 4)
    seen: Counter[tuple[int, int]] = Counter()
    revoked: list[frozenset[TP]] = []
    busy = KafkaConsumer(
        bootstrap_servers=kafka_cluster.bootstrap,
        group_id=group,
        partition_assignment_strategy=[CooperativeStickyAssignor],
        enable_auto_commit=False,
    )

    async def main() -> None:
        async with (
            open_consumer(
                f"kafka://{kafka_cluster.bootstrap}",
                group=group,
                commit_interval=0.1,
                client_options={
                    "partition_assignment_strategy": "cooperative-sticky",
                    "heartbeat_interval_ms": 300,
                },
                on_partitions_revoked=revoked.append,
            ) as consumer,
            trio.open_nursery() as nursery,
        ):

            async def read() -> None:
                async with consumer.stream(name) as stream:
                    async for message in stream:
                        seen[message.partition, message.offset] += 1

            async def reached(count: int) -> None:
                with trio.fail_after(60):
                    while len(seen) < count:
                        await trio.sleep(0.01)

            nursery.start_soon(read)
            await reached(40)
            busy.subscribe([name])
            with trio.fail_after(60):
                while not revoked:
                    await trio.to_thread.run_sync(busy.poll, 100)
            # The other one has joined, and does not again: it polls no more.
            joining = consumer._session._client._coordinator  # type: ignore[attr-defined]
            with trio.fail_after(60):
                while not joining.rejoining:
                    await trio.sleep(0.01)
            kept = sorted(tp.partition for tp in consumer.assignment)
            assert len(kept) == 2, (kept, revoked)
            produce_numbered(kafka_cluster.bootstrap, name, 4000, 4, start=40)
            await reached(40 + 2000)
            assert joining.rejoining, "the test has lost its bite"
            with trio.fail_after(60):
                while committed(kafka_cluster, group, name, 4)[kept[0]] < 1010:
                    await trio.to_thread.run_sync(busy.poll, 100)
            assert {p for p, offset in seen if offset >= 10} == set(kept)
            assert set(seen.values()) == {1}
            nursery.cancel_scope.cancel()

    try:
        trio.run(main)
    finally:
        busy.close(autocommit=False)


def test_coordinator_that_is_killed_delays_commits_and_loses_nothing(
    kafka_cluster_3: Cluster, topic: TopicFactory
) -> None:
    """Another node takes the group over: the member stays, the commits go on there."""
    cluster = kafka_cluster_3
    name, group = topic(2, cluster=cluster), new_group()
    produce_numbered(cluster.bootstrap, name, 400, 2)

    async def main() -> None:
        seen: Counter[tuple[int, int]] = Counter()
        options = {"heartbeat_interval_ms": 300, "session_timeout_ms": 20_000}
        async with (
            open_consumer(
                f"kafka://{cluster.bootstrap}",
                group=group,
                commit_interval=0.2,
                commit_timeout=2.0,
                client_options=options,
            ) as consumer,
            consumer.stream(name) as stream,
        ):
            coordinator = consumer._session._client._coordinator  # type: ignore[attr-defined]

            def node() -> int | None:
                found = coordinator.coordinator_id
                return None if found is None else int(str(found).rpartition("-")[2])

            async def read(until: int) -> None:
                async for message in stream:
                    seen[message.partition, message.offset] += 1
                    if sum(seen.values()) == until:
                        message.ack()
                        break

            async def until_committed(offset: int) -> None:
                tps = [TP(name, 0), TP(name, 1)]
                while {at and at.offset for at in (await consumer.committed(tps)).values()} != {
                    offset
                }:
                    await trio.sleep(0.2)

            with trio.fail_after(90):
                await read(400)
                await until_committed(200)
                killed = node()
                assert killed is not None
                await trio.to_thread.run_sync(cluster.kill, killed)
                try:
                    produce = partial(produce_numbered, cluster.bootstrap, name, 400, 2, start=400)
                    await trio.to_thread.run_sync(produce)
                    await read(800)
                    while True:
                        with trio.move_on_after(1):
                            await until_committed(400)
                            break
                    assert node() not in (None, killed)
                finally:
                    with trio.CancelScope(shield=True):
                        await trio.to_thread.run_sync(cluster.start, killed)
        assert set(seen.values()) == {1}

    trio.run(main)
    assert committed(cluster, group, name, 2) == [400, 400]


def test_stream_that_is_stuck_for_two_minutes_costs_no_membership(
    kafka_cluster: Cluster, topic: TopicFactory
) -> None:
    """Twelve times ``max_poll_interval_ms``: no rebalance, three streams go on, none loses."""
    name, group = topic(4), new_group()
    count = 8000
    produce_numbered(kafka_cluster.bootstrap, name, count, 4)

    async def main() -> None:
        options = {
            "max_poll_interval_ms": 10_000,
            "session_timeout_ms": 6000,
            "heartbeat_interval_ms": 300,
            "max_poll_records": 100,
        }
        seen: list[list[int]] = [[] for _ in range(4)]
        stuck, total = trio.Event(), count
        lost: list[frozenset[TP]] = []

        async def read(stream: Stream, number: int) -> None:
            async for message in stream:
                assert message.partition == number
                seen[number].append(message.offset)
                if number == 0 and message.offset == 10:
                    await stuck.wait()

        async with (
            open_consumer(
                f"kafka://{kafka_cluster.bootstrap}",
                group=group,
                commit_interval=0.5,
                max_buffered=300,
                client_options=options,
                on_partitions_lost=lost.append,
            ) as consumer,
            consumer.stream(name, partitions={0}) as s0,
            consumer.stream(name, partitions={1}) as s1,
            consumer.stream(name, partitions={2}) as s2,
            consumer.stream(name, partitions={3}) as s3,
            trio.open_nursery() as nursery,
        ):
            for number, stream in enumerate((s0, s1, s2, s3)):
                nursery.start_soon(read, stream, number)
            began = trio.current_time()
            while trio.current_time() < began + 120:
                with trio.fail_after(30):
                    while any(len(each) < total // 4 for each in seen[1:]):
                        await trio.sleep(0.05)
                assert len(seen[0]) <= 11
                assert s0.buffered <= 400
                produce = partial(
                    produce_numbered, kafka_cluster.bootstrap, name, 400, 4, start=total
                )
                await trio.to_thread.run_sync(produce)
                total += 400
                await trio.sleep(5)
            assert consumer.statistics().rebalances == 1
            assert lost == []
            stuck.set()
            with trio.fail_after(60):
                while any(len(each) < total // 4 for each in seen):
                    await trio.sleep(0.05)
            assert consumer.statistics().rebalances == 1
            consumer.close()
        assert seen == [list(range(total // 4))] * 4
        assert committed(kafka_cluster, group, name, 4) == [total // 4] * 4

    trio.run(main)
