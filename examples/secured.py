"""A consumer of brokers behind TLS that want a password.

    KAFKA_PASSWORD=... python -m examples.secured kafka://kafka:9093 ca.pem billing

The same over librdkafka with confluent://kafka:9093.  See docs/security.md.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import trio

from trio_consumer import open_consumer


def kafka_options(ca: str, user: str, password: str) -> dict[str, Any]:
    """For kafka://, the names of kafka-python."""
    return {
        "security_protocol": "SASL_SSL",
        "ssl_cafile": ca,
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": user,
        "sasl_plain_password": password,
    }


def confluent_options(ca: str, user: str, password: str) -> dict[str, Any]:
    """For confluent://, the names of librdkafka."""
    return {
        "security.protocol": "SASL_SSL",
        "ssl.ca.location": ca,
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": user,
        "sasl.password": password,
    }


async def main(url: str, ca: str, user: str) -> None:
    """Print each order."""
    options = confluent_options if url.startswith("confluent://") else kafka_options
    async with (
        open_consumer(
            url,
            group="billing",
            client_options=options(ca, user, os.environ["KAFKA_PASSWORD"]),
        ) as consumer,
        consumer.stream("orders") as orders,
    ):
        async for message in orders:
            print(message.value, flush=True)


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2], sys.argv[3])
