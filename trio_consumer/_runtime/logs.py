"""The fields that a log record has beside its text, for machines."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from .._types import OffsetAndMetadata, TopicPartition
from ..transports.base import Session

__all__ = ["about", "offsets_of"]


def about(
    session: Session, tps: Collection[TopicPartition] = (), **known: object
) -> dict[str, object]:
    """Who says it, about which partitions; plain values only, as a formatter for JSON wants them.

    Args:
        session: The client; it knows the group, the generation and the member.
        tps: One has ``topic`` and ``partition`` of its own, more are ``partitions``.
        known: Other fields.
    """
    fields: dict[str, object] = {}
    try:
        member = session.group_metadata()
    except Exception:
        pass  # a client that is closed may know nothing; the record matters more
    else:
        fields = {
            "group": member.group,
            "generation": member.generation,
            "member": member.member_id,
        }
    if len(tps) == 1:
        [tp] = tps
        fields |= {"topic": tp.topic, "partition": tp.partition}
    elif tps:
        fields["partitions"] = [str(tp) for tp in sorted(tps)]
    return fields | known


def offsets_of(offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> dict[str, int]:
    """What a commit carries, with names of partitions for keys."""
    return {str(tp): stored.offset for tp, stored in sorted(offsets.items())}
