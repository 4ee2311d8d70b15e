"""Which options of kafka-python a user may set, and what we set ourselves."""

# kafka-python has no types; the stubs that pyright brings are of an older one.
# pyright: basic, reportAttributeAccessIssue=false, reportCallIssue=false

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from kafka import KafkaConsumer
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from kafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor

from ..._errors import ConfigurationError, shown
from ..base import SessionSettings

__all__ = ["client_options"]

REFUSED = {
    "enable_auto_commit": "offsets are committed by this library alone, when messages are finished",
    "auto_commit_interval_ms": "use commit_interval (in seconds)",
    "default_offset_commit_callback": "await consumer.commit() to learn how a commit went",
    "key_deserializer": "give it to consumer.stream(key_deserializer=...):"
    " one that raises inside the client stalls a partition for ever",
    "value_deserializer": "give it to consumer.stream(value_deserializer=...):"
    " one that raises inside the client stalls a partition for ever",
    "consumer_timeout_ms": "use a trio cancel scope",
    "group_id": "use group=",
    "bootstrap_servers": "write them into the URL, kafka://host:port,host:port",
    "auto_offset_reset": "use auto_offset_reset=",
    "isolation_level": "use isolation_level=",
    "bootstrap_timeout_ms": "use connect_timeout (in seconds)",
    "kafka_client": "the transport needs its own to stop a connection attempt",
}

DEFAULTS: dict[str, Any] = {
    "client_id": "trio-consumer",
    # A broker may make a topic for who asks for its metadata, with its own number of
    # partitions: one that is deleted under a running consumer would be back at once.
    "allow_auto_create_topics": False,
    # A poll has a fixed cost of about 0.2 ms in a group; of many partitions it is more,
    # and so are the records (poll_loop).
    "max_poll_records": 2000,
    # A timer and several sums a record, for figures that nobody reads.
    "metrics_enabled": False,
}

PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")

MAY_BE_ZERO = {
    "fetch_max_wait_ms",
    "fetch_min_bytes",
    "retry_backoff_ms",
    "reconnect_backoff_ms",
    "reconnect_backoff_max_ms",
}
BUFFERS = ("receive_buffer_bytes", "send_buffer_bytes")
FUNCTIONS = ("selector",)
LISTS = ("socket_options", "metric_reporters")
LARGEST = 2**31 - 1
"""The client writes numbers in 32 bits, and fails in its own threads if they have more."""

TEXTS = (
    *("group_instance_id", "ssl_cafile", "ssl_certfile", "ssl_keyfile", "ssl_crlfile"),
    *("ssl_password", "ssl_ciphers", "sasl_mechanism", "sasl_plain_", "sasl_kerberos_"),
    *("proxy_url", "socks5_proxy"),
)

ASSIGNORS: dict[str, Any] = {
    assignor.name: assignor
    for assignor in (
        RangePartitionAssignor,
        RoundRobinPartitionAssignor,
        StickyPartitionAssignor,
        CooperativeStickyAssignor,
    )
}


def client_options(brokers: str, settings: SessionSettings) -> dict[str, Any]:
    """Everything that the client is made with.

    Args:
        brokers: ``host:port`` pairs, separated by commas.
        settings: What the runtime wants, and the user's own options.

    Raises:
        ConfigurationError: An option that would break the guarantees, that is
            set in another way, or that the client does not know.
    """
    options = dict(DEFAULTS)
    for name, value in settings.client_options.items():
        if name in REFUSED:
            raise ConfigurationError(f"client option {name!r} cannot be set: {REFUSED[name]}")
        if name not in KafkaConsumer.DEFAULT_CONFIG:
            close = difflib.get_close_matches(name, KafkaConsumer.DEFAULT_CONFIG, 1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ConfigurationError(f"kafka-python has no option {shown(name)}{hint}")
        _check(name, value)
        options[name] = value
    for name, known in (
        ("auto_offset_reset", ("earliest", "latest", "none")),
        ("isolation_level", ("read_uncommitted", "read_committed")),
    ):
        value = getattr(settings, name)
        if value not in known:
            raise ConfigurationError(f"{name} must be one of {', '.join(known)}, not {value!r}")
    strategy = options.get("partition_assignment_strategy")
    if strategy is not None:
        options["partition_assignment_strategy"] = _assignors(strategy)
    options.update(
        bootstrap_servers=[part.strip() for part in brokers.split(",") if part.strip()],
        group_id=settings.group,
        enable_auto_commit=False,
        auto_offset_reset=settings.auto_offset_reset,
        isolation_level=settings.isolation_level,
        bootstrap_timeout_ms=_milliseconds(settings.connect_timeout),
    )
    return options


def _check(name: str, value: Any) -> None:
    """Refuse a value of another kind than the client wants.

    It looks at hardly any: what is wrong fails in its threads, or not at all.
    """
    default: Any = KafkaConsumer.DEFAULT_CONFIG[name]
    number: Any = value
    if name == "security_protocol" and value not in PROTOCOLS:
        raise ConfigurationError(
            f"client option {name!r} must be one of {', '.join(PROTOCOLS)}, not {shown(value)}"
        )
    wanted = ""
    if isinstance(default, bool):
        if not (isinstance(value, int) and value in (0, 1)):
            wanted = "True or False"
    elif isinstance(default, int) or name in BUFFERS:
        least = 0 if name in MAY_BE_ZERO else 1
        fits = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not (value is None and name in BUFFERS) and not (fits and least <= number <= LARGEST):
            wanted = f"a number from {least} to {LARGEST}"
        elif isinstance(value, float) and not name.endswith("_ms"):
            wanted = "a whole number"
    elif name in FUNCTIONS:
        if not callable(value):
            wanted = "a function"
    elif name in LISTS:
        if not isinstance(value, (list, tuple)):
            wanted = "a list"
        elif name == "socket_options" and not all(
            isinstance(each, tuple) and len(each) == 3 and type(each[0]) is type(each[1]) is int
            for each in value
        ):
            wanted = "a list of arguments of setsockopt(), three each"
    elif name == "api_version":
        numbers = isinstance(value, tuple) and all(type(each) is int for each in value)
        if value is not None and not (numbers and 2 <= len(value) <= 3):
            wanted = "a tuple of two or three numbers"
    elif isinstance(default, str) or name.startswith(TEXTS):
        missing = value is None and default is None
        if not missing and not (isinstance(value, str) and _is_unicode(value)):
            wanted = "a text"
    if wanted:
        # Not the value: it may be a password.
        raise ConfigurationError(
            f"client option {name!r} must be {wanted}, not of the type {type(value).__name__}"
            + (f": {shown(value)}" if isinstance(default, int) else "")
        )


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def _assignors(strategy: Any) -> list[Any]:
    named: Mapping[str, Any] = ASSIGNORS
    alone = isinstance(strategy, str) or callable(strategy)
    strategies = [strategy] if alone else strategy
    if not isinstance(strategies, (list, tuple)) or not strategies:
        raise ConfigurationError(
            "partition_assignment_strategy must be names, as in ['range'],"
            f" not {shown(strategy)}; there are {', '.join(sorted(named))}"
        )
    assignors = []
    for each in strategies:
        known = each in named if isinstance(each, str) else hasattr(each, "assign")
        if not known:
            raise ConfigurationError(
                f"no partition_assignment_strategy {shown(each)};"
                f" there are {', '.join(sorted(named))}"
            )
        assignors.append(named[each] if isinstance(each, str) else each)
    return assignors


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))
