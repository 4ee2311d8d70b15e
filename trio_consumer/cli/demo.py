"""``trio-consumer demo``: a consumer is cancelled in mid-work, and nothing is lost."""

from __future__ import annotations

import random
import secrets
import sys
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Literal

import click
import trio
from rich.console import Console

from .. import Consumer, Stream, open_consumer
from .brokers import DemoBroker, KafkaDemoBroker, MemoryDemoBroker
from .errors import Failure, reporting, traceback_option
from .journal import Journal, Place, Sighting, StreamVerdict, Verdict, judge
from .logs import logging_to
from .options import Seconds, json_option
from .output import print_json
from .view import PartitionRow, View

__all__ = ["Demonstration", "Plan", "demo"]

STREAMS: dict[str, Literal["auto", "manual"]] = {"charge": "auto", "audit": "manual"}

WORKERS = 4
SLOW_SHARE = 0.04
SLOW_TIMES = 12
"""Four in a hundred messages take twelve times as long: they hold the committed
offset back long enough to be seen.  Arbitrary."""

SHORTEST_SLEEP = 0.002
"""Seconds below which a sleep costs more than it lasts."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to demonstrate.

    Attributes:
        messages: How many to produce.
        partitions: Over how many partitions.
        seed: Draws the partitions and the time that each message takes.
        seconds: How long both runs take together, roughly.
        topic: Name of the topic, and of the group.
    """

    messages: int = 600
    partitions: int = 3
    seed: int = 1
    seconds: float = 4.5
    topic: str = "demo"

    @property
    def mean_delay(self) -> float:
        """Seconds that a message takes a worker on average."""
        return self.seconds * min(WORKERS, self.messages) / self.messages

    @property
    def limit(self) -> float:
        """Seconds after which a run is given up: messages must have been lost."""
        return 4 * self.seconds + 15


