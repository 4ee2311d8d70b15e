"""What happens when the group takes partitions away: drain, callbacks, fencing of old messages."""

# The blocks nest as those of a program do, an error leaves a whole block, and a
# loop that sleeps costs nothing under a virtual clock.
# ruff: noqa: SIM117

from __future__ import annotations

from typing import Any

import pytest
import trio

from trio_consumer import (
    TP,
    Activity,
    Consumer,
    Stream,
)
from trio_consumer.testing import MemoryBroker

from .support import (
    GROUP,
    T0,
    T1,
    broker,
    committed,
    consuming,
    offsets,
    run,
    take,
)


def only_member(it: MemoryBroker) -> str:
    """The id of the one member."""
    [member] = it.members(GROUP)
    return member


def test_revocation_waits_for_what_is_in_hand_and_commits_it() -> None:
    """The message in hand is finished and committed before the partition goes."""

    async def main() -> None:
        it = broker(5)
        revoked = []

        def on_revoked(tps: frozenset[TP]) -> None:
            revoked.append((trio.current_time(), committed(it)))

        async with (
            consuming(it, on_partitions_revoked=on_revoked, commit_interval=1000) as consumer,
            consumer.stream("t") as stream,
            trio.open_nursery() as nursery,
        ):
            seen: list[int] = []

            async def work() -> None:
                async for message in stream:
                    seen.append(message.offset)
                    await trio.sleep(7)

            nursery.start_soon(work)
            await trio.sleep(1)
            it.rebalance(GROUP)
            await trio.sleep(10)
            # Learnt at 3, waited until 7; offset 1 was in nobody's hand.
            assert revoked == [(7.0, 1)]
            assert seen == [0, 1]
            nursery.cancel_scope.cancel()
        assert committed(it) == 1

    run(main)


def test_nothing_is_handed_out_while_a_revocation_waits() -> None:
    """Other workers of the stream get no message of a partition that is going."""

    async def main() -> None:
        it = broker(20)
        times: list[float] = []

        async def slow(stream: Stream) -> None:
            async for _ in stream:
                times.append(trio.current_time())
                await trio.sleep(9)

        async def quick(stream: Stream) -> None:
            async for _ in stream:
                times.append(trio.current_time())
                await trio.sleep(0.5)

        async with consuming(it) as consumer, consumer.stream("t") as stream:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(slow, stream)
                nursery.start_soon(quick, stream)
                await trio.sleep(1)
                it.rebalance(GROUP)
                await trio.sleep(9)
                nursery.cancel_scope.cancel()
        assert [time for time in times if 3.1 < time < 8.9] == []
        assert [time for time in times if time >= 9]

    run(main)


def test_revocation_gives_up_at_its_deadline(caplog: pytest.LogCaptureFixture) -> None:
    """What is not finished by then is not committed, and its late acknowledgement is False."""

    async def main() -> None:
        it = broker(5)
        async with consuming(it, drain_timeout=4) as consumer:
            async with consumer.stream("t", ack="manual") as stream:
                first, second = await take(stream, 2, ack=False)
                first.ack()
                start = trio.current_time()
                it.rebalance(GROUP)
                await trio.sleep(0.1)
                while consumer.statistics().rebalances < 2:
                    await trio.sleep(0.1)
                assert 4 <= trio.current_time() - start <= 8
                assert second.ack() is False
                assert consumer.statistics().partitions[T0].committed is None
                assert committed(it) == 1
                assert offsets(await take(stream)) == [1, 2, 3, 4]
        assert committed(it) == 5

    run(main)
    assert [r.getMessage() for r in caplog.records if r.name == "trio_consumer.rebalance"] == [
        "t[0] goes with 1 messages in hand, the oldest at offset 1: they are not committed and"
        " will be delivered again"
    ]


