"""Whether messages are handed out at all: ``stop_flow`` and ``resume_flow``.

Stopping takes effect in the step that asks for it: no stream hands out another
message.  What was polled by then, or is being polled, arrives a moment later
and is put aside.  :meth:`FlowGate.run` finds out when that is over, so that
waiting for it is truly waiting.
"""

from __future__ import annotations

import trio

from ..transports.base import Session
from .conductor import Transit
from .diagnostics import Activity, Diagnostics
from .partitions import Partitions

__all__ = ["FlowEvent", "FlowGate"]


class FlowEvent:
    """Something that is so or not, and may change again; read-only outside.

    Unlike a :class:`trio.Event` it falls back when it is no longer so.
    """

    def __init__(self, name: str, value: bool) -> None:
        self._name = name
        self._value = value
        self._changed = trio.lowlevel.ParkingLot()

    def __repr__(self) -> str:
        return f"<FlowEvent {self._name} {'set' if self._value else 'not set'}>"

    def is_set(self) -> bool:
        """Whether it is so now."""
        return self._value

    async def wait(self) -> None:
        """Wait until it is so.

        It may have changed again before the caller runs.  Cancelling changes nothing.
        """
        await trio.lowlevel.checkpoint()
        if not self._value:
            await self._changed.park()

    def _become(self, value: bool) -> None:
        self._value = value
        if value:
            self._changed.unpark_all()


class FlowGate:
    """Holds and releases delivery as a whole.

    Attributes:
        active: Whether messages are handed out.
        flowing: Set while they are.
        suspended: Set while they are not.
        not_fetching: Set while they are not, and nothing is on its way.
    """

    def __init__(
        self,
        session: Session,
        partitions: Partitions,
        transit: Transit,
        diagnostics: Diagnostics,
    ) -> None:
        self._session = session
        self._partitions = partitions
        self._transit = transit
        self._diagnostics = diagnostics
        self._stops = 0
        self._stopped = trio.lowlevel.ParkingLot()
        self.active: bool = True
        self.flowing: FlowEvent = FlowEvent("can_resume_flow", True)
        self.suspended: FlowEvent = FlowEvent("suspend_flow", False)
        self.not_fetching: FlowEvent = FlowEvent("not_waiting_next_records", False)
        diagnostics._begin(Activity.FETCHING)

    def stop(self) -> None:
        """Hand out nothing more, and fetch nothing more."""
        if not self.active:
            return
        self.active = False
        self._stops += 1
        self._partitions.stop_flow()
        for stream in self._partitions.streams:
            stream._interrupt()
        self.flowing._become(False)
        self.suspended._become(True)
        self._stopped.unpark_all()

    def resume(self) -> None:
        """Hand out and fetch again."""
        if self.active:
            return
        self.active = True
        self.suspended._become(False)
        if self.not_fetching.is_set():
            self.not_fetching._become(False)
            self._diagnostics._begin(Activity.FETCHING)
        self.flowing._become(True)
        self._partitions.resume_flow()
        for stream in self._partitions.streams:
            stream._arrived.unpark_all()

    async def run(self) -> None:
        """After each stop, wait until nothing is on its way any more."""
        while True:
            while self.active or self.not_fetching.is_set():
                await self._stopped.park()
            stops = self._stops
            await self._session.quiesce()
            await self._transit.wait_empty()
            if not self.active and self._stops == stops:
                self.not_fetching._become(True)
                self._diagnostics._end(Activity.FETCHING)
