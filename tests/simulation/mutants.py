"""Rules of the library, each broken on purpose.

A mutant is a context manager within which one rule does not hold.  A checker that
cannot fail would let it pass; ``test_mutants.py`` says which check has to bite.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest.mock import patch

from trio_consumer import CommitFailedError
from trio_consumer._core import fanout, ledger
from trio_consumer._core.delivered_batch import DeliveredBatch
from trio_consumer._core.flow import Pressure
from trio_consumer._core.ledger import Ledger, Snapshot
from trio_consumer._errors import ConsumerError
from trio_consumer._runtime import conductor, consumer, opening, partitions
from trio_consumer._runtime.committer import Committer
from trio_consumer._runtime.iterators import MessageIterator
from trio_consumer._runtime.message import Chunk, Message
from trio_consumer._runtime.stream import Stream
from trio_consumer.transports.memory.fetcher import Fetcher
from trio_consumer.transports.memory.group import Group
from trio_consumer.transports.memory.session import MemorySession

Mutant = Callable[[], AbstractContextManager[object]]

MUTANTS: dict[str, tuple[Mutant, frozenset[str]]] = {}
"""Each mutant by its name, with the checks that may find it."""


def mutant(*checks: str) -> Callable[[Mutant], Mutant]:
    """Add a mutant that one of these checks has to find."""

    def add(make: Mutant) -> Mutant:
        MUTANTS[make.__name__] = (make, frozenset(checks))
        return make

    return add


def replaced(owner: Any, name: str, make: Callable[[Any], Any]) -> AbstractContextManager[object]:
    """One function instead of another that it is made from."""
    return patch.object(owner, name, make(getattr(owner, name)))


@mutant("I1")
def commits_the_position() -> AbstractContextManager[object]:
    """What was delivered counts as finished."""

    def snapshot(self: Ledger) -> Snapshot | None:
        if self.closed or self.position in (None, self.committed):
            return None
        return Snapshot(self.position, self._delivered)  # type: ignore[arg-type]

    return patch.object(Ledger, "snapshot", snapshot)


@mutant("I1")
def commits_one_further() -> AbstractContextManager[object]:
    """The lowest unfinished message is committed too."""

    def make(snapshot: Any) -> Any:
        def further(self: Ledger) -> Snapshot | None:
            right = snapshot(self)
            return right if right is None else Snapshot(right.offset + 1, right.delivered_below)

        return further

    return replaced(Ledger, "snapshot", make)


@mutant("I1")
def commits_over_holes_in_what_is_finished() -> AbstractContextManager[object]:
    """The highest finished offset counts, whatever is unfinished below it."""

    def make(finish: Any) -> Any:
        def all_below(self: DeliveredBatch, index: int, bit: int) -> bool:
            for below in range(index):
                finish(self, below, bit)
            return bool(finish(self, index, bit))

        return all_below

    return replaced(DeliveredBatch, "finish", make)


@mutant("I1", "I4")
def one_stream_finishes_for_all() -> AbstractContextManager[object]:
    """An acknowledgement clears every stream's part."""

    def make(finish: Any) -> Any:
        def for_all(self: DeliveredBatch, index: int, bit: int) -> bool:
            done = bool(finish(self, index, bit))
            for other in range(2, 9):
                finish(self, index, 1 << other)
            return done

        return for_all

    return replaced(DeliveredBatch, "finish", make)


@mutant("I4")
def second_acknowledgement_counts() -> AbstractContextManager[object]:
    """``ack`` says True each time."""

    def make(finish: Any) -> Any:
        def again(self: Chunk, index: int) -> bool:
            finish(self, index)
            return self.entries is not None

        return again

    return replaced(Chunk, "finish", make)


@mutant("I5", "I1")
def closed_ledger_takes_acknowledgements() -> AbstractContextManager[object]:
    """The end of an assignment does not void what is in hand."""

    def void(self: DeliveredBatch) -> None:
        pass

    return patch.object(DeliveredBatch, "void", void)


@mutant("I3", "I12", "I7")
def failed_commit_counts() -> AbstractContextManager[object]:
    """The ledgers believe a commit before the broker has answered."""

    def make(commit: Any) -> Any:
        async def believed(self: Committer, selected: Any = None) -> bool:
            for tp, (book, snapshot) in self.snapshots(selected).items():
                assert book.tp == tp
                book.confirm(snapshot)
                book.committed = None
            try:
                return bool(await commit(self, selected))
            except CommitFailedError:
                for book, snapshot in self.snapshots(selected).values():
                    book.confirm(snapshot)
                return False

        return believed

    return replaced(Committer, "_commit_locked", make)


@mutant("loss", "I1", "I12", "I3")
def revoked_records_are_finished() -> AbstractContextManager[object]:
    """What a revocation takes out of a buffer counts as finished."""

    def withdraw(self: DeliveredBatch, start: int, stop: int, bit: int) -> None:
        self.finish_range(start, stop, bit)

    return patch.object(DeliveredBatch, "withdraw", withdraw)


