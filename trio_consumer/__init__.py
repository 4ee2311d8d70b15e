"""A Kafka consumer for Trio that never commits past an unfinished message.

    async with open_consumer("kafka://localhost:9092", group="billing") as consumer:
        async with consumer.stream("orders") as orders:
            async for message in orders:
                await charge(message.value)

See :func:`open_consumer` for everything that can be set.
"""

from ._core.scheduling import RoundRobin, SchedulingStrategy, Slice
from ._core.watchdog import Symptom
from ._errors import (
    AuthenticationError,
    AuthorizationError,
    BrokerUnavailableError,
    CommitFailedError,
    ConfigurationError,
    ConsumerError,
    CorruptRecordError,
    DeserializationError,
    FencedError,
    OffsetOutOfRangeError,
    TransactionAbortedError,
    TransportError,
    UnknownTopicError,
)
from ._runtime.consumer import Consumer
from ._runtime.diagnostics import Activity
from ._runtime.holding import HeldMessages, OldestUnfinished, Whereabouts
from ._runtime.message import Message, MessageBatch
from ._runtime.opening import open_consumer
from ._runtime.statistics import (
    ConsumerStatistics,
    PartitionStatistics,
    StreamStatistics,
    UnackedMessage,
)
from ._runtime.stream import Stream
from ._runtime.transactions import Transaction, TransactionManager
from ._runtime.watchdog import Livelock
from ._types import TP, GroupMetadata, OffsetAndMetadata, TopicPartition
from ._version import __version__

__all__ = [
    "TP",
    "Activity",
    "AuthenticationError",
    "AuthorizationError",
    "BrokerUnavailableError",
    "CommitFailedError",
    "ConfigurationError",
    "Consumer",
    "ConsumerError",
    "ConsumerStatistics",
    "CorruptRecordError",
    "DeserializationError",
    "FencedError",
    "GroupMetadata",
    "HeldMessages",
    "Livelock",
    "Message",
    "MessageBatch",
    "OffsetAndMetadata",
    "OffsetOutOfRangeError",
    "OldestUnfinished",
    "PartitionStatistics",
    "RoundRobin",
    "SchedulingStrategy",
    "Slice",
    "Stream",
    "StreamStatistics",
    "Symptom",
    "TopicPartition",
    "Transaction",
    "TransactionAbortedError",
    "TransactionManager",
    "TransportError",
    "UnackedMessage",
    "UnknownTopicError",
    "Whereabouts",
    "__version__",
    "open_consumer",
]
