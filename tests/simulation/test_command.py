"""The command ``python -m trio_consumer.testing``."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from trio_consumer.testing._command import main

from .mutants import MUTANTS

ROOT = Path(__file__).parents[2]


def call(*arguments: object) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(main, [str(each) for each in arguments], catch_exceptions=False)


def test_command_runs_seeds(tmp_path: Path) -> None:
    """It says what was done."""
    done = call("--seeds", 5, "--first", 3, "--jobs", 1, "--save", tmp_path)
    assert done.exit_code == 0, done.output
    assert done.output.startswith("5 simulations of")
    assert list(tmp_path.iterdir()) == []


def test_command_runs_seeds_in_other_processes(tmp_path: Path) -> None:
    """The reports of all of them are added up."""
    done = call("--seeds", 45, "--jobs", 2, "--save", tmp_path)
    assert done.output.startswith("45 simulations of")


def test_command_runs_for_a_time(tmp_path: Path) -> None:
    """At least one chunk, whatever the time."""
    done = call("--minutes", 0.001, "--jobs", 1, "--save", tmp_path)
    assert done.exit_code == 0
    assert "simulations of" in done.output


def test_command_repeats_one_seed(tmp_path: Path) -> None:
    """With its digest, and on request everything that happened."""
    once = call("--seed", 7, "--save", tmp_path)
    assert once.output.startswith("digest ")
    assert call("--seed", 7, "--save", tmp_path).output == once.output
    traced = call("--seed", 7, "--trace", "--save", tmp_path).output
    assert "ACTION join" in traced
    assert traced.endswith(once.output)


def test_command_tells_of_a_failure_and_saves_its_schedule(tmp_path: Path) -> None:
    """The text has the seed and a command; the file fails in the same way, and runs again."""
    make, _ = MUTANTS["commits_one_further"]
    with make():
        failed = call("--seeds", 1, "--jobs", 1, "--save", tmp_path)
        assert failed.exit_code == 1
        assert "seed 0: I1 violated" in failed.output
        assert "repeat it with: python -m trio_consumer.testing --seed 0" in failed.output
        path = tmp_path / "0-I1.json"
        assert f"python -m trio_consumer.testing --schedule {path}" in failed.output
        again = call("--schedule", path, "--save", tmp_path)
        assert again.exit_code == 1
        assert "I1 violated" in again.output
    mended = call("--schedule", path, "--save", tmp_path)
    assert mended.exit_code == 0


def test_command_goes_on_after_a_failure_if_asked(tmp_path: Path) -> None:
    """Each failure has a file of its own."""
    make, _ = MUTANTS["reading_begins_too_low"]
    with make():
        failed = call("--seeds", 2, "--jobs", 1, "--keep-going", "--save", tmp_path)
    assert failed.exit_code == 1
    assert len(list(tmp_path.iterdir())) >= 1


def test_command_takes_a_handler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As module:function, with the ack of its stream."""
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(ROOT)
    monkeypatch.delitem(sys.modules, "examples", raising=False)
    name = "examples.early_ack:charge_wrong"
    failed = call(name, "--ack", "manual", "--seeds", 1, "--jobs", 1, "--save", tmp_path)
    assert failed.exit_code == 1
    assert f"python -m trio_consumer.testing {name} --ack manual --seed 0" in failed.output


def test_command_refuses_what_is_no_handler() -> None:
    """In one line, with the remedy."""
    done = call("nothing")
    assert done.exit_code == 2
    assert "names no handler" in done.output
