"""The commit ticker, and the one place from which offsets are committed.

A commit takes one snapshot of the ledgers, under a lock that the rebalancer
takes too: while partitions are being given away nothing else can commit them,
and when their revocation returns no commit for them is in flight.  A ledger
learns of a commit when the broker has confirmed it and not before, so a failed
one leaves everything as it was.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import trio

from .._core.commit_policy import CommitPolicy, Report
from .._core.ledger import Ledger, Snapshot
from .._errors import CommitFailedError
from .._types import OffsetAndMetadata, TopicPartition
from ..transports.base import Session
from .diagnostics import Activity, Diagnostics
from .logs import about, offsets_of
from .partitions import Assignment, Partitions

if TYPE_CHECKING:
    from .transactions import TransactionManager

__all__ = ["Committer"]

logger = logging.getLogger("trio_consumer.committer")

LONGEST_DELAY = 1.0
"""Seconds between two attempts of a last commit; arbitrary."""

Selection = Callable[[Assignment], bool]
Taken = dict[TopicPartition, tuple[Ledger, Snapshot]]
Around = Callable[[Mapping[TopicPartition, OffsetAndMetadata]], AbstractContextManager[object]]


class Committer:
    """Commits what is finished: on a timetable, and when asked.

    Args:
        policy: The timetable.
        diagnostics: Told of each commit.
    """

    def __init__(self, policy: CommitPolicy, diagnostics: Diagnostics) -> None:
        self._policy = policy
        self._diagnostics = diagnostics
        self._lock = trio.Lock()
        self._wakeup = trio.Event()
        self._session: Session
        self._partitions: Partitions
        self._transactions: TransactionManager | None = None
        self.commits: int = 0
        self.failures: int = 0
        self.error: CommitFailedError | None = None
        self.committed_at: float | None = None
        # What each request is made inside of, for who measures them.
        self.around: Around = nullcontext

    def attach(self, session: Session, partitions: Partitions) -> None:
        """Say what to commit, and through what."""
        self._session = session
        self._partitions = partitions

    def carry_by(self, transactions: TransactionManager) -> None:
        """Let every commit go in a transaction."""
        self._transactions = transactions

    def acknowledged(self, count: int) -> None:
        """Count acknowledgements, for ``commit_every``."""
        # A back-off is not shortened, so there is nothing to wake up for.
        if self._policy.acknowledged(count) and not self._policy.failures:
            self._wakeup.set()

    async def run(self) -> None:
        """Commit on the timetable, for ever.

        Raises:
            CommitFailedError: A refusal that will not pass.
            AuthorizationError: Not allowed to commit.
            FencedError: Another member has this one's identity.
        """
        while True:
            with trio.move_on_at(self._policy.wake_at()):
                await self._wakeup.wait()
            self._wakeup = trio.Event()
            if self._policy.should_commit(trio.current_time()):
                await self._tick()

    async def _tick(self) -> None:
        transactions = self._transactions
        if transactions is not None and transactions.in_transaction:
            self._policy.put_off(trio.current_time())
            return  # its end commits
        try:
            await self.commit()
        except CommitFailedError as exc:
            if not (exc.retriable or exc.stale):
                raise
            report = self._policy.failed(trio.current_time())
            if report is Report.FAILING:
                # In the middle of a rebalance a refusal is no trouble.
                logger.log(
                    logging.INFO if exc.stale else logging.WARNING,
                    "commit failed, what is finished stays uncommitted and would be delivered"
                    " again after a crash; trying again: %s",
                    exc,
                    extra=about(
                        self._session, exc.offsets, offsets=offsets_of(exc.offsets), error=str(exc)
                    ),
                )

    async def commit(self, selected: Selection | None = None) -> bool:
        """Commit what is finished now: of some assignments, or (None) of all.

        A commit that is under way is waited for first, then what was finished
        meanwhile is committed too.  Cancelling waits for the broker's answer to
        a commit that was sent, so that its outcome is known.

        Returns:
            True if this call committed something.

        Raises:
            CommitFailedError: The broker refused or did not answer; nothing changed.
        """
        async with self._outside_of_transactions(), self._lock:
            return await self._commit_locked(selected)

    def _outside_of_transactions(self) -> AbstractAsyncContextManager[None]:
        return nullcontext() if self._transactions is None else self._transactions.outside()

    def snapshots(self, selected: Selection | None) -> Taken:
        """What a commit would carry now; call it with commits held."""
        taken: Taken = {}
        for assignment in self._partitions:
            if selected is not None and not selected(assignment):
                continue
            snapshot = assignment.ledger.snapshot()
            if snapshot is not None:
                taken[assignment.tp] = (assignment.ledger, snapshot)
        return taken

    def confirmed(self, taken: Taken) -> None:
        """The broker has what such a commit carried."""
        for ledger, snapshot in taken.values():
            ledger.confirm(snapshot)
        self.commits += 1
        self.error = None
        self.committed_at = trio.current_time()

    async def _commit_locked(self, selected: Selection | None) -> bool:
        # The timetable is that of all partitions: a part of them, however often
        # it is committed, does not put off the rest.
        if selected is None:
            self._policy.started()
        taken = self.snapshots(selected)
        if taken:
            offsets = {tp: OffsetAndMetadata(s.offset) for tp, (_, s) in taken.items()}
            transactions = self._transactions
            store = self._session.commit if transactions is None else transactions.commit_offsets
            try:
                with self._diagnostics._doing(Activity.COMMITTING), self.around(offsets):
                    await store(offsets)
            except CommitFailedError as exc:
                self.failures += 1
                self.error = exc
                raise
            self.confirmed(taken)
            if logger.isEnabledFor(logging.DEBUG):
                stored = offsets_of(offsets)
                logger.debug(
                    "committed %s", stored, extra=about(self._session, offsets, offsets=stored)
                )
        if selected is None and self._policy.succeeded(trio.current_time()) is Report.RECOVERED:
            logger.info("commits succeed again", extra=about(self._session))
            self._wakeup.set()  # the ticker still sleeps out the back-off
        return bool(taken)

    async def last_commit(
        self, assignments: Collection[Assignment], deadline: float, *, drained_by: float
    ) -> None:
        """Commit these before they go, trying again until the deadline.

        Args:
            assignments: What goes.
            deadline: When to give up, on Trio's clock.
            drained_by: When a transaction that is still open has to end: after
                that it is aborted, with everything that was finished in it.
                While the member joins, and cannot commit, it is not given up
                before that either.

        Raises:
            CommitFailedError: It did not succeed in time, or cannot.
        """
        patience = max(deadline, drained_by)
        if self._transactions is None:
            await self._last_commit(assignments, deadline, patience)
            return
        going = ", ".join(str(a.tp) for a in assignments)
        if await self._transactions.end_before(drained_by, f"this member gives up {going}"):
            try:
                await self._last_commit(assignments, deadline, patience)
            finally:
                self._transactions.give_turn_back()

    async def _last_commit(
        self, assignments: Collection[Assignment], deadline: float, patience: float
    ) -> None:
        going = set(assignments)
        delay = 0.05
        while True:
            async with self._lock:
                try:
                    await self._commit_locked(going.__contains__)
                except CommitFailedError as exc:
                    limit = patience if exc.stale else deadline
                    if not exc.retriable or trio.current_time() + delay >= limit:
                        raise
                else:
                    return
            # Without the lock: the member may have to hand something over before its
            # join ends, and so before it can commit.
            await trio.sleep(delay)
            delay = min(2 * delay, LONGEST_DELAY)

    def doom_transaction(self, reason: str) -> None:
        """See that a transaction that is open is not committed."""
        if self._transactions is not None:
            self._transactions.doom(reason)

    async def settle(self) -> bool:
        """Wait until no commit is in flight; whether there was one."""
        busy = self._lock.locked()
        async with self._lock:
            return busy

    def held(self) -> AbstractAsyncContextManager[object]:
        """Let nobody commit while a block runs."""
        return self._lock
