"""Which topics a pattern means.

A pattern has to match the whole name of a topic, as in Kafka's own client, so
that ``orders`` does not mean ``orders-dead-letter`` too.  Topics whose names
begin with two underscores are Kafka's own (``__consumer_offsets``,
``__transaction_state``): no pattern means them; who wants one names it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from .._errors import ConfigurationError, shown

__all__ = ["TopicPattern"]

INTERNAL = "__"


class TopicPattern:
    """A regular expression for names of topics.

    Args:
        pattern: The expression, or its text.

    Raises:
        ConfigurationError: It is no regular expression for text.
    """

    def __init__(self, pattern: str | re.Pattern[str]) -> None:
        try:
            self._expression = re.compile(pattern)
        except (re.error, TypeError, ValueError, OverflowError, RecursionError) as exc:
            raise ConfigurationError(
                f"pattern {shown(pattern)} is not a regular expression: {exc}"
            ) from None
        if not isinstance(self._expression.pattern, str):
            raise ConfigurationError(
                f"pattern {shown(pattern)} is for bytes: names of topics are text, leave out the b"
            )

    def __str__(self) -> str:
        return self._expression.pattern

    def matches(self, topic: str) -> bool:
        """Whether the pattern means this topic."""
        return not topic.startswith(INTERNAL) and self._expression.fullmatch(topic) is not None

    def among(self, topics: Iterable[str]) -> frozenset[str]:
        """Those of these topics that the pattern means."""
        return frozenset(filter(self.matches, topics))
