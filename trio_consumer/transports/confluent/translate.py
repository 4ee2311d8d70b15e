"""The client's errors in our words, in one place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from confluent_kafka import KafkaError, KafkaException

from ..._errors import (
    AuthenticationError,
    AuthorizationError,
    CommitFailedError,
    ConfigurationError,
    ConsumerError,
    CorruptRecordError,
    FencedError,
    OffsetOutOfRangeError,
    TransportError,
)
from ..._types import OffsetAndMetadata, TopicPartition

__all__ = [
    "commit_error",
    "error_of",
    "fatal_error",
    "is_passing",
    "is_refusal",
    "query_error",
    "record_error",
    "transaction_error",
]

E = KafkaError

REFUSALS = {
    E._AUTHENTICATION,
    E._SSL,
    E.SASL_AUTHENTICATION_FAILED,
    E.UNSUPPORTED_SASL_MECHANISM,
    E.ILLEGAL_SASL_STATE,
}

UNAUTHORIZED = {
    E.TOPIC_AUTHORIZATION_FAILED,
    E.GROUP_AUTHORIZATION_FAILED,
    E.CLUSTER_AUTHORIZATION_FAILED,
    E.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
}

STALE = {
    E.ILLEGAL_GENERATION,
    E.UNKNOWN_MEMBER_ID,
    E.REBALANCE_IN_PROGRESS,
    E.STALE_MEMBER_EPOCH,
    E.FENCED_MEMBER_EPOCH,
    E._ASSIGNMENT_LOST,
}

PRODUCER_FENCED = {
    E._FENCED,
    E.PRODUCER_FENCED,
    E.INVALID_PRODUCER_EPOCH,
    E.TRANSACTION_COORDINATOR_FENCED,
}

NO_ANSWER = {E._TIMED_OUT, E._TIMED_OUT_QUEUE, E._TRANSPORT, E._WAIT_COORD, E._ALL_BROKERS_DOWN}

PASSING = NO_ANSWER | {
    *(E._RESOLVE, E._WAIT_CACHE, E._IN_PROGRESS, E._PREV_IN_PROGRESS, E._RETRY, E._STATE),
    *(E._DESTROY_BROKER, E._DESTROY, E._OUTDATED, E._NODE_UPDATE, E._INTR, E._ISR_INSUFF),
    *(E._MAX_POLL_EXCEEDED, E._PARTITION_EOF, E._UNKNOWN_PARTITION, E._UNKNOWN_TOPIC),
    *(E.COORDINATOR_LOAD_IN_PROGRESS, E.COORDINATOR_NOT_AVAILABLE, E.NOT_COORDINATOR),
    *(E.REQUEST_TIMED_OUT, E.LEADER_NOT_AVAILABLE, E.NOT_LEADER_FOR_PARTITION),
    *(E.BROKER_NOT_AVAILABLE, E.REPLICA_NOT_AVAILABLE, E.NETWORK_EXCEPTION),
    *(E.UNKNOWN_TOPIC_OR_PART, E.UNSTABLE_OFFSET_COMMIT, E.OFFSET_NOT_AVAILABLE),
    *(E.FENCED_LEADER_EPOCH, E.UNKNOWN_LEADER_EPOCH, E.KAFKA_STORAGE_ERROR),
    *(E.UNKNOWN_TOPIC_ID, E.INCONSISTENT_TOPIC_ID, E.FETCH_SESSION_ID_NOT_FOUND),
    *(E.INVALID_FETCH_SESSION_EPOCH, E.LISTENER_NOT_FOUND, E.THROTTLING_QUOTA_EXCEEDED),
}

CORRUPT = {E._BAD_MSG, E._BAD_COMPRESSION, E._UNDERFLOW, E.INVALID_MSG, E._NOT_IMPLEMENTED}


def error_of(error: BaseException) -> Any:
    """The client's error inside of its exception; None if it is not one of the client's."""
    if isinstance(error, KafkaException) and error.args and isinstance(error.args[0], KafkaError):
        return error.args[0]
    return None


def is_passing(error: Any) -> bool:
    """Whether polling on is the right answer to the client's error."""
    return not error.fatal() and error.code() in PASSING | STALE


def is_refusal(error: Any) -> bool:
    """Whether a connection failed because of who connects, and not of where to."""
    return error.code() in REFUSALS | UNAUTHORIZED


def _text(error: BaseException) -> str:
    inner = error_of(error)
    if inner is None:
        text, name = str(error), type(error).__name__
        return text if name in text else f"{name}: {text}" if text else name
    return f"{inner.name()}: {inner.str()}"


def _code(error: Any) -> int:
    """The code; of an error that only says that the client is dead, what it died of."""
    code: int = error.code()
    if code == E._FATAL:
        text = error.str()
        for cause in (E.FENCED_INSTANCE_ID, E.UNRELEASED_INSTANCE_ID, *UNAUTHORIZED):
            if KafkaError(cause).str() in text:
                return cause
    return code


