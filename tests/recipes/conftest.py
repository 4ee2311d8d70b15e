"""The examples lie beside the package, so they are found from the root of the repository only."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from trio_consumer.testing import MemoryBroker

from .support import Address

ROOT = Path(__file__).parents[2]

_serial = itertools.count(1)


@pytest.fixture(autouse=True)
def _examples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Find this repository's examples, and no other package of that name."""
    monkeypatch.syspath_prepend(ROOT)
    monkeypatch.delitem(sys.modules, "examples", raising=False)


@pytest.fixture
def address() -> Iterator[Address]:
    """A broker inside of the process, and the URL that a program finds it by."""
    name = f"recipes-{next(_serial)}"
    yield Address(f"memory://{name}", MemoryBroker.named(name))
    MemoryBroker.forget(name)
