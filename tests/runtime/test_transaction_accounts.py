"""What is sent and what is finished agree, whoever does what beside the transaction.

Readers of committed records judge: no input may have two outputs, and a message
that is committed past has its output.
"""

from __future__ import annotations

from typing import Any

import pytest

from trio_consumer import (
    Message,
    OffsetAndMetadata,
    Transaction,
    TransactionAbortedError,
)
from trio_consumer.transports.memory.session import MemorySession

from .support import T0, committed, consuming, run, take
from .test_transactions import visible, with_target


async def send(transaction: Transaction, messages: list[Message]) -> None:
    """One output for each."""
    for message in messages:
        await transaction.send("out", message.value, partition=0)


async def finish(transaction: Transaction, messages: list[Message]) -> None:
    """One output for each, and finish it."""
    for message in messages:
        await transaction.send("out", message.value, partition=0)
        message.ack()


def test_member_without_a_generation_commits_no_offsets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kafka takes offsets from nobody in particular unchecked, over those of the new owner."""

    async def main() -> None:
        it = with_target(2)
        async with (
            consuming(it, transactional_id="p", commit_interval=1000) as consumer,
            consumer.stream("t", ack="manual") as stream,
        ):
            batch = await take(stream, 2, ack=False)
            real = MemorySession.group_metadata
            with monkeypatch.context() as patch:
                # Thrown out, and the listener is not told yet.
                patch.setattr(
                    MemorySession,
                    "group_metadata",
                    lambda self: real(self)._replace(member_id="", generation=-1),
                )
                with pytest.raises(TransactionAbortedError, match=r"not a member"):
                    async with consumer.transaction() as transaction:
                        await finish(transaction, batch)
            assert visible(it) == []
            assert committed(it) is None

    run(main)


def test_broker_takes_offsets_of_nobody_in_a_transaction() -> None:
    """As Kafka does, for producers older than KIP-447."""

    async def main() -> None:
        it: Any = with_target(2)
        async with consuming(it) as consumer, consumer.stream("t") as stream:
            await take(stream, 1)
            nobody = consumer.group_metadata._replace(member_id="", generation=-1)
            with it.transaction() as transaction:
                transaction.send_offsets({T0: OffsetAndMetadata(2)}, nobody)
            assert committed(it) == 2

    run(main)
