"""Which of kafka-python's options pass; without a broker."""

from __future__ import annotations

from typing import Any

import pytest
from kafka.net.compat import KafkaNetClient

from trio_consumer import ConfigurationError
from trio_consumer.transports import SessionSettings
from trio_consumer.transports.kafka import internals
from trio_consumer.transports.kafka.options import client_options


def options(name: str, value: Any) -> dict[str, Any]:
    return client_options("a:1", SessionSettings("g", client_options={name: value}))


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        (
            "session_timeout_ms",
            "abc",
            r"must be a number from 1 to \d+, not of the type str: 'abc'",
        ),
        ("session_timeout_ms", True, r"must be a number from 1 to \d+, not of the type bool: True"),
        ("fetch_max_bytes", None, r"must be a number from 1 to \d+, not of the type NoneType"),
        ("check_crcs", "no", r"must be True or False, not of the type str: 'no'"),
        ("security_protocol", "TLS", r"must be one of PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL, n"),
    ],
)
def test_value_that_the_client_cannot_use_is_refused(name: str, value: Any, match: str) -> None:
    """By its name, before the client stumbles over it or waits in vain."""
    with pytest.raises(ConfigurationError, match=rf"^client option '{name}' {match}"):
        options(name, value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("session_timeout_ms", 6000.5),
        ("check_crcs", 0),
        ("security_protocol", "SASL_SSL"),
        ("receive_buffer_bytes", 1024),
        ("api_version", (2, 3)),
        ("sasl_mechanism", "PLAIN"),
    ],
)
def test_value_that_the_client_can_use_passes(name: str, value: Any) -> None:
    """As it is; what has no default is the client's affair."""
    assert options(name, value)[name] == value


@pytest.mark.parametrize("allowed", [False, True])
def test_consumer_makes_no_topics_unless_told_to(allowed: bool) -> None:
    """A deleted topic is waited for: asking for it must not bring it back.

    The client has the option, and does not say it to the broker by itself.
    """
    name = "allow_auto_create_topics"
    made = options(name, True) if allowed else options("client_id", "x")
    client = KafkaNetClient(bootstrap_servers="127.0.0.1:1")
    try:
        internals.make_topics(client, made[name])
        assert client.cluster.metadata_request().allow_auto_topic_creation is allowed
    finally:
        client.close()
