"""The processes of a run: members in their places, and producers."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from tests.kafka.processes import Keeper

from .history import History, Rule, Violation
from .resources import Sample, sample
from .schedule import MemberPlan

__all__ = ["Members", "Place", "Producers"]

TOPIC = "numbers"
PATIENCE = 90.0
"""Seconds in which a member that was asked to leave has to be gone: its drain, its last
commit and the client's goodbye have time limits whose sum is well below."""
RESTART = 1.0


@dataclass(slots=True)
class _Process:
    name: str
    pid: int
    journal: Path
    read: int = 0
    rest: bytes = b""
    killed: bool = False
    replaced: bool = False
    frozen: bool = False
    over: bool = False
    samples: list[Sample] = field(default_factory=list)


@dataclass(slots=True)
class Place:
    """A place in a group, and the process that has it now.

    Attributes:
        plan: What does not change.
        life: How many processes it has had.
        process: The latest one.
        wanted: Whether a process that has ended is to be replaced.
        busy: Something is being done to it.
    """

    plan: MemberPlan
    life: int = 0
    process: _Process | None = None
    wanted: bool = False
    busy: bool = False


class Members:
    """Starts, signals and watches members, and reads their journals.

    Args:
        plans: The places.
        folder: For journals and the members' own logs.
        bootstrap: Where they find the cluster.
        client: Options of every member's client.
        opening: Arguments of their ``open_consumer``.
        history: Told of everything.
        keeper: Runs the processes.
        seed: Draws the times of their work.
    """

    def __init__(
        self,
        plans: Sequence[MemberPlan],
        folder: Path,
        bootstrap: str,
        client: dict[str, Any],
        opening: dict[str, float],
        history: History,
        keeper: Keeper,
        seed: int,
    ) -> None:
        self.places = [Place(plan) for plan in plans]
        self.lives: list[_Process] = []
        self.counted: Counter[str] = Counter()
        self._folder = folder
        self._bootstrap = bootstrap
        self._client = client
        self._opening = opening
        self._history = history
        self._keeper = keeper
        self._seed = seed

    # --- single places ------------------------------------------------------------------

    def start(self, place: Place) -> None:
        """Start the next process of a place."""
        plan = place.plan
        place.life += 1
        name = f"{plan.name}.{place.life}"
        journal = self._folder / f"{name}.journal"
        client = dict(self._client)
        client["client_id"] = name
        client["partition_assignment_strategy"] = (
            "range" if plan.group == "eager" else "cooperative-sticky"
        )
        if plan.static:
            client["group_instance_id"] = plan.static
        settings = {
            "bootstrap": self._bootstrap,
            "group": plan.group,
            "topic": TOPIC,
            "journal": str(journal),
            "client": client,
            "style": plan.style,
            "work": plan.work,
            "seed": f"{self._seed} {name}",
            **self._opening,
        }
        self._history.begins(name, plan.group)
        command = [sys.executable, str(Path(__file__).with_name("member.py"))]
        pid = self._keeper.start(name, [*command, json.dumps(settings)], self.log(name))
        place.process = _Process(name, pid, journal)
        place.wanted = True
        self.lives.append(place.process)
        self.counted["lives"] += 1

    def log(self, name: str) -> Path:
        """Where a process writes what it has to say."""
        return self._folder / f"{name}.log"

    def signal(self, process: _Process, number: signal.Signals) -> None:
        """Send a signal, unless the process has ended."""
        self._keeper.send_signal(process.name, number)

    def kill(self, process: _Process) -> None:
        """End a process without a word."""
        process.killed = True
        self.signal(process, signal.SIGKILL)

    async def until_over(self, process: _Process, patience: float = PATIENCE) -> None:
        """Wait until a process has ended; one that does not is killed and told of."""
        with trio.move_on_after(patience):
            while not process.over:
                await trio.sleep(0.1)
            return
        self._history.violations.append(
            Violation(Rule.ERROR, f"{process.name} did not leave in {patience:g} s")
        )
        self.kill(process)

    # --- all of them --------------------------------------------------------------------

    async def watch(self) -> None:
        """See who has ended, start them again, and measure what they use, for ever."""
        turn = 0
        while True:
            for process in self.lives:
                self._look(process)
            for place in self.places:
                process = place.process
                if place.wanted and not place.busy and process is not None and process.over:
                    self.counted["restarts"] += 1
                    place.busy = True
                    await trio.sleep(RESTART)
                    self.start(place)
                    place.busy = False
            if turn % 10 == 0:
                self._measure()
            turn += 1
            await trio.sleep(0.2)

    def _look(self, process: _Process) -> None:
        if process.over:
            return
        status = self._keeper.status(process.name)
        if status is None:
            return
        self._read(process)
        process.over = True
        self._history.ended(process.name, status, killed=process.killed, time=time.monotonic())

    def _measure(self) -> None:
        for process in self.lives:
            if process.over or process.frozen:
                continue
            life = self._history.lives[process.name]
            # Not before it consumes.
            if life.tasks and (found := sample(process.pid, life.tasks, life.unfinished)):
                process.samples.append(found)

    def read_journals(self, group: str | None = None) -> None:
        """Tell the history what all journals say by now."""
        for process in self.lives:
            if not process.over and group in (None, self._history.lives[process.name].group):
                self._read(process)

    def _read(self, process: _Process) -> None:
        with suppress(FileNotFoundError), process.journal.open("rb") as file:
            file.seek(process.read)
            data = file.read()
            process.read += len(data)
            *lines, process.rest = (process.rest + data).split(b"\n")
            for line in lines:
                self._history.journaled(process.name, line.decode())


