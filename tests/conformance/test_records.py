"""What a record may look like, and what streams see of it."""

from __future__ import annotations

import json
import time
from collections import Counter
from typing import Any

import anyio
import pytest

from trio_consumer import TP, CommitFailedError, Message, OffsetAndMetadata

from .backends import Backend, new_group
from .support import numbered, take, wait_for


def test_record_with_everything_arrives_as_it_was_produced(backend: Backend) -> None:
    """Headers in order with doubles and without values, empty and no keys, tombstones, times."""

    async def main() -> None:
        topic, group = await backend.topic(), new_group()
        headers = [("a", b"1"), ("b", None), ("a", b"2"), ("", b""), ("\u00e4", b"\xff")]
        # Old ones would be deleted by the broker's retention before they are read.
        now = int(time.time() * 1000)
        given: list[dict[str, Any]] = [
            {"key": b"k", "value": b"v", "headers": headers, "timestamp": now},
            {"key": b"", "value": b"", "timestamp": now - 60_001},
            {"key": None, "value": None, "timestamp": now + 1},
            {"key": b"\x00\xff", "value": None, "headers": [("n", None)], "timestamp": now - 5000},
        ]
        for each in given:
            await backend.produce_record(topic, **each)
        async with backend.consumer(group) as consumer, consumer.stream(topic) as stream:
            got = await take(stream, 4)
        for message, each in zip(got, given, strict=True):
            assert (message.key, message.value) == (each["key"], each["value"])
            assert [tuple(header) for header in message.headers] == each.get("headers", [])
            assert message.timestamp == each["timestamp"] / 1000
        assert await backend.committed(group, TP(topic, 0)) == 4

    backend.run(main)


def test_deserializers_see_bytes_only_and_decode_once_for_each_pair(backend: Backend) -> None:
    """Streams that alternate two pairs of functions share one decoding of each pair."""

    async def main() -> None:
        topic, group = await backend.topic(), new_group()
        values: list[bytes | None] = [b"1", None, b"", b"3"]
        await backend.produce(topic, values)
        calls: Counter[str] = Counter()

        def number(data: bytes) -> int:
            calls["number"] += 1
            return int(data or b"0")

        def text(data: bytes) -> str:
            calls["text"] += 1
            return data.decode()

        async with (
            backend.consumer(group) as consumer,
            consumer.stream(topic, value_deserializer=number) as one,
            consumer.stream(topic, value_deserializer=text) as two,
            consumer.stream(topic, value_deserializer=number) as three,
            consumer.stream(topic, value_deserializer=text) as four,
            consumer.stream(topic) as raw,
        ):
            results = [[m.value for m in await take(s, 4)] for s in (one, two, three, four, raw)]
        assert results[0] == results[2] == [1, None, 0, 3]
        assert results[1] == results[3] == ["1", None, "", "3"]
        assert results[4] == values
        assert calls == {"number": 3, "text": 3}

    backend.run(main)


@pytest.mark.parametrize("subset", [set(), {7}, {1, 7}], ids=["none", "foreign", "partly"])
def test_subset_of_partitions_that_are_not_there_is_no_error(
    backend: Backend, subset: set[int]
) -> None:
    """A stream gets what it wants of what is assigned, which may be nothing."""

    async def main() -> None:
        topic, group = await backend.topic(2), new_group()
        for partition in range(2):
            await backend.produce(topic, numbered(3), partition)
        async with (
            backend.consumer(group) as consumer,
            consumer.stream(topic) as everything,
            consumer.stream(topic, partitions=subset) as part,
        ):
            await take(everything, 6)
            got: list[Message] = []
            with anyio.move_on_after(0.5):
                async for message in part:
                    got.append(message)
            assert [(m.partition, m.offset) for m in got] == [
                (1, offset) for offset in range(3 if 1 in subset else 0)
            ]
            await consumer.commit()
        assert await backend.committed(group, TP(topic, 0)) == 3

    backend.run(main)


def test_streams_come_and_go_while_messages_flow(backend: Backend) -> None:
    """Each sees every record from its opening on once; the one that stays misses none."""

    async def main() -> None:
        topic, other, group = await backend.topic(2), await backend.topic(), new_group()
        await backend.produce(other, numbered(50))
        total = 0
        seen: list[tuple[int, int]] = []

        async def produce(count: int) -> None:
            nonlocal total
            for partition in range(2):
                await backend.produce(topic, numbered(count, total), partition)
            total += count

        async with (
            backend.consumer(group, commit_interval=0.1) as consumer,
            consumer.stream(topic, value_deserializer=json.loads) as stays,
            anyio.create_task_group() as nursery,
        ):

            async def read() -> None:
                async for message in stays:
                    assert message.value == message.offset
                    seen.append((message.partition, message.offset))

            nursery.start_soon(read)
            for number in range(3):
                await produce(20)
                await wait_for(lambda: len(seen) == 2 * total)
                # Of the topic that flows already, and of one that is new each time.
                async with consumer.stream(topic) as late, consumer.stream(other) as new:
                    # First what shows that the group has rebalanced: what one stream has
                    # finished by then comes again if the other has not.
                    begin = 10 * number
                    found = await take(new, 10)
                    assert [m.offset for m in found] == list(range(begin, begin + 10))
                    await produce(20)
                    got = await take(late, 40)
                    assert sorted(m.offset for m in got) == sorted([*range(total - 20, total)] * 2)
            await wait_for(lambda: len(seen) == 2 * total)
            consumer.close()
        assert len(set(seen)) == len(seen) == 240
        for partition in range(2):
            assert await backend.committed(group, TP(topic, partition)) == 120
        assert await backend.committed(group, TP(other, 0)) == 30

    backend.run(main)


def test_largest_metadata_is_stored_and_larger_is_refused_for_good(backend: Backend) -> None:
    """4096 bytes pass; 4097 are an error that no repetition mends."""

    async def main() -> None:
        topic, group = await backend.topic(), new_group()
        tp = TP(topic, 0)
        await backend.produce(topic, numbered(3))
        async with backend.consumer(group) as consumer, consumer.stream(topic) as stream:
            await take(stream, 3)
            await backend.commit(consumer, {tp: OffsetAndMetadata(1, "x" * 4096)})
            stored = await consumer.committed()
            assert stored[tp] == OffsetAndMetadata(1, "x" * 4096)
            with pytest.raises(CommitFailedError) as caught:
                await backend.commit(consumer, {tp: OffsetAndMetadata(2, "x" * 4097)})
            assert (caught.value.retriable, caught.value.stale) == (False, False)
            assert caught.value.offsets == {tp: OffsetAndMetadata(2, "x" * 4097)}
            assert await backend.committed(group, tp) == 1
        assert await backend.committed(group, tp) == 3

    backend.run(main)
