"""The command ``trio-consumer``.

``demo`` shows what the library promises, on a broker inside the process or on a
real one; ``run`` calls a user's async function with each message.  Both use the
public names of the library alone.  ``lag`` and ``inspect`` look at any group of a
cluster, through the admin client of kafka-python.
"""

from __future__ import annotations

import click

from .. import __version__
from .completion import completion
from .demo import demo
from .errors import OneLineGroup
from .inspecting import inspect
from .lag import lag
from .run import run

__all__ = ["main"]


class Commands(OneLineGroup):
    """The commands, in the order in which one meets them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Their names."""
        return list(self.commands)


@click.group(
    cls=Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True},
)
@click.version_option(__version__, "-V", "--version", package_name="trio-consumer")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Consume Kafka with Trio, never committing past an unfinished message.

    See it at work; nothing else is needed, no Kafka either:

    \b
        trio-consumer demo

    Call your own async function with each message of a topic:

    \b
        trio-consumer run app:charge --url kafka://localhost:9092 \\
            --group billing --topic orders --concurrency 8

    Look at any group, and at the cluster:

    \b
        trio-consumer lag --url kafka://localhost:9092 --group billing
        trio-consumer inspect --url kafka://localhost:9092

    \b
    Exit codes:
        0    done, or stopped by one signal
        1    something failed; one line on stderr says what, and what to do
        2    the command line has to be mended
        3    the lag is above --fail-above
        130  interrupted by Ctrl-C (run: by the second; 143 by SIGTERM)
    """  # noqa: D301 - click wants the character
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


for _command in (demo, run, lag, inspect, completion):
    main.add_command(_command)
