"""Runs contenders: each in a process of its own, in turn, round after round."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import click
import msgspec
from confluent_kafka.admin import AdminClient, NewTopic
from rich.console import Console
from rich.progress import track

__all__ = ["Rounds", "in_rounds", "run_alone", "temporary_topic"]

T = TypeVar("T")

Rounds = list[dict[str, T]]
"""What each contender gave, round by round."""


@contextmanager
def temporary_topic(bootstrap: str, partitions: int) -> Generator[str, None, None]:
    """A new topic, deleted at the end."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    topic = f"bench-{time.time_ns()}"
    admin.create_topics([NewTopic(topic, partitions, 1)])[topic].result(30)
    try:
        yield topic
    finally:
        admin.delete_topics([topic])[topic].result(30)


def run_alone(module: str, arguments: Sequence[Any], result: type[T], timeout: float) -> T:
    """Run ``python -m benchmarks.<module>``; what the last line of its output says.

    Raises:
        click.ClickException: It failed, or took too long.
    """
    command = [sys.executable, "-m", f"benchmarks.{module}", *map(str, arguments)]
    name = " ".join(command[2:4])
    try:
        done = subprocess.run(command, capture_output=True, timeout=timeout, check=True)
    except subprocess.CalledProcessError as error:
        raise click.ClickException(f"{name} failed:\n{error.stderr.decode()}") from error
    except subprocess.TimeoutExpired as error:
        raise click.ClickException(f"{name} did not end in {timeout:.0f} s") from error
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=result)


def in_rounds(names: Sequence[str], rounds: int, run: Any) -> Rounds[Any]:
    """Call ``run(name)`` for each name once a round, each round beginning with another one.

    What else happens on the machine meets all of them alike that way.
    """
    results: Rounds[Any] = []
    steps = [(r, names[(i + r) % len(names)]) for r in range(rounds) for i in range(len(names))]
    for number, name in track(steps, "measuring", transient=True, console=Console(stderr=True)):
        if number == len(results):
            results.append({})
        results[number][name] = run(name)
    return results
