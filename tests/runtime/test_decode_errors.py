"""What becomes of messages that cannot be decoded: raised, skipped, handed to a function."""

# The blocks nest as those of a program do.
# ruff: noqa: SIM117

from __future__ import annotations

import logging
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import pytest
import trio

from trio_consumer import TP, ConfigurationError, DeserializationError, Message, Stream

from .decoding import ACKS, BAD, GOOD, AckMode, Handler, batched, mixed, warnings
from .support import (
    GROUP,
    T0,
    broker,
    committed,
    consuming,
    offsets,
    run,
    take,
)


@pytest.mark.parametrize("field", ["key", "value"])
@pytest.mark.parametrize("ack", ACKS)
def test_skipped_message_is_logged_once_and_finished(
    field: str, ack: AckMode, caplog: pytest.LogCaptureFixture
) -> None:
    """The loop goes on with the next one; an observer skips too and finishes nothing."""

    async def main() -> None:
        it = mixed(GOOD, BAD, BAD, GOOD)
        async with consuming(it) as consumer:
            async with consumer.stream(
                "t",
                ack=ack,
                on_decode_error="skip",
                **{f"{field}_deserializer": int},  # type: ignore[arg-type]
            ) as stream:
                assert offsets(await take(stream)) == [0, 3]
        assert committed(it) == (None if ack == "none" else 4)

    run(main)
    assert warnings(caplog) == [
        f"t[0] offset {offset} is skipped, this stream counts it as finished: its {field} cannot be"
        " deserialized: ValueError: invalid literal for int() with base 10: b'x'"
        for offset in (1, 2)
    ]
    record = next(r for r in caplog.records if r.name == "trio_consumer.stream")
    assert record.levelno == logging.WARNING
    told = vars(record)
    assert (told["topic"], told["partition"], told["offset"]) == ("t", 0, 1)
    assert told["field"] == field


def test_skipped_message_is_finished_for_its_stream_alone() -> None:
    """Another stream that still has the message holds it back."""

    async def main() -> None:
        it = mixed(BAD, GOOD)
        async with (
            consuming(it) as consumer,
            consumer.stream("t", value_deserializer=int, on_decode_error="skip") as one,
            consumer.stream("t", ack="manual") as two,
        ):
            assert offsets(await take(one)) == [1]
            first, second = await take(two, ack=False)
            second.ack()
            assert not await consumer.commit()
            first.ack()
            assert await consumer.commit()
            assert committed(it) == 2

    run(main)


def test_loop_over_nothing_but_skipped_messages_can_be_cancelled() -> None:
    """Skipping passes checkpoints as handing out does, for messages and for batches."""

    async def main() -> None:
        it = mixed(*[BAD] * 5000)
        for way in (aiter, Stream.batches):
            async with consuming(it) as consumer:
                async with consumer.stream(
                    "t", value_deserializer=int, on_decode_error="skip"
                ) as stream:
                    with trio.move_on_after(1) as scope:
                        async for _ in way(stream):  # type: ignore[operator]
                            raise AssertionError
                    assert scope.cancelled_caught
            assert committed(it) == 5000
            it.set_committed(GROUP, T0, 0)

    logging.getLogger("trio_consumer.stream").disabled = True
    try:
        run(main)
    finally:
        logging.getLogger("trio_consumer.stream").disabled = False


# -- a function ----------------------------------------------------------------------


@pytest.mark.parametrize("ack", ACKS)
def test_function_gets_error_and_raw_message_and_then_it_is_finished(ack: AckMode) -> None:
    """Key and value errors are told apart; the bytes are what was produced."""

    async def main() -> None:
        it = broker(0)
        it.produce("t", GOOD, key=GOOD)
        it.produce("t", GOOD, key=BAD)
        it.produce("t", BAD, key=GOOD)
        it.produce("t", None, key=GOOD)
        handler = Handler(0.1)
        async with consuming(it) as consumer:
            async with consumer.stream(
                "t",
                key_deserializer=int,
                value_deserializer=int,
                ack=ack,
                on_decode_error=handler,
            ) as stream:
                assert [(m.offset, m.key, m.value) for m in await take(stream)] == [
                    (0, 7, 7),
                    (3, 7, None),
                ]
        assert handler.got == [("key", 1, BAD, GOOD), ("value", 2, GOOD, BAD)]
        assert committed(it) == (None if ack == "none" else 4)

    run(main)


