"""Leaving ``open_consumer``: what is raised, what is committed, what stays behind."""

# The blocks nest as those of a program do, an error leaves a whole block, and a
# loop that sleeps costs nothing under a virtual clock.
# ruff: noqa: SIM117

from __future__ import annotations

import sys
from contextlib import nullcontext
from typing import Any

import pytest
import trio
import trio.lowlevel
from trio.testing import wait_all_tasks_blocked

from trio_consumer import (
    TP,
    AuthorizationError,
    CommitFailedError,
    CorruptRecordError,
    OffsetAndMetadata,
    Stream,
)
from trio_consumer.testing import MemoryBroker
from trio_consumer.transports.memory import CommitFault
from trio_consumer.transports.memory.session import MemorySession

from .support import (
    GROUP,
    T0,
    T1,
    T2,
    broker,
    committed,
    consuming,
    run,
    take,
    tasks_living,
)

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup, ExceptionGroup


# -- leaving: errors -----------------------------------------------------------


def caught(error: BaseException, it: MemoryBroker) -> BaseException:
    """Raise an error in the body of a consumer and give back what comes out."""
    out: list[BaseException] = []

    async def main() -> None:
        before = tasks_living()
        try:
            async with consuming(it) as consumer, consumer.stream("t") as stream:
                await take(stream, 2)
                raise error
        except BaseException as exc:
            out.append(exc)
        assert tasks_living() == before
        assert it.members(GROUP) == {}

    run(main)
    return out[0]


def with_cause() -> BaseException:
    """An error with a cause of its own."""
    error = RuntimeError("mine")
    error.__cause__ = KeyError("cause")
    return error


@pytest.mark.parametrize(
    "error",
    [
        ValueError("mine"),
        KeyboardInterrupt(),
        SystemExit(3),
        trio.ClosedResourceError("mine"),
        StopIteration(),
        StopAsyncIteration(),
        ExceptionGroup("mine", [ValueError("inner")]),
        ExceptionGroup("mine", [ValueError("a"), ExceptionGroup("deep", [KeyError("b")])]),
        BaseExceptionGroup("mine", [KeyboardInterrupt()]),
        CommitFailedError("mine", offsets={}),
    ],
    ids=repr,
)
def test_error_of_the_body_leaves_as_itself(error: BaseException) -> None:
    """Not wrapped, not taken apart, with cause and context as they were; the rest is committed."""
    error.__context__ = None
    it = broker(3)
    assert caught(error, it) is error
    assert error.__cause__ is None
    assert error.__context__ is None
    assert committed(it) == 2


def test_cause_and_context_of_an_error_stay_what_they_were() -> None:
    """What the user chained is what the user sees."""
    error = RuntimeError("mine")
    cause, context = KeyError("cause"), KeyError("context")
    error.__cause__, error.__context__ = cause, context
    assert caught(error, broker(3)) is error
    assert error.__cause__ is cause
    assert error.__context__ is context
    assert error.__suppress_context__ is True


def test_group_of_the_users_own_nursery_keeps_its_failures() -> None:
    """Tasks of the user that fail inside the block leave the group their nursery made."""

    async def main() -> None:
        async def fail(error: Exception) -> None:
            raise error

        with pytest.raises(ExceptionGroup) as info:
            async with consuming(broker(1)), trio.open_nursery() as nursery:
                nursery.start_soon(fail, ValueError("a"))
                nursery.start_soon(fail, KeyError("b"))
        assert {type(error) for error in info.value.exceptions} == {ValueError, KeyError}

    run(main)


def test_failure_of_a_task_cancels_the_body_and_leaves_as_itself() -> None:
    """A corrupt record ends the block with the error alone, also out of a nursery in the body."""

    async def main() -> None:
        it = broker(3)
        it.corrupt(T0, 1)
        cancelled = []

        async def work(stream: Stream) -> None:
            try:
                await take(stream, wait=1000)
            except trio.Cancelled:
                cancelled.append(True)
                raise

        with pytest.raises(CorruptRecordError, match=r"^cannot read t\[0\] offset 1"):
            async with consuming(it) as consumer, consumer.stream("t") as stream:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(work, stream)
                    nursery.start_soon(work, stream)
        assert cancelled == [True, True]

    run(main)


def test_failures_of_body_and_task_leave_together() -> None:
    """Only if several things failed is there a group, and nothing else in it."""

    async def main() -> None:
        it = broker(2)
        it.fail_next_commits(1, CommitFault.UNAUTHORIZED)
        own = ExceptionGroup("mine", [ValueError("inner")])
        with pytest.raises(BaseExceptionGroup) as info:
            async with consuming(it) as consumer, consumer.stream("t") as stream:
                await take(stream, 2)
                try:
                    await trio.sleep_forever()
                except trio.Cancelled:
                    raise own from None
        first, second = info.value.exceptions
        assert {type(first), type(second)} == {ExceptionGroup, AuthorizationError}
        assert own in (first, second)

    run(main)


