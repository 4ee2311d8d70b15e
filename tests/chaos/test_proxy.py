"""The network does what it is told, and never loses a byte out of the middle."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
import trio

from chaos.proxy import Fault, Proxy, Trouble


async def echo(stream: trio.SocketStream) -> None:
    async for data in stream:
        await stream.send_all(data)


@asynccontextmanager
async def network() -> AsyncGenerator[tuple[Proxy, trio.SocketStream], None]:
    """A proxy before an echo server, and a connection through it."""
    proxy = Proxy()
    try:
        async with trio.open_nursery() as nursery:
            (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(trio.serve_listeners, echo, [listener])
            proxy.target = listener.socket.getsockname()[1]
            nursery.start_soon(proxy.run)
            async with await trio.open_tcp_stream("127.0.0.1", proxy.port) as stream:
                await say(stream, b"hello")
                yield proxy, stream
            nursery.cancel_scope.cancel()
    finally:
        proxy.close()


async def receive(stream: trio.SocketStream, size: int) -> bytes:
    data = b""
    while len(data) < size and (more := await stream.receive_some()):
        data += more
    return data


async def say(stream: trio.SocketStream, data: bytes) -> None:
    """Send something and get it back."""
    with trio.fail_after(20):
        await stream.send_all(data)
        assert await receive(stream, len(data)) == data


async def is_cut(stream: trio.SocketStream) -> bool:
    with trio.fail_after(20):
        try:
            return not await stream.receive_some()
        except trio.BrokenResourceError:
            return True


@pytest.mark.parametrize("trouble", [Trouble.HOLE, Trouble.DEAF])
@pytest.mark.parametrize("late", [False, True])
def test_black_hole_ends_with_a_late_arrival_or_a_cut(trouble: Trouble, late: bool) -> None:
    """Nothing comes while it lasts; what was held comes whole, or the connection ends."""

    async def main() -> None:
        async with network() as (proxy, stream):
            proxy.begin(Fault(trouble, 1.0, late=late))
            await stream.send_all(b"are you there")
            with trio.move_on_after(0.3) as scope:
                await stream.receive_some()
            assert scope.cancelled_caught
            proxy.end()
            if late:
                with trio.fail_after(20):
                    assert await receive(stream, 13) == b"are you there"
                await say(stream, b"good")
            else:
                assert await is_cut(stream)

    trio.run(main)


def test_cut_ends_connections_and_takes_new_ones() -> None:
    """Only those that are there."""

    async def main() -> None:
        async with network() as (proxy, stream):
            proxy.begin(Fault(Trouble.CUT, 1.0))
            assert await is_cut(stream)
            async with await trio.open_tcp_stream("127.0.0.1", proxy.port) as another:
                await say(another, b"again")
            assert proxy.counted["cut"] == 1

    trio.run(main)


def test_refusal_lasts() -> None:
    """Until it is over."""

    async def main() -> None:
        async with network() as (proxy, stream):
            proxy.begin(Fault(Trouble.REFUSE, 1.0))
            assert await is_cut(stream)
            async with await trio.open_tcp_stream("127.0.0.1", proxy.port) as another:
                assert await is_cut(another)
            proxy.end()
            async with await trio.open_tcp_stream("127.0.0.1", proxy.port) as another:
                await say(another, b"again")
            assert proxy.counted["refused"] == 1

    trio.run(main)


@pytest.mark.parametrize(
    "fault", [Fault(Trouble.DELAY, 1.0, 0.2), Fault(Trouble.THROTTLE, 1.0, 1000.0)]
)
def test_slow_network_is_slow_and_whole(fault: Fault) -> None:
    """200 bytes with 1000 in a second, twice; or twice 0.2 s."""

    async def main() -> None:
        async with network() as (proxy, stream):
            proxy.begin(fault)
            began = trio.current_time()
            await say(stream, bytes(range(200)))
            assert trio.current_time() - began > 0.35
            proxy.end()
            await say(stream, b"fast")

    trio.run(main)


def test_share_of_nobody_hits_nobody() -> None:
    """The draw of a connection decides."""

    async def main() -> None:
        async with network() as (proxy, stream):
            for trouble in Trouble:
                proxy.begin(Fault(trouble, 0.0, 0.01))
                await say(stream, b"untouched")
            proxy.end()
            await say(stream, b"well")

    trio.run(main)
