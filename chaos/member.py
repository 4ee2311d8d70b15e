"""A member of a group: works, journals what it has worked on, and then finishes it.

Usage: python member.py SETTINGS, a JSON object:

- ``bootstrap``, ``group``, ``topic``, ``journal``: where to read, and where to write to;
- ``client``: options of the client;
- ``style``: ``loop``, ``batches``, ``context`` or ``workers``: how it finishes messages;
- ``work``: the longest time that a piece of work takes, in seconds; ``seed`` draws it;
- ``commit_interval``, ``commit_timeout``, ``drain_timeout``: of ``open_consumer``.

A line of the journal has left the process before the messages in it are finished, so
whatever the library commits was journaled, unless it broke its promise:

- ``A time partition:epoch ...`` assigned, with a number for each assignment;
- ``R time partition ...`` handed over, ``L time partition ...`` lost;
- ``M time partition epoch first last`` worked on; the epoch is the one of the moment at
  which the messages were handed out;
- ``W time partition offset number`` a message whose number is not its offset;
- ``Z time unfinished tasks`` what the library holds, once a second;
- ``Q time`` ended in order, ``E time error message`` by an error.

SIGTERM lets it leave in order, SIGUSR1 cancels it.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import trio

from trio_consumer import TP, Consumer, Message, Stream, open_consumer

WORKERS = 3


class Journal:
    """Lines that have left the process when the call returns."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._epochs: dict[int, int] = {}

    def write(self, kind: str, *words: object) -> None:
        line = " ".join([kind, f"{time.monotonic():.6f}", *map(str, words)])
        os.write(self._file, line.encode() + b"\n")

    def assigned(self, tps: frozenset[TP]) -> None:
        for tp in tps:
            self._epochs[tp.partition] = self._epochs.get(tp.partition, 0) + 1
        self.write("A", *(f"{tp.partition}:{self._epochs[tp.partition]}" for tp in sorted(tps)))

    def revoked(self, tps: frozenset[TP]) -> None:
        self.write("R", *(tp.partition for tp in sorted(tps)))

    def lost(self, tps: frozenset[TP]) -> None:
        self.write("L", *(tp.partition for tp in sorted(tps)))

    def epochs(self, messages: Sequence[Message]) -> dict[int, int]:
        """The assignments of messages that were handed out just now."""
        return {message.partition: self._epochs[message.partition] for message in messages}

    def worked(self, messages: Sequence[Message], epochs: dict[int, int]) -> None:
        """Write runs of offsets that follow each other."""
        runs: list[list[int]] = []
        for message in messages:
            partition, offset = message.partition, message.offset
            if int(message.value) != offset:
                self.write("W", partition, offset, int(message.value))
            if runs and runs[-1][0] == partition and runs[-1][2] == offset - 1:
                runs[-1][2] = offset
            else:
                runs.append([partition, offset, offset])
        for partition, first, last in runs:
            self.write("M", partition, epochs[partition], first, last)


class Worker:
    """One way to work through a stream."""

    def __init__(self, stream: Stream, journal: Journal, work: float, seed: str) -> None:
        self._stream = stream
        self._journal = journal
        self._work = work
        self._chance = random.Random(seed)

    async def _do(self) -> None:
        if self._work:
            await trio.sleep(self._chance.uniform(0, self._work))

    async def loop(self) -> None:
        async for message in self._stream:
            epochs = self._journal.epochs([message])
            await self._do()
            self._journal.worked([message], epochs)

    async def batches(self, size: int = 50) -> None:
        async for batch in self._stream.batches(max_size=size):
            epochs = self._journal.epochs(batch)
            await self._do()
            self._journal.worked(batch, epochs)

    async def context(self) -> None:
        async for message in self._stream:
            epochs = self._journal.epochs([message])
            async with message:
                await self._do()
                self._journal.worked([message], epochs)

    async def workers(self) -> None:
        """Several tasks share the stream, so messages are finished out of order."""
        async with trio.open_nursery() as nursery:
            for _ in range(WORKERS):
                nursery.start_soon(self._acknowledge)

    async def _acknowledge(self) -> None:
        async for message in self._stream:
            epochs = self._journal.epochs([message])
            await self._do()
            self._journal.worked([message], epochs)
            message.ack()

    async def run(self, style: str) -> None:
        if style == "flat-out":
            await self.batches(1000)
        else:
            await {
                "loop": self.loop,
                "batches": self.batches,
                "context": self.context,
                "workers": self.workers,
            }[style]()


async def obey(signals: AsyncIterator[int], consumer: Consumer, scope: trio.CancelScope) -> None:
    async for number in signals:
        if number == signal.SIGTERM:
            consumer.close()
        else:
            scope.cancel()


async def report(consumer: Consumer, journal: Journal) -> None:
    while True:
        tasks = trio.lowlevel.current_statistics().tasks_living
        journal.write("Z", consumer.statistics().unfinished, tasks)
        await trio.sleep(1)


async def consume(settings: dict[str, Any], journal: Journal, scope: trio.CancelScope) -> None:
    style = settings["style"]
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGUSR1) as signals:
        async with (
            open_consumer(
                f"kafka://{settings['bootstrap']}",
                group=settings["group"],
                commit_interval=settings["commit_interval"],
                commit_timeout=settings["commit_timeout"],
                drain_timeout=settings["drain_timeout"],
                on_partitions_assigned=journal.assigned,
                on_partitions_revoked=journal.revoked,
                on_partitions_lost=journal.lost,
                client_options=settings["client"],
            ) as consumer,
            consumer.stream(
                settings["topic"], ack="manual" if style in ("workers", "context") else "auto"
            ) as stream,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(obey, signals, consumer, scope)
            nursery.start_soon(report, consumer, journal)
            await Worker(stream, journal, settings["work"], settings["seed"]).run(style)
            nursery.cancel_scope.cancel()


async def main(settings: dict[str, Any]) -> None:
    journal = Journal(settings["journal"])
    try:
        with trio.CancelScope() as scope:
            await consume(settings, journal, scope)
    except BaseException as error:
        journal.write("E", type(error).__name__, repr(str(error)))
        raise
    journal.write("Q")


if __name__ == "__main__":
    trio.run(main, json.loads(sys.argv[1]))
