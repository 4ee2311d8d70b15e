"""Fixtures for the tests of the command line."""

from __future__ import annotations

import importlib
import itertools
import sys
from pathlib import Path

import pytest

from trio_consumer.testing import MemoryBroker

from . import clusters
from .clusters import Asked
from .support import HANDLERS, App

_serial = itertools.count(1)


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> App:
    """A module of handlers in the current directory, which fills a broker when imported."""
    name = f"cli_app_{next(_serial)}"
    (tmp_path / f"{name}.py").write_text(HANDLERS.replace("BROKER", name))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    importlib.invalidate_caches()
    MemoryBroker.forget(name)
    return App(name, tmp_path)


@pytest.fixture
def billing(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """Commands that look at a cluster whose answers are written down."""
    return clusters.billing(monkeypatch)
