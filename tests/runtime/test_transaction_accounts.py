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
    GroupMetadata,
    Message,
    OffsetAndMetadata,
    Transaction,
    TransactionAbortedError,
    UnknownTopicError,
)
from trio_consumer.transports.memory.session import MemorySession

from .support import GROUP, T0, TP, committed, consuming, offsets, run, take
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


def test_messages_that_went_before_the_block_abort_it() -> None:
    """Nothing dooms a block that is entered after the hand-over, but its messages are stale."""

    async def main() -> None:
        it = with_target(3)
        async with (
            consuming(it, transactional_id="p", drain_timeout=0.5) as consumer,
            consumer.stream("t", ack="manual") as stream,
        ):
            batch = await take(stream, 3, ack=False)
            it.rebalance(GROUP)
            await trio.sleep(10)
            with pytest.raises(
                TransactionAbortedError, match=r"^the transaction was aborted: t\[0\] was revoked"
            ):
                async with consumer.transaction() as transaction:
                    await finish(transaction, batch)
            async with consumer.transaction() as transaction:
                await finish(transaction, await take(stream, ack=False))
        assert visible(it) == [b"0", b"1", b"2"]
        assert committed(it) == 3

    run(main)


@pytest.mark.parametrize("how", ["seek", "seek_to_committed", "perform_seek", "on_restart"])
@pytest.mark.parametrize("inside", [True, False])
def test_seek_while_a_transaction_is_open_aborts_it(how: str, inside: bool) -> None:
    """The messages come again by it, so their outputs must not count."""

    async def main() -> None:
        it = with_target(4)
        async with (
            consuming(it, transactional_id="p") as consumer,
            consumer.stream("t", ack="manual") as stream,
        ):

            async def move() -> None:
                if how == "seek":
                    await consumer.seek(T0, 0)
                else:
                    await getattr(consumer, how)()

            async with trio.open_nursery() as nursery:
                with pytest.raises(TransactionAbortedError):
                    async with consumer.transaction() as transaction:
                        await finish(transaction, await take(stream, 2, ack=False))
                        if inside:
                            await move()
                        else:
                            nursery.start_soon(move)
                            await trio.sleep(1)
            async with consumer.transaction() as transaction:
                await finish(transaction, await take(stream, ack=False))
        assert visible(it) == [b"0", b"1", b"2", b"3"]

    run(main)


def test_partition_that_ends_under_a_later_transaction_aborts_it() -> None:
    """One that begins while the user's callback runs can finish messages of it, in vain."""

    async def main() -> None:
        it = with_target(3)

        async def slowly(_: object) -> None:
            await trio.sleep(3)

        async with (
            consuming(
                it, transactional_id="p", drain_timeout=0.5, on_partitions_revoked=slowly
            ) as consumer,
            consumer.stream("t", ack="manual") as stream,
        ):
            batch = await take(stream, 3, ack=False)
            it.rebalance(GROUP)
            await trio.sleep(5)
            with pytest.raises(TransactionAbortedError):
                async with consumer.transaction() as transaction:
                    await send(transaction, batch)
                    assert all(message.ack() for message in batch)
                    await trio.sleep(5)
            async with consumer.transaction() as transaction:
                await finish(transaction, await take(stream, wait=10, ack=False))
        assert visible(it) == [b"0", b"1", b"2"]

    run(main)


def test_message_of_another_task_is_stale_after_an_abort() -> None:
    """Two tasks share a stream; one aborts, and the other goes on with what it has in hand."""

    async def main() -> None:
        it = with_target(6)
        errors: Counter[str] = Counter()
        async with (
            consuming(it, transactional_id="p") as consumer,
            consumer.stream("t", ack="manual") as stream,
        ):
            mine, others = await take(stream, 3, ack=False), await take(stream, 3, ack=False)
            with pytest.raises(LookupError):
                async with consumer.transaction() as transaction:
                    await finish(transaction, mine)
                    raise LookupError
            again = await take(stream, 2, ack=False)
            try:
                async with consumer.transaction() as transaction:
                    await finish(transaction, others)
            except TransactionAbortedError:
                errors["stale"] += 1
            # Nothing was finished in that one: what was taken since is not taken back.
            async with consumer.transaction() as transaction:
                await finish(transaction, again)
            async with consumer.transaction() as transaction:
                await finish(transaction, await take(stream, ack=False))
        assert errors == {"stale": 1}
        assert visible(it) == [b"%d" % n for n in range(6)]

    run(main)