def test_message_is_unfinished_until_the_function_has_returned() -> None:
    """Nothing passes the message while it is being dealt with."""

    async def main() -> None:
        it = mixed(BAD, GOOD)

        async def handler(error: DeserializationError, message: Message) -> None:
            await trio.sleep(10)
            assert not await consumer.commit()

        async with consuming(it, commit_interval=1) as consumer:
            async with consumer.stream(
                "t", value_deserializer=int, on_decode_error=handler
            ) as stream:
                await take(stream, wait=20)
                await consumer.commit()
                assert committed(it) == 2

    run(main)


@pytest.mark.parametrize("ack", ["auto", "manual"])
@pytest.mark.parametrize("way", ["messages", "batches"])
def test_function_that_raises_leaves_the_message_unfinished(ack: AckMode, way: str) -> None:
    """Its exception leaves the loop as itself, and the next member gets the message."""

    async def main() -> None:
        it = mixed(GOOD, BAD, GOOD)

        async def broken(error: DeserializationError, message: Message) -> None:
            raise KeyError(message.offset)

        async def acked(error: DeserializationError, message: Message) -> None:
            assert message.ack()
            raise KeyError(message.offset)

        for handler, expected in ((broken, 1), (acked, 2)):
            with pytest.raises(KeyError, match=r"^1$") as caught:
                async with consuming(it) as consumer:
                    async with consumer.stream(
                        "t", value_deserializer=int, ack=ack, on_decode_error=handler
                    ) as stream:
                        await (take(stream) if way == "messages" else batched(stream))
            assert isinstance(caught.value.__context__, DeserializationError)
            assert committed(it) == expected

    run(main)


@pytest.mark.parametrize("way", ["messages", "batches"])
def test_function_that_is_cancelled_leaves_the_message_unfinished(way: str) -> None:
    """Nobody has it in hand then: it is not waited for, and comes to a new stream."""

    async def main() -> None:
        it = mixed(GOOD, BAD)
        slow, quick = Handler(100), Handler()
        async with consuming(it) as consumer:
            async with consumer.stream("t", value_deserializer=int, on_decode_error=slow) as stream:
                with trio.move_on_after(5):
                    await (take(stream, wait=50) if way == "messages" else batched(stream, wait=50))
                with trio.fail_after(0.1):
                    await consumer.wait_empty()
                assert slow.got == []
                assert committed(it) == 1
            async with consumer.stream(
                "t", value_deserializer=int, on_decode_error=quick
            ) as stream:
                assert offsets(await take(stream)) == []
        assert quick.offsets == [1]
        assert committed(it) == 2

    run(main)


def test_other_tasks_go_on_while_the_function_runs() -> None:
    """The function belongs to the task that met the message, its stream is not held up."""

    async def main() -> None:
        it = mixed(GOOD, BAD, GOOD, GOOD, BAD, GOOD)
        handler = Handler(5)
        times: list[tuple[int, float]] = []

        async def work(stream: Stream) -> None:
            async for message in stream:
                times.append((message.offset, trio.current_time()))
                await trio.sleep(1)

        async with consuming(it) as consumer:
            async with consumer.stream(
                "t", value_deserializer=int, on_decode_error=handler
            ) as stream:
                with trio.move_on_after(20):
                    async with trio.open_nursery() as nursery:
                        for _ in range(3):
                            nursery.start_soon(work, stream)
                assert sorted(offset for offset, _ in times) == [0, 2, 3, 5]
                assert max(time for _, time in times) <= 2
                assert sorted(handler.offsets) == [1, 4]
        assert committed(it) == 6

    run(main)


def test_streams_that_share_a_decoding_have_policies_of_their_own() -> None:
    """One raises, one skips, one hands over, one observes; the value is decoded once."""

    async def main() -> None:
        it = mixed(GOOD, BAD, GOOD)
        calls: list[bytes] = []

        def decode(data: bytes) -> int:
            calls.append(data)
            return int(data)

        handler = Handler()
        policies: list[Any] = ["raise", "skip", handler, "skip"]
        async with consuming(it) as consumer, AsyncExitStack() as stack:
            raising, *others = [
                await stack.enter_async_context(
                    consumer.stream(
                        "t",
                        value_deserializer=decode,
                        on_decode_error=policy,
                        ack="none" if number == 3 else "auto",
                    )
                )
                for number, policy in enumerate(policies)
            ]
            for stream in others:
                assert [m.value for m in await take(stream)] == [7, 7]
            with pytest.raises(DeserializationError, match=r"^cannot deserialize the value"):
                await take(raising)
            assert calls == [GOOD, BAD, GOOD]
            assert handler.offsets == [1]
            await consumer.commit()
            assert committed(it) == 1

    run(main)


