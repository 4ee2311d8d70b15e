"""A Trio run that is the same each time: a virtual clock, and an order of tasks by seed.

Trio shuffles the tasks that are ready at one moment with a generator of its own,
and has a switch that makes the shuffle depend on nothing else.  Both are private;
Hypothesis' plugin for Trio sets the same two, so they have not moved in years.

The collector of cycles is off meanwhile: what it frees would run finalizers at a
step that depends on what the process did before.
"""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager

import trio
from trio._core import _run as trio_run
from trio.testing import MockClock

__all__ = ["run_seeded"]


def run_seeded(
    main: Callable[[], Awaitable[None]],
    seed: int,
    instruments: tuple[trio.abc.Instrument, ...] = (),
) -> None:
    """Run to the end, jumping over the time in which every task waits."""
    with _deterministic(seed):
        trio.run(main, clock=MockClock(autojump_threshold=0), instruments=instruments)


@contextmanager
def _deterministic(seed: int) -> Generator[None, None, None]:
    before = trio_run._ALLOW_DETERMINISTIC_SCHEDULING
    state = trio_run._r.getstate()
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    trio_run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]  # see above
    trio_run._r.seed(seed)
    try:
        yield
    finally:
        trio_run._ALLOW_DETERMINISTIC_SCHEDULING = before  # type: ignore[misc]
        trio_run._r.setstate(state)
        if collecting:
            gc.enable()
