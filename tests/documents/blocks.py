"""Finds the examples in the pages, and what a page says of them.

Each block of Python below docs/ is a complete program unless a comment says otherwise in the
line before it, which no reader sees:

- nothing: it is run as it stands, in a process of its own. If the next block of its section is
  ``text``, that is what it prints; if it fails, the last line of that is the error. On the
  memory broker time is Trio's virtual clock, so it may sleep as long as it likes. A program
  that names ``localhost:9092`` runs on a real Kafka, after those before it on its page.
- ``<!-- kafka: orders:4 invoices -->``: it needs these topics, with so many partitions.
- ``<!-- real clock -->``: it works in threads, so time is not virtual.
- ``<!-- file: app.py -->``: no program, but a module that the later programs of the page import.
- ``<!-- fragment -->``: a part of a program; it is compiled.
- ``<!-- tested by tests/runtime/test_x.py -->``: that test takes it out of the page and runs it.
  ``<!-- page tested by tests/runtime/test_x.py -->`` anywhere says so of each block of the page
  that has no comment of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

__all__ = ["KAFKA", "ROOT", "Block", "blocks_of", "pages"]

ROOT = Path(__file__).parents[2]
KAFKA = "localhost:9092"
_FENCE = re.compile(
    r"^(?P<fence>`{3,})(?P<language>[\w{}:-]*).*?\n(?P<body>.*?)^(?P=fence)$",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Block:
    """One block of a page.

    Attributes:
        page: The page, seen from the root of the repository.
        line: Where it begins.
        mark: What the comment before it says; ``program`` if there is none.
        argument: The rest of that comment.
        source: What stands in it.
        printed: The ``text`` block that follows in the same section, if one does.
    """

    page: str
    line: int
    mark: str
    argument: str
    source: str
    printed: str | None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def on_kafka(self) -> bool:
        """Whether it is a program for a real Kafka."""
        return self.mark in ("program", "kafka") and KAFKA in self.source

    @property
    def runs(self) -> bool:
        """Whether it is a program that needs no Kafka."""
        return self.mark in ("program", "real clock") and KAFKA not in self.source


def pages() -> list[str]:
    """All pages of the documentation."""
    return sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))


def blocks_of(page: str) -> Iterator[Block]:
    """The blocks of Python of a page."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = list(_FENCE.finditer(text))
    whole = re.search(r"<!-- page (tested by .*?) -->\n", text)
    default = whole[1] if whole else "program"
    for match, following in zip_longest(found, found[1:]):
        if match["language"] != "python":
            continue
        printed = None
        if following is not None and following["language"] == "text":
            between = text[match.end() : following.start()]
            if not re.search(r"^#", between, re.M):
                printed = following["body"]
        mark = re.search(r"<!-- (?!page )(.*?) -->\n\Z", text[: match.start()])
        name, _, argument = (mark[1] if mark else default).partition(": ")
        if name.startswith("tested by "):
            name, argument = "tested by", name.removeprefix("tested by ")
        line = text.count("\n", 0, match.start()) + 1
        yield Block(page, line, name, argument, match["body"], printed)
