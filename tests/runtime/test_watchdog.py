"""The watchdog: an alarm for what makes no progress, and none for anything else."""

from __future__ import annotations

from contextlib import suppress
from random import Random
from typing import Any

import pytest
import trio

from trio_consumer import (
    CommitFailedError,
    ConfigurationError,
    Livelock,
    Symptom,
    Whereabouts,
)
from trio_consumer.testing import Faults

from .support import (
    COOPERATIVE,
    GROUP,
    T0,
    T1,
    broker,
    consuming,
    run,
    take,
)


class Alarms(list[Livelock]):
    """What the hook was told, with the time."""

    async def __call__(self, livelock: Livelock) -> None:
        await trio.lowlevel.checkpoint()
        self.append(livelock)

    @property
    def what(self) -> list[tuple[Any, Symptom]]:
        return [(alarm.tp, alarm.symptom) for alarm in self]


def test_stream_that_hangs_at_the_end_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    """The position is at the end, the commit is not; one line and one call an episode."""
    caplog.set_level("INFO", "trio_consumer.watchdog")

    async def main() -> None:
        it = broker(3)
        alarms = Alarms()
        release = trio.Event()

        async def charge() -> None:
            async for message in stream:
                if message.offset == 1:
                    await release.wait()

        async with (
            consuming(it, on_livelock=alarms) as consumer,
            consumer.stream("t") as stream,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(charge, name="charge-worker")
            await trio.sleep(299)
            assert alarms == []
            await trio.sleep(1000)
            assert alarms.what == [(T0, Symptom.NOT_FINISHED)]
            alarm = alarms[0]
            assert (alarm.position, alarm.committed, alarm.end) == (3, 1, 3)
            assert 300 <= alarm.seconds <= 310
            (held,) = alarm.held
            assert (held.oldest, held.count, held.tasks) == (1, 2, ("charge-worker",))
            assert held.whereabouts is Whereabouts.HAND
            assert 300 <= held.seconds <= 310
            release.set()
            await trio.sleep(1000)
            assert len(alarms) == 1
            nursery.cancel_scope.cancel()

    run(main)
    begin, end = [r.getMessage() for r in caplog.records if r.name == "trio_consumer.watchdog"]
    assert begin.startswith(
        "no progress: t[0]: its oldest unfinished message is not finished, for 30"
    )
    assert "the oldest at offset 1 for 30" in begin
    assert "in hand of charge-worker" in begin
    assert end.startswith("t[0] goes on after ")


def test_second_hang_is_a_second_episode() -> None:
    """After progress the time begins anew."""

    async def main() -> None:
        it = broker(2)
        alarms = Alarms()
        async with (
            consuming(it, on_livelock=alarms, commit_livelock_soft_timeout=50) as consumer,
            consumer.stream("t", ack="manual") as stream,
        ):
            first, second = await take(stream, 2, ack=False)
            await trio.sleep(100)
            assert len(alarms) == 1
            first.ack()
            await trio.sleep(40)
            assert len(alarms) == 1
            await trio.sleep(40)
            assert [alarm.held[0].oldest for alarm in alarms] == [0, 1]
            second.ack()

    run(main)


@pytest.mark.parametrize("ack", ["auto", "manual"])
def test_idle_slow_or_held_on_purpose_is_no_alarm(ack: Any) -> None:
    """Hours without messages, a message each minute, pauses and stopped flow."""

    async def main() -> None:
        it = broker(3, 2)
        alarms = Alarms()

        async def work() -> None:
            async for message in stream:
                await trio.sleep(200)
                message.ack()

        async with (
            consuming(it, on_livelock=alarms, max_buffered=2) as consumer,
            consumer.stream("t", ack=ack) as stream,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(work)
            await trio.sleep(10_000)
            it.produce_many("t", [b"late"] * 20, partition=0)
            await trio.sleep(10_000)
            consumer.pause_partitions([T0, T1])
            it.produce_many("t", [b"paused"] * 5, partition=0)
            await trio.sleep(2000)
            consumer.resume_partitions([T0, T1])
            await trio.sleep(250)
            consumer.stop_flow()
            await trio.sleep(5000)
            consumer.resume_flow()
            await trio.sleep(5000)
            assert alarms == []
            nursery.cancel_scope.cancel()

    run(main)


def test_stopped_flow_does_not_hide_a_hang() -> None:
    """What is in a buffer waits for the user, what is in hand does not."""

    async def main() -> None:
        it = broker(2)
        alarms = Alarms()
        async with (
            consuming(it, on_livelock=alarms) as consumer,
            consumer.stream("t", ack="manual") as stream,
        ):
            messages = await take(stream, 1, ack=False)
            consumer.stop_flow()
            await trio.sleep(1000)
            assert alarms.what == [(T0, Symptom.NOT_FINISHED)]
            messages[0].ack()
            await trio.sleep(1000)
            assert len(alarms) == 1
            consumer.resume_flow()
            await take(stream)

    run(main)


def test_message_that_a_loop_left_behind_is_named() -> None:
    """Nobody has it: a ``break`` without an acknowledgement."""

    async def main() -> None:
        it = broker(3)
        alarms = Alarms()
        async with (
            consuming(it, on_livelock=alarms) as consumer,
            consumer.stream("t") as stream,
        ):
            async for _ in stream:
                break
            await take(stream)
            await trio.sleep(1000)
            assert alarms.what == [(T0, Symptom.NOT_FINISHED)]
            assert alarms[0].held[0].whereabouts is Whereabouts.LEFT

    run(main)


def test_client_that_stops_fetching_is_noticed() -> None:
    """The broker is asked for the end: a client that is stuck would see none."""

    async def main() -> None:
        it = broker(3, 2)
        alarms = Alarms()
        async with (
            consuming(it, on_livelock=alarms) as consumer,
            consumer.stream("t") as stream,
        ):
            await take(stream)
            await trio.sleep(10_000)
            consumer._session.pause([T0])  # behind the back of the consumer
            it.produce("t", b"new", partition=0)
            it.produce("t", b"new", partition=1)
            await take(stream)
            await trio.sleep(500)
            assert alarms.what == [(T0, Symptom.NOT_ARRIVING)]
            assert (alarms[0].position, alarms[0].end) == (3, 4)
            now = trio.current_time()
            path = consumer.verify_recovery_event_path(now, T0)
            assert [livelock.symptom for livelock in path] == [Symptom.NOT_ARRIVING]
            assert consumer.verify_event_path(now, T1) == []
            consumer._session.resume([T0])
            await take(stream)
            assert consumer.verify_event_path(trio.current_time(), T0) == []

    run(main)


def test_broker_that_does_not_answer_is_noticed() -> None:
    """Neither messages nor an end: that is not the same as none."""

    async def main() -> None:
        it = broker(3)
        alarms = Alarms()
        async with (
            consuming(
                it, on_livelock=alarms, client_options={"session_timeout_ms": 10**7}
            ) as consumer,
            consumer.stream("t") as stream,
        ):
            await take(stream)
            await trio.sleep(100)
            it.down()
            await trio.sleep(1000)
            it.up()
            assert alarms.what == [(T0, Symptom.END_UNKNOWN)]

    run(main)


def test_commit_that_does_not_advance_is_noticed() -> None:
    """Finished, and refused for minutes."""

    async def main() -> None:
        it = broker(3)
        alarms = Alarms()
        async with (
            consuming(it, on_livelock=alarms, commit_timeout=1) as consumer,
            consumer.stream("t") as stream,
        ):
            it.faults = Faults(commit_failure_rate=1.0)
            await take(stream)
            await trio.sleep(1000)
            assert alarms.what == [(T0, Symptom.NOT_COMMITTED)]
            it.faults = Faults()

    run(main)


def test_long_commit_interval_is_no_alarm() -> None:
    """A commit that is not due is not late, and looking does not wait for it."""

    async def main() -> None:
        it = broker(3)
        alarms = Alarms()
        async with (
            consuming(it, on_livelock=alarms, commit_interval=2000) as consumer,
            consumer.stream("t", ack="manual") as stream,
        ):
            messages = await take(stream, ack=False)
            messages[0].ack()
            await trio.sleep(1900)
            assert alarms.what == [(T0, Symptom.NOT_FINISHED)]

    run(main)


def test_new_partition_on_an_old_worker_is_no_alarm() -> None:
    """Timers begin with the assignment, and a rebalance is not watched."""

    async def main() -> None:
        it = broker(3, 2)
        alarms = Alarms()

        async def slow(tps: object) -> None:
            await trio.sleep(1000)

        options = {"client_options": COOPERATIVE | {"max_poll_interval_ms": 10**7}}
        async with consuming(it, **options) as other, other.stream("t") as elsewhere:
            await take(elsewhere)
            async with (
                consuming(
                    it, on_livelock=alarms, on_partitions_assigned=slow, **options
                ) as consumer,
                consumer.stream("t") as stream,
            ):
                await take(stream, wait=3000)
                await trio.sleep(3000)
                assert len(consumer.assignment) == 1
                other.close()
                await other.on_stop()
                it.rebalance(GROUP)
                await take(stream, wait=3000)
                await trio.sleep(3000)
                assert alarms == []

    run(main)


def test_hook_that_raises_stops_the_consumer() -> None:
    """The user's exceptions propagate; what is finished is committed."""

    async def main() -> None:
        it = broker(2)

        def hook(livelock: Livelock) -> None:
            raise RuntimeError(f"stuck: {livelock.tp}")

        with pytest.raises(RuntimeError, match=r"^stuck: t\[0\]$"):
            async with (
                consuming(it, on_livelock=hook) as consumer,
                consumer.stream("t", ack="manual") as stream,
            ):
                await take(stream, ack=False)
                await trio.sleep_forever()

    run(main)


def test_verifying_by_hand_tells_as_the_watchdog_does() -> None:
    """Looking more often makes no second alarm; looking ahead tells nobody."""

    async def main() -> None:
        it = broker(2)
        alarms = Alarms()
        async with (
            consuming(it, on_livelock=alarms, commit_interval=200) as consumer,
            consumer.stream("t", ack="manual") as stream,
        ):
            await take(stream, ack=False)
            await consumer.verify_all_partitions_active()
            (ahead,) = consumer.verify_event_path(trio.current_time() + 300, T0)
            assert ahead.symptom is Symptom.NOT_FINISHED
            assert consumer.verify_event_path(trio.current_time() + 200, T0) == []
            assert consumer.verify_recovery_event_path(trio.current_time() + 300, T0) == []
            for _ in range(100):
                await trio.sleep(10)
                await consumer.verify_all_partitions_active()
            assert len(alarms) == 1

    run(main)


@pytest.mark.parametrize("timeout", [0.0, -1.0])
def test_timeout_has_to_be_positive(timeout: float) -> None:
    """Zero would be an alarm at each look."""

    async def main() -> None:
        with pytest.raises(ConfigurationError, match=r"^commit_livelock_soft_timeout must be"):
            async with consuming(broker(1), commit_livelock_soft_timeout=timeout):
                pass

    run(main)


@pytest.mark.parametrize("seed", range(20))
def test_busy_group_with_faults_is_no_alarm(seed: int) -> None:
    """Members come and go, requests take time, messages too: nothing stands still."""

    async def main() -> None:
        random = Random(seed)
        it = broker(10, 4, seed=seed, latency=(0.0, 1.0))
        alarms = Alarms()

        async def member() -> None:
            # Whoever leaves while the group rebalances may hear that the last commit failed.
            with suppress(CommitFailedError):
                await consume()

        async def consume() -> None:
            async with (
                consuming(
                    it,
                    on_livelock=alarms,
                    commit_livelock_soft_timeout=120,
                    client_options=COOPERATIVE,
                    max_buffered=random.choice([1, 20]),
                ) as consumer,
                consumer.stream("t") as stream,
            ):
                with trio.move_on_after(random.uniform(50, 2000)):
                    async for _ in stream:
                        await trio.sleep(random.uniform(0, 10))

        async with trio.open_nursery() as nursery:
            for _ in range(6):
                nursery.start_soon(member)
                await trio.sleep(random.uniform(0, 500))
                for n in range(4):
                    it.produce_many("t", [b"more"] * random.randint(0, 30), partition=n)
        assert alarms == [], f"seed {seed}"

    run(main, seed=seed)
