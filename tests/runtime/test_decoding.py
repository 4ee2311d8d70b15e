"""Deserializers: what they see, what they share, and what their failure leaves."""

# The blocks nest as those of a program do, an error leaves a whole block, and a
# loop that sleeps costs nothing under a virtual clock.
# ruff: noqa: SIM117

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import trio
import trio.lowlevel

from trio_consumer import (
    DeserializationError,
)

from .support import GROUP, T0, broker, committed, consuming, offsets, run, take, values


def counting(calls: list[bytes]) -> Callable[[bytes], Any]:
    """A deserializer that writes down what it is called with."""

    def deserialize(data: bytes) -> Any:
        calls.append(data)
        return json.loads(data)

    return deserialize


def test_deserializers_see_bytes_and_never_none() -> None:
    """Keys and values are decoded; a tombstone and a missing key stay None."""

    async def main() -> None:
        it = broker(0)
        it.produce("t", b"[1]", key=b"k")
        it.produce("t", None, key=b"k")
        it.produce("t", b"[2]")
        async with (
            consuming(it) as consumer,
            consumer.stream(
                "t", key_deserializer=bytes.decode, value_deserializer=json.loads
            ) as stream,
        ):
            taken = await take(stream)
            assert [(m.key, m.value) for m in taken] == [("k", [1]), ("k", None), (None, [2])]

    run(main)


def test_message_that_is_given_back_is_decoded_anew() -> None:
    """What a handler changed in a value does not come again with it."""

    async def main() -> None:
        it = broker(0)
        it.produce("t", b"[1]")
        async with (
            consuming(it) as consumer,
            consumer.stream("t", ack="manual", value_deserializer=json.loads) as stream,
        ):
            [first] = await take(stream, 1, ack=False)
            first.value.append(2)
            assert first.nack()
            [again] = await take(stream, 1)
            assert again.value == [1]

    run(main)


def test_streams_with_the_same_deserializers_share_one_decoding() -> None:
    """The same pair is called once a record; distinct pairs are called once each."""

    async def main() -> None:
        it = broker(5)
        calls: list[bytes] = []
        others: list[bytes] = []
        shared, distinct = counting(calls), counting(others)
        async with (
            consuming(it) as consumer,
            consumer.stream("t", value_deserializer=shared) as one,
            consumer.stream("t", value_deserializer=shared, ack="none") as two,
            consumer.stream("t", value_deserializer=distinct) as three,
        ):
            expected = [0, 1, 2, 3, 4]
            for stream in (one, two, three):
                assert [m.value for m in await take(stream)] == expected
        assert calls == others == values(5)

    run(main)


@dataclass
class Unhashable:
    """A deserializer that is an object with a call, compared by value: not hashable."""

    prefix: str

    def __call__(self, data: bytes) -> str:
        return self.prefix + data.decode()


def test_deserializer_need_not_be_hashable() -> None:
    """A callable dataclass works as a deserializer, alone and shared."""

    async def main() -> None:
        it = broker(2)
        async with (
            consuming(it) as consumer,
            consumer.stream("t", value_deserializer=Unhashable("a")) as one,
            consumer.stream("t", value_deserializer=Unhashable("a")) as two,
            consumer.stream("t", value_deserializer=Unhashable("b")) as three,
        ):
            assert [m.value for m in await take(one)] == ["a0", "a1"]
            assert [m.value for m in await take(two)] == ["a0", "a1"]
            assert [m.value for m in await take(three)] == ["b0", "b1"]

    run(main)


@pytest.mark.parametrize("field", ["key", "value"])
@pytest.mark.parametrize("streams", [1, 2])
def test_deserializer_that_raises_leaves_the_message_unfinished(field: str, streams: int) -> None:
    """The error names field, partition and offset; the message is replayed, the next one comes."""

    async def main() -> None:
        it = broker(0)
        for data in (b"1", b"x", b"3"):
            it.produce("t", data, key=data)
        options: dict[str, Any] = {f"{field}_deserializer": int}
        async with consuming(it) as consumer:
            opened = [consumer.stream("t", **options) for _ in range(streams)]
            for stream in opened:
                await stream.__aenter__()
            for stream in opened:
                with pytest.raises(
                    DeserializationError,
                    match=rf"^cannot deserialize the {field} of t\[0\] offset 1:",
                ) as caught:
                    await take(stream)
                assert isinstance(caught.value.__cause__, ValueError)
                assert (caught.value.tp, caught.value.offset, caught.value.field) == (T0, 1, field)
                assert offsets(await take(stream)) == [2]
            await consumer.commit()
            assert committed(it) == 1
            # Nobody has it in hand, so nobody is waited for.
            with trio.fail_after(0.1):
                await consumer.wait_empty()
            for stream in opened:
                await stream.__aexit__(None, None, None)
        assert committed(it) == 1

    run(main)


def test_deserializer_that_raises_does_not_hold_up_a_revocation() -> None:
    """A message that could not be decoded is in nobody's hand: the drain ends at once."""

    async def main() -> None:
        it = broker(1)
        async with consuming(it, drain_timeout=30) as consumer:
            async with consumer.stream("t", value_deserializer=json.loads, ack="manual") as stream:
                it.produce("t", b"{")
                messages = await take(stream, 1)
                with pytest.raises(DeserializationError, match=r"^cannot deserialize"):
                    await take(stream)
                it.rebalance(GROUP)
                await trio.sleep(10)
                assert it.generation(GROUP) == 2
                assert messages[0].ack() is False

    run(main)
