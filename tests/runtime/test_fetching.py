"""Messages without a stream: ``getmany``, the callback, topics assigned at random."""

from __future__ import annotations

import pytest
import trio

from trio_consumer import (
    TP,
    ConfigurationError,
    Message,
    RoundRobin,
    open_consumer,
)
from trio_consumer.testing import MemoryBroker
from trio_consumer.transports import PolledBatch
from trio_consumer.transports.memory import CommitFault

from .support import (
    GROUP,
    T0,
    T1,
    Poll,
    PollingOtherwise,
    add_topic,
    broker,
    committed,
    consuming,
    offsets,
    run,
    take,
)


async def fetch(consumer: object, timeout: float = 1.0) -> list[Message]:
    """The messages of one ``getmany``."""
    return [message async for _, message in consumer.getmany(timeout)]  # type: ignore[attr-defined]


def test_getmany_hands_out_one_fetch_and_ends() -> None:
    """Pairs of partition and message; the next call goes on behind."""

    async def main() -> None:
        it = broker(3, 2)
        async with consuming(it, topics=["t"]) as consumer:
            pairs = [pair async for pair in consumer.getmany(1.0)]
            assert sorted((tp, message.offset) for tp, message in pairs) == [
                (tp, offset) for tp in (T0, T1) for offset in range(3)
            ]
            started = trio.current_time()
            assert await fetch(consumer, 7.0) == []
            assert trio.current_time() - started == pytest.approx(7.0)
            it.produce("t", b"late", partition=1)
            (late,) = await fetch(consumer)
            assert late.value == b"late"
            await consumer.commit()
            assert committed(it) is None
            for _, message in pairs:
                assert consumer.ack(message)
            await consumer.commit()
            assert (committed(it), committed(it, T1)) == (3, 3)

    run(main)


def test_getmany_waits_for_the_first_message_only() -> None:
    """With something there it returns at once, however long it may wait."""

    async def main() -> None:
        it = broker(2)
        async with consuming(it, topics=["t"]) as consumer:
            assert offsets(await fetch(consumer, 1000.0)) == [0, 1]
            assert trio.current_time() < 10

    run(main)


def test_getmany_left_in_the_middle_skips_nothing() -> None:
    """What was not handed out comes with the next call, what was stays unfinished."""

    async def main() -> None:
        it = broker(6)
        async with consuming(it, topics=["t"]) as consumer:
            async for _, message in consumer.getmany(1.0):
                if message.offset == 1:
                    break
                message.ack()
            await consumer.commit()
            assert committed(it) == 1
            rest = await fetch(consumer)
            assert offsets(rest) == [2, 3, 4, 5]
            for message in rest:
                message.ack()
            await consumer.commit()
            assert committed(it) == 1
        async with consuming(it) as consumer, consumer.stream("t") as stream:
            assert offsets(await take(stream)) == [1, 2, 3, 4, 5]

    run(main)


def test_getmany_ends_when_flow_stops_and_goes_on_after() -> None:
    """Stopped in the middle of a fetch, nothing is handed out and nothing is lost."""

    async def main() -> None:
        it = broker(6)
        async with consuming(it, topics=["t"]) as consumer:
            got = []
            async for _, message in consumer.getmany(1.0):
                got.append(message)
                if message.offset == 2:
                    consumer.stop_flow()
            assert offsets(got) == [0, 1, 2]
            assert await fetch(consumer) == []
            consumer.resume_flow()
            assert offsets(await fetch(consumer)) == [3, 4, 5]

    run(main)


def test_getmany_ends_with_the_generation() -> None:
    """A rebalance ends the fetch; the partition that stays is read on by the next one."""

    async def main() -> None:
        it = broker(50, 2)
        async with consuming(it, topics=["t"], drain_timeout=0) as consumer:
            got = []
            async for _, message in consumer.getmany(1.0):
                got.append(message)
                message.ack()
                if len(got) == 10:
                    async with consuming(it, topics=["t"]) as other:
                        while not other.assignment:
                            await trio.sleep(0.1)
                        before = len(got)
            assert len(got) <= before + 1
            for _ in range(20):
                for message in await fetch(consumer):
                    message.ack()
                    got.append(message)
            for tp in (T0, T1):
                assert sorted(set(offsets(got, tp))) == list(range(50))
            await consumer.commit()
            assert (committed(it), committed(it, T1)) == (50, 50)

    run(main)


def test_getmany_stands_beside_streams() -> None:
    """Both get every message, and both have to finish it."""

    async def main() -> None:
        it = broker(2)
        async with consuming(it, topics=["t"]) as consumer, consumer.stream("t") as stream:
            assert offsets(await fetch(consumer)) == [0, 1]
            assert offsets(await take(stream)) == [0, 1]
            await consumer.commit()
            assert committed(it) is None

    run(main)


def test_getmany_after_the_stop_is_empty() -> None:
    """A consumer that stops hands out nothing."""

    async def main() -> None:
        it = broker(3)
        async with consuming(it, topics=["t"]) as consumer:
            assert len(await fetch(consumer)) == 3
            it.produce("t", b"late", partition=0)
            await trio.sleep(1)
            consumer.close()
            assert await fetch(consumer) == []

    run(main)


