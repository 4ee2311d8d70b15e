"""Client options of any name and value: taken, or refused by name; the guarantees stay."""

from __future__ import annotations

import math
from typing import Any

import pytest
import trio
from hypothesis import example, given
from hypothesis import strategies as st
from kafka import KafkaConsumer

from trio_consumer import BrokerUnavailableError, ConfigurationError, ConsumerError, open_consumer
from trio_consumer.transports.base import SessionSettings
from trio_consumer.transports.confluent.options import (
    CLUSTERS,
    REFUSED,
    consumer_options,
    seconds,
)
from trio_consumer.transports.kafka.options import client_options
from trio_consumer.transports.memory.options import read_options

from .support import fuzzed
from .test_arguments import anything, run

NOBODY = "127.0.0.1:1"
COMMITS = ["enable.auto.commit", "auto.commit.enable", "enable.auto.offset.store", "on_commit"]
KNOWN = [
    *("session.timeout.ms", "client.id", "group.protocol", "logger", "stats_cb", "error_cb"),
    *("max.poll.interval.ms", "partition.assignment.strategy", "socket.timeout.ms", "throttle_cb"),
    *("topic.auto.offset.reset", "oauth_cb", "group.instance.id", "check.crcs", "debug.x"),
]


def spelled(names: list[str]) -> st.SearchStrategy[str]:
    """Names as they are, and as somebody might try to smuggle them in."""
    changes = [str, str.upper, str.title, " {}".format, "{} ".format, "{}\0".format, "{}\0x".format]
    changes += ["topic.{}".format, lambda name: name.replace(".", "_"), "{}\n".format]
    return st.builds(
        lambda name, change: change(name), st.sampled_from(names), st.sampled_from(changes)
    )


values = anything | st.sampled_from(["true", "TRUE", "1", "0x10", "30000", "-1", "yes", True])


def settings(options: dict[str, Any]) -> SessionSettings:
    return SessionSettings(
        group="g",
        auto_offset_reset="earliest",
        isolation_level="read_uncommitted",
        connect_timeout=0.05,
        commit_timeout=5.0,
        client_options=options,
    )


def opened(url: str, options: dict[str, Any]) -> ConsumerError | None:
    """What comes of opening a consumer of nobody with it."""

    async def main() -> None:
        with trio.fail_after(30):
            async with open_consumer(url, group="g", connect_timeout=0.05, client_options=options):
                pytest.fail("nobody answers there")

    try:
        trio.run(main)
    except ConsumerError as exc:
        return exc
    return None


def check(failure: ConsumerError | None, name: str) -> None:
    """Nobody answered, or the option is named."""
    if not isinstance(failure, BrokerUnavailableError):
        assert isinstance(failure, ConfigurationError)
        assert name.strip()[:8].casefold() in str(failure).casefold()


@fuzzed(80)
@given(spelled(COMMITS + KNOWN) | st.text(max_size=6), values)
@example("client.id", "\ud800")
@example("logger", 5)
@example("session.timeout.ms", math.nan)
@example("enable.auto.commit\0", True)
@example("topic.auto.offset.reset", "latest")
@example("topic.metadata.refresh.interval.ms", 1000)
def test_confluent(name: str, value: Any) -> None:
    """Librdkafka reads a name to its zero byte, and some errors of it name nothing."""
    try:
        options = consumer_options(NOBODY, settings({name: value}))
    except ConfigurationError as exc:
        check(exc, "option" if not name.isprintable() or not name.isascii() else name[:5])
        return
    assert options["enable.auto.commit"] is False
    assert options["enable.auto.offset.store"] is False
    assert "\0" not in name
    assert not name.startswith("topic.") or name.startswith(CLUSTERS)
    assert name not in REFUSED
    assert seconds(options, name, 7) > 0
    check(opened(f"confluent://{NOBODY}", {name: value}), name)


@fuzzed(400)
@given(st.sampled_from(sorted(KafkaConsumer.DEFAULT_CONFIG)) | st.text(max_size=6), values)
@example("max_poll_records", "x")
@example("max_poll_records", math.nan)
@example("session_timeout_ms", True)
@example("partition_assignment_strategy", 5)
@example("partition_assignment_strategy", [])
@example("client_id", None)
def test_kafka(name: str, value: Any) -> None:
    """What passes is of the kind that the client has by default."""
    try:
        options = client_options(NOBODY, settings({name: value}))
    except ConfigurationError as exc:
        check(exc, "option" if name not in KafkaConsumer.DEFAULT_CONFIG else name)
        return
    assert options["enable_auto_commit"] is False
    assert options["group_id"] == "g"
    default = KafkaConsumer.DEFAULT_CONFIG[name]
    if isinstance(default, int):
        assert isinstance(value, (int, float))
        assert 0 <= value < 2**31
    elif isinstance(default, str):
        assert isinstance(value, str)


@fuzzed(25)
@given(st.sampled_from(sorted(KafkaConsumer.DEFAULT_CONFIG)), values)
@example("security_protocol", "x")
@example("api_version", "x")
@example("api_version", (2, 3))
@example("sasl_mechanism", "x")
@example("ssl_context", 5)
@example("ssl_cafile", "/no/such/file")
@example("selector", len)
@example("socket_options", [5])
@example("metric_reporters", [5])
@example("sasl_oauth_token_provider", 5)
@example("proxy_url", "x")
@example("heartbeat_interval_ms", 1_000_000)
@example("group_instance_id", "a b")
def test_kafka_opened(name: str, value: Any) -> None:
    """What the client refuses itself, with whatever error, is a mistake in the options."""
    check(opened(f"kafka://{NOBODY}", {name: value}), name)


@fuzzed(300)
@given(
    st.sampled_from(["session_timeout_ms", "max_poll_records", "client_id", "group_instance_id"])
    | st.sampled_from(["partition_assignment_strategy", "heartbeat_interval_ms"])
    | st.text(max_size=6),
    values,
)
@example("session_timeout_ms", math.nan)
@example("client_id", 5)
@example("group_instance_id", [])
def test_memory(name: str, value: Any) -> None:
    """The memory broker takes what it knows, in its kind."""

    async def main() -> None:
        async with open_consumer("memory://fuzz", group="g", client_options={name: value}):
            pass

    try:
        read_options(settings({name: value}))
    except ConfigurationError as exc:
        check(exc, name[:3] if name.endswith(("_ms", "_id")) else "")
    else:
        run(main)
