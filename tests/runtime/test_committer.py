"""Commits: the timetable, every way of failing, cancellation, concurrency (I6)."""

# The blocks nest as those of a program do, an error leaves a whole block, and a
# loop that sleeps costs nothing under a virtual clock.
# ruff: noqa: SIM117

from __future__ import annotations

import logging

import pytest
import trio

from trio_consumer import (
    TP,
    Activity,
    AuthorizationError,
    CommitFailedError,
    ConsumerError,
    FencedError,
)
from trio_consumer.testing import Faults, MemoryBroker
from trio_consumer.transports.memory import CommitFault

from .support import (
    GROUP,
    T0,
    T1,
    add_topic,
    broker,
    committed,
    consuming,
    run,
    take,
    values,
)

PASSING = [
    CommitFault.COORDINATOR_UNAVAILABLE,
    CommitFault.TIMEOUT,
    CommitFault.ANSWER_LOST,
    CommitFault.UNKNOWN_MEMBER,
    CommitFault.ILLEGAL_GENERATION,
    CommitFault.REBALANCE_IN_PROGRESS,
]
FATAL = {
    CommitFault.METADATA_TOO_LARGE: CommitFailedError,
    CommitFault.UNAUTHORIZED: AuthorizationError,
    CommitFault.FENCED: FencedError,
}


