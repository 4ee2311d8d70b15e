"""``trio-consumer completion``."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .support import COMMAND, assert_one_line, invoke


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_the_script_of_a_shell(shell: str) -> None:
    """It asks the command itself, by the variable that click looks at."""
    result = invoke("completion", shell)
    assert (result.exit_code, result.stderr) == (0, "")
    assert f"_TRIO_CONSUMER_COMPLETE={shell}_complete" in result.stdout


def test_completion_knows_three_shells() -> None:
    """Each is named."""
    assert_one_line(invoke("completion", "csh"), 2, ".*'csh' is not one of 'bash', 'zsh', 'fish'")


@pytest.mark.skipif(sys.platform == "win32", reason="bash is not at home there")
@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("trio-consumer in", "inspect"),
        ("trio-consumer lag --iso", "--isolation-level"),
        ("trio-consumer lag --isolation-level read_c", "read_committed"),
        ("trio-consumer completion z", "zsh"),
    ],
)
def test_bash_completes_with_the_script(tmp_path: Path, typed: str, completed: str) -> None:
    """As bash calls it, with the words that are there."""
    bash = shutil.which("bash")
    assert bash is not None
    command = tmp_path / "trio-consumer"
    program = "from trio_consumer.cli import main; main(prog_name='trio-consumer')"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{program}" "$@"\n')
    command.chmod(0o755)
    script = subprocess.run(
        [*COMMAND, "completion", "bash"], capture_output=True, text=True, check=True
    ).stdout
    words = " ".join(f"'{word}'" for word in typed.split())
    call = (
        f"COMP_WORDS=({words}); COMP_CWORD={len(typed.split()) - 1};"
        ' _trio_consumer_completion trio-consumer; echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        [bash, "--norc", "-c", f"{script}\n{call}"],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [completed]
