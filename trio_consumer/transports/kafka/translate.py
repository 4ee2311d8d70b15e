"""The client's errors in our words, in one place."""

# kafka-python has no types; the stubs that pyright brings are of an older one.
# pyright: basic, reportAttributeAccessIssue=false, reportCallIssue=false

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kafka import errors

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
from .internals import PoisonRecord

__all__ = [
    "commit_error",
    "is_passing",
    "is_refusal",
    "poll_error",
    "query_error",
    "transaction_error",
]

STALE = (
    errors.CommitFailedError,
    errors.RebalanceInProgressError,
    errors.UnknownMemberIdError,
    errors.IllegalGenerationError,
)

REFUSALS = (
    errors.SaslAuthenticationFailedError,
    errors.IllegalSaslStateError,
    errors.UnsupportedSaslMechanismError,
)


PRODUCER_FENCED = (
    errors.ProducerFencedError,
    errors.InvalidProducerEpochError,
    errors.TransactionCoordinatorFencedError,
)

RECORD_REFUSED = (
    errors.MessageSizeTooLargeError,
    errors.RecordListTooLargeError,
    errors.TransactionAbortableError,
    errors.TransactionAbortedError,
    errors.UnknownTopicOrPartitionError,
    errors.InvalidTopicError,
    AssertionError,
    TypeError,
    ValueError,
)


def is_passing(error: BaseException) -> bool:
    """Whether polling on is the right answer to an error of ``poll``."""
    return isinstance(error, errors.RetriableError)


def is_refusal(error: BaseException) -> bool:
    """Whether a connection failed because of who connects, and not of where to."""
    return isinstance(error, (*REFUSALS, errors.AuthorizationError)) or "Handshake failed" in str(
        error
    )


def _common(error: BaseException, attempt: str) -> ConsumerError | None:
    if isinstance(error, errors.AuthorizationError):
        return AuthorizationError(
            f"{attempt}: not authorized ({_text(error)}); ask for an ACL that allows it"
        )
    if isinstance(error, errors.FencedInstanceIdError):
        return FencedError(
            f"{attempt}: another member has joined with this group_instance_id;"
            " give each static member its own"
        )
    if isinstance(error, errors.InvalidSessionTimeoutError):
        return ConfigurationError(
            f"{attempt}: the broker does not accept this session_timeout_ms; choose one between its"
            " group.min.session.timeout.ms and group.max.session.timeout.ms"
        )
    if isinstance(error, errors.InconsistentGroupProtocolError):
        return ConfigurationError(
            f"{attempt}: the members of this group have no partition_assignment_strategy in common;"
            " give all of them the same, or choose another group"
        )
    if isinstance(error, REFUSALS):
        return AuthenticationError(f"{attempt}: the broker refused the credentials: {_text(error)}")
    return None


def _text(error: BaseException) -> str:
    text = str(error)
    name = type(error).__name__
    return text if name in text else f"{name}: {text}" if text else name


def poll_error(error: BaseException, poison: PoisonRecord | None) -> ConsumerError:
    """What an error of ``poll`` that does not pass means."""
    known = _common(error, "cannot read")
    if known is not None:
        return known
    if isinstance(error, errors.OffsetOutOfRangeError):
        offsets = error.args[0] if error.args and isinstance(error.args[0], Mapping) else {}
        for tp, offset in offsets.items():
            tp = TopicPartition(*tp)
            return OffsetOutOfRangeError(
                tp,
                offset,
                f"{tp}: offset {offset} is not in the log any more and auto_offset_reset is 'none';"
                " commit an offset that exists, or choose 'earliest' or 'latest'",
            )
    if isinstance(error, errors.NoOffsetForPartitionError):
        missing: Any = error.args[0] if error.args else ()
        for tp in sorted(missing):
            tp = TopicPartition(*tp)
            return OffsetOutOfRangeError(
                tp,
                None,
                f"{tp}: the group has no committed offset and auto_offset_reset is 'none';"
                " commit one, or choose 'earliest' or 'latest'",
            )
    if isinstance(error, errors.LogTruncationError):
        return TransportError(
            f"the log was truncated behind the position ({error.divergent_offsets}): records that"
            " were read are gone; start again from an offset that you choose"
        )
    if poison is not None:
        return CorruptRecordError(
            poison.tp,
            poison.offset,
            f"{poison.tp} offset {poison.offset} cannot be read: {_text(error)}."
            " Everything before it was delivered; to go on, seek or commit past it, repair the"
            " topic, or (at your own risk) set the client option check_crcs=False",
        )
    return TransportError(f"the client failed while reading: {_text(error)}")


def commit_error(
    error: BaseException, offsets: Mapping[TopicPartition, OffsetAndMetadata]
) -> ConsumerError:
    """What an error of ``commit`` means."""
    wanted = ", ".join(f"{tp}@{stored.offset}" for tp, stored in sorted(offsets.items()))
    known = _common(error, f"cannot commit {wanted}")
    if known is not None:
        return known
    if isinstance(error, STALE):
        return CommitFailedError(
            f"commit of {wanted} refused: this member is not, or not yet again, part of the"
            f" group's current generation ({_text(error)}); it joins again by itself",
            offsets=offsets,
            # The client's own word for "joining just now": a cooperative member keeps its
            # partitions meanwhile, and may commit them as soon as it has joined.
            retriable=isinstance(error, errors.RebalanceInProgressError),
            stale=True,
        )
    if isinstance(error, (errors.RetriableError, RuntimeError)):
        return CommitFailedError(
            f"commit of {wanted} was not confirmed: {_text(error)}; trying again later may succeed",
            offsets=offsets,
            retriable=True,
        )
    return CommitFailedError(f"commit of {wanted} refused: {_text(error)}", offsets=offsets)


def query_error(error: BaseException, attempt: str) -> ConsumerError:
    """What an error of a question about offsets means."""
    known = _common(error, attempt)
    if known is not None:
        return known
    passing = isinstance(error, (errors.RetriableError, RuntimeError))
    return TransportError(f"{attempt}: {_text(error)}", retriable=passing)


def transaction_error(
    error: BaseException, attempt: str, offsets: Mapping[TopicPartition, OffsetAndMetadata]
) -> ConsumerError:
    """What an error of a transactional producer means."""
    attempt = f"cannot {attempt}"
    known = _common(error, attempt)
    if known is not None:
        return known
    if isinstance(error, PRODUCER_FENCED):
        return FencedError(
            f"{attempt}: fenced, another producer was opened with this transactional_id, or the"
            f" transaction took longer than transaction_timeout ({_text(error)}). Give each"
            " process an id of its own"
        )
    if isinstance(error, STALE):
        return CommitFailedError(
            f"{attempt}: this member is no longer, or not yet again, part of the group's current"
            f" generation ({_text(error)})",
            offsets=offsets,
            stale=True,
        )
    if isinstance(error, errors.KafkaTimeoutError) or is_passing(error):
        return TransportError(f"{attempt}: no answer in time ({_text(error)})", retriable=True)
    # What one record did wrong ends the transaction and not the producer.
    if isinstance(error, RECORD_REFUSED):
        return TransportError(f"{attempt}: {_text(error)}", retriable=True)
    return TransportError(f"{attempt}: {_text(error)}")
