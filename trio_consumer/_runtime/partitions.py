"""The partitions that this member has, and what belongs to each of them.

:class:`Partitions` is the one owner of that state.  Its methods are plain
functions: they change the ledgers, the takers and the pause reasons together,
between two checkpoints, so that no task ever sees half of a change.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Collection, Generator, Hashable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import NamedTuple

import trio

from .._core.delivered_batch import FIRST_STREAM_BIT, DeliveredBatch
from .._core.fanout import Taker, rewind_to
from .._core.flow import Flow, FullBuffer, PauseReason
from .._core.ledger import Ledger
from .._types import AckMode, TopicPartition
from ..transports.base import PolledBatch, Session
from .stream import Stream

__all__ = ["Assignment", "AssignmentState", "Partitions", "Pending"]


class AssignmentState(enum.Enum):
    """Where an assignment is in its life."""

    OPEN = "open"
    REVOKING = "revoking"
    """Nothing is handed out any more; what is in hand may still be finished."""
    DRAINED = "drained"
    """The wait for what is in hand is over; the last commit is to come."""
    CLOSED = "closed"
    STRAY = "stray"
    """Never this member's: read for a topic of ``randomly_assigned_topics``."""


Forfeit = Callable[[], object]


class Pending(NamedTuple):
    """Polled records that were not handed to the streams yet."""

    batch: PolledBatch
    start: int


class Assignment:
    """One partition from the moment it is assigned until it goes.

    Attributes:
        tp: The partition.
        ledger: The account of its messages.  A seek begins a new one.
        takers: The streams that take it.
        pending: Records that arrived while the partition was held.
        reading: Changes with each jump of the position: records that were
            polled under another one are stale.
        cursor: Offset up to which polled records were taken in, None before
            the first.
        new_scope: Makes a cancel scope for the tasks of the user.
        observed: Whether records that no acknowledging stream has had were read
            since the last jump.
        high_watermark: As the broker last said, or None.
        state: Where it is in its life.
        began: Where its first record was read, None before that.
    """

    __slots__ = (
        "_scopes",
        "_settled",
        "began",
        "cursor",
        "high_watermark",
        "ledger",
        "new_scope",
        "observed",
        "pending",
        "reading",
        "state",
        "takers",
        "tp",
    )

    observed: bool
    reading: object

    def __init__(
        self, tp: TopicPartition, ledger: Ledger, new_scope: Callable[[], trio.CancelScope]
    ) -> None:
        self.tp: TopicPartition = tp
        self.ledger: Ledger = ledger
        self.takers: list[Taker[Stream]] = []
        self.pending: deque[Pending] = deque()
        self.reading = object()
        self.cursor: int | None = None
        self.observed = False
        self.high_watermark: int | None = None
        self.state: AssignmentState = AssignmentState.OPEN
        self.new_scope: Callable[[], trio.CancelScope] = new_scope
        self.began: int | None = None
        self._settled = trio.lowlevel.ParkingLot()
        # Each with the message that it is for, None if it is for the partition.
        self._scopes: dict[trio.CancelScope, Forfeit | None] = {}

    def __repr__(self) -> str:
        return f"<Assignment {self.tp} {self.state.value} {self.ledger!r}>"

    @property
    def is_open(self) -> bool:
        """Whether its messages are handed out."""
        return self.state is AssignmentState.OPEN

    @property
    def acknowledges(self) -> bool:
        """Whether there is a stream that finishes its messages."""
        return any(taker.bit for taker in self.takers)

    def jump(self, offset: int | None) -> None:
        """Forget what was read: reading goes on from another place."""
        self.pending.clear()
        self.reading = object()
        self.cursor = offset
        self.observed = False

    async def wait_settled(self) -> None:
        """Wait until no message of this partition is in anybody's hand."""
        while self.ledger.in_hand:
            await self.wait_progress()

    async def wait_progress(self) -> None:
        """Wait until a batch has been finished, or the account has ended."""
        self.ledger.on_settled = self._settled.unpark_all
        await self._settled.park()

    def partition_scope(self) -> AbstractContextManager[trio.CancelScope]:
        """A scope that is cancelled when this assignment ends."""
        return self._scope(None, lambda: self.state is AssignmentState.CLOSED)

    def message_scope(
        self, ledger: Ledger, forfeit: Forfeit
    ) -> AbstractContextManager[trio.CancelScope]:
        """A scope that is cancelled when a message can no longer be finished.

        Args:
            ledger: The account of the message.
            forfeit: Sees to that, if its time is over before its account ends.
        """

        def is_over() -> bool:
            if ledger is not self.ledger or self.state is AssignmentState.CLOSED:
                return True
            if self.state is not AssignmentState.DRAINED:
                return False
            forfeit()
            return True

        return self._scope(forfeit, is_over)

    @contextmanager
    def _scope(
        self, forfeit: Forfeit | None, is_over: Callable[[], bool]
    ) -> Generator[trio.CancelScope, None, None]:
        with self.new_scope() as scope:
            # Asked here and not where it was made: it may be entered later.
            if is_over():
                scope.cancel()
            self._scopes[scope] = forfeit
            try:
                yield scope
            finally:
                del self._scopes[scope]

    def _cancel_message_scopes(self, *, forfeit: bool) -> None:
        for scope, of_message in self._scopes.items():
            if of_message is not None:
                if forfeit:
                    of_message()
                scope.cancel()

    def _cancel_scopes(self) -> None:
        for scope in self._scopes:
            scope.cancel()


