"""Any text as a URL: a transport, or an error that tells what is wrong and no password."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trio_consumer import ConfigurationError
from trio_consumer.testing import MemoryBroker
from trio_consumer.transports import KafkaTransport, Transport, resolve
from trio_consumer.transports.confluent import ConfluentTransport

from .support import fuzzed

SECRET = "s3cr3t-0f-n0b0dy"

schemes = st.sampled_from(["kafka", "confluent", "memory", "http", "KAFKA", "", "kafka+ssl", "\0"])
hosts = st.sampled_from(
    [
        *(
            "localhost",
            "127.0.0.1",
            "[::1]",
            "[::1",
            "::1",
            "[fe80::1%eth0]",
            "",
            "\0",
            "a b",
            "ü.de",
        ),
        *("a%41", "\u2100", "\ud800", "x" * 300, "x" * 70, "a..b", "*", "h\n", "[]", "[zz]", "h\\"),
    ]
) | st.text(max_size=6)
ports = st.sampled_from(
    [
        "",
        ":",
        ":9092",
        ":0",
        ":65535",
        ":65536",
        ":-1",
        ":+1",
        ":1e3",
        ":٣",
        ": 9",
        ":" + "9" * 5000,
    ]
)
users = st.sampled_from(["", f"me:{SECRET}@", f"{SECRET}@", f"a/{SECRET}@", f"a?{SECRET}@", "@"])
ends = st.sampled_from(["", "/", "//", "/topic", f"?password={SECRET}", "#x", "\n", "/%00"])


@st.composite
def urls(draw: st.DrawFn) -> str:
    """Something like a URL, in every part of which something may be wrong."""
    brokers = draw(st.lists(st.tuples(users, hosts, ports).map("".join), max_size=3))
    separator = draw(st.sampled_from(["://", "://", "://", ":", "//", ""]))
    return draw(schemes) + separator + ",".join(brokers) + draw(ends)


def check_told(text: str) -> None:
    """One line with a remedy and without the password."""
    assert SECRET not in text
    assert len(text) < 900
    assert "\n" not in text
    assert re.search(r"write|give|must be|needs", text), text


@fuzzed(200)
@given(urls() | st.text(max_size=30) | st.text(max_size=30).map("kafka://".__add__))
@example("kafka://[::1")
@example("kafka://\u2100")
@example("kafka://h:99999")
@example("kafka://h:port")
@example("kafka://,")
@example("kafka://h\n:9092")
@example("kafka://" + "h:9092," * 2000)
@example(f"kafka://me:{SECRET}@h:9092")
@example(f"http://me:{SECRET}@h:9092")
@example(f"me:{SECRET}@h")
@example(f"kafka://h?sasl_plain_password={SECRET}")
@example(f"confluent://a,me:{SECRET}@h:9092")
def test_any_text(url: str) -> None:
    """What is accepted can be an address; what is not is told in a line."""
    try:
        transport = resolve(url)
    except ConfigurationError as exc:
        check_told(str(exc))
        return
    assert isinstance(transport, Transport)
    if isinstance(transport, MemoryBroker):
        MemoryBroker.forget(url.removeprefix("memory://").rstrip("/"))
        return
    assert isinstance(transport, (KafkaTransport, ConfluentTransport))
    assert "@" not in transport.brokers
    assert not re.search(r"[\0-\x1f/?#\\]", transport.brokers)
    for port in re.findall(r":(\d*)$", transport.brokers.split(",")[-1].strip()):
        assert 0 < int(port) < 65536


@pytest.mark.parametrize(
    "address",
    [
        *(
            "h",
            "h:9092",
            "h:1,g:65535",
            "h:9092, g:9092",
            "[::1]:9092",
            "10.0.0.1",
            "bücher.de:9092",
        ),
        *("h:9092,h:9092", "under_score:1", "[fe80::1%eth0]:9092", "a.b.", "h:9092,"),
    ],
)
@pytest.mark.parametrize("scheme", ["kafka", "confluent"])
def test_good_addresses(scheme: str, address: str) -> None:
    """What the clients understand passes as it is."""
    transport: Any = resolve(f"{scheme}://{address}")
    assert transport.brokers == address


@fuzzed(200)
@given(st.none() | st.integers() | st.binary(max_size=9) | st.just(object()) | st.just(Transport))
def test_no_text(value: Any) -> None:
    """Neither a URL nor a transport."""
    with pytest.raises(ConfigurationError, match=r"^cannot consume from .*: pass a URL such as"):
        resolve(value)
