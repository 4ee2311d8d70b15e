"""Rebalances, from the thread of the client to a Trio task and back.

The poll loop asks and goes on polling; when the runtime has answered, the loop
completes the rebalance.  Before the runtime is told of an assignment, it is found
out where each partition starts, so that this is known although nothing was read.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Collection

import trio

from ..._errors import OffsetOutOfRangeError, TransportError
from ..._types import OffsetAndMetadata, TopicPartition
from ..base import RebalanceListener
from .poll_loop import PollLoop, Rebalance

__all__ = ["RebalanceTask", "StartFinder"]

logger: logging.Logger = logging.getLogger("trio_consumer.transport")

RETRY = 0.2
"""Seconds between two attempts to learn where to start; arbitrary."""

Query = Callable[[Collection[TopicPartition]], Awaitable[dict[TopicPartition, int]]]


class StartFinder:
    """Finds out where the reading of a partition starts.

    Args:
        committed: Asks what the group has committed.
        fallback: Asks where to start without; None if that is an error.
    """

    def __init__(
        self,
        committed: Callable[
            [Collection[TopicPartition]],
            Awaitable[dict[TopicPartition, OffsetAndMetadata | None]],
        ],
        fallback: Query | None,
    ) -> None:
        self._committed = committed
        self._fallback = fallback

    async def find(self, tps: frozenset[TopicPartition]) -> dict[TopicPartition, int]:
        """Committed offsets, or what the reset policy says; asks until it is answered.

        Raises:
            OffsetOutOfRangeError: Nothing is committed and there is no policy.
            TransportError: The broker refused to say.
        """
        warned = False
        while True:
            try:
                return await self._ask(tps)
            except TransportError as exc:
                if not exc.retriable:
                    raise
                if not warned:
                    warned = True
                    logger.warning("cannot tell where to start yet, trying on: %s", exc)
            await trio.sleep(RETRY)

    async def _ask(self, tps: frozenset[TopicPartition]) -> dict[TopicPartition, int]:
        stored = await self._committed(tps)
        starts = {tp: found.offset for tp, found in stored.items() if found is not None}
        missing = sorted(tps - starts.keys())
        if missing and self._fallback is None:
            tp = missing[0]
            raise OffsetOutOfRangeError(
                tp,
                None,
                f"{tp}: the group has no committed offset and auto_offset_reset is 'none';"
                " commit one, or choose 'earliest' or 'latest'",
            )
        if missing and self._fallback is not None:
            starts.update(await self._fallback(missing))
        return starts


class RebalanceTask:
    """Answers the group, one question after another.

    Args:
        loop: Who asks, and completes.
        listener: Who answers.
        starts: Where to start.
        gone: Called before ``revoked`` and ``lost``.
    """

    def __init__(
        self,
        loop: PollLoop,
        listener: RebalanceListener,
        starts: StartFinder,
        gone: Callable[[frozenset[TopicPartition]], None],
    ) -> None:
        self._loop = loop
        self._listener = listener
        self._starts = starts
        self._gone = gone
        self._questions: deque[Rebalance] = deque()
        self._asked = trio.lowlevel.ParkingLot()

    def receive(self, question: Rebalance) -> None:
        """Take a question in; in the Trio thread."""
        # At once, not when the task gets to it: from here on no record of a
        # partition that goes may reach the runtime.
        if question.kind != "assigned":
            self._gone(question.tps)
        self._questions.append(question)
        self._asked.unpark_all()

    async def run(self) -> None:
        """Answer for ever.

        A question that fails, or is cancelled, is never answered: the client would
        go on as if the listener had done its part.
        """
        while True:
            while not self._questions:
                await self._asked.park()
            question = self._questions.popleft()
            starts: dict[TopicPartition, int] = {}
            if question.kind == "assigned":
                try:
                    starts = await self._starts.find(question.tps) if question.tps else {}
                except TransportError as exc:
                    # As if reading had found it out: whoever polls gets it.
                    self._loop.fail(exc)
                    await trio.sleep_forever()
                await self._listener.assigned(question.tps, question.generation)
            elif question.tps and question.kind == "revoked":
                await self._listener.revoked(question.tps)
            elif question.tps:
                await self._listener.lost(question.tps)
            self._loop.answer(question, starts)
