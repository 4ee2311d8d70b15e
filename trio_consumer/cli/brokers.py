"""The brokers of the demonstration: one inside the process, or a real one.

They produce and look for the demonstration itself; what the consumer does goes
through the library.
"""

# kafka-python has no types; the stubs that pyright brings are of an older one.
# pyright: basic, reportAttributeAccessIssue=false, reportCallIssue=false

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import trio

from .. import TopicPartition
from ..transports import Transport
from .errors import Failure, UsageFailure
from .journal import Place

if TYPE_CHECKING:
    from ..testing import MemoryBroker

__all__ = ["DemoBroker", "KafkaDemoBroker", "MemoryDemoBroker", "values"]

T = TypeVar("T")

PATIENCE = 15.0
"""Seconds to ask again for what a broker cannot do yet, such as finding a group's
coordinator when its first group ever comes.  Arbitrary."""

BATCH_BYTES = 512
"""Small batches of records, so that all partitions move on before one's eyes."""


class DemoBroker(Protocol):
    """What the demonstration needs of a broker."""

    @property
    def description(self) -> str:
        """Where it is, for a sentence."""
        ...

    @property
    def transport(self) -> str | Transport:
        """What to open the consumer with."""
        ...

    @property
    def client_options(self) -> dict[str, Any]:
        """What to set for the consumer's client, beyond the size of a poll."""
        ...

    async def fill(self, topic: str, partitions: Sequence[int], count: int) -> dict[int, Place]:
        """Make a topic of so many partitions; write message i into ``partitions[i]``."""
        ...

    async def committed(self, group: str) -> dict[int, int]:
        """What the group has committed in the topic, by partition."""
        ...

    async def remove(self, topic: str, group: str) -> None:
        """Delete the topic and the group."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


def values(count: int) -> list[bytes]:
    """The values of the numbered messages."""
    return [b"message %d" % number for number in range(count)]


class MemoryDemoBroker:
    """A broker inside this process.

    Args:
        seed: Draws how long each request takes.
    """

    description = "a broker inside this process"

    def __init__(self, seed: int) -> None:
        # Here, for no other command needs it: it brings pytest, if that is installed.
        from ..testing import MemoryBroker

        self.client_options: dict[str, Any] = {}
        # A little, as on a real one: what is instant never shows a race.
        self.transport: MemoryBroker = MemoryBroker(seed=seed, latency=(0.0005, 0.003))

    async def fill(self, topic: str, partitions: Sequence[int], count: int) -> dict[int, Place]:
        """As :meth:`DemoBroker.fill`; does not wait."""
        self.transport.create_topic(topic, count)
        return {
            number: Place(partition, self.transport.produce(topic, value, partition=partition))
            for number, (partition, value) in enumerate(
                zip(partitions, values(len(partitions)), strict=True)
            )
        }

    async def committed(self, group: str) -> dict[int, int]:
        """As :meth:`DemoBroker.committed`; does not wait."""
        broker = self.transport
        return {
            partition: stored.offset
            for topic, count in broker.topics.items()
            for partition in range(count)
            if (stored := broker.committed(group, TopicPartition(topic, partition))) is not None
        }

    async def remove(self, topic: str, group: str) -> None:
        """Nothing to do: the broker goes with the process."""

    async def close(self) -> None:
        """Nothing to do."""


class KafkaDemoBroker:
    """A real broker, through kafka-python's admin client and producer in threads.

    Args:
        address: ``host:port`` of some brokers, separated by commas; may begin
            with ``kafka://``.
        connect_timeout: Seconds to wait for a first answer.

    Raises:
        Failure: That is no address.
    """

    def __init__(self, address: str, *, connect_timeout: float) -> None:
        self._address = address.removeprefix("kafka://").rstrip("/")
        self._connect_timeout = connect_timeout
        for broker in self._address.split(","):
            host, _, port = broker.strip().partition(":")
            if not host or not (port.isdigit() or broker.strip() == host):
                raise UsageFailure(
                    f"{address!r} is no address of a broker: write --kafka host:port"
                )
        self.description: str = f"the Kafka broker at {self._address}"
        self.transport: str = f"kafka://{self._address}"
        # A fetch is emptied before another partition's turn comes.
        self.client_options: dict[str, int] = {"max_partition_fetch_bytes": BATCH_BYTES}
        self._admin: Any = None

    async def fill(self, topic: str, partitions: Sequence[int], count: int) -> dict[int, Place]:
        """As :meth:`DemoBroker.fill`.  Cancelling abandons the thread at its work."""
        if self._admin is None:
            await self._in_thread(self._connect)
        await self._in_thread(self._create, topic, count)
        # Never a second time: that would write messages twice.
        return await self._in_thread(self._produce, topic, partitions, patience=0.0)

    async def committed(self, group: str) -> dict[int, int]:
        """As :meth:`DemoBroker.committed`."""
        return await self._in_thread(self._committed, group)

    async def remove(self, topic: str, group: str) -> None:
        """As :meth:`DemoBroker.remove`; what was never made is passed over."""
        await self._in_thread(self._remove, topic, group)

    async def close(self) -> None:
        """Close the admin client, if it was opened."""
        if self._admin is not None:
            await trio.to_thread.run_sync(self._admin.close)

    async def _in_thread(
        self, function: Callable[..., T], *args: Any, patience: float = PATIENCE
    ) -> T:
        from kafka import errors

        deadline = trio.current_time() + patience
        while True:
            try:
                return await trio.to_thread.run_sync(function, *args, abandon_on_cancel=True)
            except errors.RetriableError as exc:
                if self._admin is None:
                    raise Failure(
                        f"no broker of {self._address} answered within"
                        f" {self._connect_timeout:g} s: check the address and that the broker"
                        " runs, or leave out --kafka to see the demo without one"
                    ) from exc
                if trio.current_time() >= deadline:
                    raise self._refusal(exc) from exc
            except errors.KafkaError as exc:
                raise self._refusal(exc) from exc
            await trio.sleep(0.2)

    def _refusal(self, exc: Exception) -> Failure:
        return Failure(
            f"{self._address} does not do what the demo needs, to make a topic, to write to it and"
            f" to read a group's offsets: {type(exc).__name__}: {exc}; take a broker that lets you,"
            " or leave out --kafka"
        )

    # -- in threads ------------------------------------------------------------

    @property
    def _servers(self) -> dict[str, Any]:
        return {
            "bootstrap_servers": [part.strip() for part in self._address.split(",")],
            "bootstrap_timeout_ms": max(1, round(self._connect_timeout * 1000)),
            "client_id": "trio-consumer-demo",
        }

    def _connect(self) -> None:
        from kafka import KafkaAdminClient

        made: list[Any] = []

        def remember(**config: Any) -> Any:
            # If the constructor raises, nothing else has a reference to its sockets.
            made.append(KafkaAdminClient.DEFAULT_CONFIG["kafka_client"](**config))
            return made[-1]

        try:
            self._admin = KafkaAdminClient(**self._servers, kafka_client=remember)
        except BaseException:
            for client in made:
                client.close()
            raise

    def _create(self, topic: str, count: int) -> None:
        from kafka.errors import TopicAlreadyExistsError

        settings = {"num_partitions": count, "replication_factor": -1}
        # The name is drawn: if it exists, an earlier attempt of ours has made it.
        with suppress(TopicAlreadyExistsError):
            self._admin.create_topics({topic: settings}, wait_for_metadata=True)

    def _produce(self, topic: str, partitions: Sequence[int]) -> dict[int, Place]:
        from kafka import KafkaProducer

        producer = KafkaProducer(**self._servers, linger_ms=5, batch_size=BATCH_BYTES)
        try:
            futures = [
                producer.send(topic, value, partition=partition)
                for partition, value in zip(partitions, values(len(partitions)), strict=True)
            ]
            stored: list[Any] = [future.get(PATIENCE) for future in futures]
        finally:
            producer.close()
        return {number: Place(at.partition, at.offset) for number, at in enumerate(stored)}

    def _committed(self, group: str) -> dict[int, int]:
        found = self._admin.list_group_offsets(group)[group]
        return {tp.partition: at.offset for tp, at in found.items() if at.offset >= 0}

    def _remove(self, topic: str, group: str) -> None:
        if self._admin is not None:
            self._admin.delete_groups([group])
            self._admin.delete_topics([topic])
