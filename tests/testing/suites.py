"""Runs a small test suite in a process of its own, with the plugins that it names."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

__all__ = ["CONFIGURATION", "PLUGINS", "run_suite"]

PLUGINS = ("trio", "asyncio", "anyio")
"""The plugins that run async tests, by the names under which pytest loads them."""

CONFIGURATION = """\
[pytest]
filterwarnings =
    error
    ignore:(read|open)_text is deprecated:DeprecationWarning
"""


def run_suite(
    folder: Path,
    files: Mapping[str, str],
    *arguments: str,
    plugins: tuple[str, ...] = PLUGINS,
) -> dict[str, int]:
    """Write the files into a folder and run pytest there; how many passed, failed and so on.

    It has a configuration of its own, which is that of the page: warnings are errors.
    """
    for name, source in files.items():
        (folder / name).write_text(source, encoding="utf-8")
    (folder / "pytest.ini").write_text(CONFIGURATION, encoding="utf-8")
    chosen = [f"-pno:{name}" for name in PLUGINS if name not in plugins]
    if "asyncio" in plugins:
        # Warns without it, and pytest warns of it without the plugin.
        chosen.append("-oasyncio_default_fixture_loop_scope=function")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-pno:cacheprovider", *chosen, *arguments],
        cwd=folder,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    )
    print(done.stdout, done.stderr)
    summary = done.stdout.rstrip().rpartition("\n")[2].partition(" in ")[0]
    return {kind: int(count) for count, kind in re.findall(r"(\d+) (\w+)", summary)}