def _common(error: BaseException, attempt: str) -> ConsumerError | None:
    inner = error_of(error)
    if inner is None:
        return None
    code = _code(inner)
    if code in UNAUTHORIZED:
        return AuthorizationError(
            f"{attempt}: not authorized ({_text(error)}); ask for an ACL that allows it"
        )
    if code == E.UNRELEASED_INSTANCE_ID:
        return FencedError(
            f"{attempt}: the group still has a member with this group.instance.id ({_text(error)});"
            " if it has crashed, start again when its session is over, which the broker decides"
            " (group.consumer.session.timeout.ms), else give each static member its own"
        )
    if code == E.FENCED_INSTANCE_ID:
        return FencedError(
            f"{attempt}: another member has joined with this group_instance_id"
            f" (group.instance.id, {_text(error)}); give each static member its own"
        )
    if code == E.INVALID_SESSION_TIMEOUT:
        return ConfigurationError(
            f"{attempt}: the broker does not accept this session.timeout.ms; choose one between its"
            " group.min.session.timeout.ms and group.max.session.timeout.ms"
        )
    if code == E.INCONSISTENT_GROUP_PROTOCOL:
        return ConfigurationError(
            f"{attempt}: the members of this group have no partition.assignment.strategy in common"
            f" ({_text(error)}); give all of them the same, or choose another group"
        )
    if code in REFUSALS:
        return AuthenticationError(f"{attempt}: the broker refused the credentials: {_text(error)}")
    return None


def fatal_error(error: BaseException) -> ConsumerError:
    """What an error means after which the client is of no use."""
    return _common(error, "cannot read") or TransportError(
        f"the client failed while reading: {_text(error)}"
    )


def record_error(error: Any, tp: TopicPartition | None, offset: int) -> ConsumerError:
    """What an error means that came in place of a record, and does not pass."""
    exception = KafkaException(error)
    code = error.code()
    if tp is not None and code in (E._AUTO_OFFSET_RESET, E._NO_OFFSET, E.OFFSET_OUT_OF_RANGE):
        return OffsetOutOfRangeError(
            tp,
            offset if offset >= 0 else None,
            f"{tp}: offset {offset} is not in the log any more and auto_offset_reset is 'none';"
            f" commit an offset that exists, or choose 'earliest' or 'latest' ({error.str()})",
        )
    if code == E._LOG_TRUNCATION:
        return TransportError(
            f"the log was truncated behind the position ({error.str()}): records that were read"
            " are gone; start again from an offset that you choose"
        )
    if tp is not None and code in CORRUPT:
        return CorruptRecordError(
            tp,
            offset,
            f"{tp} offset {offset} cannot be read: {_text(exception)}."
            " Everything before it was delivered; to go on, seek or commit past it, repair the"
            " topic, or (at your own risk) set the client option check.crcs=False",
        )
    return fatal_error(exception)


def commit_error(
    error: BaseException,
    offsets: Mapping[TopicPartition, OffsetAndMetadata],
    *,
    cooperative: bool = False,
) -> ConsumerError:
    """What an error of a commit means.

    Args:
        error: The client's.
        offsets: What was to be committed.
        cooperative: Whether partitions are kept from one generation to the next.
    """
    wanted = ", ".join(f"{tp}@{stored.offset}" for tp, stored in sorted(offsets.items()))
    known = _common(error, f"cannot commit {wanted}")
    if known is not None:
        return known
    inner = error_of(error)
    code = None if inner is None else inner.code()
    if code in STALE:
        return CommitFailedError(
            f"commit of {wanted} refused: this member is not, or not yet again, part of the"
            f" group's current generation ({_text(error)}); it joins again by itself",
            offsets=offsets,
            # A cooperative member keeps partitions while it joins.  The client learns of
            # the new generation after the broker has begun it, and then it may commit.
            retriable=code == E.REBALANCE_IN_PROGRESS
            or (cooperative and code == E.ILLEGAL_GENERATION),
            stale=True,
        )
    if inner is None or is_passing(inner):
        return CommitFailedError(
            f"commit of {wanted} was not confirmed: {_text(error)}; trying again later may succeed",
            offsets=offsets,
            retriable=True,
        )
    return CommitFailedError(f"commit of {wanted} refused: {_text(error)}", offsets=offsets)


def query_error(error: BaseException, attempt: str) -> ConsumerError:
    """What an error of a question means."""
    known = _common(error, attempt)
    if known is not None:
        return known
    inner = error_of(error)
    passing = isinstance(error, RuntimeError) if inner is None else is_passing(inner)
    return TransportError(f"{attempt}: {_text(error)}", retriable=passing)


def transaction_error(
    error: BaseException, attempt: str, offsets: Mapping[TopicPartition, OffsetAndMetadata]
) -> ConsumerError:
    """What an error of a transactional producer means."""
    attempt = f"cannot {attempt}"
    inner = error_of(error)
    code = None if inner is None else inner.code()
    if code in PRODUCER_FENCED:
        return FencedError(
            f"{attempt}: fenced, another producer was opened with this transactional_id, or the"
            f" transaction took longer than transaction_timeout ({_text(error)}). Give each"
            " process an id of its own"
        )
    if code in STALE or code == E.FENCED_INSTANCE_ID:
        return CommitFailedError(
            f"{attempt}: this member is no longer, or not yet again, part of the group's current"
            f" generation ({_text(error)})",
            offsets=offsets,
            stale=True,
        )
    known = _common(error, attempt)
    if known is not None:
        return known
    if inner is None:
        # What one record did wrong ends the transaction and not the producer.
        return TransportError(f"{attempt}: {_text(error)}", retriable=True)
    if inner.fatal():
        return TransportError(f"{attempt}: {_text(error)}")
    return TransportError(
        f"{attempt}: {_text(error)}",
        retriable=inner.txn_requires_abort() or inner.retriable() or code in PASSING,
    )
