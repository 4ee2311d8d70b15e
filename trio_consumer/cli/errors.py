"""What goes wrong, in one line and an exit code.

A failure ends in one line on stderr that says what went wrong and what to do:
exit code 2 if the command line or an option has to be mended, 1 if it happened
while running.  Tracebacks are shown on request only (``--traceback``), except
that of a user's own handler, which is his to read.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import IO, Any, TypeVar

import click
from rich.console import Console
from rich.text import Text

from .. import ConfigurationError, ConsumerError

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

__all__ = [
    "Failure",
    "OneLineGroup",
    "UsageFailure",
    "one_line",
    "print_error",
    "reporting",
    "traceback_option",
]

F = TypeVar("F", bound=Callable[..., Any])


class Failure(click.ClickException):
    """Something failed while running; click shows it and exits.

    Its ``__cause__``, if any, is what ``--traceback`` shows.
    """

    exit_code = 1

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the one line."""
        print_error(self.format_message())


class UsageFailure(Failure):
    """The command line, or what it names, has to be mended."""

    exit_code = 2


class Interrupted(Failure):
    """Ctrl-C."""

    exit_code = 130


class OneLineGroup(click.Group):
    """A group whose usage errors take one line instead of click's four."""

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        """Parse what stands before the subcommand."""
        try:
            return super().make_context(info_name, args, parent, **extra)
        except click.UsageError as exc:
            raise _usage(exc) from exc

    def invoke(self, ctx: click.Context) -> Any:
        """Parse and run the subcommand."""
        try:
            return super().invoke(ctx)
        except click.UsageError as exc:
            raise _usage(exc) from exc


def _usage(error: click.UsageError) -> UsageFailure:
    command = error.ctx.command_path if error.ctx is not None else "trio-consumer"
    return UsageFailure(f"{error.format_message().rstrip('.')} (see '{command} --help')")


def one_line(text: str) -> str:
    r"""Put a text on one line, without control codes.

    >>> one_line("first\n  second")
    'first second'
    """
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def print_error(message: str) -> None:
    """Print one line on stderr; in colour on a terminal only."""
    line = Text.assemble(("Error:", "bold red"), " ", one_line(message))
    Console(stderr=True).print(line, soft_wrap=True)


def traceback_option(command: F) -> F:
    """Add the flag ``--traceback``, whose value goes to :func:`reporting`."""
    return click.option(
        "--traceback",
        "show_traceback",
        is_flag=True,
        show_default=False,
        help="Show the traceback of a failure, too.",
    )(command)


@contextmanager
def reporting(show_traceback: bool) -> Generator[None, None, None]:
    """Turn what leaves the block into a :class:`Failure`.

    Raises:
        Failure: Anything went wrong.
    """
    try:
        yield
    except BaseException as exc:
        failure = _failure(exc)
        if failure is None:
            raise
        if show_traceback:
            told = failure.__cause__ if failure is exc else exc
            if told is not None:
                traceback.print_exception(type(told), told, told.__traceback__, file=sys.stderr)
        # Without a context: click would not show it, others need not see it.
        raise failure from failure.__cause__


def _failure(exc: BaseException) -> Failure | None:
    """How to report an exception; None to let it pass."""
    leaves = list(_leaves(exc))
    for leaf in leaves:
        if isinstance(leaf, KeyboardInterrupt):
            return Interrupted("interrupted")
    if not all(isinstance(leaf, Exception) for leaf in leaves):
        return None
    first = leaves[0]
    if isinstance(first, Failure):
        return first
    if isinstance(first, (click.ClickException, click.exceptions.Exit, click.Abort)):
        return None
    text = "; and ".join(map(_describe, leaves))
    if all(isinstance(leaf, ConfigurationError) for leaf in leaves):
        return UsageFailure(text)
    return Failure(text)


def _leaves(exc: BaseException) -> Iterator[BaseException]:
    """The failures in a group; the exception itself if it is none.

    Trio's nurseries wrap what fails in them, a single failure too.
    """
    if isinstance(exc, BaseExceptionGroup):
        for each in exc.exceptions:
            yield from _leaves(each)
    else:
        yield exc


def _describe(exc: BaseException) -> str:
    if isinstance(exc, ConsumerError):
        return str(exc)
    return (
        f"unexpected {type(exc).__name__}: {exc}; if no option explains it this is a bug,"
        " please report it with what --traceback shows"
    )
