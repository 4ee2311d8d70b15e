"""``python -m mutation``: plant one error at a time, and see whether a test notices.

Each group of `GROUPS` has a tree of its own under ``.cache/mutants``: the package with its
decorators written as calls (`undecorate`), the tests, and mutmut with its results.  What was tried
before and has not changed since is not tried again, unless its module is named.  It fails if a
mutant survived that `EQUIVALENTS` does not list.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from .equivalents import EQUIVALENTS
from .report import write_figures
from .trees import GROUPS, Mutant, mutants, run


def survivors(group: str, modules: list[str]) -> Iterator[Mutant]:
    """The mutants that no test noticed, without those that change nothing."""
    listed = {mutant for found in EQUIVALENTS.values() for mutant in found}
    for mutant in mutants(group, modules):
        if mutant.survived and mutant.change() not in listed:
            yield mutant


def main() -> None:
    """Run what was asked for and print what is left."""
    parser = argparse.ArgumentParser(prog="python -m mutation", description=__doc__)
    parser.add_argument("group", nargs="?", choices=GROUPS, help="both if none is named")
    parser.add_argument("modules", nargs="*", help="only these, all of their mutants anew")
    parser.add_argument("--survivors", action="store_true", help="try again what was not killed")
    parser.add_argument("--show", action="store_true", help="run nothing, show what survived")
    parser.add_argument("--figures", action="store_true", help="write them to docs/mutants.md")
    parser.add_argument("--jobs", default="2", help="mutants at a time")
    given = parser.parse_args()
    left = 0
    for group in [given.group] if given.group else GROUPS:
        modules = given.modules or GROUPS[group].modules
        if unknown := set(modules) - set(GROUPS[group].modules):
            parser.error(f"no modules of {group}: {', '.join(sorted(unknown))}")
        if given.survivors:
            late = [m for m in mutants(group, modules) if m.outcome == "timeout"]
            names = [mutant.name for mutant in (*survivors(group, modules), *late)]
            if names:
                run(group, given.jobs, *names)
        elif not given.show:
            folder = GROUPS[group].folder
            run(group, given.jobs, *(f"trio_consumer.{folder}.{m}.*" for m in given.modules))
        for mutant in survivors(group, modules):
            left += 1
            print(f"{mutant.name}\n{mutant.difference()}\n")
    if given.figures:
        write_figures()
    if left:
        sys.exit(f"{left} mutants survived")


if __name__ == "__main__":
    main()
