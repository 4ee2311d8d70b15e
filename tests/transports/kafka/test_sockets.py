"""No socket stays open until the garbage collector comes by."""

import gc
import os
import socket
import ssl
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trustme
from kafka.errors import KafkaConnectionError
from kafka.net.compat import KafkaNetClient
from kafka.net.transport import KafkaSSLTransport

from trio_consumer import (
    AuthenticationError,
    BrokerUnavailableError,
    ConsumerError,
    open_consumer,
)
from trio_consumer.transports.kafka import internals


def open_sockets() -> int:
    """Count the sockets of this process."""
    count = 0
    for fd in os.listdir("/proc/self/fd"):
        try:
            count += stat.S_ISSOCK(os.stat(int(fd)).st_mode)
        except OSError:
            continue  # The one that listed them.
    return count


@contextmanager
def no_collector() -> Iterator[None]:
    """Leave garbage where it is."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@contextmanager
def babbler() -> Iterator[str]:
    """Yield the address of a server that speaks no TLS."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(b"this is not TLS\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"127.0.0.1:{server.getsockname()[1]}"
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


@contextmanager
def nobody() -> Iterator[str]:
    """Yield an address where connections are refused."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{reserved.getsockname()[1]}"


@pytest.mark.parametrize(
    ("server", "options", "error"),
    [
        (nobody, {}, BrokerUnavailableError),
        (nobody, {"api_version": (2, 3)}, BrokerUnavailableError),
        (babbler, {"security_protocol": "SSL"}, AuthenticationError),
    ],
    ids=["refused", "refused, version known", "no handshake"],
)
def test_failed_connections_leave_no_socket(
    server: Callable[[], AbstractContextManager[str]],
    options: dict[str, Any],
    error: type[ConsumerError],
) -> None:
    """Each attempt closes its own, also while its error is still looked at."""
    with no_collector(), server() as address:

        async def main() -> None:
            with trio.fail_after(60):
                async with open_consumer(
                    f"kafka://{address}",
                    group="g",
                    connect_timeout=1.0,
                    client_options={**options, "reconnect_backoff_ms": 20},
                ):
                    raise AssertionError

        before = open_sockets()
        with pytest.raises(error) as caught:
            trio.run(main)
        assert open_sockets() == before, caught.value


def test_closed_client_closes_sockets_with_unsent_bytes() -> None:
    """What the broker is slow to take holds no connection of a closed client."""
    with no_collector(), socket.create_server(("127.0.0.1", 0)) as server:
        before = open_sockets()
        host, port = server.getsockname()
        client: Any = KafkaNetClient(bootstrap_servers=[f"{host}:{port}"])
        internals.close_left_sockets(client)
        node = client._manager.cluster.bootstrap_brokers()[0]
        transport = client._net.run(client._manager._build_transport, node)
        connection, _ = server.accept()
        with connection:
            # More than the buffers of both sockets take.
            client._net.run(transport.write, bytes(64 * 1024 * 1024))
            transport.close()
            client.close()
            assert open_sockets() == before + 1


def test_what_was_sent_before_the_end_of_a_connection_is_received() -> None:
    """Through TLS: an answer and the end that come at once are an answer, then an end."""
    authority = trustme.CA()
    outer = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(outer)
    inner = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(inner)
    here, there = socket.socketpair()

    def refuse() -> None:
        with outer.wrap_socket(there, server_side=True) as broker:
            broker.sendall(b"wrong password")

    broker = threading.Thread(target=refuse)
    broker.start()
    with inner.wrap_socket(here, server_hostname="localhost") as sock:
        broker.join()  # the answer and the end are there, and none has been received
        sock.setblocking(False)
        transport = KafkaSSLTransport.__new__(KafkaSSLTransport)
        transport._sock, transport._closed = sock, False

        async def build() -> Any:
            return transport

        manager = SimpleNamespace(_build_transport=build)
        internals.hear_last_words(SimpleNamespace(_manager=manager))
        with pytest.raises(StopIteration):
            manager._build_transport().send(None)
        assert transport._sock_recv() == (b"wrong password", None)
        data, error = transport._sock_recv()
        assert data == b""
        assert isinstance(error, KafkaConnectionError)