def test_drain_that_is_given_up_names_the_tasks(caplog: pytest.LogCaptureFixture) -> None:
    """All that may have what is in hand."""

    async def main() -> None:
        it = broker(2)

        async def hold() -> None:
            async for _ in stream:
                await trio.sleep_forever()

        async with (
            consuming(it, drain_timeout=1) as consumer,
            consumer.stream("t", ack="manual") as stream,
            trio.open_nursery() as nursery,
        ):
            for name in ("b", "a"):
                nursery.start_soon(hold, name=name)
            await trio.sleep(1)
            it.rebalance(GROUP)
            await trio.sleep(10)
            nursery.cancel_scope.cancel()

    run(main)
    assert "t[0] goes with 2 messages in hand of a or b, the oldest at offset 0" in caplog.text


def test_generation_and_assignment_can_be_seen() -> None:
    """None before the first; the diagnostics say when one is being taken up."""

    async def main() -> None:
        it = broker(1)
        seen = []
        async with consuming(
            it, on_partitions_assigned=lambda _: seen.append(set(consumer.diag.flags))
        ) as consumer:
            assert consumer.generation == -1
            async with consumer.stream("t") as stream:
                await take(stream)
                assert consumer.generation == it.generation(GROUP) == 1
                assert Activity.PARTITIONS_ASSIGNED in seen[0]
                assert Activity.PARTITIONS_ASSIGNED not in consumer.diag.flags

    run(main)


def test_drain_stays_below_the_rebalance_timeout_of_the_client() -> None:
    """However long ``drain_timeout`` is, the group does not throw this member out."""

    async def main() -> None:
        it = broker(5)
        lost = []
        client = {"max_poll_interval_ms": 10_000}
        async with (
            consuming(
                it, drain_timeout=1000, client_options=client, on_partitions_lost=lost.append
            ) as consumer,
            consumer.stream("t", ack="manual") as stream,
        ):
            await take(stream, 2, ack=False)
            it.rebalance(GROUP)
            await trio.sleep(30)
            assert consumer.statistics().rebalances == 2
        assert lost == []

    run(main)


def test_drain_takes_a_third_of_the_rebalance_timeout_of_the_client() -> None:
    """The last commit and the join need time, too."""

    async def main() -> None:
        it = broker(5)
        revoked = []
        async with (
            consuming(
                it,
                drain_timeout=1000,
                client_options={"max_poll_interval_ms": 10_000},
                on_partitions_revoked=lambda _: revoked.append(trio.current_time()),
            ) as consumer,
            consumer.stream("t", ack="manual") as stream,
        ):
            await take(stream, 2, ack=False)
            it.rebalance(GROUP)
            while consumer.statistics().partitions[T0].state == "open":
                await trio.sleep(0.01)
            started = trio.current_time()
            await trio.sleep(20)
            assert revoked[0] - started == pytest.approx(3.5, abs=0.02)

    run(main)


def test_revocation_can_be_seen_while_it_lasts() -> None:
    """The diagnostics say so until the partitions are gone."""

    async def main() -> None:
        it = broker(1)
        seen = []
        async with (
            consuming(
                it, on_partitions_revoked=lambda _: seen.append(set(consumer.diag.flags))
            ) as consumer,
            consumer.stream("t") as stream,
        ):
            await take(stream)
            it.rebalance(GROUP)
            await trio.sleep(10)
            assert Activity.PARTITIONS_REVOKED in seen[0]
            assert Activity.PARTITIONS_REVOKED not in consumer.diag.flags

    run(main)


def test_late_ack_changes_nothing_for_the_next_assignment() -> None:
    """After revocation the old message is dead, whatever offset the new one has (I5)."""

    async def main() -> None:
        it = broker(3)
        async with consuming(it, drain_timeout=0) as consumer:
            async with consumer.stream("t", ack="manual") as stream:
                old = await take(stream, 3, ack=False)
                it.rebalance(GROUP)
                await trio.sleep(10)
                new = await take(stream, 3, ack=False)
                assert offsets(new) == offsets(old) == [0, 1, 2]
                assert [message.ack() for message in old] == [False] * 3
                assert await consumer.commit() is False
                new[0].ack()
                await consumer.commit()
                assert committed(it) == 1
                assert [message.ack() for message in new] == [False, True, True]
        assert committed(it) == 3

    run(main)