def test_getmany_and_callback_need_topics() -> None:
    """There is nothing to fetch without one."""

    async def nothing(message: Message) -> None: ...

    async def main() -> None:
        it = broker(1)
        async with consuming(it) as consumer:
            with pytest.raises(ConfigurationError, match=r"^getmany\(\) needs to know the topics"):
                consumer.getmany(1.0)
        with pytest.raises(ConfigurationError, match=r"^a callback needs topics"):
            async with consuming(it, callback=nothing):
                pass

    run(main)


def test_callback_gets_every_message_and_finishes_none_by_returning() -> None:
    """It may hand messages to somebody who acknowledges them later."""

    async def main() -> None:
        it = broker(3, 2)
        got: list[Message] = []

        async def keep(message: Message) -> None:
            await trio.lowlevel.checkpoint()
            got.append(message)

        async with consuming(it, topics=["t"], callback=keep) as consumer:
            await trio.sleep(1)
            assert offsets(got) == offsets(got, T1) == [0, 1, 2]
            await consumer.commit()
            assert committed(it) is None
            for message in got:
                if message.tp == T0:
                    assert message.ack()
        assert (committed(it), committed(it, T1)) == (3, None)

    run(main)


def test_callback_that_raises_stops_the_consumer_and_commits_what_is_finished() -> None:
    """Its exception leaves as itself; the message that failed comes again."""

    async def main() -> None:
        it = broker(5)

        async def fail(message: Message) -> None:
            if message.offset == 3:
                raise LookupError("no such order")
            message.ack()

        with pytest.raises(LookupError, match=r"^no such order$"):
            async with consuming(it, topics=["t"], callback=fail):
                await trio.sleep_forever()
        assert committed(it) == 3

    run(main)


@pytest.mark.parametrize("fault", [CommitFault.UNAUTHORIZED, CommitFault.METADATA_TOO_LARGE])
def test_error_of_the_callback_leaves_although_the_commit_is_refused(fault: CommitFault) -> None:
    """What failed first matters, and it is no context of the other."""

    async def main() -> None:
        it = broker(5)

        async def fail(message: Message) -> None:
            message.ack()
            if message.offset == 3:
                it.fail_next_commits(10, fault)
                raise LookupError("no such order")

        with pytest.raises(LookupError, match=r"^no such order$"):
            async with consuming(it, topics=["t"], callback=fail):
                await trio.sleep_forever()

    run(main)


def test_task_error_commits_what_is_finished_even_if_that_fails(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The failure of the commit is told, the failure of the task matters."""

    async def main() -> None:
        it = broker(5)
        async with (
            consuming(it, commit_timeout=1) as consumer,
            consumer.stream("t", ack="manual") as stream,
        ):
            messages = await take(stream, 3, ack=False)
            messages[0].ack()
            await consumer.on_task_error(ValueError("bad"))
            assert committed(it) == 1
            messages[1].ack()
            it.down()
            await consumer.on_task_error(ValueError("bad"))
            it.up()
            assert committed(it) == 1
        assert committed(it) == 2
        assert "commit failed after ValueError('bad')" in caplog.text

    run(main)


class StrayTransport(PollingOtherwise):
    """A memory broker whose sessions also bring records of somebody else's partition."""

    def __init__(self, it: MemoryBroker, stray: TP) -> None:
        super().__init__(it)
        self.stray = stray

    def polling(self, poll: Poll) -> Poll:
        sent = False

        async def poll_more() -> list[PolledBatch]:
            nonlocal sent
            batches = list(await poll())
            if sent:
                return batches
            sent = True
            records = self.it.records(self.stray)
            marker = PolledBatch(self.stray, [], len(records) + 1)
            # The others come behind: they must not be left out.
            return [PolledBatch(self.stray, records, len(records)), marker, *batches]

        return poll_more


@pytest.mark.parametrize("exempt", [True, False])
def test_randomly_assigned_topics_are_handed_on_and_never_committed(*, exempt: bool) -> None:
    """A record of a partition that is not assigned reaches streams only if it may."""

    async def main() -> None:
        it = broker(2)
        add_topic(it, "other", 3)
        stray = TP("other", 0)
        async with open_consumer(
            StrayTransport(it, stray),
            group=GROUP,
            randomly_assigned_topics=["other"] if exempt else [],
        ) as consumer:
            assert consumer.randomly_assigned_topics == ({"other"} if exempt else frozenset())
            consumer._subscription._desired = lambda: frozenset({"t"})  # type: ignore[method-assign]
            async with consumer.stream("t", "other") as stream:
                got = await take(stream, ack=False)
                assert offsets(got) == [0, 1]
                assert offsets(got, stray) == ([0, 1, 2] if exempt else [])
                assert not any(message.ack() for message in got if message.tp == stray)
                for message in got:
                    with message.while_assigned() as scope:
                        await trio.lowlevel.checkpoint()
                    assert not scope.cancelled_caught
                assert all(str(message.tp) in repr(message._chunk.ledger) for message in got)
        assert committed(it) == 2 or committed(it) == 1
        assert committed(it, stray) is None

    run(main)


def test_it_says_what_it_was_opened_with() -> None:
    """The settings that Faust's consumer has as attributes."""

    async def main() -> None:
        it = broker(1)
        scheduler = RoundRobin()
        async with consuming(
            it, commit_interval=1.5, commit_every=7, scheduler=scheduler
        ) as consumer:
            assert consumer.commit_interval == 1.5
            assert consumer.commit_every == 7
            assert consumer.scheduler is scheduler
            assert consumer.transport is it
            assert consumer.consumer_stopped_errors == MemoryBroker.closed_errors

    run(main)
