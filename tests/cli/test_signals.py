"""SIGINT and SIGTERM, to processes of their own."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys

import pytest

from .support import App

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGTERM to send")

both = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)


def next_line(process: subprocess.Popen[str]) -> str:
    """Wait until a handler is at work."""
    assert process.stdout is not None
    assert process.stderr is not None
    line = process.stdout.readline()
    assert line, process.stderr.read()
    return line


@both
def test_a_signal_lets_handlers_finish(app: App, number: signal.Signals) -> None:
    """What is in hand is finished and committed, nothing more is handed out, exit 0."""
    with app.start("slow", "--concurrency", "2") as process:
        assert next_line(process).startswith("begins")
        assert next_line(process).startswith("begins")
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert "begins" not in out
    assert out.count("ends") == 2
    assert f"stopped by {number.name}: 2 messages handed out" in err
    assert "0 of them unfinished" in err
    assert "committed: orders[0] " in err
    assert "Traceback" not in err


@both
def test_two_signals_at_once_are_one(app: App, number: signal.Signals) -> None:
    """As from a terminal and from a program that passes them on: handlers finish."""
    with app.start("slow") as process:
        assert next_line(process).startswith("begins")
        process.send_signal(signal.SIGTERM)
        process.send_signal(number)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert out.startswith("ends")
    assert "1 messages handed out" in err
    assert "0 of them unfinished" in err


@both
def test_a_second_signal_cancels_handlers(app: App, number: signal.Signals) -> None:
    """At once; the exit code names the signal."""
    with app.start("endless") as process:
        assert next_line(process).startswith("begins")
        process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.5)
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 128 + number, err
    (line,) = err.splitlines()
    assert line.startswith(f"cancelled by {number.name}: 1 messages handed out")
    assert line.endswith("1 of them unfinished")


def test_a_signal_while_waiting_for_messages_stops(app: App) -> None:
    """All 40 are done and the topic is at its end."""
    with app.start("told") as process:
        for _ in range(40):
            assert next_line(process).startswith("finishes")
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.5)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert "40 messages handed out" in err
    assert "committed: orders[0] 20, orders[1] 20" in err


def test_a_signal_while_connecting_stops(app: App) -> None:
    """There is nothing to finish."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(30)
        address = f"kafka://127.0.0.1:{server.getsockname()[1]}"
        with app.start("fine", "--url", address, "--connect-timeout", "60") as process:
            # It tries; from now on nobody answers.
            server.accept()[0].close()
            server.close()
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=10)
    assert process.returncode == 0, err
    (line,) = err.splitlines()
    assert line.startswith("stopped by SIGINT: 0 messages handed out")
