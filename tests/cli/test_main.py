"""The group of commands."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from trio_consumer import __version__
from trio_consumer.cli import main

from .support import COMMAND, assert_one_line, invoke


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help_teaches_with_an_example(arguments: list[str]) -> None:
    """The commands, ready to be copied, and what their exit codes mean."""
    result = invoke(*arguments)
    assert result.exit_code == 0
    assert "trio-consumer lag --url kafka://localhost:9092 --group billing" in result.stdout
    assert "3    the lag is above --fail-above" in result.stdout
    assert "trio-consumer demo" in result.stdout
    assert "trio-consumer run app:charge --url kafka://localhost:9092 \\" in result.stdout


@pytest.mark.parametrize("command", list(main.commands))
def test_help_of_each_command(command: str) -> None:
    """An example, and no mark of the formatter left over."""
    result = invoke(command, "--help")
    assert result.exit_code == 0
    assert re.search(rf"^    .*trio-consumer {command}", result.stdout, re.MULTILINE)
    assert "\b" not in result.stdout
    assert r"\b" not in result.stdout


def test_version() -> None:
    """As the package says."""
    assert __version__ in invoke("--version").stdout


def test_unknown_commands_and_options_take_one_line() -> None:
    """Instead of click's four."""
    assert_one_line(invoke("nothing"), 2, "No such command 'nothing'.*'trio-consumer --help'")
    assert_one_line(invoke("--nothing"), 2, r"No such option.*--nothing.*'trio-consumer --help'")


def test_python_m_is_the_same_command() -> None:
    """`python -m trio_consumer`."""
    done = subprocess.run([*COMMAND, "--help"], capture_output=True, text=True, check=True)
    assert "python -m trio_consumer" in done.stdout


def test_the_command_loads_no_kit_for_tests() -> None:
    """Which takes as long as the rest, each time that a shell completes a word."""
    program = "import sys, trio_consumer.cli; sys.exit('trio.testing' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize("colours", [True, False])
def test_colours_are_left_out_on_request(colours: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """NO_COLOR, on what passes for a terminal."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    if not colours:
        monkeypatch.setenv("NO_COLOR", "1")
    result = invoke("lag", "--url", "memory://x", "--group", "g")
    assert ("\x1b[1;31m" in result.stderr) is colours
    assert "31m" not in result.stderr or colours
