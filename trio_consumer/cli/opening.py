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

__all__ = ["open_cluster"]


@asynccontextmanager
async def open_cluster(
    url: str, options: Mapping[str, Any], timeout: float
) -> AsyncGenerator[Cluster, None]:
    """Connect to what a URL names for the length of a block.

    Args:
        url: ``kafka://host:port,host:port``.
        options: Options of kafka-python under its own names.
        timeout: Seconds for the connection, and again for the block.

    Raises:
        UsageFailure: A scheme that cannot be looked into.
        Failure: The block took too long.
        ConsumerError: The cluster cannot be reached or refuses.
    """
    scheme, _, rest = url.partition("://")
    if scheme == "memory":
        raise UsageFailure(
            f"{shown_url(url)} is a broker inside of one process, into which no other can look:"
            " call consumer.statistics() there, or broker.committed() of its MemoryBroker"
        )
    address = rest.rstrip("/")
    if scheme == "confluent":
        check_brokers(address, scheme)
        raise UsageFailure(
            f"this command asks through kafka-python: write kafka://{address} for the same brokers,"
            " and options (-o) under the names of kafka-python"
        )
    if scheme != "kafka":
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
