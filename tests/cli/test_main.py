"""The group of commands."""

from __future__ import annotations

import subprocess

import pytest

from trio_consumer import __version__

from .support import COMMAND, assert_one_line, invoke


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help_teaches_with_an_example(arguments: list[str]) -> None:
    """Both commands, ready to be copied."""
    result = invoke(*arguments)
    assert result.exit_code == 0
    assert "trio-consumer demo" in result.stdout
    assert "trio-consumer run app:charge --url kafka://localhost:9092 \\" in result.stdout


@pytest.mark.parametrize("command", ["demo", "run"])
def test_help_of_each_command(command: str) -> None:
    """An example, and no mark of the formatter left over."""
    result = invoke(command, "--help")
    assert result.exit_code == 0
    assert f"    trio-consumer {command}" in result.stdout
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
