"""Which topics a pattern means."""

from __future__ import annotations

import re
from typing import Any

import pytest

from trio_consumer._core.subscription import TopicPattern
from trio_consumer._errors import ConfigurationError

TOPICS = ["orders", "orders-eu", "Orders", "my-orders", "_orders", "__orders", "__consumer_offsets"]


@pytest.mark.parametrize(
    ("pattern", "meant"),
    [
        ("orders", {"orders"}),
        ("orders.*", {"orders", "orders-eu"}),
        (".*orders", {"orders", "my-orders", "_orders"}),
        (re.compile("orders", re.IGNORECASE), {"orders", "Orders"}),
        ("orders|my-orders", {"orders", "my-orders"}),
        ("__.*", set()),
        ("nothing", set()),
    ],
)
def test_pattern_means_whole_names_and_nothing_internal(pattern: Any, meant: set[str]) -> None:
    """A part of a name is not enough; what begins with two underscores is Kafka's own."""
    assert TopicPattern(pattern).among(TOPICS) == meant


def test_pattern_shows_its_text() -> None:
    """As text it is what the user wrote."""
    assert str(TopicPattern("a.*")) == str(TopicPattern(re.compile("a.*"))) == "a.*"


@pytest.mark.parametrize(
    ("pattern", "match"),
    [
        ("(", r"^pattern '\(' is not a regular expression: "),
        (3, r"^pattern 3 is not a regular expression: "),
        (b"t", r"^pattern b't' is for bytes: names of topics are text"),
        (re.compile(b"t"), r"^pattern .* is for bytes: names of topics are text"),
    ],
)
def test_pattern_that_cannot_work_is_refused(pattern: Any, match: str) -> None:
    """With what is wrong about it."""
    with pytest.raises(ConfigurationError, match=match):
        TopicPattern(pattern)
