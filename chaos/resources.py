"""What a process uses, and whether that grows."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from .history import Rule, Violation

__all__ = ["ENOUGH", "Sample", "growth", "quarters", "sample"]

ENOUGH = 120
"""Samples, one each 2 s, below which nothing can be said of growth: a process reaches its
level of memory (45 to 72 MiB) with the first large backlog that it reads, which may be
after minutes."""

ALLOWED = {"rss": 16 * 2**20, "fds": 6, "threads": 4, "tasks": 4}
"""How much more the last quarter of a life may use than the second: sockets and threads
come and go with the nodes, and memory with what is buffered."""
SHARE = 0.2
"""And this part of the memory."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at a process.

    Attributes:
        rss: Bytes of memory.
        fds: Open files, sockets among them.
        threads: Of the system.
        tasks: Of Trio.
        unfinished: Messages that the library holds as delivered and not finished.
    """

    rss: int
    fds: int
    threads: int
    tasks: int
    unfinished: int


def sample(pid: int, tasks: int, unfinished: int) -> Sample | None:
    """Look at a process; None if there is none any more."""
    process = Path("/proc", str(pid))
    try:
        pages = int((process / "statm").read_text().split()[1])
        return Sample(
            rss=pages * os.sysconf("SC_PAGE_SIZE"),
            fds=len(os.listdir(process / "fd")),
            threads=len(os.listdir(process / "task")),
            tasks=tasks,
            unfinished=unfinished,
        )
    except (OSError, IndexError):
        return None


def quarters(samples: Sequence[Sample], what: str) -> tuple[float, float]:
    """The median of the second quarter of a life (the first warms up), and of the last."""
    values = [getattr(each, what) for each in samples]
    part = len(values) // 4
    return median(values[part : 2 * part]), median(values[-part:])


def growth(lives: Mapping[str, Sequence[Sample]]) -> Iterator[Violation]:
    """Tell of each life that uses more and more."""
    for name, samples in lives.items():
        if len(samples) < ENOUGH:
            continue
        for what, allowed in ALLOWED.items():
            then, now = quarters(samples, what)
            if now - then > allowed + (SHARE * then if what == "rss" else 0):
                yield Violation(Rule.GROWTH, f"{name}: {what} from {then:,.0f} to {now:,.0f}")