@mutant("I12")
def no_commit_on_revocation() -> AbstractContextManager[object]:
    """Partitions go without a last commit; so does a member that leaves."""

    async def last_commit(self: Committer, assignments: Any, deadline: float, **_: Any) -> None:
        pass

    return patch.object(Committer, "last_commit", last_commit)


@mutant("I1", "loss")
def chunk_is_dropped_by_a_pause() -> AbstractContextManager[object]:
    """Records that arrive while their partition is held are thrown away."""

    def make(hand_on: Any) -> Any:
        def dropped(self: Any, assignment: Any, batch: Any, start: int, stop: int) -> None:
            if not self._partitions.flow.is_open(assignment.tp):
                return
            hand_on(self, assignment, batch, start, stop)

        return dropped

    return replaced(conductor.Conductor, "_hand_on", make)


@mutant("I9", "I8", "position", "owner", "I2")
def polls_from_before_a_seek_are_taken() -> AbstractContextManager[object]:
    """What was read under another position is handed on."""

    def make(take: Any) -> Any:
        def anyway(self: Any, parcels: Any) -> None:
            take(self, [p._replace(reading=p.assignment.reading) for p in parcels])

        return anyway

    return replaced(conductor.Conductor, "take", make)


@mutant("I8", "I9")
def batch_out_of_order() -> AbstractContextManager[object]:
    """The buffer hands out the newest chunk first."""

    def make(push: Any) -> Any:
        def first(self: Stream, chunk: Chunk) -> None:
            push(self, chunk)
            self._buffer.rotate(1)

        return first

    return replaced(Stream, "_push", make)


@mutant("I9")
def records_come_twice() -> AbstractContextManager[object]:
    """A stream is given each chunk again."""

    def make(push: Any) -> Any:
        def twice(self: Stream, chunk: Chunk) -> None:
            push(self, chunk)
            push(self, chunk)

        return twice

    return replaced(Stream, "_push", make)


@mutant("I10")
def full_buffers_hold_nothing_back() -> AbstractContextManager[object]:
    """There is no back-pressure."""

    def update(self: Pressure, level: int) -> bool:
        return False

    return patch.object(Pressure, "update", update)


@mutant("I7")
def replay_is_told_too_low() -> AbstractContextManager[object]:
    """The statistics leave out what is finished behind an unfinished message."""
    return patch.object(Ledger, "replay", property(lambda self: self.unfinished_count))


@mutant("I1", "I2", "owner")
def generation_is_ignored() -> AbstractContextManager[object]:
    """The coordinator takes commits of whoever was a member once."""

    def make(commit: Any) -> Any:
        def anybody(
            self: Group, member_id: str, generation: int, offsets: Any, now: float, *_: Any
        ) -> Any:
            self.store(member_id, generation, offsets, now)
            return dict.fromkeys(offsets)

        return anybody

    return replaced(Group, "commit", make)


@mutant("I1", "I2", "owner")
def stale_identity_is_renewed() -> AbstractContextManager[object]:
    """A commit goes with the generation of its arrival, not of its snapshot."""

    def make(store: Any) -> Any:
        def renewed(self: MemorySession, offsets: Any, identity: Any, fault: Any) -> Any:
            return store(self, offsets, self.group_metadata(), fault)

        return renewed

    @contextmanager
    def both() -> Generator[None, None, None]:
        async def settle(self: Committer) -> bool:
            return False

        with (
            replaced(MemorySession, "_commit_on_broker", make),
            patch.object(Committer, "settle", settle),
        ):
            yield

    return both()


@mutant("position", "I2", "I9")
def reading_begins_too_low() -> AbstractContextManager[object]:
    """A new owner begins at the beginning of the log."""

    def position(self: Fetcher, tp: Any, position: int | None, log: Any) -> int:
        return int(log.start)

    return patch.object(Fetcher, "_initial_position", position)


@mutant("loss", "I1")
def reading_begins_too_high() -> AbstractContextManager[object]:
    """A new owner leaves out the record at the committed offset."""

    def make(initial: Any) -> Any:
        def higher(self: Fetcher, tp: Any, position: int | None, log: Any) -> int:
            return min(int(initial(self, tp, position, log)) + 1, int(log.end))

        return higher

    return replaced(Fetcher, "_initial_position", make)


@mutant("I1", "loss")
def leaving_a_loop_finishes() -> AbstractContextManager[object]:
    """A message in hand when its stream closes counts as finished."""

    def abandon_all(self: DeliveredBatch, bit: int) -> None:
        for index in range(len(self)):
            self.finish(index, bit)

    return patch.object(DeliveredBatch, "abandon_all", abandon_all)


