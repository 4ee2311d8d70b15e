"""Values of ``-o name=value``: options of the client, under its own names."""

from __future__ import annotations

import math
import re
from typing import Any

import click

__all__ = ["Seconds", "Value", "client_options", "parse_value"]

Value = bool | int | float | str

_INTEGER = re.compile(r"[+-]?\d+")
# Not everything that float() takes: "nan" and "infinity" are rather words.
_NUMBER = re.compile(r"[+-]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][+-]?\d+)?")
_WORDS = {"true": True, "false": False}


class Seconds(click.FloatRange):
    """A duration: a number within bounds, which infinity and NaN are not.

    Args:
        most: The longest; by default what fits a time limit in Kafka's protocol.
        least: The shortest; 0 means above 0.
    """

    name = "seconds"

    def __init__(self, most: float = 2_147_483, *, least: float = 0) -> None:
        super().__init__(min=least, max=most, min_open=not least)

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Read it; every comparison with NaN is false, so the range lets it pass."""
        number = float(super().convert(value, param, ctx))
        if math.isnan(number):
            self.fail(f"{value!r} is not a number", param, ctx)
        return number


def parse_value(text: str) -> Value:
    """Read a value as int, float, bool or else str; quotes make it a str.

    >>> [parse_value(t) for t in ("5", "0.5", "true", "PLAIN", "'5'")]
    [5, 0.5, True, 'PLAIN', '5']
    """
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "'\"":
        return text[1:-1]
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    # Longer ones are refused by int() itself.
    if _INTEGER.fullmatch(text) and len(text) < 1000:
        return int(text)
    if _NUMBER.fullmatch(text):
        return float(text)
    return text


def client_options(
    ctx: click.Context, param: click.Parameter, pairs: tuple[str, ...]
) -> dict[str, Value]:
    """Read ``name=value`` pairs; a callback of click.

    Raises:
        click.BadParameter: Something else, or a name that comes twice.
    """
    found: dict[str, Value] = {}
    for pair in pairs:
        name, separator, text = pair.partition("=")
        name = name.strip()
        if not separator or not name:
            raise click.BadParameter(
                f"{pair!r} is not name=value, as in -o session_timeout_ms=30000", ctx, param
            )
        if name in found:
            raise click.BadParameter(f"{name} is given twice, give it once", ctx, param)
        found[name] = parse_value(text)
    return found
