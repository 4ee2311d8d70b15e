"""What users pass, looked at before anything is done with it.

A wrong value that gets further fails where nobody can tell whose it was: in a task,
in the thread of a client, or not at all.  NaN is the worst of them, because every
comparison with it is false.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from typing import Any

from .._errors import ConfigurationError, shown
from .._types import TopicPartition

__all__ = [
    "LONGEST",
    "check_function",
    "check_name",
    "check_names",
    "check_number",
    "check_offset",
    "check_partition",
    "check_partitions",
    "check_seconds",
]

LONGEST = 2_147_483
"""Seconds of the longest time limit that is sent to a broker or given to a client, in
milliseconds of 32 bits: 24 days."""

LONGEST_NAME = 32_767
"""Bytes of the longest text in Kafka's protocol."""

HIGHEST_OFFSET = 2**63 - 1
HIGHEST_PARTITION = 2**31 - 1


def check_seconds(name: str, value: Any, *, zero: bool = False, most: float = math.inf) -> float:
    """Check a duration.

    Args:
        name: What the user calls it.
        value: What the user passed.
        zero: Whether none at all is one.
        most: The longest.

    Raises:
        ConfigurationError: It is none; the text begins with the name.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ConfigurationError(f"{name} must be a number of seconds, not {shown(value)}")
    if value < 0 or not (zero or value > 0) or value != value:
        wanted = "not be negative" if zero and value == value else "be positive"
        raise ConfigurationError(f"{name} must {wanted}, not {shown(value)}")
    try:
        seconds = float(value)
    except OverflowError:
        seconds = math.inf
    if seconds > most:
        raise ConfigurationError(f"{name} must be at most {most:.0f} seconds, not {shown(value)}")
    return seconds


def check_number(name: str, value: Any, least: int = 1) -> int:
    """Check a whole number."""
    if isinstance(value, bool) or not hasattr(type(value), "__index__"):
        raise ConfigurationError(f"{name} must be a whole number, not {shown(value)}")
    number = operator.index(value)
    if number < least:
        raise ConfigurationError(f"{name} must be at least {least}, not {shown(value)}")
    return number


def check_offset(name: str, value: Any) -> int:
    """Check an offset to read at."""
    number = check_number(name, value, 0)
    if number > HIGHEST_OFFSET:
        raise ConfigurationError(f"{name} must be at most 2**63 - 1, not {shown(value)}")
    return number


def check_name(name: str, value: Any) -> str:
    """Check a name that a broker is told."""
    if not isinstance(value, str):
        raise ConfigurationError(f"{name} must be a text, not {shown(value)}")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        size = 0
    if not 0 < size <= LONGEST_NAME or "\0" in value:
        raise ConfigurationError(
            f"{name} must be a text of 1 to {LONGEST_NAME} bytes in UTF-8 without zero bytes,"
            f" not {shown(value)}"
        )
    return value


def check_names(name: str, value: Any) -> frozenset[str]:
    """Check some names; one alone may stand for itself."""
    if isinstance(value, str):
        value = [value]
    if isinstance(value, (bytes, bytearray)) or not isinstance(value, Iterable):
        raise ConfigurationError(f"{name} must be texts, as in ['orders'], not {shown(value)}")
    return frozenset([check_name(f"each of {name}", each) for each in value])


def check_function(name: str, value: Any) -> None:
    """Check that something can be called, if it is given."""
    if value is not None and not callable(value):
        raise ConfigurationError(f"{name} must be a function, not {shown(value)}")


def check_partition(name: str, value: Any) -> TopicPartition:
    """Check a partition, which may be any pair of topic and number."""
    if isinstance(value, tuple) and len(value) == 2:
        topic, number = value
        whole = isinstance(number, int) and not isinstance(number, bool)
        if isinstance(topic, str) and whole and 0 <= number <= HIGHEST_PARTITION:
            return TopicPartition(check_name(f"the topic of {name}", topic), number)
    raise ConfigurationError(
        f"{name} must be a partition, as in TopicPartition('orders', 0), not {shown(value)}"
    )


def check_partitions(name: str, value: Any) -> list[TopicPartition]:
    """Check some partitions."""
    if isinstance(value, (str, bytes, TopicPartition)) or not isinstance(value, Iterable):
        raise ConfigurationError(
            f"{name} must be partitions, as in [TopicPartition('orders', 0)], not {shown(value)}"
        )
    return [check_partition(f"each of {name}", each) for each in value]
