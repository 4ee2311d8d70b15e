"""A bad network: a TCP proxy on loopback that delays, throttles, holds, cuts and refuses.

One proxy stands before each node; its port is the one that the node advertises to
members, so all that a member says to the group passes here.  Bytes are never lost from
the middle of a connection, as TCP would not either: a connection in a black hole either
ends, or what it holds arrives late, which is the worse of the two.
"""

from __future__ import annotations

import enum
import random
import socket
import struct
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass

import trio

__all__ = ["Fault", "Proxy", "Trouble"]

CHUNK = 65536


class Trouble(enum.Enum):
    """What a network does."""

    DELAY = "delay"
    THROTTLE = "throttle"
    CUT = "cut"
    REFUSE = "refuse"
    HOLE = "black hole"
    DEAF = "black hole of answers"


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong, for some of the connections.

    Attributes:
        trouble: What.
        share: Which part of the connections it hits; drawn for each.
        amount: Seconds for each piece (delay), bytes a second (throttle).
        late: What was held arrives at the end; else those connections end.
    """

    trouble: Trouble
    share: float
    amount: float = 0.0
    late: bool = False


class _Connection:
    def __init__(self, chance: random.Random) -> None:
        self.scope = trio.CancelScope()
        self.draw = chance.random()
        self.held = False  # bytes of it waited in a black hole
        self.reset = False


class Proxy:
    """Passes TCP connections on to one port of loopback.

    Args:
        seed: Draws which connections a fault hits.

    Attributes:
        port: Where it listens, known from the beginning.
        target: Where it passes to; set before the first connection.
        counted: Connections accepted, cut and refused, bytes, so far.
    """

    def __init__(self, seed: int | str = 0) -> None:
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.target = 0
        self.counted: Counter[str] = Counter()
        self._chance = random.Random(seed)
        self._fault: Fault | None = None
        self._changed = trio.Event()
        self._connections: set[_Connection] = set()

    async def run(self) -> None:
        """Serve until cancelled."""
        self._listener.listen(128)
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(self._listener))
        await trio.serve_listeners(self._serve, [listener])

    def close(self) -> None:
        """Free the port, also if it never ran."""
        self._listener.close()

    def begin(self, fault: Fault) -> None:
        """Let a fault act from now on, in the place of any other."""
        self.end()
        for connection in self._connections:
            # Drawn anew for each fault, or some members would never be hit.
            connection.draw = self._chance.random()
        self._fault = fault
        if fault.trouble in (Trouble.CUT, Trouble.REFUSE):
            self._cut([c for c in self._connections if c.draw < fault.share])

    def end(self) -> None:
        """Be a good network again."""
        fault, self._fault = self._fault, None
        if fault is not None and not fault.late:
            self._cut([c for c in self._connections if c.held])
        for connection in self._connections:
            connection.held = False
        self._changed.set()
        self._changed = trio.Event()

    def _cut(self, connections: list[_Connection]) -> None:
        for connection in connections:
            # Half of them as a crash would end them, half in order.
            connection.reset = self._chance.random() < 0.5
            connection.scope.cancel()
        self.counted["cut"] += len(connections)

    def _hits(self, connection: _Connection, *troubles: Trouble) -> Fault | None:
        fault = self._fault
        if fault is not None and fault.trouble in troubles and connection.draw < fault.share:
            return fault
        return None

    async def _serve(self, client: trio.SocketStream) -> None:
        connection = _Connection(self._chance)
        self.counted["accepted"] += 1
        if self._hits(connection, Trouble.REFUSE):
            self.counted["refused"] += 1
            _reset_on_close(client)
            return
        with connection.scope, suppress(OSError, trio.BrokenResourceError):
            self._connections.add(connection)
            try:
                async with (
                    await trio.open_tcp_stream("127.0.0.1", self.target) as server,
                    trio.open_nursery() as nursery,
                ):
                    nursery.start_soon(self._copy, client, server, connection, True)
                    nursery.start_soon(self._copy, server, client, connection, False)
            finally:
                self._connections.discard(connection)
                if connection.reset:
                    _reset_on_close(client)

    async def _copy(
        self,
        source: trio.SocketStream,
        sink: trio.SocketStream,
        connection: _Connection,
        asking: bool,
    ) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while data := await source.receive_some(CHUNK):
                await self._pass_faults(connection, len(data), asking)
                await sink.send_all(data)
                self.counted["bytes"] += len(data)
        connection.scope.cancel()

    async def _pass_faults(self, connection: _Connection, size: int, asking: bool) -> None:
        holes = (Trouble.HOLE,) if asking else (Trouble.HOLE, Trouble.DEAF)
        while self._hits(connection, *holes):
            connection.held = True
            await self._changed.wait()
        if fault := self._hits(connection, Trouble.DELAY):
            await trio.sleep(fault.amount)
        elif fault := self._hits(connection, Trouble.THROTTLE):
            with trio.move_on_after(size / fault.amount):
                await self._changed.wait()


def _reset_on_close(stream: trio.SocketStream) -> None:
    with suppress(OSError):
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
