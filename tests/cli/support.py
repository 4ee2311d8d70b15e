"""A module of handlers, and ways to call the command."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from trio_consumer import TopicPartition
from trio_consumer.cli import main
from trio_consumer.testing import MemoryBroker

HANDLERS = """
import functools

import trio

from trio_consumer.testing import MemoryBroker

broker = MemoryBroker.named("BROKER")
broker.create_topic("orders", 2)
for number in range(40):
    broker.produce("orders", b"%d" % number, partition=number % 2)

seen = []


async def fine(message):
    await trio.sleep(0)
    seen.append((message.partition, message.offset))


async def told(message):
    print("finishes", message.offset, flush=True)


async def bad(message):
    if (message.partition, message.offset) == (0, 7):
        raise ValueError("no amount\\nin order 7")


async def leaves(message):
    raise SystemExit(3)


async def by_hand(message):
    seen.append((message.partition, message.offset))
    if message.offset != 5:
        message.ack()


async def slow(message):
    print("begins", message.offset, flush=True)
    await trio.sleep(1.5)
    print("ends", message.offset, flush=True)


async def short(message):
    await trio.sleep(0.3)


async def endless(message):
    print("begins", message.offset, flush=True)
    await trio.sleep_forever()


class Callable:
    async def __call__(self, message):
        seen.append((message.partition, message.offset))


instance = Callable()
part = functools.partial(fine)


def plain(message):
    pass


async def generator(message):
    yield


async def two(message, more):
    pass
"""

COMMAND = [sys.executable, "-m", "trio_consumer"]


@dataclass(frozen=True)
class App:
    """The module on the disk, and the broker it fills."""

    name: str
    directory: Path

    @property
    def broker(self) -> MemoryBroker:
        return MemoryBroker.named(self.name)

    @property
    def seen(self) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = sys.modules[self.name].seen
        return found

    def committed(self, partition: int, group: str = "g") -> int | None:
        stored = self.broker.committed(group, TopicPartition("orders", partition))
        return None if stored is None else stored.offset

    def arguments(self, handler: str, *more: str) -> list[str]:
        address = ["--url", f"memory://{self.name}", "--group", "g", "--topic", "orders"]
        return ["run", f"{self.name}:{handler}", *address, *more]

    def run(self, handler: str, *more: str) -> Called:
        return invoke(*self.arguments(handler, *more))

    def start(self, handler: str, *more: str) -> subprocess.Popen[str]:
        """The command in a process of its own; end it only by this object."""
        return subprocess.Popen(
            [*COMMAND, *self.arguments(handler, *more)],
            cwd=self.directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


@dataclass(frozen=True)
class Called:
    """What a process of its own did."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        return self.stdout + self.stderr


def invoke(*arguments: str) -> Called:
    """Call the command in this process."""
    # From 8.2 on click always keeps the two apart, and does not know the word any more.
    old = "mix_stderr" in inspect.signature(CliRunner).parameters
    options: dict[str, Any] = {"mix_stderr": False} if old else {}
    runner = CliRunner(**options)
    result = runner.invoke(main, list(arguments), prog_name="trio-consumer")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Called(result.exit_code, result.stdout, result.stderr)


def call(*arguments: str, directory: Path | None = None) -> Called:
    """Call the command in a process of its own.

    For addresses where nobody listens: kafka-python leaves the sockets of refused
    connections to the garbage collector, which is a warning and so an error here.
    """
    done = subprocess.run(
        [*COMMAND, *arguments],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return Called(done.returncode, done.stdout, done.stderr)


def assert_one_line(result: Called, exit_code: int, match: str) -> None:
    """A failure is told in one line on stderr, and in no other way."""
    assert result.exit_code == exit_code, result.output
    (line,) = result.stderr.splitlines()
    assert re.search(f"^Error: {match}", line), line
    assert "Traceback" not in result.output
