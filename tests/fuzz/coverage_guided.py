"""Hunt in the reader of records, led by coverage: ``nox -s fuzz`` runs it after the others.

    python -m tests.fuzz.coverage_guided -max_total_time=60

Needs atheris.  Whatever the bytes are, they are records in ascending order, within the
offsets of their batch, or one of three errors, which all become a ``CorruptRecordError``.
"""

from __future__ import annotations

import sys
from typing import Any

import atheris  # type: ignore[import-not-found]  # in the session only
from kafka.errors import CorruptRecordError

with atheris.instrument_imports(include=["trio_consumer.transports.kafka.records"]):
    from trio_consumer.transports.kafka.records import read_records
    from trio_consumer.transports.record import KafkaRecord

LAST = 300


def one_input(data: bytes) -> None:
    """Read a batch that says to have as many records as its first byte tells."""
    into: list[KafkaRecord] = []
    count = data[0] if data else 0
    try:
        read_records(into, data, min(1, len(data)), count, "t", 0, 100, LAST, 0, None)
    except (CorruptRecordError, ValueError, IndexError):
        pass
    else:
        assert len(into) == count
    offsets = [record.offset for record in into]
    assert offsets == sorted(set(offsets))
    assert all(100 <= offset <= LAST for offset in offsets)


def main(arguments: list[str]) -> Any:
    """Run until it fails, or until libFuzzer's own options say so."""
    atheris.Setup(arguments, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv)
