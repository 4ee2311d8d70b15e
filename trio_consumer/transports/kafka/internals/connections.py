"""Connections: how they begin, what they say last, and that they are closed."""

# kafka-python has no types; the stubs that pyright brings are of an older one.
# pyright: basic, reportAttributeAccessIssue=false, reportCallIssue=false

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from functools import wraps
from typing import Any

from kafka import KafkaConsumer, errors
from kafka.net.inet import KafkaNetSocket
from kafka.net.transport import KafkaSSLTransport, KafkaTCPTransport

__all__ = [
    "bootstrap",
    "close_all",
    "close_failed_sockets",
    "close_left_sockets",
    "hear_last_words",
    "mend_connections",
    "read_large_pieces",
    "unwatch_connections",
    "watch_connections",
]


def bootstrap(consumer: KafkaConsumer, timeout_ms: int) -> None:
    """Wait until some broker has answered.

    ``KafkaConsumer.bootstrap`` takes a time limit, but waits for an attempt that is
    under way as long as that lasts, and the client has begun one without a limit by
    then (3.0.12).

    Raises:
        kafka.errors.KafkaTimeoutError: None has.
    """
    manager = consumer._manager

    async def attempt() -> None:
        await manager.wait_for(manager.bootstrap_async(timeout_ms, refresh=False), timeout_ms)

    consumer._net.run(attempt)


def watch_connections(client: Any, failures: list[BaseException]) -> None:
    """Note why each connection attempt failed.

    While it bootstraps, the client logs the reasons, goes on trying and reports
    a time-out in the end, also when the broker refuses the password.
    """
    manager = client._manager
    connect = manager.get_connection

    def watched(*args: Any, **kwargs: Any) -> Any:
        connection = connect(*args, **kwargs)
        connection.init_future.add_errback(failures.append)
        return connection

    manager.get_connection = watched


def unwatch_connections(client: Any) -> None:
    """End :func:`watch_connections`.

    A failure holds all that its traceback does: in a long outage a list of them
    would grow without end.
    """
    client._manager.__dict__.pop("get_connection", None)


def close_failed_sockets() -> None:
    """Close the socket of a connection attempt that failed, at once.

    The client leaves it to the garbage collector, which comes by when it likes:
    an outage uses up file descriptors, one an attempt (3.0.12).  It makes the
    objects that own the socket by itself, so their classes are changed, for all
    clients of the process; what they close has no other user.
    """
    connect, handshake = KafkaNetSocket.sock_connect, KafkaSSLTransport.handshake
    if hasattr(connect, "__wrapped__"):
        return

    @wraps(connect)
    async def connect_or_close(self: Any, net: Any, sock: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return await connect(self, net, sock, *args, **kwargs)
        except BaseException:
            sock.close()
            raise

    @wraps(handshake)
    async def handshake_or_close(self: Any) -> None:
        try:
            await handshake(self)
        except BaseException:
            self._sock.close()
            raise

    KafkaNetSocket.sock_connect = connect_or_close
    KafkaSSLTransport.handshake = handshake_or_close


def close_left_sockets(client: Any) -> None:
    """Let a client's ``close`` close each socket that it made.

    It leaves those with unsent bytes to its IO thread, which it ends before that
    has sent them (3.0.12): a consumer that is cancelled in a request keeps its
    connection, until the garbage collector comes by.
    """
    manager, close = client._manager, client.close
    build = manager._build_transport
    sockets: list[Any] = []

    async def built(*args: Any, **kwargs: Any) -> Any:
        transport = await build(*args, **kwargs)
        sockets[:] = [sock for sock in sockets if sock.fileno() >= 0]
        sockets.append(transport._sock)
        return transport

    def close_all(node_id: Any = None) -> None:
        try:
            close(node_id)
        finally:
            if node_id is None:
                for sock in sockets:
                    sock.close()

    manager._build_transport = built
    client.close = close_all


def hear_last_words(client: Any) -> None:
    """Let a client have what a broker sent right before it hung up.

    It receives until there is no more; if that is the end of the connection, it throws
    away what came before (3.0.12).  A broker that refuses a password answers and hangs
    up: where both are there at once, all that was left was a closed connection, and the
    error in the end that no broker had answered.
    """
    manager = client._manager
    build = manager._build_transport

    async def built(*args: Any, **kwargs: Any) -> Any:
        transport = await build(*args, **kwargs)
        receive = transport._sock_recv

        def receive_first() -> tuple[bytes, Exception | None]:
            data, error = receive()
            # The end of a connection does not go away: the next turn meets it again.
            return (data, None) if data else (data, error)

        transport._sock_recv = receive_first
        return transport

    manager._build_transport = built


def mend_connections(client: Any) -> None:
    """What every client needs, before it connects for the first time.

    These are :func:`close_failed_sockets`, :func:`close_left_sockets` and
    :func:`hear_last_words`.
    """
    close_failed_sockets()
    close_left_sockets(client)
    hear_last_words(client)


def close_all(clients: Iterable[Any]) -> None:
    """Close the network clients of a constructor that was given up, or has failed."""
    for client in clients:
        # The constructor may be closing it at this moment.
        with suppress(RuntimeError):
            client.close()


PIECE = 1024 * 1024
"""Bytes to receive at once: of the order of one partition's part of a fetch."""


def read_large_pieces(client: Any) -> None:
    """Receive what has arrived in one call, instead of 4096 bytes a call.

    Each call gives up the interpreter lock, and while another thread computes it
    takes up to 5 ms to get it back; a fetch of 4 MB took a thousand of them, so
    that receiving and parsing never overlapped (3.0.12).  TLS goes on as it was:
    its records are small.
    """
    manager = client._manager
    build = manager._build_transport

    async def built(*args: Any, **kwargs: Any) -> Any:
        transport = await build(*args, **kwargs)
        if type(transport) is KafkaTCPTransport:
            sock: Any = transport._sock

            def receive() -> tuple[bytes, Exception | None]:
                try:
                    data = sock.recv(PIECE)
                except (BlockingIOError, InterruptedError):
                    return b"", None
                except OSError as exc:
                    return b"", errors.KafkaConnectionError(exc)
                if not data:
                    return b"", errors.KafkaConnectionError("socket disconnected")
                return data, None

            transport._sock_recv = receive
        return transport

    manager._build_transport = built
