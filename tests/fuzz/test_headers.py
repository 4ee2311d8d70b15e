"""Headers, keys and values on the wire: delivered as they are, or an error names the record."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from kafka import KafkaConsumer

from trio_consumer import CorruptRecordError

from ..transports.kafka.test_records import Batch, with_checksum
from .fetches import offline
from .support import fuzzed
from .test_fetches import T, Written, read


@pytest.fixture(scope="module")
def client() -> Iterator[KafkaConsumer]:
    with offline() as client:
        yield client


parts = st.none() | st.binary(max_size=20)
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
records = st.lists(
    st.tuples(parts, parts, st.lists(st.tuples(names, parts), max_size=3)), min_size=1, max_size=9
)
NEIGHBOUR = Written(
    [Batch(0, [(n, 1, b"k", b"v", []) for n in range(9)], 0, False).encode()],
    [[(n, b"v") for n in range(9)]],
)


@fuzzed(200)
@given(records)
@example([(b"", b"", [("", b"")])])
@example([(None, None, [("many", b"%d" % n) for n in range(5000)])])
def test_any_bytes_are_delivered(client: KafkaConsumer, content: list[tuple]) -> None:  # type: ignore[type-arg]  # drawn
    """None, empty and any bytes are three different things."""
    batch = Batch(0, [(n, 1, *each) for n, each in enumerate(content)], 0, False)
    reading = read(client, batch.encode(), NEIGHBOUR)
    assert reading.failure is None
    got = [(r.key, r.value, [tuple(h) for h in r.headers]) for r in reading.records[T]]
    assert got == content


@fuzzed(200)
@given(st.integers(0, 8), st.binary(min_size=4, max_size=4))
@example(0, b"\xff\xfe\xfd\xfc")
@example(8, b"\xed\xa0\x80x")
def test_names_of_headers_that_are_no_text(client: KafkaConsumer, number: int, name: bytes) -> None:
    """Kafka says that they are UTF-8, and no broker looks."""
    content = [(n, 1, b"k", b"v", [("NAME", b"x")] if n == number else []) for n in range(9)]
    data = Batch(0, content, 0, False).encode()
    reading = read(client, with_checksum(data.replace(b"NAME", name)), NEIGHBOUR)
    try:
        text = name.decode()
    except UnicodeDecodeError:
        assert [r.offset for r in reading.records[T]] == list(range(number))
        assert isinstance(reading.failure, CorruptRecordError)
        assert (reading.failure.tp, reading.failure.offset) == (T, number)
    else:
        assert [r.offset for r in reading.records[T]] == list(range(9))
        assert reading.records[T][number].headers == ((text, b"x"),)
