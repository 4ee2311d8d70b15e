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
from .partitions import Partitions

if TYPE_CHECKING:
    from .committer import Committer

__all__ = ["Transaction", "TransactionManager"]

logger = logging.getLogger("trio_consumer.transactions")

# Inherited by the tasks that are started inside of the block: they must not wait for
# its end, which waits for them.
_inside: ContextVar[Transaction | None] = ContextVar("transaction", default=None)

FLUSH_AT = 500
"""Records that are handed to the client's thread together; arbitrary."""


class Transaction:
    """A block whose records and whose finished messages count together.

    Made by :meth:`Consumer.transaction`; enter it with ``async with``.

    A clean exit commits: everything sent in it, and the offsets of everything
    that was finished by then.  Leaving it by an exception or a cancellation
    aborts: readers with ``read_committed`` see nothing of it, and every message
    since the last commit is handed out again.

    Raises on a clean exit:
        TransactionAbortedError: It was aborted, because partitions went away
            or the broker refused the offsets.  Its messages come again; going on
            with the loop is the remedy.
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
        self._entered = False
        self._open = False
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

        Cancelling it waits for records that are being handed over.
        """
        self._check_open()
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
        """Hand everything queued to the client; the end of the block does so too."""
        self._check_open()
        records, self._queue = self._queue, []
        if records:
            await self._manager._send(records)

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
                await manager._abort()
                raise
            if exc is not None and not swallowed:
                self._open = False
                await manager._abort()
                return None
            if self._doom is not None:
                self._open = False
                await manager._abort()
                raise TransactionAbortedError(
                    f"the transaction was aborted: {self._doom}. Its messages come again"
                )
            try:
                with trio.CancelScope(shield=True):
                    await manager._commit(self)
            finally:
                self._open = False
            return swallowed
        finally:
            assert self._token is not None  # set by __aenter__
            _inside.reset(self._token)
            manager._leave()

    def _be_doomed(self, reason: str) -> None:
        if self._doom is None:
            self._doom = reason
            self._scope.cancel()


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
        self._states = ProducerStates()
        self._current: Transaction | None = None
        self._failure: ConsumerError | None = None
        self.aborted = 0
        self.committed = 0

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

    # -- the block ------------------------------------------------------------------

    async def _enter(self, transaction: Transaction) -> None:
        self.check_outside("begin another one")
        await self._turn.acquire()
        if self._failure is not None:
            self._turn.release()
            raise self._failure
        self._current = transaction

    def _leave(self) -> None:
        self._current = None
        self._turn.release()

    async def _send(self, records: Sequence[OutgoingRecord]) -> None:
        await self._begin()
        await self._call(self._producer.send, records)

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

    # -- its end --------------------------------------------------------------------

    async def _commit(self, transaction: Transaction) -> bool:
        """Commit what was sent and what is finished; whether there was something."""
        try:
            if transaction._open:
                await transaction.flush()
            async with self._committer.held():
                return await self._end(lambda: transaction._doom)
        except CommitFailedError as exc:
            await self._abort()
            raise TransactionAbortedError(
                f"the transaction was aborted, because the broker refused its offsets: {exc}."
                " Its messages come again"
            ) from exc
        except BaseException:
            await self._abort()
            raise

    async def _end(self, doom: Callable[[], str | None]) -> bool:
        taken = self._committer.snapshots(None)
        if taken:
            await self._begin()
            offsets = {tp: OffsetAndMetadata(s.offset) for tp, (_, s) in taken.items()}
            await self._call(self._producer.send_offsets, offsets, self._session.group_metadata())
        if not self._states.is_in(ProducerState.OPEN):
            return False
        reason = doom()
        if reason is not None:
            raise TransactionAbortedError(
                f"the transaction was aborted: {reason}. Its messages come again"
            )
        self._states.happen(ProducerEvent.COMMIT)
        try:
            await self._call(self._producer.commit)
        except BaseException:
            if self._states.is_in(ProducerState.COMMITTING):
                self._states.happen(ProducerEvent.REFUSED)
            raise
        self._states.happen(ProducerEvent.DONE)
        self._committer.confirmed(taken)
        self.committed += 1
        return True

    async def _abort(self) -> None:
        """Go back to what is committed, and undo what was sent; takes ``commit_timeout``."""
        # First, and in one step: nothing finished in it may be finished any more.
        self._partitions.rewind_to_committed()
        self.aborted += 1
        if self._states.is_in(ProducerState.OPEN):
            await self._undo()

    async def _undo(self) -> None:
        self._states.happen(ProducerEvent.ABORT)
        try:
            # The broker aborts it by itself later, so nothing depends on the answer.
            with trio.CancelScope(shield=True):
                await self._call(self._producer.abort, timeout=self._commit_timeout)
        except ConsumerError as exc:
            self._fail(exc)
            logger.warning("could not abort a transaction, the broker will: %s", exc)
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
                more can be sent in it.
        """
        transaction = self._current
        assert transaction is not None  # the caller looked
        done = False
        with trio.CancelScope(shield=True):
            done = await self._commit(transaction)
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
            group = self._session.group_metadata()
            await self._call(self._producer.send_offsets, offsets, group, timeout=limit)
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
            True with the turn taken: give it back with :meth:`give_turn_back`.
            False if a transaction was doomed.
        """
        with trio.move_on_at(deadline):
            await self._turn.acquire()
            return True
        if self._current is None:
            # Somebody commits offsets alone, which is bounded in time.
            await self._turn.acquire()
            return True
        self.doom(reason)
        return False

    def give_turn_back(self) -> None:
        """End what :meth:`end_before` began."""
        self._turn.release()

    def doom(self, reason: str) -> None:
        """The transaction that is open, if one is, must not be committed."""
        if self._current is not None:
            self._current._be_doomed(reason)
