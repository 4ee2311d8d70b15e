"""Deserializers that raise anything: good messages come once, no commit passes a bad one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trio_consumer import DeserializationError, Message

from ..runtime.support import broker, committed, consuming, run, take
from .support import fuzzed


class MuteError(Exception):
    """An error that cannot be told."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


ODD = [
    ValueError("x"),
    StopIteration(1),
    StopAsyncIteration(),
    MuteError(),
    RecursionError(),
    KeyError(),
]


@fuzzed(60)
@given(
    st.lists(st.none() | st.sampled_from(ODD), max_size=12),
    st.sampled_from(["raise", "skip", "handle"]),
    st.booleans(),
)
@example([MuteError()], "skip", False)
@example([MuteError()], "raise", False)
@example([None, StopIteration(1), None], "handle", True)
def test_odd_errors(plan: list[Exception | None], policy: str, batches: bool) -> None:
    """Each message is delivered or told of, in order; ``raise`` stops at the first bad one."""
    good = [number for number, error in enumerate(plan) if error is None]
    bad = [number for number, error in enumerate(plan) if error is not None]

    def decode(data: bytes) -> int:
        error = plan[int(data)]
        if error is not None:
            raise error
        return int(data)

    handled: list[int] = []

    async def handle(error: DeserializationError, message: Message) -> None:
        assert (error.offset, message.offset) in [(n, n) for n in bad]
        handled.append(message.offset)

    async def main() -> None:
        server = broker(len(plan))
        chosen: Any = handle if policy == "handle" else policy
        got: list[int] = []
        async with (
            consuming(server) as consumer,
            consumer.stream(
                "t", value_deserializer=decode, on_decode_error=chosen, ack="manual"
            ) as stream,
        ):
            if policy == "raise" and bad:
                with pytest.raises(DeserializationError, match=r"^cannot deserialize the value"):
                    async for message in stream:
                        assert message.value == message.offset
                        got.append(message.offset)
                        message.ack()
                assert got == [number for number in good if number < bad[0]]
            elif batches and good:
                async for batch in stream.batches(5):
                    got += [message.value for message in batch]
                    batch.ack()
                    if len(got) == len(good):
                        break
                await take(stream)
            else:
                got = [message.value for message in await take(stream)]
        if policy == "raise" and bad:
            assert (committed(server) or 0) == bad[0]
            return
        assert got == good
        assert handled == (bad if policy == "handle" else [])
        assert (committed(server) or 0) == len(plan)

    run(main)
