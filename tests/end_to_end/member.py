"""A consuming process for tests that kill it.

Usage: python member.py BOOTSTRAP GROUP TOPIC JOURNAL STRATEGY PAUSE

It works in batches of 50 at most, with a pause of so many seconds after each.
Each message is written to the journal, and the line has left the process,
before the loop comes back and finishes it.  So whatever the library commits was
journaled, unless it broke its promise.  Ends in order on SIGTERM, from the moment
that the journal is there.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator

import trio

from trio_consumer import Consumer, open_consumer


async def close_on_signal(signals: AsyncIterator[int], consumer: Consumer) -> None:
    async for _ in signals:
        consumer.close()
        return


async def main(
    bootstrap: str, group: str, topic: str, journal: str, strategy: str, pause: str
) -> None:
    options = {
        "session_timeout_ms": 2000,
        "heartbeat_interval_ms": 300,
        "partition_assignment_strategy": strategy,
    }
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        out = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        async with (
            open_consumer(
                f"kafka://{bootstrap}", group=group, commit_interval=0.2, client_options=options
            ) as consumer,
            consumer.stream(topic) as stream,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(close_on_signal, signals, consumer)
            async for batch in stream.batches(max_size=50):
                lines = [b"%d %d\n" % (message.partition, message.offset) for message in batch]
                os.write(out, b"".join(lines))
                await trio.sleep(float(pause))
            nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