def test_lost_partitions_are_neither_drained_nor_committed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Lost is not revoked: no wait, no commit, its own callback, then everything again."""

    async def main() -> None:
        it = broker(3, 2)
        calls: list[tuple[str, frozenset[TP], float]] = []

        def note(name: str) -> Any:
            return lambda tps: calls.append((name, tps, trio.current_time()))

        async with (
            consuming(
                it,
                commit_interval=1000,
                on_partitions_assigned=note("assigned"),
                on_partitions_revoked=note("revoked"),
                on_partitions_lost=note("lost"),
            ) as consumer,
            consumer.stream("t", ack="manual") as stream,
        ):
            messages = await take(stream, 6, ack=False)
            first, second = [message for message in messages if message.tp == T0][:2]
            first.ack()
            it.expire(only_member(it))
            await trio.sleep(10)
            assert second.ack() is False
            assert committed(it) is None
            assert offsets(await take(stream)) == [0, 1, 2]
        assert [(name, tps) for name, tps, _ in calls] == [
            ("assigned", {T0, T1}),
            ("lost", {T0, T1}),
            ("assigned", {T0, T1}),
        ]
        assert calls[1][2] == calls[2][2]
        assert committed(it) == 3

    run(main)
    assert [r.getMessage() for r in caplog.records if r.name == "trio_consumer.rebalance"] == [
        "lost t[0], t[1]: this member was thrown out of its group; what it finished since the last"
        " commit is delivered again"
    ]


def test_callbacks_come_in_order_and_see_the_committed_offsets() -> None:
    """Async callbacks are awaited: the partitions go when they have returned."""

    async def main() -> None:
        it = broker(2)
        calls: list[object] = []
        consumer: Consumer

        async def on_assigned(tps: frozenset[TP]) -> None:
            calls.append(("assigned", sorted(tps), sorted(consumer.assignment)))

        async def on_revoked(tps: frozenset[TP]) -> None:
            await trio.sleep(1)
            calls.append(("revoked", await consumer.committed(tps)))
            assert await consumer.commit() is False

        async with (
            consuming(
                it,
                commit_interval=1000,
                on_partitions_assigned=on_assigned,
                on_partitions_revoked=on_revoked,
            ) as consumer,
            consumer.stream("t") as stream,
        ):
            await take(stream, 2)
            it.rebalance(GROUP)
            await trio.sleep(10)
        assert calls == [
            ("assigned", [T0], [T0]),
            ("revoked", {T0: (2, "", -1)}),
            ("assigned", [T0], [T0]),
        ]

    run(main)


@pytest.mark.parametrize("kind", ["plain", "async"])
@pytest.mark.parametrize("event", ["assigned", "revoked", "lost"])
def test_callback_that_raises_stops_the_consumer(event: str, kind: str) -> None:
    """The error of a callback leaves ``open_consumer`` as itself."""

    def plain(tps: frozenset[TP]) -> None:
        raise KeyError(event)

    async def later(tps: frozenset[TP]) -> None:
        await trio.sleep(0.1)
        raise KeyError(event)

    async def main() -> None:
        it = broker(2)
        callback = plain if kind == "plain" else later
        options: dict[str, Any] = {f"on_partitions_{event}": callback}
        with pytest.raises(KeyError, match=f"^'{event}'$"):
            async with consuming(it, **options) as consumer:
                async with consumer.stream("t") as stream:
                    await take(stream, 1)
                    if event == "lost":
                        it.expire(only_member(it))
                    else:
                        it.rebalance(GROUP)
                    await trio.sleep_forever()

    run(main)


def test_seek_in_the_assigned_callback_decides_where_reading_starts() -> None:
    """No message of a new partition is delivered before the callback has returned."""

    async def main() -> None:
        it = broker(5)
        consumer: Consumer

        async def on_assigned(tps: frozenset[TP]) -> None:
            await trio.sleep(1)
            for tp in tps:
                await consumer.seek(tp, 3)

        async with consuming(it, on_partitions_assigned=on_assigned) as consumer:
            async with consumer.stream("t") as stream:
                assert offsets(await take(stream, wait=3)) == [3, 4]
        assert committed(it) == 5

    run(main)