class Demonstration:
    """Two runs of a consumer with a cancel between them.

    Args:
        plan: What to do.
        broker: Where.
        view: What to show it on.
    """

    def __init__(self, plan: Plan, broker: DemoBroker, view: View) -> None:
        self._plan = plan
        self._broker = broker
        self._view = view
        self._journal: Journal
        self._looks = 0
        self._too_high: list[Sighting] = []
        self._wanted: dict[int, int] = {}
        self._reached = trio.Event()

    async def play(self) -> Verdict:
        """Produce, consume, cancel, consume again, and check.

        Raises:
            Failure: The broker cannot be used.
            ConsumerError: The consumer failed.

        Cancelling it stops the consumer; the topic stays where it is.
        """
        plan, view = self._plan, self._view
        self._journal = await self._produce()

        view.heading("1. The first run")
        view.say(
            "A message counts as finished once both streams have finished it. Messages finish out"
            ' of order; the committed offset waits at the oldest unfinished one. "position" is how'
            " far messages were given to the streams."
        )
        half = len(STREAMS) * plan.messages // 2
        with view.watching("first run"):
            await self._first_run(max(1, half))
        at_cancel = await self._look()

        view.heading("2. Cancelled in mid-work, as if the program had crashed")
        view.say(
            "What was in hand stays unfinished. What could be committed was; the group will go on"
            " from these offsets, so no message in hand is skipped:"
        )
        view.in_hand(
            [
                (
                    partition,
                    at_cancel.get(partition, 0),
                    [(s, self._held(1, s, partition)) for s in STREAMS],
                )
                for partition in range(plan.partitions)
            ]
        )

        view.heading("3. The same group again")
        view.say(
            "Everything from the committed offsets on comes again; that includes messages that"
            " were finished behind an unfinished one."
        )
        with view.watching("second run"):
            await self._second_run(at_cancel)
        at_end = await self._look()

        view.heading("4. The check")
        return judge(
            self._journal,
            at_cancel=at_cancel,
            at_end=at_end,
            looks=self._looks,
            too_high=self._too_high,
        )

    async def _produce(self) -> Journal:
        plan = self._plan
        self._view.say(
            f"{plan.messages} numbered messages in {plan.partitions} partitions of the topic"
            f" {plan.topic!r}, on {self._broker.description}. Two streams take every message:"
            f' "charge" is acknowledged automatically, "audit" by hand; {WORKERS} tasks work on'
            " each."
        )
        draw = random.Random(f"{plan.seed} partitions")
        partitions = [draw.randrange(plan.partitions) for _ in range(plan.messages)]
        placement = await self._broker.fill(plan.topic, partitions, plan.partitions)
        return Journal(list(STREAMS), placement)

    def _held(self, run: int, stream: str, partition: int) -> list[Place]:
        return [p for p in self._journal.in_hand(run, stream) if p.partition == partition]

    # -- the two runs --------------------------------------------------------------

    async def _first_run(self, enough: int) -> None:
        """Consume until so many messages are processed; then cancel everything."""
        self._journal.run = 1
        self._reached = trio.Event()
        with trio.move_on_after(self._plan.limit) as crash:
            async with self._consumer() as consumer, trio.open_nursery() as nursery:
                nursery.start_soon(self._serve, consumer)
                while sum(self._journal.processed.values()) < enough:
                    await self._reached.wait()
                    self._reached = trio.Event()
                crash.cancel()

    async def _second_run(self, start: Mapping[int, int]) -> None:
        """Consume all that is left, and leave in order."""
        self._journal.run = 2
        self._reached = trio.Event()
        left = sum(
            end - start.get(partition, 0) for partition, end in self._journal.ends.items()
        ) * len(STREAMS)
        with trio.move_on_after(self._plan.limit):
            async with self._consumer() as consumer, trio.open_nursery() as nursery:
                nursery.start_soon(self._serve, consumer)
                while sum(self._journal.count_processed(2, s) for s in STREAMS) < left:
                    await self._reached.wait()
                    self._reached = trio.Event()
                # Loops end after the message in hand; leaving the block waits for them.
                consumer.close()

    def _consumer(self) -> AbstractAsyncContextManager[Consumer]:
        return open_consumer(
            self._broker.transport,
            group=self._plan.topic,
            commit_interval=max(0.01, self._plan.seconds / 15),
            # Small, so that the position moves on before one's eyes.
            max_buffered=max(8, self._plan.messages // 40),
            client_options={
                "max_poll_records": max(4, self._plan.messages // 60),
                **self._broker.client_options,
            },
        )

    async def _serve(self, consumer: Consumer) -> None:
        """Open the streams and let the workers iterate them."""
        topic = self._plan.topic
        async with (
            consumer.stream(topic, ack="auto") as charge,
            consumer.stream(topic, ack="manual") as audit,
            trio.open_nursery() as watchers,
        ):
            watchers.start_soon(self._watch, consumer)
            async with trio.open_nursery() as workers:
                for name, stream in (("charge", charge), ("audit", audit)):
                    for number in range(WORKERS):
                        workers.start_soon(self._work, name, stream, number)
            watchers.cancel_scope.cancel()

    async def _work(self, name: str, stream: Stream, worker: int) -> None:
        journal = self._journal
        draw = random.Random(f"{self._plan.seed} {journal.run} {name} {worker}")
        async for message in stream:
            place = Place(message.partition, message.offset)
            number = journal.take(name, message.value, place)
            await self._pretend_to_work(draw)
            journal.finish(name, number)
            if STREAMS[name] == "manual":
                message.ack()
            self._reached.set()

    async def _pretend_to_work(self, draw: random.Random) -> None:
        mean = self._plan.mean_delay / (1 - SLOW_SHARE + SLOW_SHARE * SLOW_TIMES)
        slow = draw.random() < SLOW_SHARE
        seconds = draw.uniform(0, 2 * mean) * (SLOW_TIMES if slow else 1)
        if seconds < SHORTEST_SLEEP:
            # Now and then a longer one instead: the same on average.
            seconds = SHORTEST_SLEEP if draw.random() < seconds / SHORTEST_SLEEP else 0.0
        await trio.sleep(seconds)

    # -- looking ---------------------------------------------------------------------

    async def _look(self) -> dict[int, int]:
        """Ask the broker what is committed and compare it with the journal."""
        committed = await self._broker.committed(self._plan.topic)
        # In this order: the journal only grows, so it cannot look too small.
        self._looks += 1
        self._too_high += self._journal.beyond_front(committed)
        return committed

    async def _watch(self, consumer: Consumer) -> None:
        while True:
            committed = await self._look()
            self._show(consumer, committed)
            await trio.sleep(0.1)

    def _show(self, consumer: Consumer, committed: Mapping[int, int]) -> None:
        known = {tp.partition: stats for tp, stats in consumer.statistics().partitions.items()}
        rows: list[PartitionRow] = []
        for partition in range(self._plan.partitions):
            stats = known.get(partition)
            stored = committed.get(partition, 0)
            position = stats.position if stats is not None else None
            rows.append(
                PartitionRow(
                    partition=partition,
                    end=self._journal.ends[partition],
                    position=stored if position is None else position,
                    unfinished=0 if stats is None else stats.unfinished,
                    oldest_unfinished=None if stats is None else stats.oldest_unfinished,
                    committed=stored,
                )
            )
        run = self._journal.run
        progress = ", ".join(f"{s} {self._journal.count_processed(run, s)}" for s in STREAMS)
        self._view.rows(rows, f"processed {progress}")


@dataclass(frozen=True, slots=True)
class PartitionResult:
    """Where a partition ends, and what the group has committed at the end."""

    partition: int
    end: int
    committed: int


@dataclass(frozen=True, slots=True)
class Result:
    """The verdict, as ``--json`` prints it.

    Attributes:
        passed: Whether nothing is wrong.
        complaints: What is wrong, in words.
        messages: How many were produced.
        looks: How often committed offsets were compared with the journal.
        too_high: How many of them lay beyond an unprocessed message.
        streams: What each stream processed, lost and got again.
        partitions: Each partition at the end.
    """

    passed: bool
    complaints: tuple[str, ...]
    messages: int
    looks: int
    too_high: int
    streams: tuple[StreamVerdict, ...]
    partitions: tuple[PartitionResult, ...]


def result(verdict: Verdict) -> Result:
    """Put a verdict into the shape of ``--json``."""
    return Result(
        passed=not verdict.complaints,
        complaints=tuple(verdict.complaints),
        messages=verdict.messages,
        looks=verdict.looks,
        too_high=len(verdict.too_high),
        streams=verdict.streams,
        partitions=tuple(
            PartitionResult(partition, end, verdict.committed.get(partition, 0))
            for partition, end in sorted(verdict.ends.items())
        ),
    )


@click.command(short_help="Watch a consumer lose nothing.")
@click.option(
    "--kafka",
    metavar="HOST:PORT",
    help="Use a real broker: makes a topic and a group with a new name, and deletes them.",
)
@click.option("--messages", type=click.IntRange(1, 100_000), default=600, help="How many.")
@click.option("--partitions", type=click.IntRange(1, 64), default=3, help="Of the topic.")
@click.option("--seed", type=int, default=1, help="Draws how long each message takes.")
@click.option(
    "--seconds",
    type=Seconds(600, least=0.05),
    default=4.5,
    help="How long the work takes in all, roughly.",
)
@click.option(
    "--no-live", is_flag=True, show_default=False, help="Plain lines, also on a terminal."
)
@json_option("Print nothing but the result of the check, as one JSON document.")
@click.option("--keep", is_flag=True, show_default=False, help="Do not delete topic and group.")
@click.option(
    "--connect-timeout",
    type=Seconds(),
    default=5.0,
    help="Seconds to wait for the broker.",
)
@traceback_option
def demo(
    kafka: str | None,
    messages: int,
    partitions: int,
    seed: int,
    seconds: float,
    no_live: bool,
    as_json: bool,
    keep: bool,
    connect_timeout: float,
    show_traceback: bool,
) -> None:
    """Watch a consumer being cancelled in mid-work, and losing nothing.

    Two streams process the same topic, several messages at a time and out of
    order. In the middle the whole consumer is cancelled, as a crash would; then
    the same group starts again. At the end everything is checked against a
    journal that the demo kept by itself. Exit code 1 if the check fails.

    \b
        trio-consumer demo
        trio-consumer demo --seed 7 --partitions 6
        trio-consumer demo --kafka localhost:9092
        trio-consumer demo --json --seconds 0.5
    """  # noqa: D301 - click wants the character
    with reporting(show_traceback):
        console = Console(highlight=False, quiet=as_json)
        view = View(console, live=console.is_terminal and not no_live)
        topic = f"trio-consumer-demo-{secrets.token_hex(4)}"
        plan = Plan(messages, partitions, seed, seconds, topic if kafka is not None else "demo")
        broker: DemoBroker
        if kafka is None:
            broker = MemoryDemoBroker(seed)
        else:
            broker = KafkaDemoBroker(kafka, connect_timeout=connect_timeout)
        with logging_to(Console(stderr=True)):
            verdict = trio.run(partial(_present, plan, broker, view, keep=keep))
        if as_json:
            print_json(result(verdict))
        if verdict.complaints:
            raise Failure(
                f"the check failed: {verdict.complaints[0]}; please report this together with"
                f" the command line: {' '.join(sys.argv[1:])}"
            )


async def _present(plan: Plan, broker: DemoBroker, view: View, *, keep: bool) -> Verdict:
    try:
        verdict = await Demonstration(plan, broker, view).play()
        view.verdict(verdict)
        return verdict
    finally:
        # Bounded, as it cannot be cancelled: a broker that is gone keeps its topic.
        with trio.move_on_after(5, shield=True):
            if not keep:
                with suppress(Failure):  # what happened before matters more
                    await broker.remove(plan.topic, plan.topic)
            await broker.close()
