"""librdkafka's log lines, as those of a logger of ours.

While a broker is away, librdkafka tries to reach it about twenty times a second and
logs each attempt.  A line that says what another one has said shortly before is
dropped; the transport's own warning says that there is trouble, once an episode.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable

__all__ = ["Repetitions", "logger"]

QUIET_TIME = 60.0
"""Seconds until the same line is let through again.  Arbitrary."""

REMEMBERED = 100
"""Different lines after which all are forgotten, so that memory has a bound."""

_COUNTS = re.compile(r"\(after [^)]*\)|\d+ms")


class Repetitions(logging.Filter):
    """Drops lines about failed connections that were there before.

    Args:
        now: The time in seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._now = now
        self._passed: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a line is worth reading."""
        text = record.getMessage()
        if not text.startswith("FAIL "):
            return True
        key = _COUNTS.sub("", text)
        now = self._now()
        if now - self._passed.get(key, -QUIET_TIME) < QUIET_TIME:
            return False
        if len(self._passed) >= REMEMBERED:
            self._passed.clear()
        self._passed[key] = now
        return True


logger: logging.Logger = logging.getLogger("trio_consumer.transport.librdkafka")
logger.addFilter(Repetitions())
