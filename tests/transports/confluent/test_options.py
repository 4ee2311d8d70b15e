"""Which of librdkafka's options pass, and what becomes of them; without a broker."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from trio_consumer import ConfigurationError
from trio_consumer.transports import ProducerSettings, SessionSettings, resolve
from trio_consumer.transports.confluent import ConfluentTransport
from trio_consumer.transports.confluent.options import (
    REFUSED,
    consumer_options,
    is_cooperative,
    producer_options,
)


def options(**client_options: Any) -> dict[str, Any]:
    named = {name.replace("_", "."): value for name, value in client_options.items()}
    return consumer_options("a:1, b:2", SessionSettings("g", client_options=named))


def test_options_that_hold_up_the_guarantees_are_set() -> None:
    """Nothing is committed or stored by the client; damaged records are found."""
    made = options()
    assert made["enable.auto.commit"] is made["enable.auto.offset.store"] is False
    assert made["check.crcs"] is True
    assert made["bootstrap.servers"] == "a:1,b:2"
    assert made["group.id"] == "g"


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_refused_option_says_what_to_do_instead(name: str) -> None:
    """By its name, and with a remedy."""
    with pytest.raises(ConfigurationError, match=rf"^client option '{name}' cannot be set: \w"):
        consumer_options("a:1", SessionSettings("g", client_options={name: True}))


def test_name_with_underscores_is_told_with_its_dots() -> None:
    """kafka-python's names are close enough to be a trap."""
    with pytest.raises(ConfigurationError, match=r"did you mean 'session\.timeout\.ms'\?$"):
        consumer_options("a:1", SessionSettings("g", client_options={"session_timeout_ms": 1}))
    with pytest.raises(ConfigurationError, match=r"^client option 'enable_auto_commit' cannot"):
        consumer_options("a:1", SessionSettings("g", client_options={"enable_auto_commit": True}))


@pytest.mark.parametrize(
    ("policy", "told"), [("earliest", "earliest"), ("latest", "latest"), ("none", "error")]
)
def test_reset_policy_in_the_words_of_the_client(policy: str, told: str) -> None:
    """``none`` is an error to it."""
    made = consumer_options("a:1", SessionSettings("g", auto_offset_reset=policy))
    assert made["auto.offset.reset"] == told


@pytest.mark.parametrize("field", ["auto_offset_reset", "isolation_level"])
def test_unknown_policy_is_refused(field: str) -> None:
    """With the ones that there are."""
    wrong: dict[str, Any] = {field: "sometimes"}
    with pytest.raises(ConfigurationError, match=rf"^{field} must be one of .* not 'sometimes'$"):
        consumer_options("a:1", SessionSettings("g", **wrong))


def test_user_may_set_what_the_library_only_prefers() -> None:
    """Defaults give way."""
    assert options(check_crcs=False)["check.crcs"] is False


def test_protocols_that_change_assignments_by_parts() -> None:
    """The cooperative assignor, and every assignor of the new group protocol."""
    assert not is_cooperative({})
    assert not is_cooperative({"partition.assignment.strategy": "range,roundrobin"})
    assert is_cooperative({"partition.assignment.strategy": "cooperative-sticky"})
    assert is_cooperative({"group.protocol": "consumer"})


def test_producer_gets_what_it_has_too() -> None:
    """How to connect, and nothing of the group."""
    settings = ProducerSettings(
        "id",
        30.0,
        client_options={
            "security.protocol": "ssl",
            "session.timeout.ms": 1,
            "fetch.min.bytes": 1,
            "queued.min.messages": 1,
        },
    )
    made = producer_options("a:1", settings)
    assert made["security.protocol"] == "ssl"
    assert made["transactional.id"] == "id"
    assert made["transaction.timeout.ms"] == 30_000
    assert not {"session.timeout.ms", "fetch.min.bytes", "queued.min.messages"} & made.keys()


def test_url_means_this_transport() -> None:
    """With all of its brokers."""
    transport = resolve("confluent://a:1,b:2")
    assert isinstance(transport, ConfluentTransport)
    assert transport.brokers == "a:1,b:2"


def test_poll_of_nothing_is_refused() -> None:
    """A poll has to take at least one record."""
    with pytest.raises(ConfigurationError, match=r"^max_poll_records must be at least 1, not 0$"):
        ConfluentTransport("a:1", max_poll_records=0)


def test_without_the_extra_the_error_names_the_command() -> None:
    """And the package imports without it."""
    code = (
        "import sys; sys.modules['confluent_kafka'] = None\n"
        "from trio_consumer import ConfigurationError\n"
        "from trio_consumer.transports import resolve\n"
        "try: resolve('confluent://a:1')\n"
        "except ConfigurationError as exc: print(exc)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.startswith("confluent://a:1 needs the package confluent-kafka")
    assert "pip install 'trio_consumer[confluent]'" in done.stdout
