"""Records out of the messages of librdkafka's client."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import TIMESTAMP_CREATE_TIME, TIMESTAMP_NOT_AVAILABLE

from trio_consumer import TP
from trio_consumer.transports.confluent import records


class Standin:
    """Has what is read of a message; the client's cannot be made everywhere."""

    def __init__(self, offset: int, stamp: tuple[int, int]) -> None:
        self._offset = offset
        self._stamp = stamp

    def offset(self) -> int:
        return self._offset

    def timestamp(self) -> tuple[int, int]:
        return self._stamp

    def key(self) -> None:
        return None

    def value(self) -> bytes:
        return b"v"

    def headers(self) -> Any:
        return [("h", b"1")] if self._offset == 7 else None


def test_timestamp_that_is_not_available_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever number stands beside it, and its neighbours keep theirs."""
    monkeypatch.setattr(records, "_MESSAGE", Standin)
    messages = [
        Standin(7, (TIMESTAMP_CREATE_TIME, 1500)),
        Standin(8, (TIMESTAMP_NOT_AVAILABLE, 0)),
        Standin(9, (TIMESTAMP_CREATE_TIME, 0)),
    ]
    taken = records.take_apart(TP("t", 3), messages)
    assert [(r.topic, r.partition, r.offset) for r in taken] == [("t", 3, n) for n in (7, 8, 9)]
    assert [r.timestamp for r in taken] == [1500, -1, 0]
    assert [list(r.headers) for r in taken] == [[("h", b"1")], [], []]
