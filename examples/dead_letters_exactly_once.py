"""Invoices of orders, and dead letters of those that have none, each exactly once.

    python -m examples.dead_letters_exactly_once kafka://localhost:9092 billing-0

The second argument is the transactional id: one of its own for each process.
See docs/dead-letters.md.
"""

from __future__ import annotations

import json
import sys

import trio

from trio_consumer import Message, TransactionAbortedError, open_consumer

from .dead_letters import DEAD, dead_headers


def invoice(message: Message) -> bytes:
    """Make an invoice of an order; raises for what is no order."""
    order = json.loads(message.value)
    return json.dumps({"order": order["id"], "total": order["amount"]}).encode()


async def main(url: str, transactional_id: str) -> None:
    """One transaction for each batch: invoices, dead letters and offsets count together."""
    async with (
        open_consumer(url, group="billing", transactional_id=transactional_id) as consumer,
        consumer.stream("orders", ack="manual") as orders,
    ):
        async for batch in orders.batches(500):
            try:
                async with consumer.transaction() as transaction:
                    for message in batch:
                        try:
                            topic, value = "invoices", invoice(message)
                            headers: list[tuple[str, bytes]] = []
                        except Exception as exc:
                            topic, value = DEAD, message.value
                            headers = dead_headers(message, exc)
                        await transaction.send(topic, value, key=message.key, headers=headers)
                    batch.ack()
            except TransactionAbortedError:
                pass  # nothing of it counts, and its messages come again


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2])
