"""Exactly once: records that are produced, and the offsets of their sources, together.

One transaction is open at a time; whoever has the *turn* has it.  Its end takes
one snapshot of the ledgers, as any commit does and under the same lock, and
sends it with the producer's transaction (KIP-447) instead of by itself.  So
nothing is ever committed beside a transaction: the ticker waits for it to end,
and what was finished outside of any goes in a transaction of its own.

A transaction whose partitions go away cannot end well.  The hand-over waits for
it as long as it waits for messages in hand, then *dooms* it: its block is
cancelled, and it aborts.  Aborting goes back to the committed offsets: accounts
begin anew, so that nothing finished in it counts.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar, Token
from types import TracebackType
from typing import TYPE_CHECKING

import trio

from .._core.transaction_states import ProducerEvent, ProducerState, ProducerStates
from .._errors import (
    CommitFailedError,
    ConfigurationError,
    ConsumerError,
    TransactionAbortedError,
    TransportError,
    UnknownTopicError,
)
from .._types import OffsetAndMetadata, TopicPartition
from ..transports.base import OutgoingRecord, Session, TransactionalProducer
from .callers import current_caller
from .finished import Finished
from .logs import about
from .partitions import AssignmentState, Partitions

if TYPE_CHECKING:
    from .committer import Committer
from .message import Chunk

__all__ = ["Transaction", "TransactionManager"]

logger = logging.getLogger("trio_consumer.transactions")

# Inherited by the tasks that are started inside of the block: they must not wait for
# its end, which waits for them.
_inside: ContextVar[Transaction | None] = ContextVar("transaction", default=None)

# Set in tasks that were started elsewhere and have sent something in it.
_helping: ContextVar[Transaction | None] = ContextVar("helping", default=None)

LOOK_EVERY = 0.05
"""Seconds between two looks at what other streams have finished; arbitrary.  Nothing
tells of a single message, that would cost each of them."""

FLUSH_AT = 500
"""Records that are handed to the client's thread together; arbitrary."""


class Transaction:
    """A block whose records and whose finished messages count together.

    Made by :meth:`Consumer.transaction`; enter it with ``async with``.

    A clean exit commits: everything sent in it, and the offsets of everything
    that was finished by then.  Leaving it by an exception or a cancellation
    aborts: readers with ``read_committed`` see nothing of it, and every message
    since the last commit is handed out again.

    What was sent counts only if the offset of every message that was finished in
    it does: by its task, by those that it started, and by those that sent in it.
    So messages of a partition are finished in order, without leaving one out.
    Where other streams have not finished them yet, the exit waits for those
    until half of ``transaction_timeout`` is over or somebody needs the turn.
    Tasks that share a stream each enter their block right after they took their
    messages: then they have the turn in the order of the offsets.

    Raises on a clean exit:
        TransactionAbortedError: It was aborted, because partitions went away,
            the broker refused the offsets, or a message that was finished in it
            had been revoked, lost, sought or taken back by another abort, or
            comes after one that is unfinished.  Its messages come again; going
            on with the loop is the remedy.
        FencedError: Another producer has this transactional id.
        TransportError: The broker did not answer in time.  Whether the
            transaction counts is not known here; the consumer has to be opened
            anew, which begins behind it if it does.
    """

    _checkpoint_if_cancelled = staticmethod(trio.lowlevel.checkpoint_if_cancelled)

    def __init__(self, manager: TransactionManager) -> None:
        self._manager = manager
        self._scope = trio.CancelScope()
        self._queue: list[OutgoingRecord] = []
        self._finished = Finished()
        self._entered = False
        self._entered_at = 0.0
        self._open = False
        # By a commit in mid-block that failed: the end of the block has nothing to undo.
        self._undone = False
        self._doom: str | None = None
        self._token: Token[Transaction | None] | None = None
        self._owner: object = None

    def __repr__(self) -> str:
        return f"<Transaction {'open' if self._open else 'not open'} queued={len(self._queue)}>"

    async def send(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        partition: int | None = None,
        headers: Sequence[tuple[str, bytes]] = (),
        timestamp: float | None = None,
    ) -> None:
        """Produce a record as part of the transaction.

        Records are handed to the client some hundreds at a time; one that cannot
        be stored lets the end of the transaction fail.

        Args:
            topic: Where it goes.
            value: The value; None is a tombstone.
            key: The key, or None.
            partition: Which partition; None chooses by the key.
            headers: Name and value each.
            timestamp: Seconds since the epoch; None for now.

        Raises:
            trio.ClosedResourceError: The transaction is not open.
            TransportError: The client does not take the records.

        Cancelling it takes no accepted record back: the record counts, unless the
        transaction was closed before.
        """
        self._check_open()
        _helping.set(self)
        self._queue.append(
            OutgoingRecord(
                topic,
                value,
                key,
                partition,
                headers,
                None if timestamp is None else round(timestamp * 1000),
            )
        )
        if len(self._queue) >= FLUSH_AT:
            await self.flush()
        else:
            await self._checkpoint_if_cancelled()

    async def flush(self) -> None:
        """Hand everything queued to the client; the end of the block does so too.

        Raises:
            trio.ClosedResourceError: The transaction is not open.
            TransportError: The client does not take the records.  The transaction
                will be aborted, even if the block goes on.

        Cancelling it before they are handed over leaves them queued, later it waits.
        """
        self._check_open()
        await self._manager._send(self)

    def _check_open(self) -> None:
        if not self._open:
            raise trio.ClosedResourceError(
                f"{self!r}: send inside of `async with consumer.transaction()`"
            )

    async def __aenter__(self) -> Transaction:
        """Wait for the transaction that is open, if one is; cancelling begins none."""
        if self._entered:
            raise ConfigurationError("a transaction is entered once; make a new one")
        self._entered = True
        await self._manager._enter(self)
        self._entered_at = trio.current_time()
        self._open = True
        self._owner = current_caller()
        self._token = _inside.set(self)
        self._scope.__enter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        manager = self._manager
        try:
            try:
                swallowed = self._scope.__exit__(exc_type, exc, traceback)
            except BaseException:
                self._open = False
                await manager._abort(self)
                raise
            # Before the end, which would miss what somebody sends meanwhile.
            self._open = False
            if exc is not None and not swallowed:
                if not self._undone:
                    await manager._abort(self)
                return None
            if self._undone and exc is None:
                return None  # the block was told, and went on
            if self._doom is not None:
                if not self._undone:
                    await manager._abort(self)
                raise _aborted(self._doom)
            await manager._commit(self)
            return swallowed
        finally:
            self._finished.clear()
            assert self._token is not None  # set by __aenter__
            _inside.reset(self._token)
            manager._leave()

    def _be_doomed(self, reason: str) -> None:
        self._spoil(reason)
        self._scope.cancel()

    def _spoil(self, reason: str) -> None:
        """It must not be committed, but its block may run to its end."""
        self._doom = self._doom or reason


