"""Questions to brokers, and the thread that the answers come in."""

# kafka-python has no types; the stubs that pyright brings are of an older one.
# pyright: basic, reportAttributeAccessIssue=false, reportCallIssue=false

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from kafka import KafkaConsumer
from kafka.structs import TopicPartition as ClientPartition

from ...._types import OffsetAndMetadata, TopicPartition

__all__ = [
    "ask_coordinator",
    "call_in_io_thread",
    "fetch_committed",
]


def fetch_committed(
    consumer: KafkaConsumer, tps: Iterable[TopicPartition], timeout_ms: int
) -> dict[TopicPartition, OffsetAndMetadata]:
    """Committed offsets of many partitions in one request.

    ``KafkaConsumer.committed`` takes one partition a request.
    """
    wanted = [ClientPartition(*tp) for tp in tps]
    found = consumer._coordinator.fetch_committed_offsets(wanted, timeout_ms=timeout_ms)
    return {
        TopicPartition(*tp): OffsetAndMetadata(stored.offset, stored.metadata, stored.leader_epoch)
        for tp, stored in found.items()
        if stored.offset >= 0
    }


def call_in_io_thread(consumer: KafkaConsumer, function: Callable[[], object]) -> None:
    """Run a function in the client's IO thread, to resolve a future there.

    Raises:
        RuntimeError: The client is closed.
    """
    consumer._net.call_soon_threadsafe(function)


def ask_coordinator(admin: Any, group: str, request: Any) -> Any:
    """Send a request to the coordinator of a group and wait for the answer; blocks.

    The admin client has no request for groups of the newer protocol (KIP-848), and
    decodes what members of every kind of group say as if they were consumers (3.0.12).
    """
    manager = admin._manager

    async def ask() -> Any:
        (node,) = (await admin._find_coordinator_ids([group])).values()
        return await manager.send(request, node_id=node)

    return manager.run(ask)
