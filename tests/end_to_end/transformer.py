"""A process that consumes, transforms and produces, for tests that kill it.

Usage: python transformer.py BOOTSTRAP GROUP SOURCE TARGET NAME READY

It sends each value on, in transactions of 100 messages at most, as the
transactional id NAME.  Ends in order on SIGTERM, from the moment that the file
READY is there.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import AsyncIterator

import trio

from trio_consumer import Consumer, TransactionAbortedError, open_consumer


async def close_on_signal(signals: AsyncIterator[int], consumer: Consumer) -> None:
    async for _ in signals:
        consumer.close()
        return


async def main(bootstrap: str, group: str, source: str, target: str, name: str, ready: str) -> None:
    options = {"session_timeout_ms": 3000, "heartbeat_interval_ms": 300}
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        await trio.Path(ready).touch()
        async with (
            open_consumer(
                f"kafka://{bootstrap}",
                group=group,
                transactional_id=name,
                transaction_timeout=5.0,
                client_options=options,
            ) as consumer,
            consumer.stream(source, ack="manual") as stream,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(close_on_signal, signals, consumer)
            async for batch in stream.batches(100):
                try:
                    async with consumer.transaction() as transaction:
                        for message in batch:
                            await transaction.send(
                                target, message.value, partition=message.partition
                            )
                        batch.ack()
                except TransactionAbortedError as exc:
                    print(f"{name}: {exc}", file=sys.stderr)
            nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