class TransactionManager:
    """Begins and ends the transactions of one consumer.

    Attributes:
        aborted: How many transactions were aborted.
        committed: How many were committed.
    """

    def __init__(
        self,
        producer: TransactionalProducer,
        session: Session,
        partitions: Partitions,
        committer: Committer,
        *,
        transaction_timeout: float,
        commit_timeout: float,
    ) -> None:
        self._producer = producer
        self._session = session
        self._partitions = partitions
        self._committer = committer
        self._transaction_timeout = transaction_timeout
        self._commit_timeout = commit_timeout
        self._turn = trio.Lock()
        # Tasks inside of one block may send at the same time, and while it commits.
        self._calling = trio.Lock()
        # How many hand-overs wait for the turn although their time is over.
        self._overdue = 0
        self._states = ProducerStates()
        self._current: Transaction | None = None
        self._failure: ConsumerError | None = None
        self.aborted: int = 0
        self.committed: int = 0

    def __repr__(self) -> str:
        return f"<TransactionManager {self._states.state.value}, {self._current or 'none open'}>"

    @property
    def in_transaction(self) -> bool:
        """Whether a block is open."""
        return self._current is not None

    @property
    def is_mine(self) -> bool:
        """Whether the running task opened the transaction that is open."""
        return self._current is not None and self._current._owner is current_caller()

    @property
    def is_inside(self) -> bool:
        """Whether the running task, or one that started it, is inside of the open block."""
        return self._current is not None and _inside.get() is self._current

    def check_outside(self, what: str) -> None:
        """Refuse what would wait for the end of the block that it is called in.

        Raises:
            ConfigurationError: A transaction is open around the running task.
        """
        if self.is_inside:
            raise ConfigurationError(
                f"cannot {what} inside of a transaction that is open; leave its block first"
            )

    def finishing(self, chunk: Chunk, index: int) -> None:
        """A message is about to be acknowledged; whether that counts is seen at the end."""
        current = self._current
        if current is None or chunk.assignment.state is AssignmentState.STRAY:
            return
        if _inside.get() is current or _helping.get() is current:
            current._finished.note(chunk.ledger, chunk.records[index].offset + 1, chunk.bit)

    # -- the block ------------------------------------------------------------------

    async def _enter(self, transaction: Transaction) -> None:
        self.check_outside("begin another one")
        await self._turn.acquire()
        while self._overdue:
            # A hand-over that is out of time must not wait for a whole block.
            self._turn.release()
            await self._turn.acquire()
        if self._failure is not None:
            self._turn.release()
            raise self._failure
        self._current = transaction

    def _leave(self) -> None:
        self._current = None
        self._turn.release()

    async def _send(self, transaction: Transaction) -> None:
        async with self._calling:
            if transaction._queue:  # else somebody else has seen to it
                await self._hand_over(transaction)

    async def _hand_over(self, transaction: Transaction) -> None:
        await self._begin()
        # No earlier, or a cancellation would lose what was accepted before.
        records, transaction._queue = transaction._queue, []
        try:
            await self._call(self._producer.send, records)
        except ConsumerError as exc:
            # Others went with the one that was wrong, and the block may go on.
            transaction._spoil(f"records could not be handed over: {exc}")
            raise

    async def _begin(self) -> None:
        if self._states.is_in(ProducerState.READY):
            await self._call(self._producer.begin)
            self._states.happen(ProducerEvent.BEGIN)

    async def _call(
        self, function: Callable[..., Awaitable[None]], *args: object, timeout: float | None = None
    ) -> None:
        """Ask the producer; most of its failures are for good.

        By default it has as long as the broker lets a transaction last.
        """
        if self._failure is not None:
            raise self._failure
        try:
            await function(*args, timeout=timeout or self._transaction_timeout)
        except CommitFailedError:
            raise
        except ConsumerError as exc:
            passing = isinstance(exc, TransportError) and exc.retriable
            if not passing and not isinstance(exc, UnknownTopicError):
                self._failure = exc
                self._states.happen(ProducerEvent.FAIL)
            raise

    async def _send_offsets(
        self, offsets: Mapping[TopicPartition, OffsetAndMetadata], *, timeout: float | None = None
    ) -> None:
        group = self._session.group_metadata()
        if group.generation < 0 or not group.member_id:
            # The broker takes such offsets from a producer without looking whose they
            # are (as from those before KIP-447), over what the new owner has committed.
            raise CommitFailedError(
                f"cannot add offsets to the transaction: this consumer is not a member of the group"
                f" {group.group!r} now, it was thrown out or has not joined; it joins by itself",
                offsets=offsets,
                stale=True,
            )
        await self._call(self._producer.send_offsets, offsets, group, timeout=timeout)

    # -- its end --------------------------------------------------------------------

    async def _commit(self, transaction: Transaction) -> bool:
        """Commit what was sent and what is finished; whether there was something."""
        done = False
        try:
            await self._wait_for_others(transaction)
            with trio.CancelScope(shield=True):
                await self._send(transaction)
                async with self._committer.held(), self._calling:
                    done = await self._end(transaction)
        except CommitFailedError as exc:
            await self._abort(transaction)
            raise TransactionAbortedError(
                f"the transaction was aborted, because the broker refused its offsets: {exc}."
                " Its messages come again"
            ) from exc
        except TransactionAbortedError:
            # If all that was finished in it was stale there is nothing to go back for, and
            # doing it all the same would make stale what other tasks have taken since: they
            # would abort each other for ever.
            await self._abort(transaction, rewind=not transaction._finished.is_void)
            raise
        except BaseException:
            await self._abort(transaction)
            raise
        return done

    async def _wait_for_others(self, transaction: Transaction) -> None:
        """Wait for streams beside the transaction to finish what was finished in it."""
        give_up_at = transaction._entered_at + self._transaction_timeout / 2
        while (  # noqa: ASYNC110  # nothing could set an event, see LOOK_EVERY
            transaction._doom is None
            and (transaction._queue or self._states.is_in(ProducerState.OPEN))
            and transaction._finished.waits_for_others
            # They might need the turn themselves.
            and not self._turn.statistics().tasks_waiting
            and trio.current_time() < give_up_at
        ):
            await trio.sleep(LOOK_EVERY)

    async def _end(self, transaction: Transaction) -> bool:
        while transaction._queue:
            await self._hand_over(transaction)
        # In the same step, so that no offset goes without the record that was sent before
        # it was finished.
        if self._states.is_in(ProducerState.OPEN) and (gap := transaction._finished.uncovered()):
            transaction._spoil(gap)
            raise _aborted(gap)
        taken = self._committer.snapshots(None)
        if taken:
            await self._begin()
            offsets = {tp: OffsetAndMetadata(s.offset) for tp, (_, s) in taken.items()}
            await self._send_offsets(offsets)
        if not self._states.is_in(ProducerState.OPEN):
            return False
        if transaction._doom is not None:
            raise _aborted(transaction._doom)
        self._states.happen(ProducerEvent.COMMIT)
        try:
            await self._call(self._producer.commit)
        except BaseException:
            if self._states.is_in(ProducerState.COMMITTING):
                self._states.happen(ProducerEvent.REFUSED)
            raise
        self._states.happen(ProducerEvent.DONE)
        self._committer.confirmed(taken)
        transaction._finished.clear()
        self.committed += 1
        return True

    async def _abort(self, transaction: Transaction, *, rewind: bool = True) -> None:
        """Go back to what is committed, and undo what was sent; takes ``commit_timeout``."""
        # First, and in one step: nothing finished in it may be finished any more.
        if rewind:
            self._partitions.rewind_to_committed()
        transaction._queue.clear()
        self.aborted += 1
        with trio.CancelScope(shield=True):
            async with self._calling:
                if self._states.is_in(ProducerState.OPEN):
                    await self._undo()

    async def _undo(self) -> None:
        self._states.happen(ProducerEvent.ABORT)
        try:
            # The broker aborts it by itself later, so nothing depends on the answer.
            with trio.CancelScope(shield=True):
                await self._call(self._producer.abort, timeout=self._commit_timeout)
        except (ConsumerError, trio.ClosedResourceError) as exc:
            if isinstance(exc, ConsumerError):
                self._fail(exc)
            logger.warning(
                "could not abort a transaction, the broker will: %s",
                exc,
                extra=about(self._session, error=str(exc)),
            )
        else:
            self._states.happen(ProducerEvent.DONE)

    def _fail(self, error: ConsumerError) -> None:
        self._failure = self._failure or error
        self._states.happen(ProducerEvent.FAIL)

    # -- in the middle of a block -----------------------------------------------------

    async def commit_open(self, *, start_new: bool) -> bool:
        """Commit the transaction that this task has open.

        Args:
            start_new: Whether the block goes on with a new one; else nothing
                more can be sent in it, nor if it was aborted.
        """
        transaction = self._current
        assert transaction is not None  # the caller looked
        try:
            done = await self._commit(transaction)
        except BaseException:
            transaction._open = False
            transaction._undone = True
            raise
        if not start_new:
            transaction._open = False
        return done

    # -- for commits without a block ----------------------------------------------------

    @asynccontextmanager
    async def outside(self) -> AsyncGenerator[None, None]:
        """While a block runs no transaction is open, but the one that it makes itself."""
        self.check_outside("commit from another task")
        await self._turn.acquire()
        try:
            yield
        finally:
            self._turn.release()

    async def commit_offsets(self, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        """Commit offsets alone, in a transaction of their own.

        Raises:
            CommitFailedError: The broker refused them, or did not answer in time.
        """
        limit = self._commit_timeout
        try:
            await self._begin()
            await self._send_offsets(offsets, timeout=limit)
            self._states.happen(ProducerEvent.COMMIT)
            await self._call(self._producer.commit, timeout=limit)
            self._states.happen(ProducerEvent.DONE)
        except BaseException:
            if self._states.is_in(ProducerState.COMMITTING):
                self._states.happen(ProducerEvent.REFUSED)
            if self._states.is_in(ProducerState.OPEN):
                await self._undo()
            raise

    async def end_before(self, deadline: float, reason: str) -> bool:
        """Wait for the turn until a deadline, then doom whoever has it.

        Returns:
            True with the turn taken; give it back with :meth:`give_turn_back`.
            False if a transaction was doomed.
        """
        with trio.move_on_at(deadline):
            await self._turn.acquire()
            return True
        if self._current is None:
            # Somebody commits offsets alone, which is bounded in time, or is about to
            # begin a block, and lets us go first.
            self._overdue += 1
            try:
                await self._turn.acquire()
            finally:
                self._overdue -= 1
            return True
        self.doom(reason)
        return False

    def give_turn_back(self) -> None:
        """End what :meth:`end_before` began."""
        self._turn.release()

    async def settle(self, deadline: float) -> None:
        """Wait for a transaction that was doomed to be undone.

        Else the broker would do it when its time is over, and hold its records and its
        offsets back from others until then.
        """
        self._overdue += 1
        try:
            with trio.move_on_at(deadline):
                await self._turn.acquire()
                self._turn.release()
        finally:
            self._overdue -= 1

    def doom(self, reason: str) -> None:
        """The transaction that is open, if one is, must not be committed."""
        if self._current is not None:
            self._current._be_doomed(reason)


def _aborted(reason: str) -> TransactionAbortedError:
    return TransactionAbortedError(
        f"the transaction was aborted: {reason}. Its messages come again"
    )
