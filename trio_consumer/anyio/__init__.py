"""The consumer for AnyIO programs: the same names, on Trio and on asyncio.

    from trio_consumer.anyio import open_consumer

    async with open_consumer("kafka://localhost:9092", group="billing") as consumer:
        async with consumer.stream("orders") as orders:
            async for message in orders:
                await charge(message.value)

On Trio this is :mod:`trio_consumer` itself.  On asyncio, with uvloop too, Trio
runs as a guest of the event loop, in the same thread: the consumer's own tasks
are Trio's, the loops over streams and everything else of yours is asyncio's.

A native ``task.cancel()``, ``asyncio.timeout``, an AnyIO cancel scope and Ctrl-C
all mean what a cancellation means on Trio: nothing unfinished is committed, and
nothing is lost.  Cancel scopes that the consumer makes (``while_assigned``) are
:class:`anyio.CancelScope` objects.
"""

from .. import (
    TP,
    Activity,
    AuthenticationError,
    AuthorizationError,
    BrokerUnavailableError,
    CommitFailedError,
    ConfigurationError,
    Consumer,
    ConsumerError,
    ConsumerStatistics,
    CorruptRecordError,
    DeserializationError,
    FencedError,
    GroupMetadata,
    HeldMessages,
    Livelock,
    Message,
    MessageBatch,
    OffsetAndMetadata,
    OffsetOutOfRangeError,
    OldestUnfinished,
    PartitionStatistics,
    RoundRobin,
    SchedulingStrategy,
    Slice,
    Stream,
    StreamStatistics,
    Symptom,
    TopicPartition,
    Transaction,
    TransactionAbortedError,
    TransactionManager,
    TransportError,
    UnackedMessage,
    UnknownTopicError,
    Whereabouts,
    __version__,
)
from .opening import open_consumer

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