class Producers:
    """Processes that write numbered messages, each to partitions of its own.

    Args:
        count: How many.
        partitions: Of the topic.
        rate: Messages a second in all, 0 for as fast as it goes.
        lead: How many messages they may be ahead of the slowest group's commits.
        size: Bytes of a value.
        bootstrap: The cluster, without proxies.
        folder: For their reports.
        keeper: Runs them.
    """

    def __init__(
        self,
        count: int,
        partitions: int,
        *,
        rate: float,
        lead: int,
        size: int,
        bootstrap: str,
        folder: Path,
        keeper: Keeper,
    ) -> None:
        self._lead = lead
        self._limit = folder / "limit"
        self._keeper = keeper
        self._reports = {f"producer-{n}": folder / f"producer-{n}.report" for n in range(count)}
        self.allow(0)
        for number, (name, report) in enumerate(self._reports.items()):
            settings = {
                "bootstrap": bootstrap,
                "topic": TOPIC,
                "partitions": list(range(number, partitions, count)),
                "rate": rate / count,
                "size": size,
                "limit": str(self._limit),
                "report": str(report),
            }
            command = [sys.executable, str(Path(__file__).with_name("producer.py"))]
            keeper.start(name, [*command, json.dumps(settings)], folder / f"{name}.log")

    def allow(self, committed: int) -> None:
        """Let them write on, as far as the groups have come."""
        limit = committed // len(self._reports) + self._lead
        new = self._limit.with_suffix(".new")
        new.write_text(str(limit))
        new.replace(self._limit)  # never half a number

    async def finish(self, patience: float = 120.0) -> dict[int, int]:
        """Have everything stored that they have taken on; return the count by partition.

        Raises:
            RuntimeError: A producer failed; then the run shows nothing.
        """
        for name in self._reports:
            self._keeper.send_signal(name, signal.SIGTERM)
        ends: dict[int, int] = {}
        for name, report in self._reports.items():
            with trio.move_on_after(patience):
                while self._keeper.status(name) is None:
                    await trio.sleep(0.1)
            if self._keeper.status(name) != 0:
                raise RuntimeError(f"{name} did not store its messages; see {report.parent}")
            last = report.read_text().splitlines()[-1].split()
            if last[0] != "end":
                raise RuntimeError(f"{name} ended too early; see {report.parent}")
            ends.update((int(p), int(n)) for p, n in (word.split(":") for word in last[1:]))
        return ends

    def check(self) -> None:
        """Raise RuntimeError if one has ended."""
        for name in self._reports:
            if self._keeper.status(name) is not None:
                raise RuntimeError(f"{name} has ended; without messages a run shows nothing")
