"""``trio-consumer run``: a user's async function, called with each message."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Literal

import click
import msgspec
import trio
from rich.console import Console
from rich.live import Live
from rich.text import Text

from . import runner as runner_module
from .errors import Failure, UsageFailure, reporting, traceback_option
from .live import showing
from .loading import load_handler
from .logs import logging_to
from .options import (
    Seconds,
    Value,
    client_options_option,
    json_option,
    named,
    url_option,
)
from .runner import HandlerFailure, Job, Progress, Runner

__all__ = ["run"]


@click.command()
@click.argument("handler", metavar="MODULE:FUNCTION")
@url_option("kafka://host:port,host:port, confluent:// for librdkafka, or memory://name.")
@click.option(
    "--group",
    required=True,
    callback=named,
    help="The consumer group to join and to commit for.",
)
@click.option(
    "--topic",
    "topics",
    required=True,
    multiple=True,
    callback=named,
    help="What to consume; may be repeated.",
)
@click.option(
    "--concurrency",
    type=click.IntRange(1, 10_000),
    default=1,
    help="How many messages are in handlers at a time.",
)
@click.option(
    "--ack",
    type=click.Choice(["auto", "manual"]),
    default="auto",
    help="auto: a message is finished when the handler returns; manual: by message.ack().",
)
@click.option(
    "--max-messages",
    type=click.IntRange(1),
    show_default=False,
    help="Hand out so many messages, finish and commit them, and end.",
)
@client_options_option
@click.option(
    "--commit-interval",
    type=Seconds(),
    default=2.8,
    help="Seconds between commits.",
)
@click.option(
    "--auto-offset-reset",
    type=click.Choice(["earliest", "latest", "none"]),
    default="earliest",
    help="Where a group without a committed offset starts; none: nowhere, it is an error.",
)
@click.option(
    "--connect-timeout",
    type=Seconds(),
    default=10.0,
    help="Seconds to wait for a broker.",
)
@click.option(
    "--live",
    is_flag=True,
    show_default=False,
    help="Show each partition, what holds its commit back and who has it; without a terminal a"
    " line every five seconds.",
)
@json_option("Print the summary as one line of JSON on stderr, and no progress.")
@click.option("-q", "--quiet", is_flag=True, show_default=False, help="No progress, no summary.")
@click.option("-v", "--verbose", is_flag=True, show_default=False, help="Show the client's log.")
@traceback_option
def run(
    handler: str,
    url: str,
    group: str,
    topics: tuple[str, ...],
    concurrency: int,
    ack: Literal["auto", "manual"],
    max_messages: int | None,
    options: dict[str, Value],
    commit_interval: float,
    auto_offset_reset: str,
    connect_timeout: float,
    live: bool,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    show_traceback: bool,
) -> None:
    """Call an async function with each message.

    With this in app.py

    \b
        async def charge(message):
            print(message.topic, message.offset, message.value)

    \b
        trio-consumer run app:charge --url kafka://localhost:9092 \\
            --group billing --topic orders --concurrency 8

    prints each message and commits it. The function has trio to wait with, and
    --concurrency of them run at a time. One that raises ends the run with exit
    code 1; its message stays unfinished, so the next run gets it again.

    Ctrl-C or SIGTERM: hand out no more, let handlers finish, commit, leave, exit
    with 0. Once more: cancel the handlers; their messages come again, and the exit
    code is 128 and the number of the signal.

    Progress and summary go to stderr; stdout is the handler's.

    See what each partition is doing, and what holds its commit back:

    \b
        trio-consumer run app:charge --url kafka://localhost:9092 \\
            --group billing --topic orders --live
    """  # noqa: D301 - click wants the character
    with reporting(show_traceback):
        if live and (quiet or as_json):
            raise UsageFailure("--live shows what --quiet and --json leave out: give one of them")
        job = Job(
            handler=load_handler(handler),
            url=url,
            group=group,
            topics=topics,
            concurrency=concurrency,
            ack=ack,
            max_messages=max_messages,
            settings={
                "commit_interval": commit_interval,
                "auto_offset_reset": auto_offset_reset,
                "connect_timeout": connect_timeout,
                "client_options": options,
            },
        )
        console = Console(stderr=True, highlight=False)
        progress: AbstractContextManager[Callable[[Progress], None] | None]
        if live:
            progress = showing(console, group, redirect_stdout=sys.stdout.isatty())
        else:
            progress = _progress(console, quiet=quiet or as_json)
        with logging_to(console, verbose=verbose), progress as show:
            runner = Runner(job, show)
            lost: BaseException | None = None
            try:
                trio.run(runner.run)
            except BaseException as exc:
                lost = exc
        if as_json:
            click.echo(msgspec.json.encode(summary(runner)), err=True)
        elif not quiet and (runner.progress.handed_out or lost is None):
            _print_summary(console, runner)
        _end(console, runner, lost)


@contextmanager
def _progress(
    console: Console, *, quiet: bool
) -> Generator[Callable[[Progress], None] | None, None, None]:
    """A line that is kept up to date, on a terminal."""
    if quiet or not console.is_terminal:
        yield None
        return
    # What the handler prints is put above the line, but only if it goes to the
    # same place: stdout in a pipe stays as the handler wrote it.
    with Live(
        console=console,
        auto_refresh=False,
        transient=True,
        redirect_stdout=sys.stdout.isatty(),
    ) as live:
        yield lambda progress: live.update(_line(progress), refresh=True)


def _line(progress: Progress) -> Text:
    return Text(
        f"{progress.returned:,} messages   {progress.rate:,.0f}/s   {progress.unfinished:,}"
        f" unfinished   lag {progress.lag:,}",
        style="dim",
        no_wrap=True,
        overflow="ellipsis",
    )


@dataclass(frozen=True, slots=True)
class CommittedOffset:
    """The last offset that the broker has confirmed for a partition."""

    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class HandlerError:
    """A handler that raised, and at which message."""

    topic: str
    partition: int
    offset: int
    error: str


@dataclass(frozen=True, slots=True)
class Summary:
    """How a run ended; what ``--json`` prints.

    Attributes:
        handed_out: Messages given to handlers.
        returned: Handlers that returned.
        unfinished: Messages that handlers had in hand at the end: they come again.
        seconds: How long the run took.
        stopped_by: The signal that ended it, None if none did.
        cancelled: Whether a second signal cut handlers off.
        committed_all: Whether all that was finished is committed.
        committed: Where each partition is.
        failures: What handlers raised, in the order of time.
    """

    handed_out: int
    returned: int
    unfinished: int
    seconds: float
    stopped_by: str | None
    cancelled: bool
    committed_all: bool
    committed: tuple[CommittedOffset, ...]
    failures: tuple[HandlerError, ...]


def summary(runner: Runner) -> Summary:
    """The summary of a run that has ended."""
    progress = runner.progress
    return Summary(
        handed_out=progress.handed_out,
        returned=progress.returned,
        unfinished=progress.in_hand,
        seconds=round(progress.elapsed, 3),
        stopped_by=None if runner.stopped_by is None else runner.stopped_by.name,
        cancelled=runner.cancelled_by is not None,
        committed_all=runner.committed_all,
        committed=tuple(
            CommittedOffset(tp.topic, tp.partition, offset)
            for tp, offset in sorted(progress.committed.items())
        ),
        failures=tuple(
            HandlerError(
                each.tp.topic,
                each.tp.partition,
                each.offset,
                f"{type(each.error).__name__}: {each.error}",
            )
            for each in runner.failures
        ),
    )


def _print_summary(console: Console, runner: Runner) -> None:
    progress = runner.progress
    rate = progress.returned / progress.elapsed if progress.elapsed > 0 else 0.0
    reason = ""
    if runner.cancelled_by is not None:
        reason = f"cancelled by {runner.cancelled_by.name}: "
    elif runner.stopped_by is not None:
        reason = f"stopped by {runner.stopped_by.name}: "
    text = (
        f"{reason}{progress.handed_out:,} messages handed out in {progress.elapsed:.1f} s"
        f" ({rate:,.0f}/s), {progress.in_hand:,} of them unfinished"
    )
    console.print(Text(text), soft_wrap=True)
    if runner.committed_all and progress.committed:
        offsets = ", ".join(f"{tp} {offset}" for tp, offset in sorted(progress.committed.items()))
        console.print(Text(f"committed: {offsets}"), soft_wrap=True)


def _end(console: Console, runner: Runner, lost: BaseException | None) -> None:
    """Raise what the command has to end with, if not with success."""
    for failure in runner.failures:
        error = failure.error
        shown = traceback.format_exception(type(error), error, _users_part(error.__traceback__))
        console.print(Text("".join(shown).rstrip()), soft_wrap=True)
    if runner.failures:
        raise Failure(_tell(runner.failures, lost))
    if lost is not None:
        raise lost
    if runner.cancelled_by is not None:
        raise click.exceptions.Exit(128 + runner.cancelled_by)


def _tell(failures: list[HandlerFailure], lost: BaseException | None) -> str:
    places = "; ".join(
        f"{each.tp} offset {each.offset} with {type(each.error).__name__}: {each.error}"
        for each in failures
    )
    kept = (
        "the message stays unfinished and comes again"
        if len(failures) == 1
        else "these messages stay unfinished and come again"
    )
    if lost is None:
        return f"the handler failed at {places}; {kept}, what was finished is committed"
    return f"the handler failed at {places}; {kept}, and then the consumer failed: {lost}"


def _users_part(tb: TracebackType | None) -> TracebackType | None:
    """A traceback without the frames of the runner."""
    while tb is not None and tb.tb_frame.f_code.co_filename == runner_module.__file__:
        tb = tb.tb_next
    return tb
