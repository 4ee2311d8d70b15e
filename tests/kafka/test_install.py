"""Fetching Kafka's jars, and running a program from them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .install import KafkaUnavailable, install, java_tool

ROOT = Path(__file__).parents[2]


@pytest.mark.kafka
def test_install_from_two_processes_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One fetches, the other waits; both find whole jars, and a half-filled folder is dropped."""
    monkeypatch.setenv("TRIO_CONSUMER_KAFKA_CACHE", str(tmp_path))
    half = tmp_path / "part-of-a-killed-one"
    half.mkdir()
    (half / "kafka_2.13-4.3.1.jar").touch()
    program = "from tests.kafka.install import install; print(install())"
    both = [
        subprocess.Popen(
            [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    (one, _), (other, _) = (process.communicate(timeout=300) for process in both)
    assert one == other == f"{install()}\n"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [install().name, "lock"]
    assert len(list(install().glob("*.jar"))) > 50


def test_install_without_java_names_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says what is missing and what to do."""
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(KafkaUnavailable, match=r"^Starting Kafka needs Java, .*: install a Java"):
        install()


def test_install_without_or_with_failing_maven(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No Maven, a failing one and one that copies nothing are told apart; no folder is left."""
    programs, cache = tmp_path / "bin", tmp_path / "cache"
    programs.mkdir()
    for name in ("java", "mvn"):
        (programs / name).write_text("#!/bin/sh\n")
        (programs / name).chmod(0o755)
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setenv("TRIO_CONSUMER_KAFKA_CACHE", str(cache))

    with pytest.raises(KafkaUnavailable, match=r"^Maven could not .* \(exit status 0\)"):
        install()
    (programs / "mvn").write_text("#!/bin/sh\necho no such repository\nexit 1\n")
    with pytest.raises(KafkaUnavailable, match=r"(?s)^Maven .* 1\): check .*no such repository$"):
        install()
    (programs / "mvn").unlink()
    with pytest.raises(KafkaUnavailable, match=r"^Kafka's jars are fetched by Maven, .* install"):
        install()
    assert [entry.name for entry in cache.iterdir()] == ["lock"]


@pytest.mark.kafka
def test_java_tool_runs_kafkas_own_tools() -> None:
    """A tool's output is returned, and its failure is an error that shows it."""
    tool = "kafka.tools.StorageTool"
    assert len(java_tool(tool, "random-uuid").strip()) == 22
    with pytest.raises(RuntimeError, match=rf"(?s)^{tool} --nonsense ended with exit status 1:\n."):
        java_tool(tool, "--nonsense")
