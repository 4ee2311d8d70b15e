"""Many schedules, and what is said about the one that fails."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Generator, Iterable
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import trio

from .._errors import ConfigurationError
from .._runtime.consumer import Consumer
from .._runtime.message import Message
from .._runtime.stream import Stream
from ._member import Life
from ._observer import Delivery
from ._schedule import Schedule, Settings, draw
from ._shrink import SpentError, shrink
from ._world import BOUND, Outcome, World

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "Handler",
    "SimulationFailedError",
    "SimulationReport",
    "Subject",
    "outcome_of",
    "processed",
    "run_seed",
    "simulate",
]

Handler = Callable[[Message], Awaitable[object]]

_tell: ContextVar[Callable[[Message], None]] = ContextVar("tell")

TOPIC = "t"

SHRINK_STEPS = 300_000
"""Steps of tasks that may be spent on shortening a schedule, a few seconds of work: not
seconds, or two runs would print two schedules."""

# What a program does to itself, and what loses records whoever consumes them.
_NOT_FOR_USERS = frozenset({"seek", "stop_flow", "pause", "commit", "truncate"})


@dataclass(frozen=True, slots=True)
class SimulationReport:
    """What simulations that found nothing wrong have done.

    Attributes:
        simulations: How many.
        virtual: Virtual seconds, all together.
        events: How often what happened: records produced, messages delivered and
            processed, commits stored, rebalances, actions.
        checked: How often each check was made, by its name.
    """

    simulations: int = 0
    virtual: float = 0.0
    events: Mapping[str, int] = field(default_factory=dict)
    checked: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        events = self.events
        return (
            f"{self.simulations:,} simulations of {self.virtual / 3600:,.1f} virtual hours:"
            f" {events.get('ACTION', 0):,} faults and other actions,"
            f" {events.get('records', 0):,} records, delivered {events.get('delivered', 0):,}"
            f" times, {events.get('committed', 0):,} commits,"
            f" {events.get('rebalancing', 0):,} rebalances;"
            f" {sum(self.checked.values()):,} checks"
        )

    def __add__(self, other: SimulationReport) -> SimulationReport:
        return SimulationReport(
            self.simulations + other.simulations,
            self.virtual + other.virtual,
            Counter(self.events) + Counter(other.events),
            Counter(self.checked) + Counter(other.checked),
        )

    @classmethod
    def of(cls, outcome: Outcome) -> SimulationReport:
        """The report of one simulation."""
        return cls(1, outcome.virtual, outcome.counts, outcome.checked)


class SimulationFailedError(AssertionError):
    """A simulation has found a message that is lost, or something else that must not be.

    Its text says what happened, with the shortest schedule that was found for it.

    Attributes:
        seed: Which simulation; ``simulate(handler, seeds=[seed])`` repeats it.
        check: Name of what was violated.
        schedule: The shortened schedule as JSON, for ``--schedule``.
    """

    def __init__(self, text: str, *, seed: int, check: str, schedule: str) -> None:
        super().__init__(text)
        self.seed = seed
        self.check = check
        self.schedule = schedule

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (str(self), self.seed, self.check, self.schedule)


def _rebuild(text: str, seed: int, check: str, schedule: str) -> SimulationFailedError:
    return SimulationFailedError(text, seed=seed, check=check, schedule=schedule)


def processed(message: Message) -> None:
    """Say that a message has been processed, in a simulation with ``explicit=True``.

    Raises:
        RuntimeError: No simulation is running.
    """
    tell = _tell.get(None)
    if tell is None:
        raise RuntimeError("processed() is for handlers inside of simulate(..., explicit=True)")
    tell(message)


@dataclass(frozen=True)
class Subject:
    """The user's handler with how it is used."""

    handler: Handler
    ack: Literal["auto", "manual"] = "auto"
    explicit: bool = False
    workers: int = 1
    partitions: int = 2
    value: Callable[[int], bytes] | None = None
    within: float = BOUND

    def draw(self, seed: int) -> Schedule:
        """The schedule of a seed, for this handler."""
        drawn = draw(seed, without=_NOT_FOR_USERS)
        return replace(drawn, settings=self.settings(drawn.settings))

    def settings(self, drawn: Settings) -> Settings:
        """What of the settings is not drawn but given."""
        return replace(
            drawn,
            partitions={TOPIC: self.partitions},
            streams=((TOPIC, self.ack),),
            reopening=False,
            on_error="member",
            workers=self.workers,
            batches=False,
        )

    def world(self, schedule: Schedule) -> World:
        """What carries a schedule out."""
        world = World(
            schedule,
            program=self._program,
            users_errors=True,
            value=self.value,
            within=self.within,
        )
        world.on_start = lambda: self._begin(world)
        return world

    def _begin(self, world: World) -> None:
        _tell.set(world.processed)

    async def _program(self, world: World, life: Life, consumer: Consumer) -> None:
        async with consumer.stream(TOPIC, ack=self.ack) as stream, trio.open_nursery() as nursery:
            for _ in range(self.workers):
                nursery.start_soon(self._work, world, life, stream)

    async def _work(self, world: World, life: Life, stream: Stream) -> None:
        async for message in stream:
            delivery: Delivery = world.received(life.name, message, 0, (life.name, 0))
            await self.handler(message)
            if not self.explicit:
                world.observer.processed(delivery)
            if self.ack == "auto":
                world.observer.finished(delivery)


