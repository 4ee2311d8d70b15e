"""Batches of messages of which some cannot be decoded, and interruptions of decoding."""

# The blocks nest as those of a program do.
# ruff: noqa: SIM117

from __future__ import annotations

import gc
from typing import Literal

import pytest
import trio

from trio_consumer import TP, Consumer, DeserializationError, Message, Stream
from trio_consumer.testing import MemoryBroker

from .decoding import ACKS, BAD, GOOD, AckMode, Handler, batched, mixed
from .support import (
    T0,
    CancelAtStep,
    Journal,
    committed,
    consuming,
    run,
    tasks_living,
)


@pytest.mark.parametrize("ack", ACKS)
def test_batches_leave_out_what_is_skipped(ack: AckMode) -> None:
    """Skipped messages are finished by themselves, the others by the batch."""

    async def main() -> None:
        it = mixed(BAD, GOOD, BAD, GOOD, GOOD, BAD)
        async with consuming(it) as consumer:
            async with consumer.stream(
                "t", value_deserializer=int, ack=ack, on_decode_error="skip"
            ) as stream:
                assert await batched(stream) == [[1, 3, 4]]
        assert committed(it) == (None if ack == "none" else 6)

    run(main)


def test_batch_over_partitions_of_which_one_begins_with_what_is_skipped() -> None:
    """Each message of the batch finishes itself, whatever lies before it."""

    async def main() -> None:
        it = mixed()
        it.create_topic("u", 2)
        it.produce("u", GOOD, partition=0)
        it.produce("u", BAD, partition=1)
        it.produce("u", GOOD, partition=1)
        async with consuming(it) as consumer:
            async with consumer.stream(
                "u", value_deserializer=int, on_decode_error="skip", ack="manual"
            ) as stream:
                batch = await anext(aiter(stream.batches(10, 1.0)))
                assert (len(batch), batch.ack()) == (2, 2)
        assert (committed(it, TP("u", 0)), committed(it, TP("u", 1))) == (1, 2)

    run(main)


@pytest.mark.parametrize("policy", ["raise", "skip"])
def test_batches_are_decoded_before_only_if_something_follows_from_it(
    policy: Literal["raise", "skip"],
) -> None:
    """Else each message is decoded when somebody looks at it, if anybody does."""

    async def main() -> None:
        it = mixed(GOOD, BAD, GOOD)
        decoded = []

        def decode(value: bytes) -> int:
            decoded.append(value)
            return int(value)

        async with (
            consuming(it) as consumer,
            consumer.stream("t", value_deserializer=decode, on_decode_error=policy) as stream,
        ):
            batch = await anext(aiter(stream.batches()))
            assert len(batch) == (3 if policy == "raise" else 2)
            assert len(decoded) == (0 if policy == "raise" else 3)
            assert batch[0].offset == 0
            if policy == "raise":
                with pytest.raises(DeserializationError, match=r"^cannot deserialize the value of"):
                    list(batch)
            else:
                assert [message.value for message in batch] == [int(GOOD), int(GOOD)]
                assert len(decoded) == 3  # once each

    run(main)


def test_batch_does_not_finish_what_was_skipped_nor_the_other_way_round() -> None:
    """A batch left in the middle stays unfinished, although what lies between is finished."""

    async def main() -> None:
        it = mixed(GOOD, BAD, GOOD, GOOD)
        async with consuming(it) as consumer:
            async with consumer.stream(
                "t", value_deserializer=int, on_decode_error="skip"
            ) as stream:
                async for batch in stream.batches():
                    assert [message.offset for message in batch] == [0, 2, 3]
                    assert consumer.statistics().partitions[T0].unfinished == 3
                    assert batch[0].ack()
                    assert repr(batch) == "<MessageBatch of 3>"
                    assert [message.offset for message in batch[1:]] == [2, 3]
                    break
        assert committed(it) == 2

    run(main)


@pytest.mark.parametrize("ack", ACKS)
def test_batch_ends_before_a_message_for_the_function(ack: AckMode) -> None:
    """While the function runs nothing else of the stream is in the hand of that loop."""

    async def main() -> None:
        it = mixed(BAD, GOOD, GOOD, BAD, BAD, GOOD)

        async def handler(error: DeserializationError, message: Message) -> None:
            await trio.sleep(1)
            got.append(message.offset)
            if ack != "none":
                # The message itself and what is buffered behind it, nothing before it.
                assert consumer.statistics().partitions[T0].oldest_unfinished == message.offset

        got: list[int] = []
        async with consuming(it) as consumer:
            async with consumer.stream(
                "t", value_deserializer=int, ack=ack, on_decode_error=handler
            ) as stream:
                assert await batched(stream, wait=10) == [[1, 2], [5]]
        assert got == [0, 3, 4]
        assert committed(it) == (None if ack == "none" else 6)

    run(main)


