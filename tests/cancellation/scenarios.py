"""The scenarios that are cancelled at each of their steps.

Together they call every public async function; ``test_every_step.py`` checks
that they do.
"""

from __future__ import annotations

from typing import Any

import trio

from trio_consumer import Consumer, DeserializationError, Message, Stream

from ..runtime.support import GROUP, T0, T1, consuming
from .kit import Trial, process, scenario


@scenario(streams=2)
async def two_streams(consumer: Consumer, trial: Trial) -> None:
    """Two streams, one of them slow, the other one with two workers, on both partitions."""
    journal = trial.journal

    async def work(stream: Stream) -> None:
        async for message in stream:
            await trio.lowlevel.checkpoint()
            journal.add(message)

    async with consumer.stream("t") as one, consumer.stream("t", ack="manual") as two:
        with trial.loop, trio.move_on_after(1):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(work, one)
                nursery.start_soon(work, one)
                async for message in two:
                    async with message:
                        await trio.sleep(0.05)
                        journal.add(message, 1)


@scenario()
async def batches(consumer: Consumer, trial: Trial) -> None:
    """Batches with a wait for them to fill."""
    async with consumer.stream("t") as stream:
        with trial.loop, trio.move_on_after(3):
            async for batch in stream.batches(4, 0.5):
                await trio.lowlevel.checkpoint()
                for message in batch:
                    trial.journal.add(message)


@scenario()
async def batches_by_hand(consumer: Consumer, trial: Trial) -> None:
    """Batches that are finished by a clean exit, or given back."""
    async with consumer.stream("t", ack="manual") as stream:
        back = False
        with trial.loop, trio.move_on_after(3):
            async for batch in stream.batches(4):
                if not back:
                    back = True
                    batch.nack()
                    continue
                async with batch:
                    await trio.lowlevel.checkpoint()
                    for message in batch:
                        trial.journal.add(message)


@scenario()
async def commits(consumer: Consumer, trial: Trial) -> None:
    """A commit after each message, of everything or of one partition."""
    async with consumer.stream("t") as stream:
        for number in range(6):
            with trial.loop:
                await process(stream, trial.journal, 1)
                await consumer.commit([T0] if number % 2 else None)


@scenario()
async def commits_by_other_names(consumer: Consumer, trial: Trial) -> None:
    """Several that meet, one that follows, one that was called for by an error."""
    async with consumer.stream("t") as stream, trio.open_nursery() as nursery:
        with trial.loop:
            await process(stream, trial.journal, 4)
            nursery.start_soon(consumer.force_commit)
            nursery.start_soon(consumer.maybe_wait_for_commit_to_finish)
            await trio.lowlevel.checkpoint()
            await consumer.maybe_wait_for_commit_to_finish()
            await process(stream, trial.journal, 2)
            await consumer.on_task_error(ValueError("one failed"))
            await consumer.commit_and_end_transactions()
            await process(stream, trial.journal, 10)
            await consumer.wait_empty(2.0)


@scenario(monotonic=False)
async def seeks(consumer: Consumer, trial: Trial) -> None:
    """Back to the beginning and to what is committed."""
    async with consumer.stream("t") as stream:
        with trial.loop:
            await process(stream, trial.journal, 5)
            if T0 in consumer.assignment:
                await consumer.seek(T0, 1)
            await process(stream, trial.journal, 4)
            await consumer.commit()
            await consumer.seek_to_committed()
            await process(stream, trial.journal, 2)
            await consumer.perform_seek()
            await process(stream, trial.journal, 2)
            await consumer.on_restart()
            await process(stream, trial.journal, 2)


@scenario()
async def questions(consumer: Consumer, trial: Trial) -> None:
    """What is asked of the broker changes nothing, answered or not."""
    async with consumer.stream("t") as stream:
        with trial.loop:
            await process(stream, trial.journal, 5)
            await consumer.committed()
            await consumer.beginning_offsets([T0, T1])
            await consumer.end_offsets([T0])
            await consumer.verify_all_partitions_active()
            await process(stream, trial.journal, 5)


@scenario()
async def streams_in_turn(consumer: Consumer, trial: Trial) -> None:
    """A stream that leaves a buffer behind, and another one that takes it over."""
    for _ in range(2):
        async with consumer.stream("t", max_buffered=2) as stream:
            with trial.loop:
                await process(stream, trial.journal, 3)


