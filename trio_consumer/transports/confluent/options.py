"""Which options of librdkafka a user may set, and what we set ourselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..._errors import ConfigurationError, shown
from ..base import ProducerSettings, SessionSettings
from .client_log import logger

__all__ = ["consumer_options", "is_cooperative", "producer_options", "seconds"]

_OURS = "offsets are committed by this library alone, when messages are finished"
_CALLBACK = "it is set by the transport; set on_partitions_* of open_consumer instead"

REFUSED = {
    "enable.auto.commit": _OURS,
    "auto.commit.enable": _OURS,
    "enable.auto.offset.store": _OURS,
    "auto.commit.interval.ms": "use commit_interval (in seconds)",
    "offset.store.method": _OURS,
    "offset.store.path": _OURS,
    "offset.store.sync.interval.ms": _OURS,
    "on_commit": "await consumer.commit() to learn how a commit went",
    "on_assign": _CALLBACK,
    "on_revoke": _CALLBACK,
    "on_lost": _CALLBACK,
    "error_cb": "the transport listens itself, to raise what is fatal and log the rest",
    "key.deserializer": "give it to consumer.stream(key_deserializer=...)",
    "value.deserializer": "give it to consumer.stream(value_deserializer=...)",
    "enable.partition.eof": "ask consumer.position() and end_offsets()",
    "default.topic.config": "write its options beside the others",
    "transactional.id": "use transactional_id=",
    "group.id": "use group=",
    "bootstrap.servers": "write them into the URL, confluent://host:port,host:port",
    "metadata.broker.list": "write them into the URL, confluent://host:port,host:port",
    "auto.offset.reset": "use auto_offset_reset=",
    "isolation.level": "use isolation_level=",
}

DEFAULTS: dict[str, Any] = {
    "client.id": "trio-consumer",
    # Off in librdkafka; a damaged record must not pass for a good one.
    "check.crcs": True,
    # Half a minute by default, from the first mention of a topic: one that is deleted
    # in that time would be taken for one that is not made yet.
    "topic.metadata.propagation.max.ms": 3000,
    # A whole second by default: a queue that is full stays without new records
    # until then, however soon it runs dry.
    "fetch.queue.backoff.ms": 10,
}

MAX_POLL_INTERVAL_MS = 300_000
METADATA_REFRESH_MS = 300_000
"""What librdkafka does if it is told nothing."""

SHORTEST_REQUEST_TIMEOUT_MS = 10_000
LONGEST_REQUEST_TIMEOUT_MS = 300_000
"""The most that librdkafka takes."""

CONSUMER_ONLY = (
    *("auto.offset.reset", "check.crcs", "coordinator.query.interval.ms", "fetch."),
    *("enable.auto.", "group.", "heartbeat.interval.ms", "isolation.level"),
    *("max.partition.fetch.bytes", "max.poll.interval.ms", "partition.assignment.strategy"),
    *("queued.m", "session.timeout.ms", "allow.auto.create.topics", "consume."),
    *("stats_cb", "throttle_cb", "enable.partition.eof"),
)
"""Names, or beginnings of names, that a producer would warn about or not want twice."""

CLUSTERS = ("topic.metadata.", "topic.blacklist")
"""What begins as options of topics do, and is of the client as a whole."""


def consumer_options(brokers: str, settings: SessionSettings) -> dict[str, Any]:
    """Everything that a consuming client is made with, but its callbacks.

    Args:
        brokers: ``host:port`` pairs, separated by commas.
        settings: What the runtime wants, and the user's own options.

    Raises:
        ConfigurationError: An option that would break the guarantees, or that is
            set in another way.
    """
    options = dict(DEFAULTS)
    for name, value in settings.client_options.items():
        if name in REFUSED:
            raise ConfigurationError(f"client option {name!r} cannot be set: {REFUSED[name]}")
        _check(name, value)
        dotted = name.replace("_", ".")
        if "." not in name and dotted != name and not name.endswith("_cb"):
            if dotted in REFUSED:
                raise ConfigurationError(f"client option {name!r} cannot be set: {REFUSED[dotted]}")
            raise ConfigurationError(
                f"librdkafka has no option {name!r}: its names have dots; did you mean {dotted!r}?"
            )
        options[name] = value
    for name, known in (
        ("auto_offset_reset", ("earliest", "latest", "none")),
        ("isolation_level", ("read_uncommitted", "read_committed")),
    ):
        value = getattr(settings, name)
        if value not in known:
            raise ConfigurationError(f"{name} must be one of {', '.join(known)}, not {value!r}")
    reset = settings.auto_offset_reset
    # No request may stay in flight for a minute, which is the client's default.
    options.setdefault(
        "socket.timeout.ms",
        min(
            LONGEST_REQUEST_TIMEOUT_MS,
            max(SHORTEST_REQUEST_TIMEOUT_MS, _milliseconds(settings.commit_timeout)),
        ),
    )
    options.setdefault("logger", logger)
    options.update(
        {
            "bootstrap.servers": _servers(brokers),
            "group.id": settings.group,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            # Tells where a partition is read to its end, also over transaction
            # markers and after a reset with nothing behind it.
            "enable.partition.eof": True,
            "auto.offset.reset": "error" if reset == "none" else reset,
            "isolation.level": settings.isolation_level,
        }
    )
    return options


def _check(name: str, value: Any) -> None:
    """Refuse what the client would misread, or fail on without a word about the option."""
    if not name.isprintable() or not name.isascii():
        # C ends a name at a zero byte: what is refused above would pass with one.
        raise ConfigurationError(f"librdkafka has no option {shown(name)}: its names are ASCII")
    if name.startswith("topic.") and not name.startswith(CLUSTERS):
        raise ConfigurationError(
            f"client option {shown(name)} cannot be set: options of topics are written without"
            " 'topic.', or they would go past those that this library sets"
        )
    if name == "logger":
        if not callable(getattr(value, "log", None)):
            raise ConfigurationError(
                f"client option 'logger' must be a logging.Logger, not {shown(value)}"
            )
    elif name.endswith("_cb"):
        if not callable(value):
            raise ConfigurationError(
                f"client option {shown(name)} must be a function, not {shown(value)}"
            )
    elif not isinstance(value, (str, bool, int, float)) and not callable(value):
        raise ConfigurationError(
            f"client option {shown(name)} must be a text, a number or a boolean, not {shown(value)}"
        )
    elif isinstance(value, str) and ("\0" in value or not _is_unicode(value)):
        raise ConfigurationError(
            f"client option {shown(name)} must be a text in UTF-8 without zero bytes"
        )


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def producer_options(brokers: str, settings: ProducerSettings) -> dict[str, Any]:
    """Everything that a transactional producer is made with, but its callbacks."""
    shared = {
        name: value
        for name, value in settings.client_options.items()
        if not name.startswith(CONSUMER_ONLY)
    }
    return {
        "client.id": "trio-consumer",
        "logger": logger,
        **shared,
        "bootstrap.servers": _servers(brokers),
        "transactional.id": settings.transactional_id,
        "transaction.timeout.ms": _milliseconds(settings.transaction_timeout),
        # A record may not outlast its transaction; librdkafka insists.
        "message.timeout.ms": _milliseconds(settings.transaction_timeout),
    }


def is_cooperative(options: Mapping[str, Any]) -> bool:
    """Whether assignments change by parts; the client does not say so itself."""
    if str(options.get("group.protocol", "classic")).lower() == "consumer":
        return True
    return "cooperative" in str(options.get("partition.assignment.strategy", ""))


def seconds(options: Mapping[str, Any], name: str, default: int) -> float:
    """An option in milliseconds, as seconds; the default if it is switched off."""
    try:
        # As the client reads it, which knows 0x and ends a number where it ends.
        milliseconds = int(str(options.get(name, default)), 0)
    except ValueError:
        milliseconds = default
    return (milliseconds if milliseconds > 0 else default) / 1000


def _servers(brokers: str) -> str:
    return ",".join(part.strip() for part in brokers.split(",") if part.strip())


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))
