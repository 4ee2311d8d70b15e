"""Writes decorators as calls, because mutmut leaves decorated functions and classes alone.

``@property`` above ``def position`` becomes ``position = property(position)`` below it, which means
the same.  A decorator that is not in `UNWRAPPED` stays, and what it decorates is not mutated.
"""

from __future__ import annotations

import ast

UNWRAPPED = ("property", "contextmanager", "asynccontextmanager", "dataclass")


def undecorate(source: str) -> str:
    """The same module, with single decorators out of `UNWRAPPED` written as calls."""
    lines = source.splitlines()
    found = [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and len(node.decorator_list) == 1
        and _name(node.decorator_list[0]) in UNWRAPPED
    ]
    # From the end, so that the numbers of the lines before stay true.
    below: dict[int, list[str]] = {}
    for node in found:
        [decorator] = node.decorator_list
        call = f"{node.name} = {ast.unparse(decorator)}({node.name})"
        below.setdefault(node.end_lineno or 0, []).append(" " * node.col_offset + call)
        for line in range(decorator.lineno, (decorator.end_lineno or 0) + 1):
            lines[line - 1] = ""
    for line in sorted(below, reverse=True):
        # The innermost first: its indentation is the deepest.
        lines[line:line] = sorted(below[line], key=lambda text: len(text.lstrip()) - len(text))
    return "\n".join(lines) + "\n"


def _name(decorator: ast.expr) -> str:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    return called.id if isinstance(called, ast.Name) else ""
