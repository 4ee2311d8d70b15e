"""What a client raises once it is closed: a normal end of a consumer that stops, and no other."""

from __future__ import annotations

import pytest
import trio

from trio_consumer import open_consumer
from trio_consumer.testing import MemoryBroker
from trio_consumer.transports import PolledBatch

from .support import GROUP, Poll, PollingOtherwise, broker, committed, run, take


class ClosingTransport(PollingOtherwise):
    """A memory broker whose client closes by itself when it is told to."""

    closed_errors = (ConnectionAbortedError,)

    def __init__(self, it: MemoryBroker) -> None:
        super().__init__(it)
        self.closed = trio.Event()
        self.raised = trio.Event()

    def polling(self, poll: Poll) -> Poll:
        async def poll_until_closed() -> list[PolledBatch]:
            with trio.move_on_after(0.1):
                return list(await poll())
            if self.closed.is_set():
                self.raised.set()
                raise ConnectionAbortedError("the client is closed")
            return []

        return poll_until_closed


def test_closed_client_is_a_normal_end_while_the_consumer_stops() -> None:
    """The message in hand is waited for, finished and committed all the same."""

    async def main() -> None:
        it = broker(3)
        transport = ClosingTransport(it)
        async with (
            open_consumer(transport, group=GROUP, drain_timeout=20) as consumer,
            consumer.stream("t") as stream,
        ):
            async for message in stream:
                if message.offset == 2:
                    consumer.close()
                    transport.closed.set()
                    await transport.raised.wait()
                    await trio.sleep(1)
        assert committed(it) == 3

    run(main)


def test_closed_client_is_a_failure_of_a_consumer_that_runs() -> None:
    """It leaves the block as itself, and what was finished is committed."""

    async def main() -> None:
        it = broker(3)
        transport = ClosingTransport(it)
        with pytest.raises(ConnectionAbortedError, match=r"^the client is closed$"):
            async with (
                open_consumer(transport, group=GROUP) as consumer,
                consumer.stream("t") as stream,
            ):
                await take(stream, 2)
                transport.closed.set()
                await trio.sleep(1000)
        assert committed(it) == 2

    run(main)
