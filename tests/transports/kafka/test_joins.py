"""What a member keeps while it joins."""

from types import SimpleNamespace
from typing import Any

import pytest

from trio_consumer.transports.kafka import internals


@pytest.mark.parametrize(
    ("rejoining", "kept", "waits"),
    [
        (False, ["orders-0"], 0),
        # A join that failed is tried again after a pause.
        (True, ["orders-0"], 100),
        # There is nothing to read meanwhile.
        (False, [], 100),
    ],
)
def test_poll_that_begins_a_join_reads_on_at_once(
    rejoining: bool, kept: list[str], waits: int
) -> None:
    """What stays with the member would be silent for the rest of that poll."""
    asked: list[Any] = []

    def ensure_active_group(timeout_ms: Any = None) -> bool:
        asked.append(timeout_ms)
        return False

    coordinator = SimpleNamespace(
        poll=lambda timeout_ms=None: coordinator.ensure_active_group(timeout_ms=timeout_ms),
        time_to_next_poll=lambda: 0.0,
        ensure_active_group=ensure_active_group,
        rejoining=rejoining,
        _join_task=None,
    )
    subscription = SimpleNamespace(fetchable_partitions=lambda: kept)
    consumer: Any = SimpleNamespace(_coordinator=coordinator, _subscription=subscription)
    internals.fetch_while_joining(consumer)
    coordinator.poll(timeout_ms=100)
    assert asked == [waits]
