"""Where messages come from: the seam and its implementations.

A transport is named by a URL, or made here and passed to
:func:`trio_consumer.open_consumer`: :class:`KafkaTransport` for a Kafka
cluster, :class:`~trio_consumer.testing.MemoryBroker` for a broker inside the
process, ``trio_consumer.transports.confluent.ConfluentTransport`` for a cluster
through librdkafka (the extra ``confluent``).  :class:`Transport` and
:class:`Session` are what another one has to implement.
"""

from __future__ import annotations

from .._errors import ConfigurationError
from .._errors import shown as _shown
from .addresses import shown_url as _shown_url
from .base import (
    OutgoingRecord,
    PolledBatch,
    ProducerSettings,
    RebalanceListener,
    Record,
    Session,
    SessionSettings,
    TransactionalProducer,
    TransactionalTransport,
    Transport,
)

__all__ = [
    "KafkaTransport",
    "OutgoingRecord",
    "PolledBatch",
    "ProducerSettings",
    "RebalanceListener",
    "Record",
    "Session",
    "SessionSettings",
    "TransactionalProducer",
    "TransactionalTransport",
    "Transport",
    "resolve",
]

from .kafka import KafkaTransport

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
            f"cannot consume from {_shown(transport)}: pass a URL such as {EXAMPLES},"
            " or a transport"
        )
    scheme, separator, rest = transport.partition("://")
    url = _shown_url(transport)
    if not separator:
        raise ConfigurationError(f"{url} is not a URL: write {EXAMPLES}")
    if scheme not in ("kafka", "confluent", "memory"):
        raise ConfigurationError(f"unknown scheme {_shown_url(scheme)} in {url}: write {EXAMPLES}")
    # Not urlsplit(): a list of brokers is no host name to it, and it drops line ends.
    address = rest.rstrip("/")
    if any(mark in address for mark in "/?#"):
        raise ConfigurationError(
            f"{url}: only an address may follow the scheme;"
            " give options as open_consumer(..., client_options={...})"
        )
    if not address:
        raise ConfigurationError(f"{url} names no address: write {EXAMPLES}")
    if scheme == "kafka":
        return KafkaTransport(address)
    if scheme == "confluent":
        return _confluent(address)
    from .memory import MemoryBroker

    return MemoryBroker.named(address)


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
