"""Broken bytes in a fetch: an error that names the place, or the records; no neighbour skipped."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from kafka import KafkaConsumer, errors

from trio_consumer import TP, ConsumerError, CorruptRecordError, TransportError

from ..transports.kafka.test_records import Batch, with_checksum
from .fetches import Reading, offline
from .support import fuzzed

T, NEIGHBOUR = TP("t", 0), TP("t", 1)
HEADER = 61
"""Bytes before the first record of a batch."""
UNPROTECTED = range(8, 17)
"""Length, leader's epoch and format: no checksum covers them.  Nor the base offset, which nobody
can tell from another one."""
CHECKED = 21
"""Where the part begins that the checksum is of."""


@pytest.fixture(scope="module")
def client() -> Iterator[KafkaConsumer]:
    with offline() as client:
        yield client


class Written(NamedTuple):
    """Some batches one after the other, and what they hold."""

    batches: list[bytes]
    records: list[list[tuple[int, bytes | None]]]

    @property
    def whole(self) -> bytes:
        return b"".join(self.batches)

    @property
    def all(self) -> list[tuple[int, bytes | None]]:
        return [record for batch in self.records for record in batch]

    def before(self, number: int) -> list[tuple[int, bytes | None]]:
        return [record for batch in self.records[:number] for record in batch]


@st.composite
def writings(draw: st.DrawFn, codecs: tuple[int, ...] = (0, 1, 2, 3, 4)) -> Written:
    """Two to four batches with holes."""
    batches, records = [], []
    base = 0
    for number in range(draw(st.integers(2, 4))):
        deltas = sorted(draw(st.sets(st.integers(0, 12), min_size=1, max_size=9)))
        values = [b"%d-%d" % (number, delta) * draw(st.integers(1, 9)) for delta in deltas]
        content = [(d, 1000 + d, b"k", v, []) for d, v in zip(deltas, values, strict=True)]
        batches.append(Batch(base, content, draw(st.sampled_from(codecs)), False).encode())
        records.append([(base + d, v) for d, v in zip(deltas, values, strict=True)])
        base += deltas[-1] + 1
    return Written(batches, records)


def read(client: KafkaConsumer, data: bytes, neighbour: Written) -> Reading:
    """One fetch of two partitions, of which the second is in order."""
    reading = Reading(client, [T, NEIGHBOUR], 0)
    reading.feed(T, data)
    reading.feed(NEIGHBOUR, neighbour.whole)
    reading.read()
    check_neighbour(reading, neighbour)
    return reading


def check_neighbour(reading: Reading, neighbour: Written) -> None:
    """What of it was not delivered is still to come: its position is before it."""
    got = content(reading.records[NEIGHBOUR])
    assert got == neighbour.all[: len(got)]
    if reading.failure is None:
        assert got == neighbour.all
    if len(got) < len(neighbour.all):
        assert reading.positions.get(NEIGHBOUR, 0) <= neighbour.all[len(got)][0]


def content(records: list[Any]) -> list[tuple[int, bytes | None]]:
    return [(record.offset, record.value) for record in records]


def check_stop(reading: Reading, written: Written, number: int) -> None:
    """All before the bad batch was delivered, nothing behind it; the position is not past it."""
    got = content(reading.records[T])
    assert got[: len(written.before(number))] == written.before(number)
    assert got == written.all[: len(got)]
    assert len(got) <= len(written.before(number + 1))
    if len(got) < len(written.all):
        assert reading.positions.get(T, 0) <= written.all[len(got)][0]


@fuzzed(400)
@given(writings(), writings(), st.data())
def test_a_changed_byte_under_the_checksum(
    client: KafkaConsumer, written: Written, neighbour: Written, data: st.DataObject
) -> None:
    """It is noticed before a record of the batch is out; what comes behind can still be read."""
    number = data.draw(st.integers(0, len(written.batches) - 1))
    bad = bytearray(written.batches[number])
    place = data.draw(st.integers(CHECKED - 4, len(bad) - 1))
    bad[place] ^= data.draw(st.integers(1, 255))
    parts = [*written.batches[:number], bytes(bad), *written.batches[number + 1 :]]
    reading = read(client, b"".join(parts), neighbour)
    check_stop(reading, written, number)
    failure = reading.failure
    assert isinstance(failure, CorruptRecordError)
    assert failure.tp == T
    assert failure.offset <= written.records[number][0][0]
    assert content(reading.records[T]) == written.before(number)
    # As the message advises: past it, and on.
    after = written.all[len(written.before(number + 1)) :]
    if after:
        reading.seek(T, after[0][0])
        reading.feed(T, b"".join(written.batches[number + 1 :]))
        reading.read()
        assert reading.failure is None
        assert content(reading.records[T]) == written.before(number) + after


@fuzzed(400)
@given(writings(), writings(), st.data())
def test_a_changed_byte_that_no_checksum_covers(
    client: KafkaConsumer, written: Written, neighbour: Written, data: st.DataObject
) -> None:
    """Impossible lengths and unknown formats: an error of ours, or the right records."""
    number = data.draw(st.integers(0, len(written.batches) - 1))
    bad = bytearray(written.batches[number])
    bad[data.draw(st.sampled_from(UNPROTECTED))] ^= data.draw(st.integers(1, 255))
    parts = [*written.batches[:number], bytes(bad), *written.batches[number + 1 :]]
    reading = read(client, b"".join(parts), neighbour)
    got = content(reading.records[T])
    assert got == written.all[: len(got)]
    if len(got) < len(written.all):
        assert reading.positions.get(T, 0) <= written.all[len(got)][0]
        if reading.failure is None:
            # A length beyond the end looks as if the rest had not been sent: it is asked for again.
            reading.feed(T, b"".join(parts[number:]))
            reading.read()
        assert isinstance(reading.failure, TransportError)
        assert re.search(r"t\[0\] offset|topic='t', partition=0", str(reading.failure))


@pytest.mark.parametrize("magic", [3, 4, 100, 127, 128, 255])
def test_a_format_that_does_not_exist(client: KafkaConsumer, magic: int) -> None:
    """What its records mean, and which of them are markers, is not known: none is delivered."""
    batch = bytearray(Batch(0, [(0, 1, b"k", b"v", [])], 0, False).encode())
    batch[16] = magic
    reading = Reading(client, [T], 0)
    reading.feed(T, bytes(batch))
    reading.read()
    assert reading.records[T] == []
    assert isinstance(reading.failure, CorruptRecordError)
    assert (reading.failure.tp, reading.failure.offset) == (T, 0)


@fuzzed(200)
@given(writings(), writings(), st.data())
def test_cut_off_anywhere(
    client: KafkaConsumer, written: Written, neighbour: Written, data: st.DataObject
) -> None:
    """A broker cuts a fetch where it likes; the rest comes with the next one."""
    cut = data.draw(st.integers(0, len(written.whole) - 1))
    reading = read(client, written.whole[:cut], neighbour)
    got = content(reading.records[T])
    assert got == written.all[: len(got)]
    if reading.failure is not None:
        # Not one whole batch.
        assert not got
        assert isinstance(reading.failure, TransportError)
        reading.seek(T, 0)
        reading.records[T].clear()
    reading.feed(T, written.whole)
    reading.read()
    assert content(reading.records[T]) == written.all


@fuzzed(400)
@given(st.sampled_from([1, 2, 3, 4, 5, 6, 7]), st.binary(max_size=200), st.booleans(), writings())
@example(3, b"\x04\x22\x4d\x18" + bytes(12), False, Written([], []))
def test_garbage_in_the_name_of_a_codec(
    client: KafkaConsumer, codec: int, garbage: bytes, cut: bool, neighbour: Written
) -> None:
    """The checksum is right, so a producer sent it: an error that names the record, and no more."""
    packed = Batch(0, [(n, 1, b"k", b"v" * 50, []) for n in range(9)], codec % 5, False).encode()
    body = packed[HEADER : -1 - len(garbage) % 9] if cut else garbage
    batch = rebuilt(packed[:HEADER], body, codec)
    reading = read(client, batch, neighbour)
    got = [record.offset for record in reading.records[T]]
    assert got == list(range(len(got)))
    assert isinstance(reading.failure, CorruptRecordError)
    assert (reading.failure.tp, reading.failure.offset) == (T, len(got))


def rebuilt(header: bytes, body: bytes, codec: int) -> bytes:
    """A batch with another body, its length and checksum right."""
    size = len(header) + len(body) - 12
    changed = bytearray(header[:8] + size.to_bytes(4, "big") + header[12:] + body)
    changed[22] = changed[22] & ~7 | codec
    return with_checksum(bytes(changed))


small = st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 20)


@fuzzed(600)
@given(st.data(), writings((0,)), writings())
def test_lies_under_a_right_checksum(
    client: KafkaConsumer, data: st.DataObject, written: Written, neighbour: Written
) -> None:
    """Lengths, counts and offsets that cannot be: whatever comes out is in order and in bounds."""
    number = data.draw(st.integers(0, len(written.batches) - 1))
    bad = bytearray(written.batches[number])
    for _ in range(data.draw(st.integers(1, 4))):
        if data.draw(st.booleans()):
            # last offset delta, timestamps, producer, sequence, count of records
            first, size = data.draw(st.sampled_from([(23, 4), (27, 8), (35, 8), (43, 8), (57, 4)]))
            limit = 1 << 8 * size - 1
            value = data.draw(st.integers(-3, 20) | st.integers(-limit, limit - 1))
            bad[first : first + size] = value.to_bytes(size, "big", signed=True)
        else:
            place = data.draw(st.integers(HEADER, len(bad) - 1))
            bad[place] = data.draw(st.integers(0, 255))
    parts = [*written.batches[:number], with_checksum(bytes(bad)), *written.batches[number + 1 :]]
    reading = read(client, b"".join(parts), neighbour)
    got = [record.offset for record in reading.records[T]]
    assert got == sorted(set(got))
    before = [offset for offset, _ in written.before(number)]
    assert got[: len(before)] == before
    if got:
        assert reading.positions[T] > got[-1]
        # What the batch claims to be its last offset may be a lie; the records are no part of it.
        assert got[-1] < 1 << 63
    if reading.failure is None and number + 1 < len(written.batches):
        behind = [offset for offset, _ in written.all[len(written.before(number + 1)) :]]
        assert [offset for offset in got if offset >= behind[0]][-len(behind) :] == behind
    if reading.failure is not None:
        assert isinstance(reading.failure, ConsumerError)


CODES = sorted(code for code in errors.kafka_errors if code is not None)


@pytest.mark.parametrize("code", [*CODES, 999, -32768])
def test_error_codes_of_a_fetch(client: KafkaConsumer, code: int) -> None:
    """Each one passes, or is an error of ours; what was fetched beside it is not lost."""
    neighbour = Written(
        [Batch(0, [(n, 1, b"k", b"v", []) for n in range(9)], 0, False).encode()],
        [[(n, b"v") for n in range(9)]],
    )
    reading = Reading(client, [T, NEIGHBOUR], 0)
    reading.feed(T, b"", code=code)
    reading.feed(NEIGHBOUR, neighbour.whole)
    reading.read()
    check_neighbour(reading, neighbour)