class Partitions:
    """Everything that this member has been assigned.

    Args:
        session: The client, to pause, resume and seek.
        on_count: Told the number of acknowledgements, if commits go by count.
        pin_start: See :class:`Ledger`.
    """

    def __init__(
        self,
        session: Session,
        on_count: Callable[[int], object] | None,
        *,
        pin_start: bool,
    ) -> None:
        self.flow: Flow = Flow()
        self.streams: list[Stream] = []
        self.new_scope: Callable[[], trio.CancelScope] = trio.CancelScope
        self._session = session
        self._new_ledger = partial(Ledger, on_count=on_count, pin_start=pin_start)
        self._assignments: dict[TopicPartition, Assignment] = {}
        self._bits: dict[Stream, int] = {}
        self._flow_stopped = False

    def __iter__(self) -> Iterator[Assignment]:
        return iter(list(self._assignments.values()))

    def __len__(self) -> int:
        return len(self._assignments)

    def get(self, tp: TopicPartition) -> Assignment | None:
        """The assignment of a partition, None if this member does not have it."""
        return self._assignments.get(tp)

    # -- assignments -----------------------------------------------------------

    def assign(self, tps: Iterable[TopicPartition]) -> list[Assignment]:
        """Begin an assignment of each partition, with an empty account."""
        added = []
        for tp in sorted(tps):
            assignment = Assignment(tp, self._new_ledger(tp), self.new_scope)
            self._assignments[tp] = assignment
            added.append(assignment)
            for stream in self.streams:
                if stream.takes(tp):
                    assignment.takers.append(Taker(stream, self._bits[stream]))
        self.flow.add(a.tp for a in added)
        self.hold((a.tp for a in added if not a.takers), PauseReason.UNWANTED)
        if self._flow_stopped:
            self.hold((a.tp for a in added), PauseReason.FLOW)
        for stream in self.streams:
            if stream.is_full:
                self.pressure_changed(stream)
        return added

    def stray(self, tp: TopicPartition) -> Assignment:
        """A stand-in for a partition that is not assigned, to hand on one poll of it.

        Its messages can be processed and not be finished: nobody commits them here.
        """
        assignment = Assignment(tp, Ledger(tp), self.new_scope)
        assignment.state = AssignmentState.STRAY
        assignment.takers = [Taker(s, self._bits[s]) for s in self.streams if s.takes(tp)]
        return assignment

    def withdraw(self, tps: Iterable[TopicPartition]) -> list[Assignment]:
        """Stop handing out these partitions; what is in hand may be finished."""
        going = [a for tp in sorted(tps) if (a := self._assignments.get(tp)) is not None]
        for assignment in going:
            assignment.state = AssignmentState.REVOKING
            assignment.jump(None)
        for assignment in going:
            for taker in assignment.takers:
                taker.stream._remove(assignment, DeliveredBatch.withdraw)
        return going

    def end_drain(self, assignments: Iterable[Assignment]) -> None:
        """Cancel the scopes of messages: the wait for what is in hand is over.

        In the same step these are forfeited: a body that was cancelled may let
        its loop come back, and that must not finish its message.
        """
        for assignment in assignments:
            assignment.state = AssignmentState.DRAINED
            assignment._cancel_message_scopes(forfeit=True)

    def close(self, assignments: Iterable[Assignment]) -> None:
        """End assignments: nothing of them can be finished any more."""
        for assignment in assignments:
            if assignment.state is AssignmentState.OPEN:
                self.withdraw([assignment.tp])
            assignment.state = AssignmentState.CLOSED
            assignment.ledger.close()
            assignment._cancel_scopes()
            assignment._settled.unpark_all()
            assignment.takers.clear()
            if self._assignments.get(assignment.tp) is assignment:
                del self._assignments[assignment.tp]
                self.flow.discard([assignment.tp])

    def seek(self, assignment: Assignment, offset: int) -> None:
        """Go on reading elsewhere, with a new account."""
        self.restart(assignment, offset)
        self._session.seek(assignment.tp, offset)

    def restart(self, assignment: Assignment, offset: int | None) -> None:
        """Begin a new account because the position jumped."""
        # First, or a buffer that drains by it would take in what is pending.
        assignment.jump(offset)
        for taker in assignment.takers:
            taker.stream._remove(assignment, DeliveredBatch.withdraw)
            taker.since = None
            taker.seen = 0
        assignment.ledger.close()
        assignment._cancel_message_scopes(forfeit=False)
        assignment._settled.unpark_all()
        assignment.ledger = self._new_ledger(assignment.tp)

    def rewind_to_committed(self) -> None:
        """Undo what was finished since the last commit: it comes again.

        A partition that is going away is only closed, so that nothing of it is
        committed any more; its next owner begins at the committed offset.
        """
        for assignment in self:
            ledger = assignment.ledger
            target = ledger.start if ledger.committed is None else ledger.committed
            if assignment.is_open:
                if target is not None and ledger.position != target:
                    self.seek(assignment, target)
            else:
                ledger.close()
                assignment._settled.unpark_all()

    # -- streams ---------------------------------------------------------------

    def open_stream(self, stream: Stream) -> None:
        """Let a stream take its part of what is assigned already."""
        bit = 0
        if stream.ack_mode is not AckMode.NONE:
            used = set(self._bits.values())
            bit = FIRST_STREAM_BIT
            while bit in used:
                bit <<= 1
        self._bits[stream] = bit
        self.streams.append(stream)
        wanted = []
        for assignment in self:
            if assignment.state is AssignmentState.OPEN and stream.takes(assignment.tp):
                assignment.takers.append(Taker(stream, bit))
                wanted.append(assignment)
        self._rewind(wanted)
        self.release((a.tp for a in wanted), PauseReason.UNWANTED)

    def close_stream(self, stream: Stream, *, failed: bool) -> None:
        """Give back what a stream never handed out; abandon what it has in hand.

        Args:
            stream: The stream.
            failed: It did not choose to end, so what it never handed out is owed
                to whoever takes its place, even if other streams finished it.
        """
        if stream not in self._bits:
            return
        bit = self._bits.pop(stream)
        self.streams.remove(stream)
        left = []
        for assignment in self:
            takers = [taker for taker in assignment.takers if taker.stream is not stream]
            if len(takers) < len(assignment.takers):
                assignment.takers = takers
                left.append(assignment)
        still = [a for a in left if a.state is AssignmentState.OPEN]
        # Before the buffer's own hold ends: what is pending would be handed to
        # nobody, or to the streams that stay before they got what comes first.
        self.hold((a.tp for a in still if not a.takers), PauseReason.UNWANTED)
        stream._remove(None, DeliveredBatch.withdraw if failed else DeliveredBatch.release)
        if bit:
            for assignment in left:
                assignment.ledger.close_stream(bit)
        self._rewind(a for a in still if a.takers)
        self.release(list(self.flow.partitions), stream)

    def _rewind(self, assignments: Iterable[Assignment]) -> None:
        """Read again what nobody processed, where a stream can get it now."""
        for assignment in assignments:
            read = assignment.cursor if assignment.observed else None
            target = rewind_to(assignment.ledger, assignment.takers, read)
            # Never forwards: what lies between is still to be read.
            if target is not None and (assignment.cursor is None or target < assignment.cursor):
                assignment.jump(target)
                self._session.seek(assignment.tp, target)

    # -- flow ------------------------------------------------------------------

    def hold(self, tps: Iterable[TopicPartition], reason: Hashable) -> None:
        """Hold partitions back for a reason."""
        changed = self.flow.hold(tps, reason)
        if changed:
            self._session.pause(changed)

    def release(self, tps: Iterable[TopicPartition], reason: Hashable) -> None:
        """Take a reason away; what it was the last one for flows again."""
        changed = self.flow.release(tps, reason)
        if changed:
            self._session.resume(changed)
            self.on_released(changed)

    def forget_pauses(self) -> None:
        """End every hold that was asked for from outside."""
        for tp in list(self.flow.partitions):
            for reason in self.flow.reasons(tp):
                if reason is PauseReason.USER or isinstance(reason, FullBuffer):
                    self.release([tp], reason)

    def on_released(self, tps: Collection[TopicPartition]) -> None:
        """Set by the conductor: hand on what is pending."""

    def pressure_changed(self, stream: Stream) -> None:
        """A stream's buffer became full or has drained."""
        if stream not in self._bits:
            return  # it closes, and close_stream() releases when all else is done
        if stream.is_full:
            taken = [a.tp for a in self if any(t.stream is stream for t in a.takers)]
            self.hold(taken, stream)
        else:
            self.release(list(self.flow.partitions), stream)

    def stop_flow(self) -> None:
        """Hold every partition back, those that are still to come too."""
        self._flow_stopped = True
        self.hold(list(self.flow.partitions), PauseReason.FLOW)

    def resume_flow(self) -> None:
        """End :meth:`stop_flow`."""
        self._flow_stopped = False
        self.release(list(self.flow.partitions), PauseReason.FLOW)
