"""What a URL may name, without anybody listening there."""

from __future__ import annotations

import pytest

from trio_consumer import ConfigurationError
from trio_consumer.transports import resolve


@pytest.mark.parametrize("scheme", ["kafka", "confluent"])
@pytest.mark.parametrize("brokers", ["a", "a:1", "a:1, b:65535", "10.0.0.1:9092,", "[::1]:9092,b"])
def test_brokers_are_taken_as_they_are(scheme: str, brokers: str) -> None:
    """Names and addresses, with a port or without."""
    assert repr(resolve(f"{scheme}://{brokers}")).endswith(f"Transport({brokers!r})")


@pytest.mark.parametrize("scheme", ["kafka", "confluent"])
@pytest.mark.parametrize("broker", ["a:b", "a:", ":9092", "a:0", "a:65536", "a:1:2", "::1", "a b"])
def test_what_is_no_address_is_refused(scheme: str, broker: str) -> None:
    """At once, and not when nobody has answered for the whole of the connect timeout."""
    match = r"'.*' is no address of a broker: write host:port|the port of '.*' must be a number"
    with pytest.raises(ConfigurationError, match=match):
        resolve(f"{scheme}://good:9092,{broker}")


@pytest.mark.parametrize(
    ("url", "match"),
    [
        ("kafka://,", r"^'kafka://,' names no address: write kafka://host:9092"),
        ("kafka://[::1:9092", r"^'kafka://\[::1:9092': '\[::1:9092' is no address of a broker: wr"),
    ],
)
def test_url_that_is_broken_is_refused(url: str, match: str) -> None:
    """With what to write."""
    with pytest.raises(ConfigurationError, match=match):
        resolve(url)


def test_password_in_a_url_is_refused_and_not_repeated() -> None:
    """Errors end up in logs."""
    with pytest.raises(
        ConfigurationError, match=r"^'kafka://\*\*\*@host:9092': a name and a"
    ) as refused:
        resolve("kafka://alice:secret@host:9092")
    assert "secret" not in str(refused.value)
