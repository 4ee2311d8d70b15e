"""Client options of the memory transport."""

from __future__ import annotations

from typing import Any

import pytest

from trio_consumer._errors import ConfigurationError
from trio_consumer.transports.base import SessionSettings
from trio_consumer.transports.memory.assign import Assignor
from trio_consumer.transports.memory.options import ClientOptions, read_options


def read(**client: Any) -> ClientOptions:
    """Read these client options."""
    return read_options(SessionSettings("g", client_options=client))


def test_options_are_translated_to_seconds() -> None:
    """Milliseconds of the client become seconds."""
    options = read(
        session_timeout_ms=6000,
        heartbeat_interval_ms=100,
        max_poll_interval_ms=1500,
        max_poll_records=7,
        fetch_max_wait_ms=20,
        group_instance_id="i",
        client_id="c",
        partition_assignment_strategy=["cooperative-sticky"],
        metadata_max_age_ms=9000,
    )
    assert options == ClientOptions(
        6.0, 0.1, 1.5, 7, 0.02, "i", "c", Assignor.COOPERATIVE_STICKY, 9.0
    )


def test_options_have_the_defaults_of_kafka() -> None:
    """Nothing given is what kafka-python does, except that range is the default."""
    assert read() == ClientOptions(45.0, 3.0, 300.0, 500, 0.5, None, "trio-consumer")


@pytest.mark.parametrize(
    ("client", "message"),
    [
        ({"enable_auto_commit": True}, r"the client option 'enable_auto_commit' is refused: it"),
        ({"auto_commit_interval_ms": 1}, r".*use commit_interval of open_consumer"),
        ({"key_deserializer": str}, r".*'key_deserializer' is refused: .* consumer.stream"),
        ({"value_deserializer": str}, r".*'value_deserializer' is refused: .* consumer.stream"),
        ({"group_id": "g"}, r".*'group_id' is refused: .*group of open_consumer"),
        ({"nonsense": 1}, r"the memory transport does not know the client option 'nonsense'; .*"),
        ({"max_poll_records": 0}, r"max_poll_records is a whole number above 0; not 0$"),
        ({"session_timeout_ms": -1}, r"session_timeout_ms is a number of milliseconds above 0"),
        ({"partition_assignment_strategy": "x"}, r".* one of range, cooperative-sticky; not 'x'"),
        ({"heartbeat_interval_ms": 50000}, r"heartbeat_interval_ms \(50000\) must be below"),
    ],
)
def test_options_refuse_by_name_and_with_remedy(client: dict[str, Any], message: str) -> None:
    """An option that cannot be honoured is refused, never ignored."""
    with pytest.raises(ConfigurationError, match=rf"^{message}"):
        read(**client)


def test_settings_are_checked() -> None:
    """The settings beside the client's options have few values."""
    with pytest.raises(ConfigurationError, match=r"^auto_offset_reset is one of .*; not 'x'$"):
        read_options(SessionSettings("g", auto_offset_reset="x"))
    with pytest.raises(ConfigurationError, match=r"^isolation_level is one of .*; not 'x'$"):
        read_options(SessionSettings("g", isolation_level="x"))
    with pytest.raises(ConfigurationError, match=r"^cannot join a group without a name"):
        read_options(SessionSettings(""))
