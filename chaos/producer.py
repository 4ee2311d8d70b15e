"""Writes numbered messages at a steady rate, each exactly once.

Usage: python producer.py SETTINGS, a JSON object:

- ``bootstrap``, ``topic``, ``partitions``: where to, and the numbers of the partitions;
- ``rate``: messages a second over all of them, 0 for as fast as it goes;
- ``size``: bytes of a value;
- ``limit``: a file with how many messages it may have written by now;
- ``report``: a file that gets one line a second: time, messages written, messages stored.

Message number n of a partition has the offset n: the producer is idempotent, nothing else
writes there, and it never gives a message up.  SIGTERM ends it, once all that it has taken
on is stored; the report then ends with a line ``end partition:count ...``.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaError, Producer

BURST = 0.02
"""Seconds between two bursts; arbitrary."""


def _ignore(error: KafkaError) -> None:
    pass


class Writer:
    """The counts and the producer."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._settings = settings
        self._failed: list[KafkaError] = []
        self._counts: dict[int, int] = dict.fromkeys(settings["partitions"], 0)
        self.ending = False
        self._producer = Producer(
            {
                "bootstrap.servers": settings["bootstrap"],
                "enable.idempotence": True,
                "acks": "all",
                "message.timeout.ms": 0,  # never given up: a number would be missing
                "linger.ms": 20,
                "compression.type": "lz4",
                "queue.buffering.max.messages": 100_000,
                "topic.metadata.propagation.max.ms": 600_000,
                "retry.backoff.max.ms": 500,
                "reconnect.backoff.max.ms": 1000,
                "delivery.report.only.error": True,
                "on_delivery": self._delivered,
                "error_cb": _ignore,  # a node that is away is no news here
                "log_level": 0,
            }
        )

    def _delivered(self, error: KafkaError | None, message: object) -> None:
        if error is not None:
            self._failed.append(error)

    @property
    def written(self) -> int:
        return sum(self._counts.values())

    def run(self) -> None:
        settings = self._settings
        rate, size = settings["rate"], settings["size"]
        limit_file = Path(settings["limit"])
        began = reported = time.monotonic()
        limit, budget = 0, 0.0
        with open(settings["report"], "a", buffering=1) as report:
            while not self.ending:
                now = time.monotonic()
                if now - reported >= 1:
                    reported = now
                    stored = self.written - len(self._producer)
                    report.write(f"{now:.3f} {self.written} {stored}\n")
                text = limit_file.read_text() if limit_file.exists() else ""
                limit = int(text or limit)
                due = rate * (now - began) if rate else float("inf")
                # What a limit held back is not made up for in one burst.
                if rate and due - budget > rate:
                    began += (due - budget) / rate - 1
                    due = budget + rate
                self._burst(min(due, limit, self.written + 5000), size)
                budget = float(self.written)
                if self._failed:
                    raise RuntimeError(f"a message was not stored: {self._failed[0]}")
                self._producer.poll(BURST if rate or self.written >= limit else 0)
            while self._producer.flush(1):
                pass
            if self._failed:
                raise RuntimeError(f"a message was not stored: {self._failed[0]}")
            report.write("end " + " ".join(f"{p}:{n}" for p, n in self._counts.items()) + "\n")

    def _burst(self, until: float, size: int) -> None:
        counts, topic = self._counts, self._settings["topic"]
        partitions = list(counts)
        written = self.written
        while written < until:
            partition = partitions[written % len(partitions)]
            try:
                self._producer.produce(
                    topic, (b"%d" % counts[partition]).ljust(size), partition=partition
                )
            except BufferError:
                return
            counts[partition] += 1
            written += 1


def main() -> None:
    writer = Writer(json.loads(sys.argv[1]))

    def end(number: int, frame: object) -> None:
        writer.ending = True

    signal.signal(signal.SIGTERM, end)
    writer.run()


if __name__ == "__main__":
    main()
