"""The public surface: what is exported exists, is documented, and nothing leaks beside it."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import subprocess
import sys
from types import ModuleType

import pytest

import trio_consumer
import trio_consumer.opentelemetry
import trio_consumer.testing
import trio_consumer.transports

ROOMS = [
    trio_consumer,
    trio_consumer.opentelemetry,
    trio_consumer.testing,
    trio_consumer.transports,
]

# What a room needs for a function of its own.
OWN_USE = {
    "trio_consumer.transports": {
        "ConfigurationError",
        "EXAMPLES",
        "annotations",
        "shown",
        "shown_url",
    },
}


def named(room: ModuleType) -> str:
    """A test id."""
    return room.__name__


def exported() -> list[tuple[ModuleType, str]]:
    """Each public name with the room that exports it."""
    return [(room, name) for room in ROOMS for name in room.__all__]


@pytest.mark.parametrize("room", ROOMS, ids=named)
def test_all_is_what_is_there(room: ModuleType) -> None:
    """Each name exists once, and no public name stands beside ``__all__`` but submodules."""
    assert len(room.__all__) == len(set(room.__all__))
    assert [name for name in room.__all__ if not hasattr(room, name)] == []
    submodules = {info.name for info in pkgutil.iter_modules(getattr(room, "__path__", []))}
    leaked = {
        name
        for name, value in vars(room).items()
        if not name.startswith("_")
        and name not in room.__all__
        and not (isinstance(value, ModuleType) and name in submodules)
    }
    assert leaked - OWN_USE.get(room.__name__, set()) == set()


@pytest.mark.parametrize("room", ROOMS, ids=named)
def test_all_is_sorted(room: ModuleType) -> None:
    """Constants first, then classes, then functions, each in order, as ruff wants it."""

    def key(name: str) -> tuple[int, str]:
        return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)

    assert list(room.__all__) == sorted(room.__all__, key=key)


@pytest.mark.parametrize(
    ("room", "name"), exported(), ids=lambda value: getattr(value, "__name__", value)
)
def test_public_names_are_documented(room: ModuleType, name: str) -> None:
    """Each class and function has a docstring of its own, and so has each public method."""
    thing = getattr(room, name)
    if not (inspect.isclass(thing) or inspect.isfunction(thing)):
        return
    assert inspect.getdoc(thing), name
    if not inspect.isclass(thing):
        return
    if not thing.__module__.startswith("trio_consumer"):
        return
    for attribute, value in vars(thing).items():
        if attribute.startswith("_") or isinstance(value, staticmethod | classmethod):
            continue
        if inspect.isfunction(value) or isinstance(value, property):
            assert value.__doc__, f"{name}.{attribute}"


@pytest.mark.parametrize(
    ("room", "name"), exported(), ids=lambda value: getattr(value, "__name__", value)
)
def test_public_names_come_from_this_package(room: ModuleType, name: str) -> None:
    """Nothing is exported that is somebody else's, and each name is found by its module."""
    thing = getattr(room, name)
    if not (inspect.isclass(thing) or inspect.isfunction(thing)):
        return
    assert thing.__module__.partition(".")[0] == "trio_consumer"
    assert getattr(importlib.import_module(thing.__module__), thing.__qualname__) is thing


def test_exceptions_are_all_exported() -> None:
    """Whatever this library raises can be caught by a public name."""
    from trio_consumer import _errors

    assert set(_errors.__all__) <= set(trio_consumer.__all__)
    for name in _errors.__all__:
        assert issubclass(getattr(_errors, name), trio_consumer.ConsumerError)


@pytest.mark.parametrize(
    "module", ["asyncio", "anyio", "confluent_kafka", "opentelemetry", "rich", "click", "uvloop"]
)
def test_import_brings_nothing_that_is_not_needed(module: str) -> None:
    """Importing the package does not import what only an extra or the command needs."""
    code = f"import sys, trio_consumer; sys.exit({module!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
