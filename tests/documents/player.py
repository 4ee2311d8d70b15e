"""Runs a program as ``python program.py`` does, but with Trio's virtual clock."""

from __future__ import annotations

import functools
import runpy
import sys

import trio
from trio.testing import MockClock

__all__: list[str] = []


def main(program: str) -> None:
    """Whatever the program gives to ``trio.run`` runs as fast as it can."""
    run = trio.run

    @functools.wraps(run)
    def run_at_once(*args: object, **options: object) -> object:
        return run(*args, clock=MockClock(autojump_threshold=0), **options)  # type: ignore[arg-type]

    trio.run = run_at_once  # type: ignore[assignment]
    sys.argv = [program]
    sys.path[0] = "."
    runpy.run_path(program, run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1])
