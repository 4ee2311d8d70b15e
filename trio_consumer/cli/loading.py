"""From ``module:function`` to the user's async function."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

from .. import Message
from .errors import UsageFailure

__all__ = ["Handler", "load_handler"]

Handler = Callable[[Message], Awaitable[object]]

EXAMPLE = "write module:function, as in app:charge"


def load_handler(path: str) -> Handler:
    """Import a handler; the current directory is searched first.

    Args:
        path: ``package.module:function``; attributes of attributes are allowed.

    Raises:
        UsageFailure: It cannot be imported, or is no async function of one message.
    """
    module_name, separator, attribute = path.partition(":")
    if not separator or not module_name or not attribute:
        raise UsageFailure(f"{path!r} names no handler: {EXAMPLE}")
    if module_name.endswith(".py") or os.sep in module_name:
        raise UsageFailure(
            f"{module_name!r} is a file, not a module: {EXAMPLE}, without '.py' and with dots for"
            " directories"
        )
    if not all(part.isidentifier() for part in module_name.split(".")):
        raise UsageFailure(f"{module_name!r} is no name of a module: {EXAMPLE}")
    found: Any = _import(module_name)
    for name in attribute.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            raise UsageFailure(
                f"{module_name!r} has no {attribute!r}; it has {_candidates(found)}"
            ) from None
    _check(path, found)
    handler: Handler = found
    return handler


def _import(name: str) -> Any:
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except KeyboardInterrupt:
        raise
    except ModuleNotFoundError as exc:
        missing = exc.name or ""
        if name == missing or name.startswith(f"{missing}."):
            remedy = f"start in the directory that holds it (this is {here}), or set PYTHONPATH"
        else:
            remedy = f"it is there, but imports {missing!r}: install that"
        raise UsageFailure(f"cannot import {name!r}: {exc}; {remedy}") from exc
    except BaseException as exc:  # a module may do anything, call sys.exit() too
        raise UsageFailure(
            f"cannot import {name!r}: {type(exc).__name__}: {exc}{_place(exc)}; mend the module, or"
            " see the whole story with --traceback"
        ) from exc


def _place(exc: BaseException) -> str:
    """Where in the user's code it happened."""
    if isinstance(exc, SyntaxError):
        return ""  # its text says where
    frames = traceback.extract_tb(exc.__traceback__)
    own = [f for f in frames if f.filename != __file__ and "importlib" not in f.filename]
    return f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""


def _candidates(owner: Any) -> str:
    names = [
        name
        for name, value in vars(owner).items()
        if inspect.iscoroutinefunction(value) and not name.startswith("_")
    ]
    return f"the async functions {', '.join(sorted(names))}" if names else "no async function"


def _check(path: str, found: Any) -> None:
    if inspect.isasyncgenfunction(found):
        raise UsageFailure(
            f"{path} is an async generator, it has a 'yield'; a handler is an async function that"
            " returns when the message is processed"
        )
    if inspect.isclass(found) or not (
        inspect.iscoroutinefunction(found)
        or inspect.iscoroutinefunction(getattr(found, "__call__", None))  # noqa: B004  # not whether, but which
    ):
        raise UsageFailure(
            f"{path} is not an async function but {_kind(found)}; define it with 'async def'"
        )
    try:
        signature = inspect.signature(found)
    except (TypeError, ValueError):
        return  # it does not tell; the first call will
    try:
        signature.bind(object())
    except TypeError as exc:
        raise UsageFailure(
            f"{path}{signature} cannot be called with one message: {exc}; a handler takes the"
            " message and nothing else"
        ) from exc


def _kind(found: Any) -> str:
    if inspect.isclass(found):
        return "a class"
    if inspect.isfunction(found):
        return "a plain function"
    return f"{type(found).__name__} {found!r}"
