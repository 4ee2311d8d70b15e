"""Every error that this library raises on its own account.

One base class, and below it three families: mistakes of the caller
(:class:`ConfigurationError`), refused commits (:class:`CommitFailedError`) and
failures of the broker or the client (:class:`TransportError`).  Errors of a
client are translated where they enter, once, and stay reachable as
``__cause__``.  For closed or busy objects Trio's own
:class:`trio.ClosedResourceError` and :class:`trio.BusyResourceError` are used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ._types import OffsetAndMetadata, TopicPartition

__all__ = [
    "AuthenticationError",
    "AuthorizationError",
    "BrokerUnavailableError",
    "CommitFailedError",
    "ConfigurationError",
    "ConsumerError",
    "CorruptRecordError",
    "DeserializationError",
    "FencedError",
    "OffsetOutOfRangeError",
    "TransactionAbortedError",
    "TransportError",
    "UnknownTopicError",
]


def shown(value: object) -> str:
    """A value for the text of an error: short, whatever its ``repr`` does."""
    try:
        text = repr(value)
    except Exception:
        text = f"a {type(value).__name__}"
    return text if len(text) <= 100 else f"{text[:97]}..."


def told(error: BaseException) -> str:
    """Kind and text of an error, whatever its ``str`` does."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:
        return type(error).__name__


class ConsumerError(Exception):
    """Base class of every error of this library."""


class ConfigurationError(ConsumerError, ValueError):
    """The caller asked for something that cannot work; nothing was started."""


class DeserializationError(ConsumerError):
    """A key or a value could not be decoded.

    The message is not finished, unless the stream's ``on_decode_error`` sees to
    it.  The exception of the deserializer is the ``__cause__``.

    Attributes:
        tp: Partition of the message.
        offset: Offset of the message.
        field: ``"key"`` or ``"value"``.
    """

    def __init__(self, tp: TopicPartition, offset: int, field: str, cause: BaseException) -> None:
        self.tp = tp
        self.offset = offset
        self.field = field
        super().__init__(
            f"cannot deserialize the {field} of {tp} offset {offset}:"
            f" {told(cause)}. Unless on_decode_error of the stream deals with it,"
            f" the message stays unfinished and will be delivered again; give the stream a"
            f" deserializer that accepts it, or seek past it"
        )


class CommitFailedError(ConsumerError):
    """The offsets were not committed; what is finished stays finished here.

    Attributes:
        offsets: What was to be committed.
        retriable: True if a later commit may succeed as things stand: the
            coordinator was away, or did not answer in time, or (if stale, too)
            the member joins a new generation just now.
        stale: True if the broker no longer takes this member for an owner
            (generation or member unknown, rebalance in progress).  The member
            has to join again; its partitions may already be lost.
    """

    def __init__(
        self,
        message: str,
        *,
        offsets: Mapping[TopicPartition, OffsetAndMetadata],
        retriable: bool = False,
        stale: bool = False,
    ) -> None:
        self.offsets: dict[TopicPartition, OffsetAndMetadata] = dict(offsets)
        self.retriable = retriable
        self.stale = stale
        super().__init__(message)


class TransportError(ConsumerError):
    """The broker or the client failed; the client's error is the ``__cause__``.

    Attributes:
        retriable: True if the same call may succeed later.
    """

    def __init__(self, message: str, *, retriable: bool = False) -> None:
        self.retriable = retriable
        super().__init__(message)


class BrokerUnavailableError(TransportError):
    """No broker answered within the stated time."""


class AuthenticationError(TransportError):
    """The broker refused the credentials, or the TLS handshake failed."""


class AuthorizationError(TransportError):
    """The broker does not let this principal do what was asked."""


class FencedError(TransportError):
    """Another one took this one's identity: static member (KIP-345) or transactional id."""


class TransactionAbortedError(ConsumerError):
    """A transaction was aborted: nothing of it counts, its messages come again.

    The reason is the ``__cause__``, if the broker gave one: a stale member, say.
    Going on is the remedy: the consumer has gone back to what was committed.
    """


class UnknownTopicError(TransportError):
    """A topic that was asked for does not exist."""


class CorruptRecordError(TransportError):
    """A record cannot be read: wrong CRC, unknown codec, damaged batch.

    Attributes:
        tp: Partition of the record.
        offset: Offset at which reading stopped; records below it were
            delivered.
    """

    def __init__(self, tp: TopicPartition, offset: int, message: str) -> None:
        self.tp = tp
        self.offset = offset
        super().__init__(message)


class OffsetOutOfRangeError(TransportError):
    """The position lies outside the log and no reset policy says where to go.

    Attributes:
        tp: The partition.
        offset: The position, or None if the group has no committed offset.
    """

    def __init__(self, tp: TopicPartition, offset: int | None, message: str) -> None:
        self.tp = tp
        self.offset = offset
        super().__init__(message)
