"""Transactions on the memory broker: what is refused, what is waited for, what fails."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import trio

from trio_consumer import (
    CommitFailedError,
    ConfigurationError,
    Consumer,
    FencedError,
    GroupMetadata,
    Message,
    TransactionAbortedError,
    TransportError,
    UnknownTopicError,
    open_consumer,
)
from trio_consumer.testing import MemoryBroker
from trio_consumer.transports.memory.producer import MemoryProducer

from .support import GROUP, T0, TP, broker, committed, consuming, offsets, run, take

OUT = TP("out", 0)


def with_target(records: int, partitions: int = 1, **given: Any) -> MemoryBroker:
    """A broker with a source and a target."""
    it = broker(records, partitions, **given)
    it.create_topic("out", 1)
    return it


def visible(it: MemoryBroker) -> list[bytes | None]:
    """What readers of committed records see in the target."""
    return [record.value for record in it.records(OUT, committed_only=True)]


def test_refused_without_an_id_and_with_automatic_acknowledgement() -> None:
    """Each says what to do instead."""

    async def main() -> None:
        it = with_target(1)
        async with consuming(it) as consumer:
            assert consumer.transactions is None
            assert not consumer.in_transaction
            with pytest.raises(ConfigurationError, match=r"^transactions need a name: open_con"):
                consumer.transaction()
        async with consuming(it, transactional_id="p") as consumer:
            with pytest.raises(ConfigurationError, match=r"^a stream of a transactional consumer"):
                consumer.stream("t")
        for given, match in (
            ({"isolation_level": "read_uncommitted"}, r"^a transactional consumer reads with"),
            ({"transaction_timeout": 0.0}, r"^transaction_timeout must be positive"),
        ):
            with pytest.raises(ConfigurationError, match=match):
                async with consuming(it, transactional_id="p", **given):
                    pass

    run(main)


def test_transport_that_cannot_produce_is_refused() -> None:
    """A transport of somebody's own may be able to consume only."""

    class ReadOnly:
        closed_errors = MemoryBroker.closed_errors

        def __init__(self, it: MemoryBroker) -> None:
            self.connect = it.connect

    async def main() -> None:
        with pytest.raises(ConfigurationError, match=r"cannot produce, so there are no trans"):
            async with open_consumer(ReadOnly(with_target(1)), group=GROUP, transactional_id="p"):
                pass

    run(main)


@pytest.mark.parametrize("what", ["commit", "transaction", "stop", "wait_empty"])
def test_nothing_inside_of_a_block_waits_for_its_end(what: str) -> None:
    """Also not from a task that was started in it: that would be for ever."""

    async def main() -> None:
        it = with_target(2)
        async with (
            consuming(it, transactional_id="p") as consumer,
            consumer.stream("t", ack="manual") as stream,
        ):

            async def inside() -> None:
                if what == "wait_empty":
                    assert await consumer.wait_empty(1.0)
                    return
                with pytest.raises(ConfigurationError, match=r"inside of a transaction that is"):
                    if what == "commit":
                        await consumer.commit()
                    elif what == "stop":
                        await consumer.on_stop()
                    else:
                        async with consumer.transaction():
                            pass

            async with consumer.transaction() as transaction:
                for message in await take(stream, 2):
                    await transaction.send("out", message.value)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(inside)
            assert visible(it) == [b"0", b"1"]
            assert committed(it) == 2

    run(main)


def test_task_beside_the_block_waits_for_its_turn() -> None:
    """A commit and a transaction of somebody else come after it."""

    async def main() -> None:
        it = with_target(4)
        order: list[str] = []
        async with (
            consuming(it, transactional_id="p", commit_interval=1000) as consumer,
            consumer.stream("t", ack="manual") as stream,
            trio.open_nursery() as nursery,
        ):

            async def beside() -> None:
                await trio.sleep(1)
                await consumer.commit()
                order.append(f"commit {committed(it)}")
                async with consumer.transaction() as transaction:
                    await transaction.send("out", b"second")
                order.append("second")

            nursery.start_soon(beside)
            async with consumer.transaction() as transaction:
                await transaction.send("out", b"first")
                await take(stream, 3)
                await trio.sleep(5)
                order.append("first")
        assert order == ["first", "commit 3", "second"]
        assert visible(it) == [b"first", b"second"]

    run(main)


def test_message_finished_after_its_transaction_goes_with_the_next() -> None:
    """That is what the docstring warns of; here it is at least not lost."""

    async def main() -> None:
        it = with_target(2)
        async with (
            consuming(it, transactional_id="p", commit_interval=1000) as consumer,
            consumer.stream("t", ack="manual") as stream,
        ):
            first, second = await take(stream, 2, ack=False)
            async with consumer.transaction() as transaction:
                await transaction.send("out", first.value)
            assert committed(it) is None
            first.ack()
            second.ack()
            async with consumer.transaction():
                pass
            assert committed(it) == 2

    run(main)