@pytest.mark.parametrize("lasts", [0.1, 12.0, 29.0, 60.0])
def test_final_commit_waits_for_a_rebalance(monkeypatch: pytest.MonkeyPatch, lasts: float) -> None:
    """While the member joins no commit is sent; the end comes after ``drain_timeout`` at most."""
    commit = MemorySession.commit

    async def main() -> None:
        it = broker(2)
        over = 0.0

        async def joining(self: MemorySession, offsets: dict[TP, OffsetAndMetadata]) -> None:
            if trio.current_time() < over:
                raise CommitFailedError("joining", offsets=offsets, retriable=True, stale=True)
            await commit(self, offsets)

        monkeypatch.setattr(MemorySession, "commit", joining)
        late = pytest.raises(CommitFailedError, match=r"^joining$")
        with late if lasts > 30 else nullcontext():
            async with consuming(it, commit_interval=1000, drain_timeout=30.0) as consumer:
                async with consumer.stream("t") as stream:
                    await take(stream, 2)
                over = (began := trio.current_time()) + lasts
        assert trio.current_time() - began <= 35.0
        assert committed(it) == (None if lasts > 30 else 2)

    run(main)


@pytest.mark.parametrize("fault", [CommitFault.METADATA_TOO_LARGE, CommitFault.UNAUTHORIZED])
def test_final_commit_that_fails_is_an_error(fault: CommitFault) -> None:
    """A block that ends cleanly learns that its last commit did not succeed."""

    async def main() -> None:
        it = broker(2)
        before = tasks_living()
        with pytest.raises((CommitFailedError, AuthorizationError), match=r"^cannot commit"):
            async with consuming(it, commit_interval=1000) as consumer:
                async with consumer.stream("t") as stream:
                    await take(stream, 2)
                it.fail_next_commits(1, fault)
        assert tasks_living() == before
        assert it.members(GROUP) == {}

    run(main)


def test_final_commit_is_repeated_while_there_is_time() -> None:
    """Failures that may pass are tried again up to ``commit_timeout``, then they are an error."""

    async def main() -> None:
        it = broker(2)
        async with consuming(it, commit_interval=1000) as consumer:
            async with consumer.stream("t") as stream:
                await take(stream, 2)
            it.fail_next_commits(3)
        assert committed(it) == 2
        with pytest.raises(CommitFailedError, match=r"^cannot commit"):
            async with consuming(it, commit_interval=1000) as consumer:
                async with consumer.stream("t") as stream:
                    it.produce("t", b"")
                    await take(stream)
                it.fail_next_commits(1000)
                start = trio.current_time()
        assert trio.current_time() - start <= 2 * 5.0

    run(main)


