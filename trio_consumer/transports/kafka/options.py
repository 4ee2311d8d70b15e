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

from ..._errors import ConfigurationError
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
    # A poll has a fixed cost of about 0.2 ms in a group.
    "max_poll_records": 2000,
    # A timer and several sums a record, for figures that nobody reads.
    "metrics_enabled": False,
}

PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")

ASSIGNORS = {
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
            raise ConfigurationError(f"kafka-python has no option {name!r}{hint}")
        options[name] = _checked(name, value)
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


def _checked(name: str, value: Any) -> Any:
    """A value that the client can use.

    It checks little by itself: a word for a number is a ``TypeError`` out of the middle
    of it, and an unknown protocol a broker that never answers.
    """
    default = KafkaConsumer.DEFAULT_CONFIG[name]
    if name == "security_protocol" and value not in PROTOCOLS:
        raise ConfigurationError(
            f"client option {name!r} must be one of {', '.join(PROTOCOLS)}, not {value!r}"
        )
    # Before the numbers: True is one.
    if isinstance(default, bool):
        if not isinstance(value, (bool, int)):
            raise ConfigurationError(f"client option {name!r} must be True or False, not {value!r}")
    elif isinstance(default, (int, float)) and (
        isinstance(value, bool) or not isinstance(value, (int, float))
    ):
        raise ConfigurationError(
            f"client option {name!r} must be a number such as {default}, its default, not {value!r}"
        )
    return value


def _assignors(strategy: Any) -> list[Any]:
    named: Mapping[str, Any] = ASSIGNORS
    strategies = [strategy] if isinstance(strategy, str) or callable(strategy) else list(strategy)
    assignors = []
    for each in strategies:
        if isinstance(each, str) and each not in named:
            raise ConfigurationError(
                f"no partition_assignment_strategy {each!r}; there are {', '.join(sorted(named))}"
            )
        assignors.append(named[each] if isinstance(each, str) else each)
    return assignors


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))
