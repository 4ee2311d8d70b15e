"""From the bytes of a fetch to records, four times as fast as the client does it.

kafka-python makes each record in four Python calls and a dozen property reads,
5 µs of the 6 that a message of 100 bytes costs (3.0.12).  Here one loop reads a
whole batch of format v2 (KIP-98) and makes one small object a record, in about
1.2 µs.  What is around it stays the client's: fetching, the cyclic redundancy
check, the codecs, and which batches are control batches or aborted.
"""

# kafka-python has no types; the stubs that pyright brings are of an older one.
# pyright: basic, reportAttributeAccessIssue=false, reportCallIssue=false

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kafka.consumer.fetcher import Fetcher, IsolationLevel
from kafka.errors import CorruptRecordError
from kafka.record.util import decode_varint

from ..record import KafkaRecord
from . import internals

__all__ = ["BatchReader", "read_records"]

Headers = tuple[tuple[str, bytes | None], ...]

NO_HEADERS: Headers = ()


class BatchReader(Fetcher.PartitionRecords):  # type: ignore[misc]  # untyped base
    """The records of one fetch of one partition, taken in portions.

    It stands in for the class that the client has for this.  Deserializers are
    not called: the client options do not allow them.
    """

    # The client's own attributes, which have no types there.
    record_iterator: Iterator[list[KafkaRecord]]
    next_fetch_offset: int
    leader_epoch: int
    records_read: int
    bytes_read: int

    def __init__(self, fetch_offset: int, tp: Any, records: Any, **options: Any) -> None:
        super().__init__(fetch_offset, tp, records, **options)
        self.record_iterator = self._read(records)
        self._ready: list[KafkaRecord] = []
        self._taken = 0
        self._error: Exception | None = None

    def take(self, n: int | None = None) -> list[KafkaRecord]:
        """Return up to so many of the records that follow.

        An error in the middle is raised by the next call, so that what is in
        front of it is not lost.  ``next_fetch_offset`` is then that of the
        record that could not be read.
        """
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        taken: list[KafkaRecord] = []
        try:
            while n is None or len(taken) < n:
                if self._taken == len(self._ready):
                    self._ready, self._taken = next(self.record_iterator, []), 0
                    if not self._ready:
                        break
                stop = len(self._ready) if n is None else self._taken + n - len(taken)
                portion = self._ready[self._taken : stop]
                taken += portion
                self._taken += len(portion)
                self.next_fetch_offset = taken[-1].offset + 1
        except Exception as exc:
            if not taken:
                raise
            self._error = exc
        return taken

    def drain(self) -> None:
        """Give up what is left."""
        self._ready, self._taken, self._error = [], 0, None
        super().drain()

    def _read(self, records: Any) -> Iterator[list[KafkaRecord]]:
        """Yield the records of one batch after another, no empty lists."""
        batch = last = records.next_batch()
        while batch is not None:
            if batch.magic > 2:
                # No checksum covers the format.  What an unknown one calls a
                # marker or aborted would be delivered as if it were a record.
                raise CorruptRecordError(
                    f"Record batch for partition {self.topic_partition} at offset"
                    f" {batch.base_offset} has the unknown format {batch.magic}"
                )
            if last is not batch and batch.magic == last.magic == 2:
                self._check_order(last, batch)
            last = batch
            if self.check_crcs and not batch.validate_crc():
                raise CorruptRecordError(
                    f"Record batch for partition {self.topic_partition} at offset"
                    f" {batch.base_offset} failed crc check"
                )
            if batch.magic == 2:
                self.leader_epoch = batch.leader_epoch
                if self._is_hidden(batch):
                    self.next_fetch_offset = batch.next_offset
                    batch = records.next_batch()
                    continue
            ready: list[KafkaRecord] = []
            error: Exception | None = None
            try:
                if batch.magic == 2:
                    self._read_batch(batch, ready)
                else:
                    self._read_old_batch(batch, ready)
            except Exception as exc:
                error = exc
            self.records_read += len(ready)
            self.bytes_read += batch.size_in_bytes
            # A batch is sent as a whole, also when it is fetched from its middle.
            if ready and ready[0].offset < self.fetch_offset:
                ready = [record for record in ready if record.offset >= self.fetch_offset]
            if ready:
                yield ready
            if error is not None:
                raise error
            batch = records.next_batch()
        if last is not None and last.magic == 2:
            # The batch keeps its last offset when compaction removes the record.
            self.next_fetch_offset = last.next_offset
        self.drain()

    def _check_order(self, last: Any, batch: Any) -> None:
        """Accounts are kept by offset: one that comes again would be counted twice."""
        if batch.base_offset < last.next_offset:
            raise CorruptRecordError(
                f"Record batch for partition {self.topic_partition} begins at offset"
                f" {batch.base_offset}, the one before ends at {last.last_offset}"
            )

    def _is_hidden(self, batch: Any) -> bool:
        """Whether a batch is a transaction marker, or of a transaction that was aborted."""
        if self.isolation_level == IsolationLevel.READ_COMMITTED and batch.has_producer_id():
            self._consume_aborted_transactions_up_to(batch.last_offset)
            if self._contains_abort_marker(batch):
                self.aborted_producer_ids.discard(batch.producer_id)
            elif self._is_batch_aborted(batch):
                return True
        return bool(batch.is_control_batch)

    def _read_batch(self, batch: Any, into: list[KafkaRecord]) -> None:
        buffer, position = internals.uncompressed(batch)
        tp = self.topic_partition
        stamped_by_broker = batch.timestamp_type == batch.LOG_APPEND_TIME
        try:
            read_records(
                into,
                buffer,
                position,
                batch.records_count,
                tp.topic,
                tp.partition,
                batch.base_offset,
                batch.last_offset,
                batch.first_timestamp,
                batch.max_timestamp if stamped_by_broker else None,
            )
        except (ValueError, IndexError) as exc:
            raise CorruptRecordError(f"Found invalid record structure: {exc!r}") from exc

    def _read_old_batch(self, batch: Any, into: list[KafkaRecord]) -> None:
        """Read a batch of format v0 or v1, which brokers send no more since Kafka 4."""
        topic, partition = self.topic_partition
        for record in batch:
            if self.check_crcs and not record.validate_crc():
                raise CorruptRecordError(
                    f"Record for partition {self.topic_partition} at offset {record.offset}"
                    " failed crc check"
                )
            stamp = -1 if record.timestamp is None else record.timestamp
            headers = tuple(record.headers)
            into.append(
                KafkaRecord(
                    topic, partition, record.offset, stamp, record.key, record.value, headers
                )
            )