def simulate(
    handler: Handler,
    *,
    seeds: int | Iterable[int] = 1000,
    ack: Literal["auto", "manual"] = "auto",
    explicit: bool = False,
    workers: int = 1,
    partitions: int = 2,
    value: Callable[[int], bytes] | None = None,
    within: float = BOUND,
) -> SimulationReport:
    """Run a handler under many schedules and show that nothing is lost.

    Each schedule is a group of up to four members on a memory broker under a
    virtual clock, with everything that happens to a group: members that join,
    leave, crash and freeze, cancellation between any two steps, commits that are
    slow, refused or lost, outages, rebalances, compaction, transactions.  A
    member calls the handler as a program would::

        async with consumer.stream("t", ack=ack) as stream:
            async for message in stream:
                await handler(message)

    Whoever watches knows nothing of the library.  A message counts as processed
    when the handler has returned.  No commit may pass one that is not, and when
    the faults have stopped, everything has to be processed and committed.

    The handler must be an ordinary Trio function: time is virtual, so what it
    calls may sleep as long as it likes, but must not use threads or sockets.
    Members share what is global in it.  If it raises, its member ends, and is
    started again.

    Args:
        handler: ``async def handler(message)``.
        seeds: How many schedules, from seed 0 on, or which ones.
        ack: As for :meth:`~trio_consumer.Consumer.stream`.  With ``"manual"`` the handler
            acknowledges by itself.
        explicit: A message counts as processed when the handler calls
            :func:`processed`, not when it returns: for a handler that leaves work
            to other tasks, say.
        workers: Tasks that call it, for each member.
        partitions: Partitions of the topic at the beginning.
        value: Makes the value of the n-th record; by default its number as text.
            Equal numbers have to give equal values.
        within: Virtual seconds within which everything has to be processed and
            committed once the faults have stopped.

    Returns:
        What was done.

    Raises:
        SimulationFailedError: A schedule has shown a mistake.  The text has the
            seed, what happened, and the shortest schedule that was found for it.
        ConfigurationError: An impossible number, or another ``ack``.
        RuntimeError: Called within a Trio program; it runs one itself.
    """
    if ack not in ("auto", "manual"):
        raise ConfigurationError(f"ack must be 'auto' or 'manual' to simulate, not {ack!r}")
    if workers < 1 or partitions < 1 or not within > 0:
        raise ConfigurationError(
            "workers and partitions must be at least 1 and within positive, not"
            f" {workers}, {partitions} and {within}"
        )
    subject = Subject(handler, ack, explicit, workers, partitions, value, within)
    name = getattr(handler, "__qualname__", repr(handler))
    report = SimulationReport()
    for seed in range(seeds) if isinstance(seeds, int) else seeds:
        again = f"simulate({name}, seeds=[{seed}], ...)"
        report += run_seed(seed, subject=subject, again=again)
    return report


def run_seed(
    seed: int, *, subject: Subject | None = None, again: str = "", schedule: Schedule | None = None
) -> SimulationReport:
    """Run one schedule; if it fails, shorten it.

    Args:
        seed: Which one is drawn.
        subject: The user's handler; None for the library's own.
        again: How to repeat it, for the text of the error.
        schedule: This one instead of the one that is drawn.

    Raises:
        SimulationFailedError: It has failed.
    """

    def run(each: Schedule) -> Outcome:
        return outcome_of(each.seed, subject=subject, schedule=each)

    with silence():
        outcome = outcome_of(seed, subject=subject, schedule=schedule)
        if outcome.violation is None:
            return SimulationReport.of(outcome)
        check = outcome.violation.check

        spent = 0

        def fails(each: Schedule) -> bool:
            nonlocal spent
            if spent > SHRINK_STEPS:
                raise SpentError
            found = run(each)
            spent += found.steps
            return found.violation is not None and found.violation.check == check

        shortest, runs = shrink(outcome.schedule, fails)
        final = run(shortest)
    raise SimulationFailedError(
        describe(outcome, final, runs, again),
        seed=seed,
        check=check,
        schedule=shortest.to_json(),
    )


def outcome_of(
    seed: int, *, subject: Subject | None = None, schedule: Schedule | None = None
) -> Outcome:
    """Run one schedule once; the arguments are those of :func:`run_seed`."""
    if schedule is None:
        schedule = draw(seed) if subject is None else subject.draw(seed)
    with silence():
        return (World(schedule) if subject is None else subject.world(schedule)).run()


def describe(outcome: Outcome, final: Outcome, runs: int, again: str) -> str:
    """Say what went wrong, for a person: the shortest way to it and its end."""
    violation, last = outcome.violation, final.violation
    assert violation is not None
    assert last is not None
    before, after = len(outcome.schedule.actions), len(final.schedule.actions)
    lines = [
        f"seed {outcome.schedule.seed}: {violation}",
        f"repeat it with: {again}",
        "",
        f"shortened from {before} to {after} actions in {runs} runs, there: {last}",
        str(final.schedule),
        "",
        "what happened last:",
        *final.trace[-25:],
    ]
    if final.errors:
        lines += ["", "consumers ended with:", *(f"  {error}" for error in final.errors.values())]
    return "\n".join(lines)


@contextmanager
def silence() -> Generator[None, None, None]:
    """Let the library log nothing: it would warn of every fault."""
    logger = logging.getLogger("trio_consumer")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(before)
