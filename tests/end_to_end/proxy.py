"""A network between client and broker that a test can stall and cut."""

from __future__ import annotations

import socket
from contextlib import suppress

import trio


class Proxy:
    """Passes TCP connections on to one address.

    Args:
        port: Where to listen on loopback; any free port if 0.

    Attributes:
        port: Where it listens, known before it runs.
        target: Where it passes to; set before the first connection.
        connections: How many were accepted so far.
    """

    def __init__(self, port: int = 0) -> None:
        self._listener = socket.socket()
        # The port of the proxy before, whose connections may still be ending.
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", port))
        self.port: int = self._listener.getsockname()[1]
        self.target = 0
        self.connections = 0
        self._flowing = trio.Event()
        self._flowing.set()
        self._scopes: set[trio.CancelScope] = set()

    async def run(self) -> None:
        """Serve until cancelled."""
        self._listener.listen()
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(self._listener))
        await trio.serve_listeners(self._serve, [listener])

    def close(self) -> None:
        """Free the port, also if it never ran."""
        self._listener.close()

    def stall(self) -> None:
        """Connections stay and are accepted, and no byte comes through."""
        self._flowing = trio.Event()

    def flow(self) -> None:
        """End :meth:`stall`; what waited comes through."""
        self._flowing.set()

    def cut(self) -> None:
        """Close every connection."""
        for scope in self._scopes:
            scope.cancel()

    async def _serve(self, client: trio.SocketStream) -> None:
        self.connections += 1
        with trio.CancelScope() as scope, suppress(OSError, trio.BrokenResourceError):
            self._scopes.add(scope)
            try:
                async with (
                    await trio.open_tcp_stream("127.0.0.1", self.target) as server,
                    trio.open_nursery() as nursery,
                ):
                    nursery.start_soon(self._copy, client, server, scope)
                    nursery.start_soon(self._copy, server, client, scope)
            finally:
                self._scopes.discard(scope)

    async def _copy(
        self, source: trio.SocketStream, sink: trio.SocketStream, scope: trio.CancelScope
    ) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for data in source:
                await self._flowing.wait()
                await sink.send_all(data)
        scope.cancel()
