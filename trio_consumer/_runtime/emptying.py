"""Waiting until what was delivered is finished, and saying what is not."""

from __future__ import annotations

import logging
import math

import trio

from .._core.ledger import Ledger
from .holding import held_messages
from .logs import about
from .partitions import Assignment, Partitions

__all__ = ["wait_finished"]

logger = logging.getLogger("trio_consumer.consumer")

Due = tuple[Assignment, Ledger, "int | None"]

LOG_EVERY = 5.0
"""Seconds between two lines about what is waited for; arbitrary."""


async def wait_finished(partitions: Partitions, timeout: float | None) -> bool:
    """Wait until nobody has a message to finish that is delivered now.

    What is delivered meanwhile is not waited for, or it would never end while
    messages come in.  A partition that is sought or goes away has nothing to
    wait for any more, nor has a message that was left by whoever had it.

    Returns:
        False if the time was over first.
    """
    due = [(a, a.ledger, a.ledger.position) for a in partitions]
    started = trio.current_time()
    deadline = math.inf if timeout is None else started + timeout
    while True:
        with trio.move_on_at(min(deadline, trio.current_time() + LOG_EVERY)):
            for assignment, ledger, position in due:
                if position is not None:
                    await _wait_below(assignment, ledger, position)
            return True
        over = trio.current_time() >= deadline
        level = logging.WARNING if over else logging.INFO
        if logger.isEnabledFor(level):
            _tell(level, over, trio.current_time() - started, partitions, due)
        if over:
            return False


def _tell(level: int, over: bool, seconds: float, partitions: Partitions, due: list[Due]) -> None:
    waiting = [assignment for assignment, ledger, _ in due if assignment.ledger is ledger]
    held = held_messages(waiting)
    logger.log(
        level,
        "%s %.1f s for messages to be finished: %s",
        "gave up after" if over else "waiting since",
        seconds,
        "; ".join(map(str, held)),
        extra=about(
            partitions._session,
            {each.tp for each in held},
            seconds=seconds,
            count=sum(each.count for each in held),
            tasks=sorted({task for each in held for task in each.tasks}),
        ),
    )


async def _wait_below(assignment: Assignment, ledger: Ledger, position: int) -> None:
    while assignment.ledger is ledger and ledger.in_hand_below(position):
        await assignment.wait_progress()
