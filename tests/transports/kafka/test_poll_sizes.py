"""How many records one poll may take."""

from typing import Any

import pytest
from kafka import KafkaConsumer
from kafka.structs import TopicPartition as ClientPartition

from tests.fuzz.fetches import offline
from trio_consumer.transports.kafka.poll_loop import PollLoop


@pytest.mark.parametrize(
    ("partitions", "adapt", "most"),
    [
        (1, True, 2000),
        (400, True, 2000),
        (1000, True, 5000),
        (5000, True, 10_000),
        (1000, False, 2000),  # the user has said how many
    ],
)
def test_poll_of_many_partitions_may_take_more(
    monkeypatch: pytest.MonkeyPatch, partitions: int, adapt: bool, most: int
) -> None:
    """The client looks at each of them in every poll."""
    asked: list[int] = []
    with offline() as client:
        client.config["max_poll_records"] = 2000
        client.assign([ClientPartition("orders", number) for number in range(partitions)])
        loop = PollLoop(client, None, lambda: None, adapt=adapt)
        loop._subscribed = True
        loop.refresh_pauses()  # as after any assignment

        def poll(timeout_ms: int, max_records: int) -> dict[Any, Any]:
            asked.append(max_records)
            return {}

        monkeypatch.setattr(KafkaConsumer, "poll", staticmethod(poll))
        loop._turn()
    assert asked == [most]
