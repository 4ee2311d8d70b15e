"""The line between one session and the broker.

Every request of a session goes through its :class:`Link`, which decides when it
arrives and when its answer is back: half of the latency each way, and waiting
while the broker is down, the process is frozen, or answers are held.  Requests
wait rather than fail; who has a time limit puts it around.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TypeVar

import trio

from .cluster import Cluster

__all__ = ["Link"]

T = TypeVar("T")


class Link:
    """One session's requests.

    Args:
        cluster: The broker.
        random: Where latencies and faults are drawn from.
    """

    def __init__(self, cluster: Cluster, random: Random) -> None:
        self.random = random
        self._cluster = cluster
        self._frozen = False
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closed

    @property
    def frozen(self) -> bool:
        """Whether :meth:`freeze` was called and :meth:`thaw` was not."""
        return self._frozen

    def close(self) -> None:
        """Let whoever waits for a request here wake up and fail."""
        self._closed = True
        self._cluster.gate.notify()

    def freeze(self) -> None:
        """Nothing of this session reaches the broker until :meth:`thaw`."""
        self._frozen = True

    def thaw(self) -> None:
        """Undo :meth:`freeze`; what was waiting is sent now."""
        self._frozen = False
        self._cluster.gate.notify()

    def check_open(self) -> None:
        """Refuse to work after the end of the session.

        Raises:
            trio.ClosedResourceError: The session has ended.
        """
        if self._closed:
            raise trio.ClosedResourceError(
                "this session of the memory transport is closed; open a new one with connect()"
            )

    async def exchange(self, action: Callable[[], T]) -> T:
        """Send a request, let ``action`` be done on the broker, bring back its result.

        Cancelling it before the request arrives prevents the action, cancelling
        it later loses only the answer.

        Raises:
            trio.ClosedResourceError: The session has ended.
        """
        travel = await self.arrive()
        result = action()
        await self.answer(travel)
        return result

    async def arrive(self, delay: float = 0.0) -> float:
        """Wait until a request has reached the broker.

        Args:
            delay: Seconds that it takes longer than others.

        Returns:
            Seconds that the answer will take; pass it to :meth:`answer`.
        """
        await trio.lowlevel.checkpoint()
        travel = self._cluster.injector.latency(self.random) / 2
        await self._passable(arriving=True)
        way = travel + delay
        while way > 0:
            await trio.sleep(way)
            if self._cluster.reachable and not self._frozen:
                break
            # Lost on the way: sent again when somebody answers.
            await self._passable(arriving=True)
        self.check_open()
        return travel

    async def answer(self, travel: float) -> None:
        """Wait until the answer is back."""
        if travel > 0:
            await trio.sleep(travel)
        await self._passable(arriving=False)

    async def _passable(self, *, arriving: bool) -> None:
        cluster = self._cluster
        while not self._closed and (
            not cluster.reachable or self._frozen or (not arriving and not cluster.answering)
        ):
            await cluster.gate.wait()
        self.check_open()