def test_unanswered_commit_ends_the_consumer_and_the_next_one_goes_on_behind_it() -> None:
    """Whether it counts is not known, and need not be: offsets and records agree."""

    async def main() -> None:
        it = with_target(4)

        async def attempt(consumer: Consumer) -> None:
            async with consumer.stream("t", ack="manual") as stream:
                batch = await take(stream, 2)
                async with consumer.transaction() as transaction:
                    for message in batch:
                        await transaction.send("out", message.value)
                    await transaction.flush()
                    it.pause_answers()

        with pytest.raises(TransportError, match=r"^cannot tell whether the broker did"):
            async with consuming(
                it, transactional_id="p", transaction_timeout=5, commit_timeout=1
            ) as consumer:
                await attempt(consumer)
        it.resume_answers()
        async with (
            consuming(it, transactional_id="p") as consumer,
            consumer.stream("t", ack="manual") as stream,
            consumer.transaction() as transaction,
        ):
            for message in await take(stream):
                await transaction.send("out", message.value)
        assert visible(it) == [b"0", b"1", b"2", b"3"]
        assert committed(it) == 4

    run(main)


def test_transaction_that_takes_too_long_is_fenced() -> None:
    """The broker has aborted it; nothing of it counts, and the error says why."""

    async def main() -> None:
        it = with_target(2)
        with pytest.raises(FencedError, match=r"fenced, it took longer than its timeout"):
            async with (
                consuming(it, transactional_id="p", transaction_timeout=10) as consumer,
                consumer.stream("t", ack="manual") as stream,
                consumer.transaction() as transaction,
            ):
                for message in await take(stream):
                    await transaction.send("out", message.value)
                await transaction.flush()
                await trio.sleep(20)
        assert visible(it) == []
        assert committed(it) is None

    run(main)


def test_fenced_member_commits_no_offsets() -> None:
    """Its commits go in transactions, too, and its successor of the same id has ended these."""

    async def main() -> None:
        it = with_target(2)
        with pytest.raises(FencedError):
            async with (
                consuming(it, transactional_id="p", commit_interval=1000) as consumer,
                consumer.stream("t", ack="manual") as stream,
            ):
                await take(stream)
                async with open_consumer(it, group="other", transactional_id="p"):
                    await consumer.commit()
        assert committed(it) is None

    run(main)


def test_batch_that_is_finished_in_a_transaction_counts_with_what_comes_before() -> None:
    """As its last message would by itself."""

    async def main() -> None:
        it = with_target(4)
        async with (
            consuming(it, transactional_id="p") as consumer,
            consumer.stream("t", ack="manual") as stream,
        ):
            batches = aiter(stream.batches(2))
            await anext(batches)
            later = await anext(batches)
            with pytest.raises(
                TransactionAbortedError, match=r"t\[0\] was finished up to offset 3 in it"
            ):
                async with consumer.transaction() as transaction:
                    await transaction.send("out", b"too soon", partition=0)
                    assert later.ack() == 2
            async with consumer.transaction() as transaction:
                await transaction.send("out", b"all", partition=0)
                assert (await anext(aiter(stream.batches(4)))).ack() == 4
        assert visible(it) == [b"all"]
        assert committed(it) == 4

    run(main)


def test_hand_over_says_what_goes_if_it_ends_a_transaction() -> None:
    """The error of the block names the partitions."""

    async def main() -> None:
        it = with_target(1, 2)
        async with (
            consuming(it, transactional_id="p", drain_timeout=1) as consumer,
            consumer.stream("t", ack="manual") as stream,
        ):
            await take(stream)
            with pytest.raises(
                TransactionAbortedError, match=r"this member gives up t\[0\], t\[1\]"
            ):
                async with consumer.transaction() as transaction:
                    await transaction.send("out", b"x", partition=0)
                    it.rebalance(GROUP)
                    await trio.sleep(60)

    run(main)


@pytest.mark.parametrize("stale", [False, True])
def test_hand_over_tries_again_to_commit_offsets_in_a_transaction(
    monkeypatch: pytest.MonkeyPatch, *, stale: bool
) -> None:
    """As without transactions: a refusal that may pass costs no replay."""
    refusals = 2

    async def main() -> None:
        it = with_target(2)
        async with (
            consuming(it, transactional_id="p", commit_interval=1000) as consumer,
            consumer.stream("t", ack="manual") as stream,
        ):
            real = MemoryProducer.send_offsets

            async def send_offsets(
                producer: MemoryProducer, offsets: Any, group: GroupMetadata, *, timeout: float
            ) -> None:
                nonlocal refusals
                if refusals:
                    refusals -= 1
                    raise CommitFailedError("no", offsets=offsets, retriable=True, stale=stale)
                await real(producer, offsets, group, timeout=timeout)

            for message in await take(stream, ack=False):
                message.ack()
            monkeypatch.setattr(MemoryProducer, "send_offsets", send_offsets)
            it.rebalance(GROUP)
            assert await take(stream, wait=10) == []
            assert (committed(it), refusals) == (2, 0)

    run(main)


