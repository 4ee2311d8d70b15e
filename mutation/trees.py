"""The trees in which mutmut works, and what it found there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from .equivalents import Equivalent
from .undecorate import undecorate

ROOT = Path(__file__).resolve().parent.parent
TREES = ROOT / ".cache" / "mutants"
PACKAGE = "trio_consumer"
DESIGN = "DESIGN.md"
"""A test of the core holds its diagrams to the code."""


class Group(NamedTuple):
    """Modules that are tried with the same tests.

    Attributes:
        folder: Where they are in the package.
        tests: What a mutant has to get past.
        modules: Their names.
    """

    folder: str
    tests: str
    modules: list[str]


CORE = (ROOT / PACKAGE / "_core").glob("[!_]*.py")
GROUPS = {
    "core": Group("_core", "tests/core", sorted(path.stem for path in CORE)),
    "runtime": Group(
        "_runtime",
        "tests/runtime",
        ["committer", "conductor", "iterators", "message", "partitions", "rebalance", "stream"],
    ),
}
OPTIONS = (
    "-p",
    "mutation.plugin",
    "-p",
    "no:cacheprovider",
)
CONFIGURATION = """
[tool.mutmut]
source_paths = ["{package}"]
only_mutate = [{modules}]
also_copy = ["mutation", "{design}"]
pytest_add_cli_args = [{options}]
pytest_add_cli_args_test_selection = ["{tests}"]
use_git_change_detection = false
on_dependency_change = "ignore"
track_dependencies = false
timeout_multiplier = 6.0
timeout_constant = 20.0
"""
OUTCOMES = {
    None: "not tried",
    0: "survived",
    1: "killed",
    3: "killed",
    33: "no tests",
    36: "timeout",
}
"""By exit status; any other is a process that was ended from outside, by mutmut's time limit."""


class Mutant(NamedTuple):
    """One error that was planted.

    Attributes:
        group: Whose tests had to notice it.
        module: Where it is.
        name: mutmut's name of it.
        outcome: One of `OUTCOMES`.
    """

    group: str
    module: str
    name: str
    outcome: str

    @property
    def survived(self) -> bool:
        """Whether no test noticed it."""
        return self.outcome in ("survived", "no tests")

    def difference(self) -> str:
        """What it changes, with the lines around it."""
        with _working_in(TREES / self.group):
            # Here, because it reads its configuration when it is imported, and keeps it.
            from mutmut.__main__ import Config, get_diff_for_mutant

            Config.reset()
            return "\n".join(get_diff_for_mutant(self.name).splitlines()[3:])

    def change(self) -> Equivalent:
        """What it changes, as `EQUIVALENTS` lists it."""
        lines = self.difference().splitlines()
        mangled = self.name.rpartition(".")[2].rpartition("__mutmut_")[0]
        function = mangled[1:].strip("ǁ").replace("ǁ", ".") if "ǁ" in mangled else mangled[2:]
        return Equivalent(
            f"{self.module}.{function}",
            "\n".join(line[1:].strip() for line in lines if line.startswith("-")),
            "\n".join(line[1:].strip() for line in lines if line.startswith("+")),
        )


def mutants(group: str, modules: Sequence[str]) -> Iterator[Mutant]:
    """Every mutant of these modules with its outcome."""
    for module in modules:
        path = TREES / group / "mutants" / PACKAGE / GROUPS[group].folder / f"{module}.py.meta"
        if path.exists():
            statuses = json.loads(path.read_text("utf-8"))["exit_code_by_key"]
            for name, status in statuses.items():
                yield Mutant(group, module, name, OUTCOMES.get(status, "timeout"))


def run(group: str, jobs: str, *names: str) -> None:
    """Try the mutants of these names, or (none) all that were not tried since they changed."""
    _prepare(group)
    # Which test reaches what is found out anew: mutmut asks new tests only, not those that changed.
    (TREES / group / "mutants" / "mutmut-stats.json").unlink(missing_ok=True)
    command = [sys.executable, "-m", "mutmut", "run", "--max-children", jobs, *names]
    environment = dict(os.environ, PYTHONDONTWRITEBYTECODE="1")
    subprocess.run(command, cwd=TREES / group, env=environment, check=True)


def _prepare(group: str) -> None:
    """Write the tree of a group, touching only what differs."""
    folder, tests, modules = GROUPS[group]
    tree = TREES / group
    wanted: dict[Path, str] = {}
    for package in (PACKAGE, "tests", "mutation"):
        for path in (ROOT / package).rglob("*"):
            if path.is_file() and path.suffix != ".pyc":
                wanted[path.relative_to(ROOT)] = path.read_text("utf-8")
    mutated = [Path(PACKAGE, folder, f"{module}.py") for module in modules]
    for name in mutated:
        wanted[name] = undecorate(wanted[name])
    configuration = CONFIGURATION.format(
        package=PACKAGE,
        design=DESIGN,
        tests=tests,
        modules=", ".join(f'"{name.as_posix()}"' for name in mutated),
        options=", ".join(f'"{option}"' for option in OPTIONS),
    )
    pyproject = Path("pyproject.toml")
    wanted[Path(DESIGN)] = (ROOT / DESIGN).read_text("utf-8")
    wanted[pyproject] = (ROOT / pyproject).read_text("utf-8") + configuration
    for name, text in wanted.items():
        path = tree / name
        if not path.exists() or path.read_text("utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
            if name not in mutated and name.parts[0] == PACKAGE:
                # mutmut copies what it does not mutate only if it is not there.
                (tree / "mutants" / name).unlink(missing_ok=True)
    if not (tree / "mutants").exists():
        shutil.rmtree(tree / ".hypothesis", ignore_errors=True)


@contextmanager
def _working_in(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
