"""A consuming process for tests that kill it.

Usage: python member.py BOOTSTRAP GROUP TOPIC JOURNAL STRATEGY PAUSE [JOURNAL]

It works in batches of 50 at most, with a pause of so many seconds after each.
A second journal is that of a second stream, which reads the same.
Each message is written to the journal, and the line has left the process,
before the loop comes back and finishes it.  So whatever the library commits was
journaled, unless it broke its promise.  Ends in order on SIGTERM, from the moment
that the journals are there.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import trio

from trio_consumer import Consumer, Stream, open_consumer


async def close_on_signal(signals: AsyncIterator[int], consumer: Consumer) -> None:
    async for _ in signals:
        consumer.close()
        return


async def work(stream: Stream, journal: int, pause: float) -> None:
    async for batch in stream.batches(max_size=50):
        lines = [b"%d %d\n" % (message.partition, message.offset) for message in batch]
        os.write(journal, b"".join(lines))
        await trio.sleep(pause)


async def main(
    bootstrap: str, group: str, topic: str, journal: str, strategy: str, pause: str, *more: str
) -> None:
    options = {
        "session_timeout_ms": 2000,
        "heartbeat_interval_ms": 300,
        "partition_assignment_strategy": strategy,
    }
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        outs = [os.open(each, os.O_WRONLY | os.O_CREAT | os.O_APPEND) for each in (*more, journal)]
        async with (
            open_consumer(
                f"kafka://{bootstrap}", group=group, commit_interval=0.2, client_options=options
            ) as consumer,
            AsyncExitStack() as stack,
            trio.open_nursery() as listening,
        ):
            listening.start_soon(close_on_signal, signals, consumer)
            streams = [await stack.enter_async_context(consumer.stream(topic)) for _ in outs]
            async with trio.open_nursery() as working:
                for stream, out in zip(streams, outs, strict=True):
                    working.start_soon(work, stream, out, float(pause))
            listening.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