@mutant("I3")
def vanished_records_are_waited_for() -> AbstractContextManager[object]:
    """What was left behind and compacted away holds the commit back for ever."""

    def vanish(self: Ledger, first: int, end: int, there: Iterable[int]) -> None:
        pass

    return patch.object(ledger.Ledger, "vanish", vanish)


@mutant("I3", "loss")
def nothing_is_read_again() -> AbstractContextManager[object]:
    """What a stream left behind is not fetched for the next one."""

    def rewind_to(*_: object) -> None:
        return None

    return patch.object(partitions, "rewind_to", rewind_to)


@mutant("I1")
def forfeited_messages_can_be_finished() -> AbstractContextManager[object]:
    """Work that was cancelled at the end of a drain is finished by its loop."""

    @contextmanager
    def both() -> Generator[None, None, None]:
        def make(advance: Any) -> Any:
            async def finishing(self: MessageIterator) -> Message:
                try:
                    message = await advance(self)
                except BaseException:
                    raise
                if self._held is not None:
                    assert self._held.entries is not None
                    self._held.entries.finish(self._index, self._held.bit)
                return message  # type: ignore[no-any-return]

            return finishing

        with replaced(MessageIterator, "__anext__", make):
            yield

    return both()


@mutant("loss", "I3", "I1")
def given_back_messages_do_not_come() -> AbstractContextManager[object]:
    """``nack`` says True and forgets the message."""

    def redeliver(self: Stream, chunk: Chunk, index: int) -> bool:
        assert chunk.entries is not None
        return chunk.entries.awaits(index, chunk.bit)

    return patch.object(Stream, "_redeliver", redeliver)


@mutant("owner", "I7")
def revoked_records_are_handed_out() -> AbstractContextManager[object]:
    """What a stream has in its buffer stays there when the partition goes."""

    def withdraw(self: partitions.Partitions, tps: Any) -> list[Any]:
        return [a for tp in sorted(tps) if (a := self.get(tp)) is not None]

    return patch.object(partitions.Partitions, "withdraw", withdraw)


@mutant("error")
def consumer_fails_without_a_cause() -> AbstractContextManager[object]:
    """It has been up for a while, and no fault explains its end."""

    def make(should: Any) -> Any:
        def failing(self: Any, now: float) -> bool:
            if now > 15:
                raise ConsumerError("no patience")
            return bool(should(self, now))

        return failing

    return replaced(opening.CommitPolicy, "should_commit", make)


@mutant("I11")
def tasks_are_left() -> AbstractContextManager[object]:
    """A task is started outside of the consumer's nursery."""
    import trio

    def make(close: Any) -> Any:
        def leaving_one(self: consumer.Consumer) -> None:
            close(self)
            trio.lowlevel.spawn_system_task(trio.sleep, 1e6)

        return leaving_one

    return replaced(consumer.Consumer, "close", make)


@mutant("I11", "loss", "I3")
def leaving_takes_for_ever() -> AbstractContextManager[object]:
    """A member that stops in order hangs."""
    import trio

    def make(stop: Any) -> Any:
        async def waiting(self: consumer.Consumer, drain: float) -> None:
            await stop(self, drain)
            if drain:
                await trio.sleep(10_000)

        return waiting

    return replaced(consumer.Consumer, "_stop", make)


@mutant("invented")
def aborted_records_are_read() -> AbstractContextManager[object]:
    """The isolation level is ignored."""

    def make(init: Any) -> Any:
        def uncommitted(self: Fetcher, *given: Any, **named: Any) -> None:
            init(self, *given, **named)
            self._committed_only = False

        return uncommitted

    return replaced(Fetcher, "__init__", make)


@mutant("I1")
def drain_finishes_what_is_in_hand() -> AbstractContextManager[object]:
    """When the wait of a revocation is over, what is still in hand counts as finished."""

    def end_drain(self: partitions.Partitions, assignments: Any) -> None:
        for assignment in assignments:
            for batch in list(assignment.ledger._batches):
                for number in range(2, 9):
                    batch.finish_range(0, len(batch), 1 << number)

    return patch.object(partitions.Partitions, "end_drain", end_drain)


@mutant("I2")
def commits_fall() -> AbstractContextManager[object]:
    """Each commit stays three messages behind where reading began anew or stands."""

    def make(snapshot: Any) -> Any:
        def behind(self: Ledger) -> Snapshot | None:
            right = snapshot(self)
            if right is None or self.committed is None:
                return right  # type: ignore[no-any-return]
            return Snapshot(max(0, self.committed - 3), right.delivered_below)

        return behind

    return replaced(Ledger, "snapshot", make)


@mutant("loss", "I3")
def takers_forget_what_they_had() -> AbstractContextManager[object]:
    """After a rewind a stream is told that it had everything."""

    def had(self: fanout.Taker[Any], offset: int) -> bool:
        return True

    return patch.object(fanout.Taker, "had", had)