@scenario()
async def failing(consumer: Consumer, trial: Trial) -> None:
    """A stream that is left by an exception, and one that takes its place."""
    try:
        async with consumer.stream("t", max_buffered=4) as stream:
            with trial.loop:
                await process(stream, trial.journal, 3)
            raise LookupError
    except LookupError:
        pass
    async with consumer.stream("t") as stream:
        with trial.loop:
            await process(stream, trial.journal, 4)


@scenario()
async def given_back(consumer: Consumer, trial: Trial) -> None:
    """Each message of one partition is given back once."""
    back: set[int] = set()
    async with consumer.stream("t") as stream:
        with trial.loop, trio.move_on_after(1):
            async for message in stream:
                if message.tp == T0 and message.offset not in back:
                    back.add(message.offset)
                    message.nack()
                    continue
                trial.journal.add(message)


@scenario()
async def flow(consumer: Consumer, trial: Trial) -> None:
    """Stopped in the middle of a batch, truly stopped, and resumed."""
    async with consumer.stream("t") as stream:
        for _ in range(3):
            with trial.loop:
                await process(stream, trial.journal, 2)
                consumer.stop_flow()
                await consumer.wait_for_stopped_flow()
                await consumer.suspend_flow.wait()
                consumer.resume_flow()
                await consumer.can_resume_flow.wait()
        with trial.loop:
            await process(stream, trial.journal, 10)


@scenario(options=lambda trial: {"topics": ["t"]})
async def getmany(consumer: Consumer, trial: Trial) -> None:
    """One fetch after another, the first one left in the middle."""
    for number in range(4):
        with trial.loop:
            async for _, message in consumer.getmany(1.0):
                await trio.lowlevel.checkpoint()
                trial.journal.add(message)
                message.ack()
                if number == 0:
                    break


def _with_callback(trial: Trial) -> dict[str, Any]:
    async def callback(message: Message) -> None:
        await trio.sleep(0.05)
        trial.journal.add(message)
        message.ack()

    return {"topics": ["t"], "callback": callback}


@scenario(options=_with_callback)
async def callback(consumer: Consumer, trial: Trial) -> None:
    """No stream at all."""
    with trial.loop:
        await trio.sleep(2)


@scenario()
async def dead_letters(consumer: Consumer, trial: Trial) -> None:
    """Every second message cannot be decoded, and goes to a function that takes its time."""

    def decode(value: bytes) -> int:
        number = int(value)
        if number % 2:
            raise ValueError(f"odd: {number}")
        return number

    async def bury(error: DeserializationError, message: Message) -> None:
        await trio.sleep(0.05)
        trial.journal.add(message)

    async with consumer.stream("t", value_deserializer=decode, on_decode_error=bury) as stream:
        with trial.loop, trio.move_on_after(1):
            async for message in stream:
                await trio.lowlevel.checkpoint()
                trial.journal.add(message)


@scenario()
async def by_pattern(consumer: Consumer, trial: Trial) -> None:
    """The topics are asked for before anything is read."""
    async with consumer.stream(pattern="t.*") as stream:
        with trial.loop:
            await process(stream, trial.journal, 10)


@scenario()
async def graceful(consumer: Consumer, trial: Trial) -> None:
    """A stop with a worker that is still busy: drain and last commit."""
    async with consumer.stream("t") as stream:
        with trial.loop:
            async with trio.open_nursery() as nursery:

                async def work() -> None:
                    async for message in stream:
                        await trio.sleep(0.3)
                        trial.journal.add(message)

                nursery.start_soon(work)
                await trio.sleep(1)
                await consumer.on_stop()


@scenario()
async def rebalances(consumer: Consumer, trial: Trial) -> None:
    """A rebalance that waits for a message in hand, and one that cuts its work off."""
    async with consumer.stream("t") as stream:
        with trial.loop, trio.move_on_after(8):
            async for message in stream:
                with message.while_assigned() as scope:
                    if message.offset == 2:
                        trial.broker.rebalance(GROUP)
                        await trio.sleep(4)
                if not scope.cancelled_caught:
                    trial.journal.add(message)


@scenario(options=lambda trial: {"drain_timeout": 0.5})
async def a_second_member(consumer: Consumer, trial: Trial) -> None:
    """Another one joins and leaves while messages are in hand."""

    async def visit() -> None:
        async with consuming(trial.broker) as other, other.stream("t") as stream:
            await process(stream, trial.journal, 2, wait=2)

    async with consumer.stream("t") as stream:
        with trial.loop:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(visit)
                with trio.move_on_after(6):
                    async for message in stream:
                        await trio.sleep(0.3)
                        trial.journal.add(message)
