"""The list of mutants that change nothing is true to the code, and so is the page."""

from __future__ import annotations

import ast
import sys
from types import ModuleType

import pytest

from mutation.equivalents import EQUIVALENTS, Equivalent
from mutation.report import PAGE, equivalents, insert
from mutation.trees import GROUPS, PACKAGE, ROOT
from mutation.undecorate import undecorate

LISTED = [mutant for found in EQUIVALENTS.values() for mutant in found]


def lines_of(function: str) -> set[str]:
    """The lines of a function, ``module.function`` or ``module.Class.method``."""
    module, *path = function.split(".")
    [folder] = [group.folder for group in GROUPS.values() if module in group.modules]
    source = (ROOT / PACKAGE / folder / f"{module}.py").read_text("utf-8")
    node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef = ast.parse(source)
    for name in path:
        [node] = [
            child
            for child in node.body
            if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and child.name == name
        ]
    assert not isinstance(node, ast.Module)
    return {line.strip() for line in source.splitlines()[node.lineno - 1 : node.end_lineno]}


@pytest.mark.parametrize("mutant", LISTED, ids=lambda mutant: mutant.function)
def test_listed_mutant_is_one_of_the_code_that_is_there(mutant: Equivalent) -> None:
    """A reason holds for the lines that it was found for: others need a new look."""
    assert set(mutant.gone.splitlines()) <= lines_of(mutant.function)


def test_page_has_the_whole_list() -> None:
    """``python -m mutation --figures`` writes it."""
    page = PAGE.read_text("utf-8")
    assert page == insert(page, "equivalents", equivalents())


def test_decorators_become_calls_that_mean_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Properties, context managers and frozen classes behave as they did."""
    source = '''
from contextlib import contextmanager
from dataclasses import dataclass

@dataclass(frozen=True, order=True)
class Point:
    """Of one dimension."""
    x: int

    @property
    def double(self):
        return 2 * self.x

    @contextmanager
    def inside(self):
        yield self.double

    @staticmethod
    def zero():
        return 0
'''
    written = undecorate(source)
    assert [line for line in written.splitlines() if line.strip().startswith("@")] == [
        "    @staticmethod"
    ]
    module = ModuleType("points")
    monkeypatch.setitem(sys.modules, "points", module)
    exec(compile(written, "points", "exec"), module.__dict__)
    point = module.Point(3)
    assert (point.double, module.Point.zero(), point < module.Point(4)) == (6, 0, True)
    with point.inside() as inside:
        assert inside == 6
