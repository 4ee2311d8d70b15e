"""Values of ``-o``."""

from __future__ import annotations

import pytest

from trio_consumer.cli.options import parse_value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        ("-1", -1),
        ("0.5", 0.5),
        ("1e3", 1000.0),
        ("2.", 2.0),
        ("true", True),
        ("False", False),
        ("PLAIN", "PLAIN"),
        ("nan", "nan"),
        ("1.2.3", "1.2.3"),
        ("", ""),
        ("'5'", "5"),
        ('"true"', "true"),
        ("'", "'"),
    ],
)
def test_parse_value_reads_numbers_and_truths(text: str, value: object) -> None:
    """What looks like a number or a truth value is one, the rest is text."""
    parsed = parse_value(text)
    assert parsed == value
    assert type(parsed) is type(value)
