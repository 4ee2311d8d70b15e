"""Tries the package where nothing but its wheel is installed: ``nox -s package`` runs it.

Usage: python -I installed.py VERSION

It uses the standard library only, no pytest and nothing of the repository.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import pkgutil
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

NAME = "trio-consumer"


def of_extras() -> tuple[str, ...]:
    """How the names of what only an extra brings begin; pytest comes with who uses its plugin."""
    wanted = importlib.metadata.requires(NAME) or []
    extras = [re.split(r"[^\w-]", each)[0] for each in wanted if "extra ==" in each]
    assert extras
    return ("pytest", *(re.split(r"[-_]", name)[0] for name in extras))


def check_files() -> None:
    """The package, its metadata and its command are all that is installed; types are marked."""
    files = importlib.metadata.files(NAME)
    assert files
    names = {str(file) for file in files}
    tops = {name.split("/")[0] for name in names} - {".."}  # the command lies in bin
    assert all(top == "trio_consumer" or top.endswith(".dist-info") for top in tops), tops
    assert "trio_consumer/py.typed" in names
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def check_imports() -> int:
    """Each module that needs no extra can be imported, from where it was installed."""
    extras = of_extras()
    package = importlib.import_module("trio_consumer")
    site = Path(sysconfig.get_path("purelib"))
    assert package.__file__ is not None
    assert site in Path(package.__file__).parents, package.__file__
    count = 0
    for module in pkgutil.walk_packages(package.__path__, "trio_consumer."):
        if module.name.endswith("__main__"):
            continue
        try:
            found = importlib.import_module(module.name)
        except ImportError as exc:
            # Either as it is, or behind an error that says how to install the extra.
            missing = exc if isinstance(exc, ModuleNotFoundError) else exc.__cause__
            if not (getattr(missing, "name", None) or "").startswith(extras):
                raise
            continue
        count += 1
        for name in getattr(found, "__all__", ()):
            assert hasattr(found, name), f"{module.name}.{name}"
    return count


def check_command(version: str) -> None:
    """Version, demo, and the remedy where the extra is wanted."""
    command = str(Path(sysconfig.get_path("scripts")) / NAME)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([command, *arguments], capture_output=True, text=True, check=False)

    told = run("--version")
    assert told.stdout.split()[-1] == version, told
    demo = run("demo")
    assert demo.returncode == 0, demo.stdout + demo.stderr
    without = run(
        *("run", "json:loads", "--url", "confluent://127.0.0.1:9"),
        *("--group", "g", "--topic", "t"),
    )
    assert without.returncode != 0
    assert "Traceback" not in without.stderr, without.stderr


def main(version: str) -> None:
    """Check everything."""
    assert importlib.metadata.version(NAME) == version
    assert importlib.import_module("trio_consumer").__version__ == version
    check_files()
    count = check_imports()
    check_command(version)
    python = ".".join(map(str, sys.version_info[:3]))
    print(f"Python {python}: {count} modules imported, the demo ran, version {version}")


if __name__ == "__main__":
    main(*sys.argv[1:])
