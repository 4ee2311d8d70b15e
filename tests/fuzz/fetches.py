"""The transport's poll loop over a real client that gets its fetches from a test.

Everything between the bytes of a fetch and the polled batch is what runs in production: the
client's fetcher, our reader of batches and the poll loop.  Only the network is missing: no broker
is known, and what would come from one is put where its answer would be put.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from kafka import KafkaConsumer
from kafka.consumer.fetcher import CompletedFetch
from kafka.net import compat, manager
from kafka.structs import TopicPartition as ClientPartition

from trio_consumer import TP, ConsumerError
from trio_consumer.transports.kafka import internals
from trio_consumer.transports.kafka.poll_loop import PollLoop, Seek
from trio_consumer.transports.kafka.records import BatchReader

__all__ = ["Reading", "offline"]

TURNS = 2_000
"""More polls than any example needs: each returns at least a record or ends a fetch."""


class Reading:
    """A poll loop over an offline client, and what came of it.

    Attributes:
        records: What was delivered, by partition.
        positions: Where each partition's next record is, as told with the batches.
        failure: What ended the loop.
    """

    def __init__(self, client: KafkaConsumer, tps: list[TP], start: int) -> None:
        self.client = client
        client.unsubscribe()
        client._fetcher._completed_fetches.clear()
        client._fetcher._next_partition_records = None
        client._fetcher._next_in_line_exception_metadata = None
        client.assign([ClientPartition(*tp) for tp in tps])
        self.loop = PollLoop(client, None, lambda: None)
        self.loop._subscribed = True
        self.records: dict[TP, list[Any]] = {tp: [] for tp in tps}
        self.positions: dict[TP, int] = {}
        self.failure: ConsumerError | None = None
        self.turns = 0
        for tp in tps:
            self.loop.send(Seek(tp, start))
        self._turn()

    def feed(self, tp: TP, data: bytes, *, code: int = 0, aborted: Any = None) -> None:
        """Answer a fetch of this partition from its position."""
        position = internals.position(self.client, tp)
        assert position is not None
        answer = SimpleNamespace(
            error_code=code,
            high_watermark=1 << 62,
            diverging_epoch=None,
            records=data,
            aborted_transactions=aborted,
            preferred_read_replica=-1,
            current_leader=None,
        )
        fetch = CompletedFetch(ClientPartition(*tp), position, 11, answer, None)
        self.client._fetcher._completed_fetches.append(fetch)

    def read(self) -> None:
        """Poll until there is nothing left to read, or until it fails."""
        fetcher = self.client._fetcher
        while self.failure is None and (
            fetcher._completed_fetches
            or fetcher._next_partition_records
            or fetcher._next_in_line_exception_metadata is not None
        ):
            self._turn()

    def seek(self, tp: TP, offset: int) -> None:
        """Go on elsewhere, as a user does after an error."""
        self.failure = None
        self.loop.send(Seek(tp, offset))
        self._turn()

    def _turn(self) -> None:
        self.turns += 1
        assert self.turns < TURNS, "the poll loop spins"
        loop = self.loop
        while loop._commands:
            loop._carry_out(loop._commands.popleft())
        try:
            polled = loop._poll(0)
        except ConsumerError as exc:
            self.failure = exc
            return
        for batch, _ in polled:
            self.records[batch.tp] += batch.records
            self.positions[batch.tp] = batch.next_offset


@contextmanager
def offline(max_poll_records: int = 7) -> Iterator[KafkaConsumer]:
    """A client that never finds a broker."""
    internals.close_failed_sockets()
    # The client draws its delays in a thread of its own; Hypothesis takes a change of the
    # common generator for a fault of whatever strategy is drawing at that moment.
    with patch.object(manager, "random", Random(0)), patch.object(compat, "random", Random(0)):
        yield from _offline(max_poll_records)


def _offline(max_poll_records: int) -> Iterator[KafkaConsumer]:
    client = KafkaConsumer(
        bootstrap_servers=["127.0.0.1:1"],
        api_version=(2, 3),
        enable_auto_commit=False,
        auto_offset_reset="none",
        max_poll_records=max_poll_records,
        metrics_enabled=False,
        reconnect_backoff_ms=600_000,
        reconnect_backoff_max_ms=600_000,
    )
    try:
        internals.read_batches_with(client, BatchReader)
        yield client
    finally:
        client.close(autocommit=False, timeout_ms=1000)
