"""What is sent and what is finished agree, whoever does what beside the transaction.

Readers of committed records judge: no input may have two outputs, and a message
that is committed past has its output.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import trio

from trio_consumer import (
    Message,
    OffsetAndMetadata,
    Transaction,
    TransactionAbortedError,
    UnknownTopicError,
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


def test_tasks_that_send_together() -> None:
    """The producer is called by one at a time, whoever hands records over."""

    async def main() -> None:
        it = with_target(8, latency=0.1)
        async with (
            consuming(it, transactional_id="p") as consumer,
            consumer.stream("t", ack="manual") as stream,
        ):
            batch = await take(stream, 8, ack=False)

            async def work(transaction: Transaction, message: Message) -> None:
                await send(transaction, [message])
                await transaction.flush()
                message.ack()

            async with consumer.transaction() as transaction, trio.open_nursery() as nursery:
                for message in batch:
                    nursery.start_soon(work, transaction, message)
        assert Counter(visible(it)) == Counter(b"%d" % n for n in range(8))
        assert committed(it) == 8

    run(main)


@pytest.mark.parametrize("ends", [True, False])
def test_sent_while_a_commit_is_under_way(ends: bool) -> None:
    """A record counts with the offset that is acknowledged after it, or is refused."""

    async def main() -> None:
        it = with_target(6, latency=0.5)
        refused = 0
        async with (
            consuming(it, transactional_id="p", commit_interval=1000) as consumer,
            consumer.stream("t", ack="manual") as stream,
            trio.open_nursery() as nursery,
        ):
            batch = await take(stream, 6, ack=False, wait=5)

            async def work(transaction: Transaction) -> None:
                nonlocal refused
                for message in batch[1:]:
                    await trio.sleep(0.2)
                    try:
                        await finish(transaction, [message])
                    except trio.ClosedResourceError:
                        refused += 1

            async with consumer.transaction() as transaction:
                await finish(transaction, batch[:1])
                nursery.start_soon(work, transaction)
                if not ends:
                    await consumer.commit()
                    first = committed(it) or 0
                    assert set(visible(it)) >= {b"%d" % n for n in range(first)}
                    await trio.sleep(5)
            await trio.sleep(5)
            sent = 6 - refused
            assert committed(it) == sent
            assert visible(it) == [b"%d" % n for n in range(sent)]
            assert bool(refused) == ends

    run(main)


def test_cancelled_send_loses_no_record_that_was_accepted_before() -> None:
    """Also where the block goes on after it."""

    async def main() -> None:
        it = with_target(3)
        async with (
            consuming(it, transactional_id="p") as consumer,
            consumer.stream("t", ack="manual") as stream,
        ):
            batch = await take(stream, 3, ack=False)
            async with consumer.transaction() as transaction:
                await finish(transaction, batch)
                with trio.CancelScope() as scope:
                    scope.cancel()
                    await transaction.flush()
        assert visible(it) == [b"0", b"1", b"2"]
        assert committed(it) == 3

    run(main)


def test_records_that_could_not_be_handed_over_abort() -> None:
    """Even if the block swallows the error: others went with the one that was wrong."""

    async def main() -> None:
        it = with_target(2)
        async with (
            consuming(it, transactional_id="p") as consumer,
            consumer.stream("t", ack="manual") as stream,
        ):
            with pytest.raises(TransactionAbortedError, match=r"not be handed over: .*nowhere"):
                async with consumer.transaction() as transaction:
                    batch = await take(stream, 2, ack=False)
                    await transaction.send("nowhere", b"x")
                    await finish(transaction, batch)
                    with pytest.raises(UnknownTopicError):
                        await transaction.flush()
            async with consumer.transaction() as transaction:
                await finish(transaction, await take(stream, ack=False))
        assert visible(it) == [b"0", b"1"]

    run(main)


def test_hand_over_does_not_queue_behind_a_transaction() -> None:
    """A commit of offsets alone outlasts the drain, and a block waits for its turn behind it."""

    async def main() -> None:
        it = with_target(2, partitions=2)
        revoked: list[float] = []
        async with (
            consuming(
                it,
                transactional_id="p",
                drain_timeout=1.0,
                commit_timeout=6,
                commit_interval=1000,
                on_partitions_revoked=lambda _: revoked.append(trio.current_time()),
            ) as consumer,
            consumer.stream("t", ack="manual") as stream,
            trio.open_nursery() as nursery,
        ):
            await take(stream)

            async def block() -> None:
                async with consumer.transaction():
                    await trio.sleep(600)

            it.pause_answers()
            nursery.start_soon(consumer.commit)
            await trio.sleep(0.1)
            nursery.start_soon(block)
            await trio.sleep(0.1)
            started = trio.current_time()
            nursery.start_soon(consumer.on_partitions_revoked, consumer.assignment)
            await trio.sleep(3)
            it.resume_answers()
            await trio.sleep(20)
            assert [at - started < 10 for at in revoked] == [True]
            nursery.cancel_scope.cancel()

    run(main)


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
