"""Our reader of record batches against the client's own, which is the slower and the model."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.consumer.fetcher import Fetcher, IsolationLevel
from kafka.errors import CorruptRecordError
from kafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from kafka.record.memory_records import MemoryRecords, MemoryRecordsBuilder
from kafka.record.util import decode_varint
from kafka.structs import TopicPartition

from trio_consumer.transports.kafka.records import BatchReader

TP = TopicPartition("t", 3)
GZIP, SNAPPY, LZ4, ZSTD = 1, 2, 3, 4
PRODUCER = 7
FIRST_RECORD = 61
"""Bytes of the header of a batch."""


class Batch(NamedTuple):
    """What a producer, and compaction after it, made of some records."""

    base: int
    records: list[tuple[int, int, bytes | None, bytes | None, list[tuple[str, bytes | None]]]]
    codec: int
    transactional: bool

    def encode(self) -> bytes:
        builder = DefaultRecordBatchBuilder(
            2, self.codec, self.transactional, PRODUCER if self.transactional else -1, 0, 0, 1 << 30
        )
        for delta, timestamp, key, value, headers in self.records:
            assert builder.append(delta, timestamp, key, value, headers) is not None
        data = bytearray(builder.build())
        data[:8] = self.base.to_bytes(8, "big")  # the checksum begins behind it
        return bytes(data)


some_bytes = st.none() | st.binary(max_size=40) | st.binary(min_size=60, max_size=300)
headers = st.lists(
    st.tuples(st.text("ab é😀", max_size=5), st.none() | st.binary(max_size=80)), max_size=3
)
timestamps = st.integers(0, 2**41) | st.just(1_700_000_000_000)


@st.composite
def logs(draw: st.DrawFn) -> list[Batch]:
    """Batches in ascending order, with holes in and between them."""
    batches = []
    base = draw(st.integers(0, 2**40))
    for _ in range(draw(st.integers(0, 4))):
        deltas = sorted(draw(st.sets(st.integers(0, 400), min_size=1, max_size=12)))
        records = [
            (delta, draw(timestamps), draw(some_bytes), draw(some_bytes), draw(headers))
            for delta in deltas
        ]
        codec = draw(st.sampled_from([0, GZIP, SNAPPY, LZ4, ZSTD]))
        batches.append(Batch(base, records, codec, draw(st.booleans())))
        base += deltas[-1] + 2 + draw(st.integers(0, 3))  # a marker may come behind it
    return batches


def take_all(
    reader: type, data: bytes, fetch_offset: int, sizes: list[int | None], **options: Any
) -> list[Any]:
    """Everything that a reader yields: records, positions, and the error at the end."""
    part = reader(fetch_offset, TP, MemoryRecords(data), **options)
    seen: list[Any] = []
    for turn in range(10_000):
        size = sizes[turn % len(sizes)]
        try:
            taken = part.take(size)
        except CorruptRecordError:
            return [*seen, "corrupt", part.next_fetch_offset]
        seen += [
            (r.topic, r.partition, r.offset, r.timestamp, r.key, r.value, tuple(r.headers))
            for r in taken
        ]
        # Between portions only that of the last record is said to be the same:
        # the client looks at what follows it later than we do, or sooner.
        if not part:
            return [*seen, part.next_fetch_offset]
        if taken:
            assert part.next_fetch_offset == taken[-1].offset + 1
    raise AssertionError("it never ends")


@given(logs(), st.data())
def test_same_records_as_the_client(log: list[Batch], data: st.DataObject) -> None:
    """All codecs, holes, nulls, headers, any portions, from any offset."""
    encoded = b"".join(batch.encode() for batch in log)
    last = log[-1].base + 500 if log else 5
    start = data.draw(st.integers(log[0].base if log else 0, last))
    sizes = data.draw(st.lists(st.none() | st.integers(1, 9), min_size=1, max_size=3))
    expected = take_all(Fetcher.PartitionRecords, encoded, start, sizes)
    assert take_all(BatchReader, encoded, start, sizes) == expected


@given(logs(), st.data())
def test_same_records_of_transactions_as_the_client(log: list[Batch], data: st.DataObject) -> None:
    """Aborted batches and markers are left out, and the position goes past them."""
    parts, aborted = [], []
    for batch in log:
        parts.append(batch.encode())
        if batch.transactional:
            commits = data.draw(st.booleans())
            end = batch.base + batch.records[-1][0] + 1
            parts.append(marker(end, commits=commits))
            if not commits:
                aborted.append(Aborted(PRODUCER, batch.base))
    encoded = b"".join(parts)
    options: dict[str, Any] = {"aborted_transactions": aborted}
    if data.draw(st.booleans()):
        options["isolation_level"] = IsolationLevel.READ_COMMITTED
    start = log[0].base if log else 0
    expected = take_all(Fetcher.PartitionRecords, encoded, start, [4], **options)
    assert take_all(BatchReader, encoded, start, [4], **options) == expected


class Aborted(NamedTuple):
    producer_id: int
    first_offset: int


def marker(offset: int, *, commits: bool) -> bytes:
    """A control batch as a broker writes it."""
    builder = DefaultRecordBatchBuilder(2, 0, True, PRODUCER, 0, 0, 1 << 20)
    builder.append(0, 1, b"\0\0\0\1" if commits else b"\0\0\0\0", b"\0\0\0\0\0\0", [])
    data = bytearray(builder.build())
    data[22] |= DefaultRecordBatch.CONTROL_MASK
    return with_checksum(offset.to_bytes(8, "big") + bytes(data[8:]))


def with_checksum(batch: bytes) -> bytes:
    """The batch with the checksum that its bytes have now."""
    from crc32c import crc32c

    return batch[:17] + crc32c(batch[21:]).to_bytes(4, "big") + batch[21:]


@given(logs(), st.data())
def test_a_wrong_checksum_is_found_where_the_client_finds_it(
    log: list[Batch], data: st.DataObject
) -> None:
    """What is in front of the batch is delivered, and the position stops before it."""
    encoded = [bytearray(batch.encode()) for batch in log]
    if encoded:
        bad = data.draw(st.sampled_from(encoded))
        bad[data.draw(st.integers(21, len(bad) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    start = log[0].base if log else 0
    expected = take_all(Fetcher.PartitionRecords, b"".join(encoded), start, [3, None])
    assert take_all(BatchReader, b"".join(encoded), start, [3, None]) == expected


@given(logs(), st.data())
def test_bytes_that_mean_nothing_are_corrupt_or_read_as_the_client_does(
    log: list[Batch], data: st.DataObject
) -> None:
    """Changed behind the checksum's back: never another error, never an endless loop."""
    plain = [batch._replace(codec=0).encode() for batch in log]
    if not plain:
        return
    which = data.draw(st.integers(0, len(plain) - 1))
    changed = bytearray(plain[which])
    # Attributes are one byte; the client reads a number of any length.
    places = sorted(set(range(FIRST_RECORD, len(changed))) - attributes(plain[which]))
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.sampled_from(places))] = data.draw(st.integers(0, 255))
    plain[which] = with_checksum(bytes(changed))
    encoded = b"".join(plain)
    ours = take_all(BatchReader, encoded, log[0].base, [None])
    theirs = take_all(Fetcher.PartitionRecords, encoded, log[0].base, [None])
    if "corrupt" not in ours:
        assert ours == theirs
    else:
        # The client notices later that a length is too long, or not at all.
        good = ours.index("corrupt")
        assert ours[:good] == theirs[:good]


