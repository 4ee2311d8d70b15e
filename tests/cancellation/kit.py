"""Cancel a scenario at its k-th step, for every k, and see what is left.

A *scenario* is a small program inside of a consumer.  The kit runs it once to
the end to count its steps (those of all tasks: a cancellation is delivered
between two of them), then once for each step, on a new broker each time.
Afterwards no task and no member is left, no commit has passed what was not
processed, and another consumer of the group completes the work.

Where the cancelled scope lies makes a difference, so each scenario is tried
with each :class:`Place`.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Generator
from contextlib import AbstractContextManager, AsyncExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import trio

from trio_consumer import Consumer, Stream
from trio_consumer.testing import MemoryBroker

from ..runtime.support import (
    GROUP,
    CancelAtStep,
    Journal,
    broker,
    consuming,
    run,
    tasks_living,
)

__all__ = [
    "SCENARIOS",
    "Place",
    "Scenario",
    "Trial",
    "points_tried",
    "process",
    "scenario",
    "trial",
]


class Place(enum.Enum):
    """Where the scope lies that is cancelled."""

    PROGRAM = "program"
    """Around everything: the consumer is left by the cancellation."""
    BODY = "body"
    """Inside of the consumer: streams are left by it, the consumer is left in order."""
    LOOP = "loop"
    """Inside of the stream: a loop is left by it, the stream is left in order."""


@dataclass
class Trial:
    """One run of a scenario.

    Attributes:
        broker: A new one.
        journal: What was processed.
        place: Where the scope lies.
        cancelling: What cancels it.
    """

    broker: MemoryBroker
    journal: Journal
    place: Place
    cancelling: CancelAtStep

    def at(self, place: Place) -> AbstractContextManager[object]:
        """Around what lies at a place: cancelled, if it is the place, once."""
        if place is not self.place or self.cancelling.fired:
            return nullcontext()
        return self._cancelled()

    @property
    def loop(self) -> AbstractContextManager[object]:
        """Around a loop inside of a stream; to be entered as often as need be."""
        return self.at(Place.LOOP)

    @contextmanager
    def _cancelled(self) -> Generator[None, None, None]:
        with trio.CancelScope() as scope:
            self.cancelling.scope = scope
            try:
                yield
            finally:
                self.cancelling.scope = None


Body = Callable[[Consumer, Trial], Awaitable[None]]


@dataclass(frozen=True)
class Scenario:
    """A small program to cancel.

    Attributes:
        body: The program.
        streams: How many streams have to process each message.
        options: Arguments for its consumer, given the trial.
        monotonic: Whether commits may not fall, because it does not seek back.
    """

    body: Body
    streams: int = 1
    options: Callable[[Trial], dict[str, Any]] = lambda trial: {}
    monotonic: bool = True

    @property
    def name(self) -> str:
        """What it is called in a test's name."""
        return self.body.__name__


SCENARIOS: list[Scenario] = []

points_tried = 0
"""Cancellations in this run, for the summary."""


def scenario(**given: Any) -> Callable[[Body], Body]:
    """Add a scenario."""

    def add(body: Body) -> Body:
        SCENARIOS.append(Scenario(body, **given))
        return body

    return add


async def process(
    stream: Stream, journal: Journal, count: int, *, wait: float = 1, number: int = 0
) -> None:
    """Process so many messages, unless none comes for a while."""
    with trio.move_on_after(wait):
        async for message in stream:
            journal.add(message, number)
            message.ack()
            count -= 1
            if not count:
                break


def trial(chosen: Scenario, place: Place, step: int, latency: float) -> bool:
    """Run a scenario, cancel it at a step, and check; False if it was over before."""
    global points_tried
    it = broker(5, 2, latency=latency)
    # A stream that is left in order leaves the decision on the rest to the others.
    needed = chosen.streams if place is not Place.LOOP else 1
    journal = Journal(it, {"t": needed})
    cancelling = CancelAtStep(step)
    this = Trial(it, journal, place, cancelling)

    async def main() -> None:
        before = tasks_living()
        with this.at(Place.PROGRAM):
            options = {"client_options": {"max_poll_records": 3}, **chosen.options(this)}
            async with consuming(it, **options) as consumer:
                with this.at(Place.BODY):
                    await chosen.body(consumer, this)
        assert tasks_living() == before
        assert it.members(GROUP) == {}
        journal.check_commits(monotonic=chosen.monotonic)
        async with (
            consuming(it) as consumer,
            AsyncExitStack() as stack,
            trio.open_nursery() as nursery,
        ):
            for number in range(chosen.streams):
                stream = await stack.enter_async_context(consumer.stream("t"))
                nursery.start_soon(partial(process, stream, journal, 1000, wait=60, number=number))
        assert tasks_living() == before
        journal.check_commits(monotonic=chosen.monotonic)
        journal.check_complete()

    try:
        run(main, seed=step, instruments=(cancelling,))
    except BaseException:
        print(f"{chosen.name}, scope around the {place.value}, cancelled at step {step}")
        raise
    points_tried += cancelling.fired
    return cancelling.fired