@pytest.mark.parametrize("crash", [True, False])
def test_later_messages_are_not_committed_without_their_offset(crash: bool) -> None:
    """The committed offset stops before an earlier one, so they would be sent twice."""

    async def main() -> None:
        it = with_target(4)
        async with (
            consuming(it, transactional_id="p") as consumer,
            consumer.stream("t", ack="manual") as stream,
        ):
            batch = await take(stream, 4, ack=False)
            with pytest.raises(TransactionAbortedError, match=r"t\[0\] .* offset 0 is unfinished"):
                async with consumer.transaction() as transaction:
                    await finish(transaction, batch[2:])
            assert visible(it) == []
            if not crash:
                async with consumer.transaction() as transaction:
                    await finish(transaction, await take(stream, ack=False))
        if crash:
            async with (
                consuming(it, transactional_id="p") as consumer,
                consumer.stream("t", ack="manual") as stream,
                consumer.transaction() as transaction,
            ):
                await finish(transaction, await take(stream, ack=False))
        assert visible(it) == [b"0", b"1", b"2", b"3"]
        assert committed(it) == 4

    run(main)


def test_given_back_inside_of_a_transaction() -> None:
    """The later ones must not count without it; if there are none, the rest counts."""

    async def main() -> None:
        it = with_target(4)
        async with (
            consuming(it, transactional_id="p") as consumer,
            consumer.stream("t", ack="manual") as stream,
        ):
            batch = await take(stream, 4, ack=False)
            with pytest.raises(TransactionAbortedError):
                async with consumer.transaction() as transaction:
                    batch[1].nack()
                    await finish(transaction, [batch[0], *batch[2:]])
            batch = await take(stream, 4, ack=False)
            assert offsets(batch) == [0, 1, 2, 3]
            async with consumer.transaction() as transaction:
                batch[3].nack()
                await finish(transaction, batch[:3])
            assert committed(it) == 3
            async with consumer.transaction() as transaction:
                await finish(transaction, await take(stream, ack=False))
        assert visible(it) == [b"0", b"1", b"2", b"3"]

    run(main)


def test_other_stream_is_waited_for() -> None:
    """Offsets count when all streams have finished, and so does the transaction."""

    async def main() -> None:
        it = with_target(4)
        async with (
            consuming(it, transactional_id="p", commit_interval=1000) as consumer,
            consumer.stream("t", ack="manual") as stream,
            consumer.stream("t", ack="manual") as other,
            trio.open_nursery() as nursery,
        ):

            async def slowly() -> None:
                for message in await take(other, 4, ack=False):
                    await trio.sleep(2)
                    assert visible(it) == []
                    message.ack()

            nursery.start_soon(slowly)
            async with consumer.transaction() as transaction:
                await finish(transaction, await take(stream, 4, ack=False))
            assert trio.current_time() >= 8
            assert visible(it) == [b"0", b"1", b"2", b"3"]
            assert committed(it) == 4

    run(main)


@pytest.mark.parametrize("what", ["never", "turn", "cancelled", "left"])
def test_other_stream_is_not_waited_for_in_vain(what: str) -> None:
    """Half of the time that the broker gives, and not if somebody needs the turn for it."""

    async def main() -> None:
        it = with_target(4)
        async with (
            consuming(it, transactional_id="p", transaction_timeout=20) as consumer,
            consumer.stream("t", ack="manual") as stream,
            consumer.stream("t", ack="manual") as other,
            trio.open_nursery() as nursery,
        ):
            batch = await take(other, 4, ack=False)
            started = trio.current_time()

            async def meddle() -> None:
                await trio.sleep(3)
                if what == "turn":
                    await consumer.commit()
                elif what == "cancelled":
                    scope.cancel()
                elif what == "left":
                    await other.__aexit__(None, None, None)

            nursery.start_soon(meddle)
            with trio.CancelScope() as scope:
                expected = trio.Cancelled if what == "cancelled" else TransactionAbortedError
                with pytest.raises(expected):
                    async with consumer.transaction() as transaction:
                        await finish(transaction, await take(stream, 4, ack=False))
                await trio.lowlevel.checkpoint()
            assert trio.current_time() - started == pytest.approx(10 if what == "never" else 3, 0.1)
            assert visible(it) == []
            assert not any(message.ack() for message in batch)
            if what != "left":
                await take(other, 4)
            async with consumer.transaction() as transaction:
                await finish(transaction, await take(stream, 4, ack=False))
        assert visible(it) == [b"0", b"1", b"2", b"3"]

    run(main)