def attributes(batch: bytes) -> set[int]:
    """Where the attributes of its records are."""
    found = set()
    position = FIRST_RECORD
    while position < len(batch):
        size, position = decode_varint(batch, position)
        found.add(position)
        position += size
    return found


def test_timestamps_of_the_broker() -> None:
    """One timestamp for all records of a batch."""
    data = bytearray(Batch(5, [(0, 1, b"k", b"v", []), (1, 2, None, None, [])], 0, False).encode())
    data[22] |= DefaultRecordBatch.TIMESTAMP_TYPE_MASK
    encoded = with_checksum(bytes(data))
    assert [r.timestamp for r in BatchReader(5, TP, MemoryRecords(encoded)).take()] == [2, 2]


@pytest.mark.parametrize("magic", [0, 1])
def test_batches_of_old_formats(magic: int) -> None:
    """Old logs may still hold them."""
    builder = MemoryRecordsBuilder(magic=magic, compression_type=0, batch_size=1 << 20)
    for n in range(3):
        builder.append(timestamp=n, key=b"k", value=b"%d" % n)
    builder.close()
    encoded = builder.buffer()
    expected = take_all(Fetcher.PartitionRecords, encoded, 0, [2])
    ours = take_all(BatchReader, encoded, 0, [2])
    if magic == 0:
        expected = [
            (*e[:3], -1, *e[4:]) if isinstance(e, tuple) and e[3] is None else e for e in expected
        ]
    assert ours == expected
    assert len(ours) == 4
