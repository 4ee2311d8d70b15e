"""Values of ``-o name=value``: options of the client, under its own names."""

from __future__ import annotations

import re

import click

__all__ = ["Value", "client_options", "parse_value"]

Value = bool | int | float | str

_INTEGER = re.compile(r"[+-]?\d+")
# Not everything that float() takes: "nan" and "infinity" are rather words.
_NUMBER = re.compile(r"[+-]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][+-]?\d+)?")
_WORDS = {"true": True, "false": False}


def parse_value(text: str) -> Value:
    """Read a value as int, float, bool or else str; quotes make it a str.

    >>> [parse_value(t) for t in ("5", "0.5", "true", "PLAIN", "'5'")]
    [5, 0.5, True, 'PLAIN', '5']
    """
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "'\"":
        return text[1:-1]
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if _INTEGER.fullmatch(text):
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
