"""Search the machine, by the rules and with each rule broken.

python -m tests.model --offsets 5 --rebalances 2
"""

from __future__ import annotations

import time

import click
from rich.console import Console
from rich.table import Table

from .machine import Machine, Rules
from .search import search


@click.command()
@click.option("--offsets", default=4, show_default=True, help="Records of the partition.")
@click.option("--rebalances", default=2, show_default=True, help="Changes of hands.")
def main(offsets: int, rebalances: int) -> None:
    """Print the number of states, and the shortest counterexample of each broken rule."""
    console = Console()
    began = time.perf_counter()
    found = search(Machine(offsets, rebalances))
    seconds = time.perf_counter() - began
    console.print(
        f"{offsets} offsets, 2 members, {rebalances} changes of hands:"
        f" {found.states:,} states, {found.steps:,} steps, {seconds:.0f} s;"
        f" violated: {found.violated or 'nothing'}"
    )
    table = Table("rule that is broken", "violated", "shortest way there", show_lines=True)
    for name in Rules.__dataclass_fields__:
        found = search(Machine(offsets, rebalances, Rules(**{name: True})))
        table.add_row(name.replace("_", " "), found.violated or "nothing", "\n".join(found.trace))
    console.print(table)


if __name__ == "__main__":
    main()