def test_lost_partitions_doom_the_transaction_at_once() -> None:
    """Thrown out of the group, its block is cancelled and its messages come again."""

    async def main() -> None:
        it = with_target(3)
        async with (
            consuming(it, transactional_id="p") as consumer,
            consumer.stream("t", ack="manual") as stream,
        ):
            with pytest.raises(TransactionAbortedError, match=r"this member has lost t\[0\]"):
                async with consumer.transaction() as transaction:
                    for message in await take(stream):
                        await transaction.send("out", message.value)
                    it.expire(*it.members(GROUP))
                    await trio.sleep_forever()
            async with consumer.transaction() as transaction:
                again = await take(stream, wait=10)
                assert offsets(again) == [0, 1, 2]
                for message in again:
                    await transaction.send("out", message.value)
            assert consumer.transactions is not None
            assert (consumer.transactions.aborted, consumer.transactions.committed) == (1, 1)
        assert visible(it) == [b"0", b"1", b"2"]

    run(main)


def test_transaction_is_entered_once_and_sends_only_inside() -> None:
    """As with any context manager that was left."""

    async def main() -> None:
        it = with_target(1)
        async with consuming(it, transactional_id="p") as consumer:
            transaction = consumer.transaction()
            with pytest.raises(trio.ClosedResourceError):
                await transaction.send("out", b"before")
            async with transaction:
                assert repr(transaction) == "<Transaction open queued=0>"
                assert "open" in repr(consumer.transactions)
            with pytest.raises(trio.ClosedResourceError):
                await transaction.send("out", b"after")
            with pytest.raises(ConfigurationError, match=r"^a transaction is entered once"):
                async with transaction:
                    pass

    run(main)


def test_unknown_target_aborts_and_the_next_one_works() -> None:
    """What one record did wrong ends its transaction only."""

    async def main() -> None:
        it = with_target(2)
        async with (
            consuming(it, transactional_id="p") as consumer,
            consumer.stream("t", ack="manual") as stream,
        ):
            messages = await take(stream, 2, ack=False)
            with pytest.raises(UnknownTopicError, match=r"nowhere"):
                async with consumer.transaction() as transaction:
                    await transaction.send("nowhere", b"x")
                    messages[0].ack()
            assert committed(it, T0) is None
            async with consumer.transaction() as transaction:
                for message in await take(stream):
                    await transaction.send("out", message.value)
        assert visible(it) == [b"0", b"1"]
        assert committed(it, T0) == 2

    run(main)


@pytest.mark.parametrize("count", [1, 499, 500, 1200])
def test_records_are_handed_over_in_large_pieces(count: int) -> None:
    """In order, however many."""

    async def main() -> None:
        it = with_target(1)
        async with consuming(it, transactional_id="p") as consumer:
            async with consumer.transaction() as transaction:
                for number in range(count):
                    await transaction.send("out", b"%d" % number, partition=0)
            assert visible(it) == [b"%d" % number for number in range(count)]

    run(main)


@pytest.mark.parametrize("caught", [False, True])
def test_commit_in_mid_block_that_aborts_undoes_its_transaction_once(caught: bool) -> None:
    """Leaving the block by that error goes back no second time; nothing more is sent in it."""

    async def main() -> None:
        it = with_target(3)
        async with (
            consuming(it, transactional_id="p") as consumer,
            consumer.stream("t", ack="manual") as stream,
        ):
            first, second = await take(stream, 2, ack=False)
            taken_by_another_task: list[Message] = []
            with nullcontext() if caught else pytest.raises(TransactionAbortedError):
                async with consumer.transaction() as transaction:
                    await transaction.send("out", second.value, partition=0)
                    second.ack()  # though the first one is not finished
                    try:
                        await consumer.commit()
                    except TransactionAbortedError:
                        assert not first.ack()
                        taken_by_another_task += await take(stream, 1, ack=False)
                        with pytest.raises(trio.ClosedResourceError):
                            await transaction.send("out", b"lost", partition=0)
                        if not caught:
                            raise
            assert consumer.transactions is not None
            assert consumer.transactions.aborted == 1
            [again] = taken_by_another_task
            assert again.offset == 0
            async with consumer.transaction() as transaction:
                for message in [again, *await take(stream, 2, ack=False)]:
                    await transaction.send("out", message.value, partition=0)
                    message.ack()
        assert visible(it) == [b"0", b"1", b"2"]
        assert committed(it) == 3

    run(main)