def read_records(
    into: list[KafkaRecord],
    buffer: bytes,
    position: int,
    count: int,
    topic: str,
    partition: int,
    base_offset: int,
    last_offset: int,
    base_timestamp: int,
    timestamp: int | None,
) -> None:
    """Read the records of one batch of format v2.

    Args:
        into: Where they go, one by one: after an error it has those before.
        buffer: The batch, uncompressed.
        position: Where the first record begins.
        count: How many there are.
        topic: Their topic.
        partition: Their partition.
        base_offset: What their offsets are relative to, and the lowest that they can have.
        last_offset: The highest offset that they can have.
        base_timestamp: What their timestamps are relative to.
        timestamp: The timestamp of them all, if the broker stamped them.

    Raises:
        CorruptRecordError: The lengths contradict each other, or the offsets do.
        ValueError: A number or a header's name is none.
        IndexError: The bytes end too early.
    """
    # A number is a base-128 varint of n = 2 * value, or of -2 * value - 1 if it
    # is negative: lengths are n >> 1, and n == 1 is the length -1 of a null.
    # One and two bytes are read in place, for they are nearly all; a call costs
    # as much as a fourth of the record.
    end = len(buffer)
    append = into.append
    least = base_offset
    stamp = -1 if timestamp is None else timestamp
    for _ in range(count):
        n = buffer[position]
        if n < 128:
            position += 1
        else:
            high = buffer[position + 1]
            if high < 128:
                n += (high << 7) - 128
                position += 2
            else:
                n, position = _read_long(buffer, position)
        stop = position + (n >> 1)
        if stop > end or n & 1:
            raise CorruptRecordError(f"a record of {n >> 1} bytes where {end - position} are left")

        position += 1  # attributes, of which none is defined
        n = buffer[position]
        if n < 128:
            position += 1
        else:
            high = buffer[position + 1]
            if high < 128:
                n += (high << 7) - 128
                position += 2
            else:
                n, position = _read_long(buffer, position)
        if timestamp is None:
            stamp = base_timestamp + (~(n >> 1) if n & 1 else n >> 1)

        n = buffer[position]
        if n < 128:
            position += 1
        else:
            high = buffer[position + 1]
            if high < 128:
                n += (high << 7) - 128
                position += 2
            else:
                n, position = _read_long(buffer, position)
        offset = base_offset + (~(n >> 1) if n & 1 else n >> 1)
        if not least <= offset <= last_offset:
            raise CorruptRecordError(f"offset {offset} is not in {least}..{last_offset}")
        least = offset + 1

        n = buffer[position]
        if n < 128:
            position += 1
        else:
            high = buffer[position + 1]
            if high < 128:
                n += (high << 7) - 128
                position += 2
            else:
                n, position = _read_long(buffer, position)
        if n & 1:
            key = None
        else:
            start = position
            position += n >> 1
            key = buffer[start:position]

        n = buffer[position]
        if n < 128:
            position += 1
        else:
            high = buffer[position + 1]
            if high < 128:
                n += (high << 7) - 128
                position += 2
            else:
                n, position = _read_long(buffer, position)
        if n & 1:
            value = None
        else:
            start = position
            position += n >> 1
            value = buffer[start:position]

        if buffer[position]:
            headers, position = _read_headers(buffer, position)
        else:
            headers = NO_HEADERS
            position += 1
        if position != stop:
            raise CorruptRecordError(
                f"the parts of a record end at byte {position}, the record itself at {stop}"
            )
        append(KafkaRecord(topic, partition, offset, stamp, key, value, headers))
    if position != end:
        raise CorruptRecordError(f"{end - position} bytes left after all {count} records")


def _read_long(buffer: bytes, position: int) -> tuple[int, int]:
    """Read a number of more than two bytes, as it stands there."""
    value, position = decode_varint(buffer, position)
    return (value << 1 if value >= 0 else ~value << 1 | 1), position


def _read_headers(buffer: bytes, position: int) -> tuple[Headers, int]:
    count, position = decode_varint(buffer, position)
    if count < 0:
        raise CorruptRecordError(f"{count} headers")
    headers = []
    for _ in range(count):
        size, position = decode_varint(buffer, position)
        if size < 0:
            raise CorruptRecordError("a header without a name")
        name = buffer[position : position + size].decode()
        position += size
        size, position = decode_varint(buffer, position)
        value = None
        if size >= 0:
            value = buffer[position : position + size]
            position += size
        headers.append((name, value))
    return tuple(headers), position