def test_worker_that_sends_in_it_takes_part() -> None:
    """Although it was started outside, and acknowledges from a thread."""

    async def main() -> None:
        it = with_target(2)
        async with (
            consuming(it, transactional_id="p", drain_timeout=0.0) as consumer,
            consumer.stream("t", ack="manual") as stream,
            trio.open_nursery() as nursery,
        ):
            batch = await take(stream, 2, wait=10, ack=False)
            await consumer.seek(T0, 0)

            async def work(transaction: Transaction) -> None:
                await send(transaction, batch)
                await trio.to_thread.run_sync(batch[1].ack)

            with pytest.raises(TransactionAbortedError):
                async with consumer.transaction() as transaction:
                    nursery.start_soon(work, transaction)
                    await trio.sleep(0.1)
            assert visible(it) == []

    trio.run(main)


@pytest.mark.parametrize("observing", [True, False])
def test_what_does_not_matter_does_not_abort(observing: bool) -> None:
    """Late acknowledgements of tasks outside, of observers, and where nothing was sent."""

    async def main() -> None:
        it = with_target(4)
        async with (
            consuming(it, transactional_id="p") as consumer,
            consumer.stream("t", ack="none" if observing else "manual") as other,
            consumer.stream("t", ack="manual") as stream,
        ):
            stale = await take(other, 2, ack=False)
            await consumer.seek(T0, 0)
            async with trio.open_nursery() as nursery:

                async def late() -> None:
                    await trio.sleep(1)
                    assert not any(message.ack() for message in stale)

                nursery.start_soon(late)
                async with consumer.transaction() as transaction:
                    await take(other)
                    await finish(transaction, await take(stream, ack=False))
                    await trio.sleep(2)
                    if observing:
                        assert not any(message.ack() for message in stale)
            async with consumer.transaction():
                assert not any(message.ack() for message in stale)
        assert visible(it) == [b"0", b"1", b"2", b"3"]
        assert committed(it) == 4

    run(main)


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

        def note(_: frozenset[TP]) -> None:
            revoked.append(trio.current_time())

        async with (
            consuming(
                it,
                transactional_id="p",
                drain_timeout=1.0,
                commit_timeout=6,
                commit_interval=1000,
                on_partitions_revoked=note,
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

            def nobody(session: MemorySession) -> GroupMetadata:
                return real(session)._replace(member_id="", generation=-1)

            with monkeypatch.context() as patch:
                # Thrown out, and the listener is not told yet.
                patch.setattr(MemorySession, "group_metadata", nobody)
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


@pytest.mark.parametrize("drain", [0.0, 1.0])
@pytest.mark.parametrize("stubborn", [False, True])
def test_consumer_that_ends_undoes_a_transaction_of_another_task(
    drain: float, stubborn: bool
) -> None:
    """Before the producer is closed, so that nobody has to wait for the broker's time limit."""

    async def main() -> None:
        it = with_target(3, latency=0.2)
        aborted: list[TransactionAbortedError] = []
        entered = trio.Event()
        async with trio.open_nursery() as outer:
            async with (
                consuming(it, transactional_id="p", drain_timeout=drain) as consumer,
                consumer.stream("t", ack="manual") as stream,
            ):
                batch = await take(stream, 3, ack=False, wait=5)

                async def work() -> None:
                    try:
                        async with consumer.transaction() as transaction:
                            await finish(transaction, batch)
                            await transaction.flush()
                            entered.set()
                            with trio.CancelScope(shield=stubborn):
                                await trio.sleep(100)
                    except TransactionAbortedError as exc:
                        aborted.append(exc)

                outer.start_soon(work)
                await entered.wait()
                started = trio.current_time()
            assert trio.current_time() - started < 10
            if not stubborn:
                # Nothing holds back what another one reads and sends.
                async with (
                    consuming(it, transactional_id="q") as consumer,
                    consumer.stream("t", ack="manual") as stream,
                    consumer.transaction() as transaction,
                ):
                    await finish(transaction, await take(stream, wait=5, ack=False))
                assert visible(it) == [b"0", b"1", b"2"]
        assert len(aborted) == 1

    run(main)
