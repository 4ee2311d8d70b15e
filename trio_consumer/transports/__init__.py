"""Where messages come from: the seam and its implementations.

A transport is named by a URL, or made here and passed to
:func:`trio_consumer.open_consumer`: :class:`KafkaTransport` for a Kafka
cluster, :class:`~trio_consumer.testing.MemoryBroker` for a broker inside the
process, ``trio_consumer.transports.confluent.ConfluentTransport`` for a cluster
through librdkafka (the extra ``confluent``).  :class:`Transport` and
:class:`Session` are what another one has to implement.
"""

from __future__ import annotations

import re as _re
from urllib.parse import urlsplit

from .._errors import ConfigurationError
from .base import (
    ClientRecords,
    OutgoingRecord,
    PolledBatch,
    ProducerSettings,
    RebalanceListener,
    Record,
    RecordFields,
    Session,
    SessionSettings,
    TransactionalProducer,
    TransactionalTransport,
    Transport,
)

__all__ = [
    "ClientRecords",
    "KafkaTransport",
    "OutgoingRecord",
    "PolledBatch",
    "ProducerSettings",
    "RebalanceListener",
    "Record",
    "RecordFields",
    "Session",
    "SessionSettings",
    "TransactionalProducer",
    "TransactionalTransport",
    "Transport",
    "resolve",
]

from .kafka import KafkaTransport

_BROKER = _re.compile(r"(\[[^\[\]]+\]|[^\[\]:\s]+)(:(?P<port>[0-9]{1,5}))?")

EXAMPLES = "'kafka://host:9092,host:9092', 'confluent://host:9092' or 'memory://name'"


def resolve(transport: str | Transport) -> Transport:
    """Turn what a user passes into a transport.

    Args:
        transport: A URL, or a transport, which is returned as it is.

    Raises:
        ConfigurationError: No such scheme, or a URL that names no address.
    """
    if not isinstance(transport, str):
        if isinstance(transport, Transport):
            return transport
        raise ConfigurationError(
            f"cannot consume from {transport!r}: pass a URL such as {EXAMPLES}, or a transport"
        )
    scheme, separator, _ = transport.partition("://")
    if not separator:
        raise ConfigurationError(f"{transport!r} is not a URL: write {EXAMPLES}")
    # Not urlsplit().hostname: a list of brokers is no host name to it.
    try:
        parts = urlsplit(transport)
    except ValueError as exc:  # a bracket of an IPv6 address is missing
        raise ConfigurationError(f"{transport!r} is not a URL ({exc}): write {EXAMPLES}") from None
    if "@" in parts.netloc:
        # Not quoted: it may have a password.
        raise ConfigurationError(
            f"the {scheme} URL has an '@': write brokers only, {EXAMPLES}, and give user and"
            " password as open_consumer(..., client_options={...})"
        )
    if parts.query or parts.fragment or parts.path.strip("/"):
        raise ConfigurationError(
            f"{transport!r}: only an address may follow the scheme;"
            " give options as open_consumer(..., client_options={...})"
        )
    if not parts.netloc:
        raise ConfigurationError(f"{transport!r} names no address: write {EXAMPLES}")
    if scheme in ("kafka", "confluent"):
        _check_brokers(transport, parts.netloc)
        return KafkaTransport(parts.netloc) if scheme == "kafka" else _confluent(parts.netloc)
    if scheme == "memory":
        from .memory import MemoryBroker

        return MemoryBroker.named(parts.netloc)
    raise ConfigurationError(f"unknown scheme {scheme!r} in {transport!r}: write {EXAMPLES}")


def _check_brokers(url: str, brokers: str) -> None:
    """Refuse at once what a client would try to reach until its time is over."""
    named = [part.strip() for part in brokers.split(",") if part.strip()]
    for broker in named:
        found = _BROKER.fullmatch(broker)
        if found is None or not 0 < int(found["port"] or 9092) < 65536:
            raise ConfigurationError(
                f"{url!r}: {broker!r} is no broker's address, host or host:port with a port from 1"
                f" to 65535; write {EXAMPLES}"
            )
    if not named:
        raise ConfigurationError(f"{url!r} names no address: write {EXAMPLES}")


def _confluent(brokers: str) -> Transport:
    try:
        from .confluent import ConfluentTransport
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.partition(".")[0] != "confluent_kafka":
            raise
        raise ConfigurationError(
            f"confluent://{brokers} needs the package confluent-kafka, which is not installed:"
            " pip install 'trio_consumer[confluent]'"
        ) from exc
    return ConfluentTransport(brokers)
