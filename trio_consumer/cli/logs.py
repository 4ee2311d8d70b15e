"""Log records of the library on stderr, unless the user's program has set up logging."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.text import Text

from .errors import one_line

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["logging_to"]

CLIENTS = ("kafka", "trio_consumer.transport.librdkafka")
"""Loggers of kafka-python and librdkafka, which tell of each attempt to connect."""


class ConsoleHandler(logging.Handler):
    """One line a record; through the console, so that a live display stays whole."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record."""
        try:
            style = "yellow" if record.levelno >= logging.WARNING else "dim"
            line = Text.assemble(
                (f"{record.levelname}:", style), f" {record.name}: {one_line(record.getMessage())}"
            )
            self._console.print(line, soft_wrap=True)
        except Exception:
            self.handleError(record)


@contextmanager
def logging_to(console: Console, *, verbose: bool = False) -> Generator[None, None, None]:
    """Show warnings for the length of the block.

    Does nothing if the root logger has handlers: then the user's program has
    decided.  The clients' own logs are left out unless ``verbose``: what matters
    of them reaches the user as an error or a warning of this library.
    """
    root, ours = logging.getLogger(), logging.getLogger("trio_consumer")
    if root.handlers:
        yield
        return
    clients = [logging.getLogger(name) for name in CLIENTS]
    levels = [(logger, logger.level) for logger in (*clients, ours)]
    handler = ConsoleHandler(console)
    root.addHandler(handler)
    for client in clients:
        client.setLevel(logging.WARNING if verbose else logging.CRITICAL)
    if verbose:
        ours.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(handler)
        for logger, level in levels:
            logger.setLevel(level)
