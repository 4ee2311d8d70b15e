"""The group of commands."""

from __future__ import annotations

import re
import subprocess

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
