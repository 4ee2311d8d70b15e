"""A Kafka broker inside the process, for tests and demonstrations."""

from ..transports.memory import Faults, MemoryBroker

__all__ = ["Faults", "MemoryBroker"]