def test_cancelled_function_takes_nothing_else_out_of_a_stream_of_batches() -> None:
    """What comes behind the message is still there for the next batch."""

    async def main() -> None:
        it = mixed(BAD, GOOD, GOOD)
        async with consuming(it) as consumer:
            async with consumer.stream(
                "t", value_deserializer=int, on_decode_error=Handler(10)
            ) as stream:
                batches = stream.batches()
                with trio.move_on_after(1):
                    await anext(batches)
                assert stream.buffered == 2
                assert [message.offset for message in await anext(batches)] == [1, 2]

    run(main)


def test_batches_of_decoded_messages_keep_to_their_size_and_wait() -> None:
    """``max_size`` and ``max_wait`` hold as for any other batches."""

    async def main() -> None:
        it = mixed(*[GOOD, BAD, GOOD] * 4, partitions=1)
        async with consuming(it) as consumer:
            async with consumer.stream(
                "t", value_deserializer=int, on_decode_error="skip"
            ) as stream:
                got = await batched(stream, 3)
                assert [offset for batch in got for offset in batch] == [0, 2, 3, 5, 6, 8, 9, 11]
                assert max(map(len, got)) <= 3
                start = trio.current_time()
                it.produce("t", GOOD, key=GOOD)
                async for batch in stream.batches(5, max_wait=4):
                    assert len(batch) == 1
                    assert trio.current_time() == start + 4
                    break
        assert committed(it) == 12

    run(main)


def test_deserializer_that_is_interrupted_finishes_nothing() -> None:
    """What is no error of decoding leaves the loop under any policy, and gives back a batch."""

    def interrupted(data: bytes) -> int:
        if data == BAD:
            raise KeyboardInterrupt
        return int(data)

    async def main() -> None:
        it = mixed(GOOD, BAD)
        for way in (aiter, Stream.batches):
            async with consuming(it) as consumer:
                async with consumer.stream(
                    "t", value_deserializer=interrupted, on_decode_error="skip", ack="manual"
                ) as stream:
                    with pytest.raises(KeyboardInterrupt):
                        async for _ in way(stream):  # type: ignore[operator]
                            pass
                    if way is Stream.batches:
                        with trio.fail_after(1):
                            await consumer.wait_empty()
            assert committed(it) is None

    run(main)


async def _process(consumer: Consumer, journal: Journal, way: str, *, seconds: float) -> None:
    """Two workers with a function that takes two steps, over messages or over batches."""

    async def handler(error: DeserializationError, message: Message) -> None:
        await trio.sleep(0.01)
        journal.add(message)
        await trio.lowlevel.checkpoint()

    async def messages(stream: Stream) -> None:
        async for message in stream:
            await trio.lowlevel.checkpoint()
            journal.add(message)

    async def batches(stream: Stream) -> None:
        async for batch in stream.batches(2):
            await trio.lowlevel.checkpoint()
            for message in batch:
                journal.add(message)

    work = messages if way == "messages" else batches
    async with consumer.stream("t", value_deserializer=int, on_decode_error=handler) as stream:
        with trio.move_on_after(seconds):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(work, stream)
                nursery.start_soon(work, stream)


@pytest.mark.parametrize("way", ["messages", "batches"])
def test_cancellation_at_every_step_finishes_nothing_that_was_not_handled(way: str) -> None:
    """Whichever step is cancelled, a commit passes what was handled or processed only."""
    step = 0
    fired = True
    while fired:
        step += 1
        it = mixed(BAD, GOOD, BAD, BAD, GOOD)
        journal = Journal(it)
        instrument = CancelAtStep(step)

        async def main(
            it: MemoryBroker = it, journal: Journal = journal, instrument: CancelAtStep = instrument
        ) -> None:
            before = tasks_living()
            with trio.CancelScope() as scope:
                instrument.scope = scope
                async with consuming(it) as consumer:
                    await _process(consumer, journal, way, seconds=0.2)
                    await _process(consumer, journal, way, seconds=0.02)
            instrument.scope = None
            assert tasks_living() == before
            journal.check_commits()
            async with consuming(it) as consumer:
                await _process(consumer, journal, way, seconds=10)
            journal.check_commits()
            journal.check_complete()

        run(main, seed=step, instruments=(instrument,))
        fired = instrument.fired
    gc.collect()
    assert step > 30
