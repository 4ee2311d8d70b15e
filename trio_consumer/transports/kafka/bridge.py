"""Rebalances, from the client's IO thread to a Trio task and back.

kafka-python calls its listener in the IO thread and awaits it there, while
heartbeats go on.  The call becomes an event for a Trio task; when the runtime
has answered it, the awaited future is resolved in the IO thread again and the
rebalance goes on.  Closing answers everything that is still open, so that a
client that is being closed never waits for a task that has ended.

What a cooperative rebalance takes away is the exception: there the call returns
at once, so that the client reads on for the partitions that stay, and the next
join is what waits for the answer.
"""

# kafka-python has no types; the stubs that pyright brings are of an older one.
# pyright: basic, reportAttributeAccessIssue=false, reportCallIssue=false

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import trio
from kafka.future import Future

from ..._types import TopicPartition
from ..base import RebalanceListener
from . import internals

if TYPE_CHECKING:
    from kafka import KafkaConsumer

    AsyncConsumerRebalanceListener = object  # the client's has no types
else:
    from kafka.consumer.subscription_state import AsyncConsumerRebalanceListener

__all__ = ["RebalanceBridge"]


class Question(NamedTuple):
    """A call of the client's listener, waiting for its answer."""

    kind: str
    tps: frozenset[TopicPartition]
    answer: Any


class ClientListener(AsyncConsumerRebalanceListener):
    """What the client calls, in its IO thread."""

    def __init__(self, ask: Callable[[str, Any], Any]) -> None:
        self._ask = ask

    async def on_partitions_revoked(self, revoked: Any) -> None:
        await self._ask("revoked", revoked)

    async def on_partitions_assigned(self, assigned: Any) -> None:
        await self._ask("assigned", assigned)

    async def on_partitions_lost(self, lost: Any) -> None:
        # The base class would report them as revoked, and a commit would follow.
        await self._ask("lost", lost)


class RebalanceBridge:
    """Carries rebalances across.

    Args:
        client: The client, to resolve futures in its IO thread.
        listener: Who answers, in the Trio thread.
        gone: Called in the Trio thread before ``revoked`` and ``lost``.
        assigned: Called in the Trio thread before ``assigned``.
        coming: Called in the IO thread before that, and before there are any positions.
    """

    def __init__(
        self,
        client: KafkaConsumer,
        listener: RebalanceListener,
        gone: Callable[[frozenset[TopicPartition]], None],
        assigned: Callable[[frozenset[TopicPartition]], None],
        coming: Callable[[], None],
    ) -> None:
        self._client = client
        self._coming = coming
        self._listener = listener
        self._gone = gone
        self._assigned = assigned
        self._token = trio.lowlevel.current_trio_token()
        self._questions: deque[Question] = deque()
        self._asked = trio.lowlevel.ParkingLot()
        self._lock = threading.Lock()
        self._open: set[Any] = set()
        self._closed = False
        self.client_listener: ClientListener = ClientListener(self._ask)

    # -- in the client's IO thread -------------------------------------------------

    async def _ask(self, kind: str, tps: Any) -> None:
        question = Question(kind, frozenset(TopicPartition(*tp) for tp in tps), Future())
        with self._lock:
            # An assignment without new partitions still brings a generation.
            if self._closed or not (question.tps or kind == "assigned"):
                return
            self._open.add(question.answer)
        deferred = kind == "revoked" and internals.given_up(self._client, question.tps)
        if deferred:
            internals.hold_joins(self._client, question.answer)
        if kind == "assigned":
            self._coming()
        try:
            self._token.run_sync_soon(self._receive, question)
        except trio.RunFinishedError:
            self._resolve(question.answer)
            return
        if deferred:
            return
        await question.answer
        if kind == "revoked":
            internals.forget_positions(self._client, question.tps)

    # -- in the Trio thread --------------------------------------------------------

    def _receive(self, question: Question) -> None:
        # At once, not when the task gets to it: from here on no record of a
        # partition that goes may reach the runtime.
        if question.kind != "assigned":
            self._gone(question.tps)
        self._questions.append(question)
        self._asked.unpark_all()

    async def run(self) -> None:
        """Answer one question after another.

        One that fails, or is cancelled, stays open until :meth:`close`: the client
        would go on as if the listener had done its part.
        """
        while True:
            while not self._questions:
                await self._asked.park()
            kind, tps, answer = self._questions.popleft()
            if kind == "revoked":
                await self._listener.revoked(tps)
            elif kind == "lost":
                await self._listener.lost(tps)
            else:
                self._assigned(tps)
                await self._listener.assigned(tps, self._client.group_metadata().generation_id)
            self._resolve(answer)

    def _resolve(self, answer: Any) -> None:
        with self._lock:
            if answer not in self._open:
                return
            self._open.discard(answer)
        with suppress(RuntimeError):  # the client is closed: nobody waits
            internals.call_in_io_thread(self._client, lambda: answer.success(None))

    def close(self) -> None:
        """Answer what is open and ask nothing any more."""
        with self._lock:
            self._closed = True
            unanswered = list(self._open)
        for answer in unanswered:
            self._resolve(answer)
