"""``trio-consumer completion``: what makes a shell complete commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

__all__ = ["completion"]

NAME = "trio-consumer"
VARIABLE = "_TRIO_CONSUMER_COMPLETE"
"""Where click looks for what the script asks; derived from the name by its rule."""


@click.command(short_help="Print the completion script of a shell.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script by which a shell completes commands, options and choices.

    For bash (4.4 or later), in ~/.bashrc:

    \b
        eval "$(trio-consumer completion bash)"

    For zsh, in ~/.zshrc, after compinit:

    \b
        eval "$(trio-consumer completion zsh)"

    For fish:

    \b
        trio-consumer completion fish \\
            > ~/.config/fish/completions/trio-consumer.fish
    """  # noqa: D301 - click wants the character
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(ctx.find_root().command, {}, NAME, VARIABLE).source())