def failures_told(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    """Level and text of what the committer said of failures."""
    return [
        (record.levelno, record.getMessage())
        for record in caplog.records
        if record.name == "trio_consumer.committer" and "failed" in record.msg
    ]


def name(fault: CommitFault) -> str:
    """A test id."""
    return fault.name.lower()


def test_every_fault_of_the_broker_is_tested() -> None:
    """A fault that the memory broker learns has to be sorted here, too."""
    assert set(PASSING) | set(FATAL) == set(CommitFault)


@pytest.mark.parametrize("fault", PASSING, ids=name)
def test_failed_commit_changes_nothing_and_the_next_tick_commits_more(
    fault: CommitFault, caplog: pytest.LogCaptureFixture
) -> None:
    """What is finished stays finished and uncommitted, and goes with a later tick (I6)."""
    caplog.set_level(logging.INFO, "trio_consumer.committer")

    async def main() -> None:
        it = broker(5)
        async with consuming(it, commit_interval=1.0) as consumer:
            async with consumer.stream("t", ack="manual") as stream:
                taken = await take(stream, 5, ack=False, wait=0.2)
                it.fail_next_commits(3, fault)
                for message in taken[:2]:
                    message.ack()
                before = consumer.statistics().partitions[T0]
                while consumer.statistics().commit_failures < 2:
                    await trio.sleep(0.5)
                after = consumer.statistics().partitions[T0]
                assert (before.committed, before.committable) == (None, 2)
                assert (after.committed, after.committable) == (None, 2)
                assert (before.unfinished, before.replay) == (after.unfinished, after.replay)
                for message in taken[2:]:
                    assert message.ack() is True
                while consumer.statistics().commits == 0:
                    await trio.sleep(0.5)
                assert committed(it) == 5
                assert consumer.statistics().commit_failures == 3
                assert consumer.statistics().partitions[T0].committed == 5

    run(main)
    [(level, text)] = failures_told(caplog)
    [extra] = [r for r in caplog.records if hasattr(r, "offsets")]
    assert extra.offsets == {"t[0]": 2}
    # A member that the group does not know any more is told so by the rebalance.
    assert level == (logging.WARNING if fault in PASSING[:3] else logging.INFO)
    assert text.startswith(
        "commit failed, what is finished stays uncommitted and would be delivered again after a"
        " crash; trying again: cannot "
    )
    assert "t[0]=2" in text


def test_each_episode_of_failures_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    """One WARNING when commits begin to fail, one INFO when they succeed again."""
    caplog.set_level(logging.INFO, "trio_consumer.committer")

    async def main() -> None:
        it = broker(2)
        async with consuming(it, commit_interval=1.0) as consumer:
            async with consumer.stream("t", ack="manual") as stream:
                for message in await take(stream, 2, ack=False):
                    it.fail_next_commits(2)
                    message.ack()
                    await trio.sleep(20)

    run(main)
    messages = [r.getMessage() for r in caplog.records if r.name == "trio_consumer.committer"]
    assert [m.split(",")[0] for m in messages] == ["commit failed", "commits succeed again"] * 2


def test_failing_commits_back_off() -> None:
    """Each failure doubles the wait; acknowledgements do not shorten it."""

    async def main() -> None:
        it = broker(50)
        it.faults = Faults(
            commit_failure_rate=1.0, commit_faults=(CommitFault.COORDINATOR_UNAVAILABLE,)
        )
        async with consuming(it, commit_interval=1.0, commit_every=1) as consumer:
            async with consumer.stream("t") as stream:
                with trio.move_on_after(20):
                    async for _ in stream:
                        await trio.sleep(0.5)
                assert 4 <= consumer.statistics().commit_failures <= 7
                it.faults = Faults()

    run(main)


@pytest.mark.parametrize("fault", FATAL, ids=name)
def test_fatal_failure_of_a_tick_stops_the_consumer(fault: CommitFault) -> None:
    """A refusal that will not pass cancels the block and leaves it as itself."""

    async def main() -> None:
        it = broker(2)
        it.fail_next_commits(1, fault)
        with pytest.raises(FATAL[fault], match=r"^cannot commit t\[0\]=2"):
            async with consuming(it) as consumer, consumer.stream("t") as stream:
                await take(stream, wait=1)
                await trio.sleep_forever()
        # The attempt at the end was not told to fail.
        assert committed(it) == 2

    run(main)


@pytest.mark.parametrize("fault", CommitFault, ids=name)
def test_commit_that_was_asked_for_raises_and_can_be_repeated(fault: CommitFault) -> None:
    """The caller learns of the failure; the account is as before and a second call commits."""

    async def main() -> None:
        it = broker(2)
        async with consuming(it, commit_interval=1000) as consumer:
            async with consumer.stream("t") as stream:
                await take(stream)
                it.fail_next_commits(1, fault)
                with pytest.raises(ConsumerError, match=r"^cannot ") as caught:
                    await consumer.commit()
                if isinstance(caught.value, CommitFailedError):
                    assert caught.value.offsets == {T0: (2, "", -1)}
                    assert caught.value.retriable == (fault in PASSING[:3])
                    assert caught.value.stale == (fault in PASSING[3:])
                assert consumer.statistics().partitions[T0].committed is None
                assert await consumer.commit() is True
                assert committed(it) == 2
                assert await consumer.commit() is False

    run(main)


def test_commit_whose_answer_was_lost_is_repeated_without_falling() -> None:
    """The broker has the offset already; committing it again is the same or more (I2)."""

    async def main() -> None:
        it = broker(4)
        async with consuming(it, commit_interval=1.0) as consumer:
            async with consumer.stream("t", ack="manual") as stream:
                taken = await take(stream, 4, ack=False)
                it.fail_next_commits(1, CommitFault.ANSWER_LOST)
                for message in taken[:2]:
                    message.ack()
                await trio.sleep(20)
                taken[2].ack()
                await trio.sleep(20)
        history = [commit.offsets[T0].offset for commit in it.commit_history(GROUP)]
        assert history == [2, 2, 3]

    run(main)


def test_commit_carries_what_changed_since_the_last_one() -> None:
    """Partitions without news are not in a commit; without any news there is none."""

    async def main() -> None:
        it = broker(2, 2)
        async with consuming(it, commit_interval=1.0) as consumer:
            async with consumer.stream("t") as stream:
                await take(stream)
                await trio.sleep(5)
                it.produce_many("t", values(1), partition=1)
                await take(stream)
                await trio.sleep(5)
        assert [sorted(commit.offsets) for commit in it.commit_history(GROUP)] == [[T0, T1], [T1]]

    run(main)


def test_commit_every_counts_acknowledgements() -> None:
    """So many acknowledgements make a commit long before the interval, also in batches."""

    async def main() -> None:
        it = broker(20)
        async with consuming(it, commit_interval=1000, commit_every=5) as consumer:
            async with consumer.stream("t") as stream:
                await take(stream, 4)
                await trio.sleep(1)
                assert committed(it) is None
                await take(stream, 1)
                await trio.sleep(1)
                assert committed(it) == 5
                async for batch in stream.batches(10):
                    assert batch.ack() == 10
                    break
                await trio.sleep(1)
                assert committed(it) == 15

    run(main)


def test_acknowledgement_wakes_nobody_until_a_commit_is_due() -> None:
    """Finishing a message is a function call: the ticker sleeps until enough have come."""

    class Steps(trio.abc.Instrument):
        def __init__(self) -> None:
            self.made = 0

        def before_task_step(self, task: trio.lowlevel.Task) -> None:
            self.made += task.name.endswith("._run")  # every task of the consumer

    async def main() -> None:
        it = broker(50)
        async with consuming(it, commit_interval=1000, commit_every=40) as consumer:
            async with consumer.stream("t", ack="manual") as stream:
                taken = await take(stream, 50, ack=False)
                before = steps.made
                for message in taken[:39]:
                    message.ack()
                    await trio.lowlevel.checkpoint()
                assert steps.made == before
                taken[39].ack()
                await trio.sleep(1)
                assert steps.made > before
                assert committed(it) == 40

    steps = Steps()
    run(main, instruments=(steps,))


def test_commit_every_is_heeded_after_a_commit_that_was_asked_for() -> None:
    """A commit between two ticks moves the timetable and does not make the ticker deaf."""

    async def main() -> None:
        it = broker(20)
        async with consuming(it, commit_interval=100, commit_every=5) as consumer:
            async with consumer.stream("t") as stream:
                await take(stream, 1)
                await trio.sleep(50)
                await consumer.commit()
                # Past the tick of the old timetable, before that of the new one.
                await trio.sleep(60)
                await take(stream, 5)
                await trio.sleep(1)
                assert committed(it) == 6

    run(main)


def test_commit_every_is_heeded_after_a_recovery() -> None:
    """Once a commit succeeds the back-off is over for the ticker, too."""

    async def main() -> None:
        it = broker(20)
        async with consuming(it, commit_interval=10, commit_every=5) as consumer:
            async with consumer.stream("t") as stream:
                it.fail_next_commits(3)
                await take(stream, 5)
                while consumer.statistics().commit_failures < 3:
                    await trio.sleep(1)
                # Enough of them while the back-off is on do not end it.
                await take(stream, 5)
                await trio.sleep(1)
                assert committed(it) is None
                await consumer.commit()
                assert committed(it) == 10
                await take(stream, 5)
                await trio.sleep(0.1)
                assert committed(it) == 15

    run(main)


def test_commits_of_one_topic_do_not_put_off_those_of_another() -> None:
    """Committing a part again and again leaves the timetable of the rest as it is."""

    async def main() -> None:
        it = MemoryBroker()
        add_topic(it, "t", 1)
        add_topic(it, "u", 1)
        async with consuming(it, commit_interval=2.8) as consumer:
            async with consumer.stream("t", "u") as stream:
                await take(stream, 2)
                await consumer.commit(["u"])
                assert (committed(it), committed(it, TP("u", 0))) == (None, 1)
                for _ in range(10):
                    await consumer.commit(["u"])
                    await trio.sleep(1)
                assert committed(it) == 1

    run(main)


def test_commit_can_be_seen_while_it_lasts_and_is_counted() -> None:
    """In the diagnostics and the statistics, and so is why the last one failed."""

    async def main() -> None:
        it = broker(3, latency=2.0)
        async with consuming(it, commit_interval=1000) as consumer:
            async with consumer.stream("t", ack="manual") as stream:
                for number, message in enumerate(await take(stream, 2, ack=False, wait=60), 1):
                    message.ack()
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(consumer.commit)
                        await trio.sleep(0.5)
                        assert Activity.COMMITTING in consumer.diag.flags
                    assert Activity.COMMITTING not in consumer.diag.flags
                    assert consumer.statistics().commits == number
                await take(stream, 1, wait=60)
                it.fail_next_commits(1)
                with pytest.raises(CommitFailedError):
                    await consumer.commit()
                assert "cannot commit t[0]=3" in (consumer.statistics().commit_error or "")
                assert await consumer.commit()
                assert consumer.statistics().commit_error is None

    run(main)


def test_concurrent_commits_wait_for_each_other() -> None:
    """The second waits for the first, then commits what was finished meanwhile, or nothing."""

    async def main() -> None:
        it = broker(3, latency=2.0)
        results: dict[str, bool] = {}
        async with consuming(it, commit_interval=1000) as consumer:
            async with consumer.stream("t", ack="manual") as stream:
                taken = await take(stream, 3, ack=False, wait=60)
                taken[0].ack()

                async def ask(name: str, delay: float) -> None:
                    await trio.sleep(delay)
                    results[name] = await consumer.commit()

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(ask, "first", 0.0)
                    nursery.start_soon(ask, "second", 0.1)
                    nursery.start_soon(ask, "third", 0.2)
                    await trio.sleep(0.5)
                    taken[1].ack()
                assert results == {"first": True, "second": True, "third": False}
        assert [c.offsets[T0].offset for c in it.commit_history(GROUP)] == [1, 2]

    run(main)


@pytest.mark.parametrize("after", [0.0, 0.5, 1.5])
def test_cancelled_commit_changes_nothing(after: float) -> None:
    """Cancelled on the way there or on the way back, a later commit makes good for it."""

    async def main() -> None:
        it = broker(2, latency=2.0)
        async with consuming(it, commit_interval=1000) as consumer:
            async with consumer.stream("t") as stream:
                await take(stream, 2, wait=60)
                with trio.move_on_after(after) as scope:
                    await consumer.commit()
                assert scope.cancelled_caught
                assert committed(it) == (2 if after > 1 else None)
                assert consumer.statistics().partitions[T0].committed is None
                assert await consumer.commit() is True
                assert consumer.statistics().partitions[T0].committed == 2
                assert committed(it) == 2

    run(main)


def test_cancelled_while_waiting_for_another_commit_commits_nothing() -> None:
    """A commit that never got its turn leaves the one before it alone."""

    async def main() -> None:
        it = broker(2, latency=2.0)
        async with consuming(it, commit_interval=1000) as consumer:
            async with consumer.stream("t") as stream:
                await take(stream, 2, wait=60)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(consumer.commit)
                    await trio.sleep(0.1)
                    with trio.move_on_after(0.1) as scope:
                        await consumer.commit()
                    assert scope.cancelled_caught
                assert consumer.statistics().partitions[T0].committed == 2

    run(main)


def test_stuck_partition_holds_back_itself_alone() -> None:
    """A commit takes each partition at its own lowest unfinished message."""

    async def main() -> None:
        it = broker(3, 2)
        async with consuming(it) as consumer, consumer.stream("t", ack="manual") as stream:
            for message in await take(stream, ack=False):
                if (message.partition, message.offset) != (0, 1):
                    message.ack()
            await consumer.commit()
        assert (committed(it, T0), committed(it, T1)) == (1, 3)

    run(main)
