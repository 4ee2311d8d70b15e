"""The command ``trio-consumer``.

``demo`` shows what the library promises, on a broker inside the process or on a
real one; ``run`` calls a user's async function with each message.  Both use the
public names of the library alone.
"""

from __future__ import annotations

import click

from .. import __version__
from .demo import demo
from .errors import OneLineGroup
from .run import run

__all__ = ["main"]


@click.group(
    cls=OneLineGroup,
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
    """  # noqa: D301 - click wants the character
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


main.add_command(demo)
main.add_command(run)