# -- rebalances and stopping ---------------------------------------------------------------


@pytest.mark.parametrize("way", ["messages", "batches"])
def test_revocation_waits_for_the_function_and_commits(way: str) -> None:
    """A message that is being dealt with is in hand: the drain covers it."""

    async def main() -> None:
        it = mixed(BAD, GOOD)
        handler = Handler(7)
        revoked: list[tuple[float, int | None]] = []

        def on_revoked(tps: frozenset[TP]) -> None:
            revoked.append((trio.current_time(), committed(it)))

        async with consuming(
            it, on_partitions_revoked=on_revoked, commit_interval=1000
        ) as consumer:
            async with consumer.stream(
                "t", value_deserializer=int, on_decode_error=handler
            ) as stream:
                async with trio.open_nursery() as nursery:
                    loop = take if way == "messages" else batched
                    nursery.start_soon(partial(loop, stream, wait=15))
                    await trio.sleep(0.5)
                    it.rebalance(GROUP)
        assert revoked == [(7.0, 1)]
        assert handler.offsets == [0]
        assert committed(it) == 2

    run(main)


@pytest.mark.parametrize("event", ["revoked", "lost", "sought"])
def test_partition_that_goes_during_the_function_gets_nothing_finished(event: str) -> None:
    """What the function returns to is stale: the message comes again and is handled again."""

    async def main() -> None:
        it = mixed(BAD, GOOD)
        handler = Handler(20)
        async with consuming(it, drain_timeout=1) as consumer:
            async with consumer.stream(
                "t", value_deserializer=int, on_decode_error=handler
            ) as stream:
                async with trio.open_nursery() as nursery:

                    async def work() -> None:
                        async for message in stream:
                            assert message.offset == 1
                            message.ack()
                            nursery.cancel_scope.cancel()

                    nursery.start_soon(work)
                    await trio.sleep(1)
                    if event == "revoked":
                        it.rebalance(GROUP)
                    elif event == "lost":
                        it.expire(next(iter(it.members(GROUP))))
                    else:
                        await consumer.seek(T0, 0)
                    await trio.sleep(21)
                    assert handler.offsets == [0]
                    await consumer.commit()
                    assert committed(it) is None
                assert handler.offsets == [0, 0]
        assert committed(it) == 2

    run(main)


def test_stop_waits_for_the_function_and_then_ends_the_loop() -> None:
    """After ``close()`` the message is dealt with, and nothing more is handed out."""

    async def main() -> None:
        it = mixed(BAD, GOOD)
        handler = Handler(5)
        async with consuming(it) as consumer:
            async with (
                consumer.stream("t", value_deserializer=int, on_decode_error=handler) as stream,
                trio.open_nursery() as nursery,
            ):

                async def work() -> None:
                    async for _ in stream:
                        raise AssertionError

                nursery.start_soon(work)
                await trio.sleep(1)
                consumer.close()
        assert handler.offsets == [0]
        assert committed(it) == 1

    run(main)


def test_flow_that_stops_during_the_function_holds_the_loop() -> None:
    """The message is finished, the next one waits until the flow is resumed."""

    async def main() -> None:
        it = mixed(BAD, GOOD)
        for way in (aiter, Stream.batches):
            handler = Handler(5)
            times: list[float] = []
            start = trio.current_time()
            async with consuming(it) as consumer:
                async with (
                    consumer.stream("t", value_deserializer=int, on_decode_error=handler) as stream,
                    trio.open_nursery() as nursery,
                ):

                    async def work(loop: Any, times: list[float] = times) -> None:
                        async for _ in loop:
                            times.append(trio.current_time())
                            break

                    nursery.start_soon(work, way(stream))  # type: ignore[operator]
                    await trio.sleep(1)
                    consumer.stop_flow()
                    await trio.sleep(9)
                    assert handler.offsets == [0]
                    consumer.resume_flow()
            assert times == [start + 10]
            it.set_committed(GROUP, T0, 0)

    run(main)


# -- batches ------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["ignore", None, 3])
def test_policy_that_cannot_work_is_refused(policy: Any) -> None:
    """Unknown words and things that cannot be called are refused at once."""

    async def main() -> None:
        async with consuming(broker(0)) as consumer:
            with pytest.raises(
                ConfigurationError,
                match=r"^on_decode_error must be 'raise', 'skip' or an async function, not ",
            ):
                consumer.stream("t", on_decode_error=policy)

    run(main)


# -- cancellation at each step ---------------------------------------------------------------
