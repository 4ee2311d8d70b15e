"""What this transport knows of the client beyond its manual, in one place.

:func:`check` fails loudly when a version changes it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

import confluent_kafka
from confluent_kafka import Consumer
from confluent_kafka import TopicPartition as ClientPartition

from ..._errors import ConfigurationError
from ..._types import GroupMetadata, TopicPartition

__all__ = [
    "check",
    "complete_rebalance",
    "group_metadata",
    "partitions",
    "put_off_rebalance",
    "read_metadata",
    "serialized_metadata",
]

MAGIC = b"CGMDv2:"
"""How librdkafka's serialized group metadata begins (rdkafka_cgrp.c)."""

GENERATION = struct.Struct("=i")


def check(client: Consumer) -> None:
    """Raise if the client's group metadata are not what is known here.

    Raises:
        ConfigurationError: They do not survive being read and written.
    """
    raw = client.consumer_group_metadata()
    try:
        same = serialized_metadata(group_metadata(client)) == raw
    except ValueError:
        same = False
    if not same:
        raise ConfigurationError(
            f"confluent-kafka {confluent_kafka.__version__} writes group metadata in a way that"
            f" is not known here ({raw!r}); install a version that this release of trio-consumer"
            " supports"
        )


def group_metadata(client: Consumer) -> GroupMetadata:
    """The membership now.

    The client gives it as bytes alone, and has no other way to the generation.
    """
    return read_metadata(client.consumer_group_metadata())


def read_metadata(raw: bytes) -> GroupMetadata:
    """What :func:`serialized_metadata` has written, or librdkafka.

    Raises:
        ValueError: Anything else.
    """
    start = len(MAGIC)
    head = start + GENERATION.size
    if not raw.startswith(MAGIC) or len(raw) < head:
        raise ValueError(f"group metadata begin with {raw[:16]!r}")
    (generation,) = GENERATION.unpack_from(raw, start)
    group, member, rest = raw[head:].split(b"\0", 2)
    instance = None
    if rest != b"\1":
        if len(rest) < 2 or rest[0] or rest[-1] or b"\0" in rest[1:-1]:
            raise ValueError(f"group metadata end with {rest[:16]!r}")
        instance = rest[1:-1].decode()
    return GroupMetadata(group.decode(), generation, member.decode(), instance)


def serialized_metadata(group: GroupMetadata) -> bytes:
    """A membership as the client's producer wants it."""
    instance = group.group_instance_id
    return b"".join(
        (
            MAGIC,
            GENERATION.pack(group.generation),
            group.group.encode() + b"\0",
            group.member_id.encode() + b"\0",
            b"\1" if instance is None else b"\0" + instance.encode() + b"\0",
        )
    )


def put_off_rebalance(client: Consumer, kind: str, *, cooperative: bool) -> None:
    """Let a rebalance callback return, with the rebalance still waiting for us.

    The binding completes a rebalance when its callback returns, unless the callback
    has called one of the four methods that change the assignment.  So call the one
    that librdkafka does not wait for: it changes nothing but, in an eager
    revocation, that nothing is fetched any more, which is wanted.  The group goes on
    waiting until :func:`complete_rebalance`, and the thread is free to poll: only
    then do answers to commits arrive.
    """
    if cooperative:
        if kind == "assigned":
            client.incremental_unassign([])
        else:
            client.incremental_assign([])
    elif kind == "assigned":
        client.unassign()
    else:
        client.assign([])


def complete_rebalance(
    client: Consumer, kind: str, changed: list[ClientPartition], *, cooperative: bool
) -> None:
    """Do what librdkafka waits for since :func:`put_off_rebalance`.

    Args:
        client: The client.
        kind: ``"assigned"``, ``"revoked"`` or ``"lost"``.
        changed: What was added, with offsets, or what goes.
        cooperative: Whether the assignment changes by parts.
    """
    if cooperative:
        if kind == "assigned":
            client.incremental_assign(changed)
        else:
            client.incremental_unassign(changed)
    elif kind == "assigned":
        client.assign(changed)
    else:
        client.unassign()


def partitions(tps: Iterable[TopicPartition], offset: int | None = None) -> list[Any]:
    """The client's own type of partition, which it insists on."""
    if offset is None:
        return [ClientPartition(*tp) for tp in tps]
    return [ClientPartition(*tp, offset) for tp in tps]
