"""What is let through of librdkafka's log."""

from __future__ import annotations

import logging

from trio_consumer.transports.confluent.client_log import QUIET_TIME, REMEMBERED, Repetitions

LINE = "[thrd:b:1/1]: b:1/1: Connect to ipv4#b:1 failed: Connection refused (after {} in state UP)"


def record(kind: str, text: str) -> logging.LogRecord:
    args = (kind, "rdkafka#consumer-1", text)
    return logging.LogRecord("x", logging.ERROR, "", 0, "%s [%s] %s", args, None)


def test_failed_connection_is_told_once_in_a_while() -> None:
    """Twenty attempts a second are one line; another broker or reason is another one."""
    now = 0.0
    lines = Repetitions(lambda: now)
    told = []
    for attempt in range(int(QUIET_TIME * 20) + 1):
        now = attempt / 20
        told += [now] * lines.filter(record("FAIL", LINE.format(f"{attempt}ms")))
        if attempt == 10:
            assert lines.filter(record("FAIL", LINE.format("3ms").replace("b:1", "c:1")))
            assert lines.filter(record("FAIL", LINE.format("3ms").replace("refused", "reset")))
    assert told == [0.0, QUIET_TIME]


def test_other_lines_pass() -> None:
    """However often."""
    lines = Repetitions(lambda: 0.0)
    for _ in range(3):
        assert lines.filter(record("MAXPOLL", "[thrd:main]: Application maximum poll interval"))


def test_memory_is_bounded() -> None:
    """No more lines are remembered than there may be."""
    lines = Repetitions(lambda: 0.0)
    for number in range(3 * REMEMBERED):
        assert lines.filter(record("FAIL", f"[thrd:host-{number}]: failed"))
        assert len(lines._passed) <= REMEMBERED
