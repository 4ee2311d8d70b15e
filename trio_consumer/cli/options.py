"""Options that several commands have, and values of ``-o name=value``."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

__all__ = [
    "Seconds",
    "Value",
    "client_options",
    "client_options_option",
    "json_option",
    "named",
    "parse_value",
    "timeout_option",
    "url_option",
]

F = TypeVar("F", bound=Callable[..., Any])
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
    for index, pair in enumerate(pairs, 1):
        name, separator, text = pair.partition("=")
        name = name.strip()
        if not separator or not name:
            # Not what it is: it may be the second half of a password with a space in it.
            raise click.BadParameter(
                f"number {index} is not name=value, as in -o session_timeout_ms=30000", ctx, param
            )
        if name in found:
            raise click.BadParameter(f"{name} is given twice, give it once", ctx, param)
        found[name] = parse_value(text)
    return found


def named(ctx: click.Context, param: click.Parameter, value: str | tuple[str, ...]) -> Any:
    """Refuse empty names; a callback of click."""
    if not all([value] if isinstance(value, str) else value):
        raise click.BadParameter("a name must not be empty", ctx, param)
    return value


def url_option(help: str) -> Callable[[F], F]:
    """Add ``--url``, which may stand in the environment."""
    return click.option(
        "--url", required=True, envvar="TRIO_CONSUMER_URL", show_envvar=True, help=help
    )


def client_options_option(command: F) -> F:
    """Add ``-o``, which may stand in the environment: there passwords are safer."""
    return click.option(
        "-o",
        "options",
        metavar="NAME=VALUE",
        multiple=True,
        envvar="TRIO_CONSUMER_OPTIONS",
        show_envvar=True,
        callback=client_options,
        help="An option of the Kafka client under its own name, such as"
        " security_protocol=SASL_SSL; may be repeated. Numbers, true and false are read as such;"
        " quotes within the value make it a text. In the environment, where 'ps' does not show"
        " passwords, spaces separate options.",
    )(command)


def json_option(what: str) -> Callable[[F], F]:
    """Add ``--json``."""
    return click.option("--json", "as_json", is_flag=True, show_default=False, help=what)


def timeout_option(command: F) -> F:
    """Add ``--timeout`` of the commands that ask a cluster."""
    return click.option(
        "--timeout",
        type=Seconds(),
        default=10.0,
        help="Seconds to wait for a first broker, and then for all answers.",
    )(command)
