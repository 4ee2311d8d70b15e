"""The client options of the memory transport, under kafka-python's names.

Times are milliseconds here, and only here, because they are in kafka-python;
:class:`ClientOptions` holds seconds.  An option that would break a guarantee is
refused with the remedy, and so is one that this transport does not know: an
option silently ignored is a test that proves nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..._errors import ConfigurationError, shown
from ..base import SessionSettings
from .assign import Assignor

__all__ = ["ClientOptions", "read_options"]

_REFUSED = {
    "enable_auto_commit": (
        "it would commit messages that are not finished; leave it out, the consumer commits"
        " by itself (commit_interval, commit_every)"
    ),
    "auto_commit_interval_ms": "there is no auto-commit; use commit_interval of open_consumer()",
    "key_deserializer": (
        "an exception in it would stop the client for good; give it to consumer.stream()"
    ),
    "value_deserializer": (
        "an exception in it would stop the client for good; give it to consumer.stream()"
    ),
    "auto_offset_reset": "it is a parameter of its own: auto_offset_reset of open_consumer()",
    "isolation_level": "it is a parameter of its own: isolation_level of open_consumer()",
    "group_id": "it is a parameter of its own: group of open_consumer()",
}

_KNOWN = {
    "client_id",
    "fetch_max_wait_ms",
    "group_instance_id",
    "heartbeat_interval_ms",
    "max_poll_interval_ms",
    "max_poll_records",
    "metadata_max_age_ms",
    "partition_assignment_strategy",
    "session_timeout_ms",
}


LARGEST = 2**31 - 1
"""Milliseconds, in 32 bits as in Kafka's protocol."""


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """How a session behaves; durations in seconds.

    Attributes:
        session_timeout: Silence after which the coordinator removes the member.
        heartbeat_interval: Time between two heartbeats; also how long it may
            take until a member learns of a rebalance or of new partitions.
        rebalance_timeout: How long a rebalance waits for this member's
            revocation (``max_poll_interval_ms``).
        max_poll_records: Records in one poll, all partitions together.
        fetch_max_wait: Accepted and without effect: a fetch here is answered
            when there is something to answer.
        group_instance_id: Name of a static member, or None.
        client_id: Beginning of the member id.
        assignor: The assignment strategy.
        metadata_max_age: How often patterns are matched against the topics anew.
    """

    session_timeout: float = 45.0
    heartbeat_interval: float = 3.0
    rebalance_timeout: float = 300.0
    max_poll_records: int = 500
    fetch_max_wait: float = 0.5
    group_instance_id: str | None = None
    client_id: str = "trio-consumer"
    assignor: Assignor = Assignor.RANGE
    metadata_max_age: float = 300.0


def read_options(settings: SessionSettings) -> ClientOptions:
    """Check a session's settings and translate its client options.

    Raises:
        ConfigurationError: A setting that cannot work, or an option that is
            refused or unknown.
    """
    _choice("auto_offset_reset", settings.auto_offset_reset, ("earliest", "latest", "none"))
    _choice("isolation_level", settings.isolation_level, ("read_uncommitted", "read_committed"))
    if not settings.group:
        raise ConfigurationError("cannot join a group without a name; give group= a text")
    given = dict(settings.client_options)
    for name in given:
        if name in _REFUSED:
            raise ConfigurationError(f"the client option {name!r} is refused: {_REFUSED[name]}")
        if name not in _KNOWN:
            raise ConfigurationError(
                f"the memory transport does not know the client option {name!r};"
                f" leave it out, or use one of {', '.join(sorted(_KNOWN))}"
            )
    default = ClientOptions()
    options = ClientOptions(
        session_timeout=_seconds(given, "session_timeout_ms", default.session_timeout),
        heartbeat_interval=_seconds(given, "heartbeat_interval_ms", default.heartbeat_interval),
        rebalance_timeout=_seconds(given, "max_poll_interval_ms", default.rebalance_timeout),
        max_poll_records=_positive(given, "max_poll_records", default.max_poll_records),
        fetch_max_wait=_seconds(given, "fetch_max_wait_ms", default.fetch_max_wait),
        group_instance_id=_text(given, "group_instance_id", None),
        client_id=_text(given, "client_id", None) or default.client_id,
        assignor=_assignor(given.get("partition_assignment_strategy", default.assignor.value)),
        metadata_max_age=_seconds(given, "metadata_max_age_ms", default.metadata_max_age),
    )
    if options.heartbeat_interval >= options.session_timeout:
        raise ConfigurationError(
            f"heartbeat_interval_ms ({options.heartbeat_interval * 1000:.0f}) must be below"
            f" session_timeout_ms ({options.session_timeout * 1000:.0f}): a third of it is usual"
        )
    return options


def _choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigurationError(f"{name} is one of {', '.join(choices)}; not {shown(value)}")


def _positive(given: dict[str, Any], name: str, default: int) -> int:
    value = given.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise ConfigurationError(f"{name} is a whole number above 0; not {shown(value)}")
    return value


def _seconds(given: dict[str, Any], name: str, default: float) -> float:
    value = given.get(name)
    if value is None:
        return default
    fits = isinstance(value, int | float) and not isinstance(value, bool)
    if not fits or not 0 < value <= LARGEST:
        raise ConfigurationError(f"{name} is a number of milliseconds above 0; not {shown(value)}")
    return float(value) / 1000


def _text(given: dict[str, Any], name: str, default: str | None) -> str | None:
    value = given.get(name, default)
    if value is not None and (not isinstance(value, str) or not value):
        raise ConfigurationError(f"{name} is a text that is not empty; not {shown(value)}")
    return value


def _assignor(value: object) -> Assignor:
    # kafka-python takes a list; a list of one is the same here.
    if isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    names = [assignor.value for assignor in Assignor]
    if value not in names:
        raise ConfigurationError(
            f"partition_assignment_strategy is one of {', '.join(names)}; not {shown(value)}"
        )
    return Assignor(value)