def test_error_of_the_body_matters_more_than_the_last_commit(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """If both fail the body's error leaves alone, and the commit is a WARNING."""

    async def main() -> None:
        it = broker(2)
        with pytest.raises(KeyError):
            async with consuming(it, commit_interval=1000) as consumer:
                async with consumer.stream("t") as stream:
                    await take(stream, 2)
                    it.fail_next_commits(1, CommitFault.METADATA_TOO_LARGE)
                    raise KeyError

    run(main)
    assert [r.getMessage()[:24] for r in caplog.records if r.name == "trio_consumer.consumer"] == [
        "the last commit failed, "
    ]


def test_keyboard_interrupt_does_not_wait_for_hands() -> None:
    """Control-C commits what is finished and leaves at once."""

    async def main() -> None:
        it = broker(3)
        async with trio.open_nursery() as nursery:
            with pytest.raises(KeyboardInterrupt):
                async with consuming(it, commit_interval=1000) as consumer:
                    stream = consumer.stream("t", ack="manual")
                    await stream.__aenter__()
                    first, *_ = await take(stream, 2, ack=False)
                    first.ack()
                    start = trio.current_time()
                    raise KeyboardInterrupt
            assert trio.current_time() == start
            assert committed(it) == 1
            nursery.cancel_scope.cancel()

    run(main)


# -- leaving: cleanly and cancelled --------------------------------------------


def test_clean_exit_commits_everything_finished_and_leaves_nothing() -> None:
    """After the block all is committed, the member has left, no task lives (I12, I11)."""

    async def main() -> None:
        it = broker(10, 3)
        before = tasks_living()
        async with consuming(it, commit_interval=1000) as consumer:
            async with consumer.stream("t") as stream:
                await take(stream)
        assert [committed(it, tp) for tp in (T0, T1, T2)] == [10, 10, 10]
        assert tasks_living() == before
        assert it.members(GROUP) == {}

    run(main)


def test_cancelled_block_commits_what_is_finished_without_waiting() -> None:
    """Cancelling the whole block shields the last commit and waits for nobody."""

    async def main() -> None:
        it = broker(5, latency=0.5)
        before = tasks_living()
        with trio.move_on_after(60) as scope:
            async with consuming(it, commit_interval=1000) as consumer:
                async with consumer.stream("t", ack="manual") as stream:
                    for message in (await take(stream, 4, ack=False, wait=20))[:3]:
                        message.ack()
                    await trio.sleep_forever()
        assert scope.cancelled_caught
        assert committed(it) == 3
        assert trio.current_time() < 65
        assert tasks_living() == before

    run(main)


def test_cancelled_exit_is_bounded_when_the_broker_is_away() -> None:
    """The shield lasts ``commit_timeout``, and leaving as long again."""

    async def main() -> None:
        it = broker(5)
        with trio.move_on_after(10) as scope:
            async with consuming(it, commit_interval=1000, commit_timeout=3) as consumer:
                async with consumer.stream("t") as stream:
                    await take(stream, 3)
                    it.down()
                    await trio.sleep_forever()
        assert scope.cancelled_caught
        assert trio.current_time() <= 10 + 3 + 3 + 0.1

    run(main)


@pytest.mark.parametrize(("drain", "expected"), [(30.0, 2), (1.0, 1), (0.0, 1)])
def test_exit_waits_for_what_is_in_hand(drain: float, expected: int) -> None:
    """Loops end after the message in hand; who takes longer than ``drain_timeout`` is left."""

    async def main() -> None:
        it = broker(5)
        seen: list[int] = []

        async def work(stream: Stream) -> None:
            async with stream:
                async for message in stream:
                    await trio.sleep(3)
                    seen.append(message.offset)

        async with trio.open_nursery() as nursery:
            async with consuming(it, drain_timeout=drain, commit_interval=1000) as consumer:
                nursery.start_soon(work, consumer.stream("t"))
                await trio.sleep(4)
                start = trio.current_time()
            assert trio.current_time() - start == pytest.approx(min(drain, 2))
        assert seen == [0, 1]
        assert committed(it) == expected

    run(main)


def test_exit_does_not_wait_for_records_that_were_held_back() -> None:
    """What a full buffer kept out is not put into it when the buffer is emptied."""

    async def main() -> None:
        it = broker(20, 2)
        async with consuming(it, drain_timeout=30) as consumer:
            stream = consumer.stream("t", max_buffered=1)
            await stream.__aenter__()
            await take(stream, 1)
            assert stream.is_full
            start = trio.current_time()
        assert trio.current_time() == start

    run(main)


def test_flow_that_is_resumed_during_the_exit_brings_nothing_into_the_buffers() -> None:
    """Only hands are waited for, and what was held back stays with the broker."""

    async def main() -> None:
        it = broker(20)
        options = {"max_poll_records": 3}
        async with trio.open_nursery() as nursery:
            async with consuming(it, drain_timeout=30, client_options=options) as consumer:
                stream = consumer.stream("t", ack="manual", max_buffered=3)
                await stream.__aenter__()
                messages = await take(stream, 2, ack=False)
                consumer.stop_flow()
                await trio.sleep(1)

                async def resume_and_finish() -> None:
                    await trio.sleep(1)
                    consumer.resume_flow()
                    await trio.sleep(1)
                    assert [message.ack() for message in messages] == [True, True]

                nursery.start_soon(resume_and_finish)
                start = trio.current_time()
            assert trio.current_time() - start == 2
        assert committed(it) == 2

    run(main)


def test_close_ends_loops_after_the_message_in_hand() -> None:
    """``close`` is a plain function; no stream can be opened after it, and twice is once."""

    async def main() -> None:
        it = broker(5)
        seen = []
        async with consuming(it) as consumer, consumer.stream("t") as stream:
            async for message in stream:
                seen.append(message.offset)
                if len(seen) == 2:
                    consumer.close()
                    consumer.close()
            async for batch in stream.batches(2):
                seen.append(len(batch))
            assert repr(consumer) == "<Consumer group='g' partitions=1 streams=1 stopping>"
            assert repr(stream) == "<Stream t ack=auto ended buffered=3>"
            with pytest.raises(trio.ClosedResourceError, match=r"^<Consumer .* is stopping; open"):
                async with consumer.stream("t"):
                    pass
        assert seen == [0, 1]
        assert committed(it) == 2

    run(main)


def test_stream_that_outlives_its_consumer_ends() -> None:
    """A loop in another task ends when the consumer has gone, and late calls are harmless."""

    async def main() -> None:
        it = broker(1)
        ended = []

        async def work(stream: Stream) -> None:
            async with stream:
                async for message in stream:
                    kept.append(message)
                ended.append(True)
                await trio.sleep(1)

        kept: list[Any] = []
        async with trio.open_nursery() as nursery:
            async with consuming(it) as consumer:
                nursery.start_soon(work, consumer.stream("t"))
                await trio.sleep(1)
            await wait_all_tasks_blocked()
            assert ended == [True]
        assert kept[0].ack() is False
        assert consumer.assignment == frozenset()

    run(main)
