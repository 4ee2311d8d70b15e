"""From a URL to a cluster that answers questions, with a deadline."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import trio

from ..transports import resolve
from ..transports.addresses import check_brokers, shown_url
from .cluster import Cluster
from .errors import Failure, UsageFailure
from .kafka_cluster import open_kafka

__all__ = ["in_words_of_kafka_python", "open_cluster"]

NAMES = {
    "security.protocol": "security_protocol",
    "sasl.mechanism": "sasl_mechanism",
    "sasl.mechanisms": "sasl_mechanism",
    "sasl.username": "sasl_plain_username",
    "sasl.password": "sasl_plain_password",
    "sasl.kerberos.service.name": "sasl_kerberos_service_name",
    "ssl.ca.location": "ssl_cafile",
    "ssl.certificate.location": "ssl_certfile",
    "ssl.key.location": "ssl_keyfile",
    "ssl.key.password": "ssl_password",
    "ssl.crl.location": "ssl_crlfile",
    "client.id": "client_id",
}
"""How a connection is secured, in the words of librdkafka and of kafka-python."""

SECURING = ("security.", "sasl.", "ssl.", "enable.ssl.", "enable.sasl.", "https.")


@asynccontextmanager
async def open_cluster(
    url: str, options: Mapping[str, Any], timeout: float
) -> AsyncGenerator[Cluster, None]:
    """Connect to what a URL names for the length of a block.

    Args:
        url: ``kafka://host:port,host:port``; ``confluent://`` means the same
            brokers, with options in the words of librdkafka.
        options: What ``run`` takes for the same URL.
        timeout: Seconds for the connection, and again for the block.

    Raises:
        UsageFailure: A scheme, or an option, that is of no use here.
        Failure: The block took too long.
        ConsumerError: The cluster cannot be reached or refuses.
    """
    scheme, _, rest = url.partition("://")
    address = rest.rstrip("/")
    if scheme == "memory":
        raise UsageFailure(
            f"{shown_url(url)} is a broker inside of one process, into which no other can look:"
            " call consumer.statistics() there, or broker.committed() of its MemoryBroker"
        )
    if scheme == "confluent":
        check_brokers(address, scheme)
        options = in_words_of_kafka_python(options)
    elif scheme != "kafka":
        resolve(url)  # says what is wrong with it
    async with open_kafka(address, options, timeout) as cluster:
        try:
            with trio.fail_after(timeout):
                yield cluster
        except trio.TooSlowError as exc:
            raise Failure(
                f"{address} did not answer everything within {timeout:g} s"
                + (f" ({cluster.trouble})" if cluster.trouble else "")
                + "; check that each broker can be reached from here under the address that it"
                " advertises, or wait longer with --timeout"
            ) from exc


def in_words_of_kafka_python(options: Mapping[str, Any]) -> dict[str, Any]:
    """Translate what of librdkafka's options concerns a connection; the rest is of no use here.

    Raises:
        UsageFailure: An option that secures the connection has no counterpart: left
            out, it would be missed.
    """
    found: dict[str, Any] = {}
    for name, value in options.items():
        if name in NAMES:
            upper = name == "security.protocol" and isinstance(value, str)
            found[NAMES[name]] = value.upper() if upper else value
        elif name.startswith(SECURING):
            raise UsageFailure(
                f"this command asks through kafka-python, which has no counterpart of {name!r}:"
                " write kafka:// for the same brokers, with its own options"
            )
    return found
