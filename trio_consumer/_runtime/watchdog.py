"""The task that notices when a partition makes no progress.

It looks every 2.5 commit intervals (Faust's rhythm; twice a timeout if that is
shorter), never while the group is
rebalancing.  What it sees it compares by the rules of :mod:`.._core.watchdog`;
each assignment begins with new ones, so a partition that has just arrived is
never late.  Where a partition has been quiet for long it asks the broker for
the end: a client that has stopped fetching would say that there is nothing.

It changes nothing.  It logs one warning and calls the hook once for each
episode, and logs once more when the partition goes on.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio

from .._core.watchdog import FETCHING, Change, Observation, PartitionWatch, Symptom, Watch
from .._errors import TransportError
from .._types import TopicPartition
from ..transports.base import Session
from .diagnostics import Activity, Diagnostics
from .flow_gate import FlowGate
from .holding import HeldMessages, Whereabouts, held_messages
from .logs import about
from .partitions import Assignment, Partitions

__all__ = ["Livelock", "LivelockHook", "Watchdog"]

logger = logging.getLogger("trio_consumer.watchdog")

INTERVALS = 2.5
"""Commit intervals between two looks; Faust's."""

QUIET_SHARE = 0.25
"""Share of the timeout after which a quiet partition's end is asked for, and again
after each such time.  Arbitrary: the alarm comes at most that much later."""

REBALANCING = {Activity.PARTITIONS_ASSIGNED, Activity.PARTITIONS_REVOKED}


@dataclass(frozen=True, slots=True)
class Livelock:
    """A partition that makes no progress.

    Attributes:
        tp: The partition.
        symptom: What is wrong.
        seconds: For how long nothing has moved.
        position: Offset after the last message given to the streams, or None.
        committed: The offset confirmed since the partition was assigned, or None.
        end: End of the partition as far as is known, or None.
        held: What is unfinished: by stream, how old, and which task has it.
    """

    tp: TopicPartition
    symptom: Symptom
    seconds: float
    position: int | None
    committed: int | None
    end: int | None
    held: tuple[HeldMessages, ...]

    def __str__(self) -> str:
        text = f"{self.tp}: {self.symptom.value}, for {self.seconds:.0f} s"
        text += f" (position {self.position}, committed {self.committed}, end {self.end})"
        if self.held:
            text += f". {'; '.join(map(str, self.held))}"
        return text


LivelockHook = Callable[[Livelock], "Awaitable[object] | object"]


class _Watched:
    """What the watchdog knows of one assignment."""

    def __init__(self, timeout: float, commit_timeout: float, time: float) -> None:
        self.watch = PartitionWatch(timeout, commit_timeout)
        self.cursor: int | None = None
        self.moved_at = time
        self.asked_at = time
        self.end: int | None = None
        self.refused = False


class Watchdog:
    """Looks at every partition from time to time.

    Args:
        session: Asked for the ends of quiet partitions.
        partitions: What is watched.
        flow: Whether messages are handed out at all.
        diagnostics: Whether the group is rebalancing.
        timeout: Seconds without progress until an episode begins.
        commit_interval: Seconds between commits.
        hook: Called with each :class:`Livelock`.
    """

    def __init__(
        self,
        session: Session,
        partitions: Partitions,
        flow: FlowGate,
        diagnostics: Diagnostics,
        *,
        timeout: float,
        commit_interval: float,
        hook: LivelockHook | None,
    ) -> None:
        self._session = session
        self._partitions = partitions
        self._flow = flow
        self._diagnostics = diagnostics
        self._timeout = timeout
        self._interval = min(INTERVALS * commit_interval, timeout / 2)
        # A commit that is not due yet is not late.
        self._commit_timeout = max(timeout, 2 * commit_interval)
        self._hook = hook
        self._watch = Watch(self._interval, now=trio.current_time())
        self._watched: dict[Assignment, _Watched] = {}

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await trio.sleep(self._interval)
            await self.look()

    async def look(self) -> None:
        """Look at every partition once, tell what has changed."""
        now = trio.current_time()
        if self._rebalancing:
            self._watch.look(now, blind=True)
            return
        time = self._watch.look(now)
        await self._ask_ends(time)
        if self._rebalancing:
            return
        current = {a: self._watched.get(a) or self._new(time) for a in self._open()}
        self._watched = current
        for assignment, watched in current.items():
            for change in watched.watch.observe(time, self._observe(assignment, watched)):
                await self._tell(assignment, watched, change)

    def verify(self, now: float, tp: TopicPartition, *, fetching_only: bool) -> list[Livelock]:
        """The symptoms that one partition would show at a time; tells nobody."""
        for assignment, watched in self._watched.items():
            if assignment.tp == tp and assignment.is_open:
                elapsed = max(0.0, now - trio.current_time())
                showing = watched.watch.showing_at(
                    self._watch.time + elapsed, self._observe(assignment, watched)
                )
                return [
                    self._livelock(assignment, watched, symptom, seconds)
                    for symptom, seconds in showing.items()
                    if not fetching_only or symptom in FETCHING
                ]
        return []

    @property
    def _rebalancing(self) -> bool:
        return bool(REBALANCING & self._diagnostics.flags)

    def _open(self) -> list[Assignment]:
        return [assignment for assignment in self._partitions if assignment.is_open]

    def _new(self, time: float) -> _Watched:
        return _Watched(self._timeout, self._commit_timeout, time)

    # -- what there is to see ----------------------------------------------------------

    def _observe(self, assignment: Assignment, watched: _Watched) -> Observation:
        ledger = assignment.ledger
        snapshot = ledger.snapshot()
        oldest = ledger.oldest_unfinished
        return Observation(
            fetching=self._partitions.flow.is_open(assignment.tp),
            consuming=oldest is not None and self._could_be_finished(assignment),
            cursor=assignment.cursor,
            # As asked for, if it was: the watermark that fetches bring lies behind
            # what readers of committed messages may see.
            end=assignment.high_watermark if watched.end is None else watched.end,
            end_refused=watched.refused,
            committed=ledger.committed,
            committable=None if snapshot is None else snapshot.offset,
            oldest_unfinished=oldest,
        )

    def _could_be_finished(self, assignment: Assignment) -> bool:
        """Whether the oldest message waits for somebody, and not for the user's word."""
        if not assignment.takers:
            return False
        if self._flow.active:
            return True
        oldest = min(held_messages([assignment]), key=lambda held: held.oldest)
        return oldest.whereabouts is not Whereabouts.BUFFER

    async def _ask_ends(self, time: float) -> None:
        """Ask for the ends of the partitions that ought to be read and are quiet."""
        quiet = []
        for assignment in self._open():
            watched = self._watched.setdefault(assignment, self._new(time))
            if assignment.cursor != watched.cursor or not self._partitions.flow.is_open(
                assignment.tp
            ):
                watched.cursor = assignment.cursor
                watched.moved_at = watched.asked_at = time
                watched.end = None
                watched.refused = False
            elif time - watched.asked_at >= QUIET_SHARE * self._timeout:
                quiet.append(watched)
                watched.asked_at = time
        asked = {a.tp: w for a, w in self._watched.items() if w in quiet}
        if not asked:
            return
        try:
            ends = await self._session.end_offsets(asked)
        except TransportError:
            for watched in asked.values():
                watched.refused = True
            return
        for tp, watched in asked.items():
            watched.end = ends.get(tp)
            watched.refused = False

    # -- what there is to say ------------------------------------------------------------

    def _livelock(
        self, assignment: Assignment, watched: _Watched, symptom: Symptom, seconds: float
    ) -> Livelock:
        seen = self._observe(assignment, watched)
        return Livelock(
            assignment.tp,
            symptom,
            seconds,
            assignment.ledger.position,
            seen.committed,
            seen.end,
            tuple(held_messages([assignment])),
        )

    async def _tell(self, assignment: Assignment, watched: _Watched, change: Change) -> None:
        if not change.begins:
            logger.info(
                "%s goes on after %.0f s: %s no longer",
                assignment.tp,
                change.seconds,
                change.symptom.value,
                extra=about(
                    self._session,
                    [assignment.tp],
                    symptom=change.symptom.name,
                    seconds=change.seconds,
                ),
            )
            return
        livelock = self._livelock(assignment, watched, change.symptom, change.seconds)
        oldest = assignment.ledger.oldest_unfinished
        logger.warning(
            "no progress: %s",
            livelock,
            extra=about(
                self._session,
                [assignment.tp],
                livelock=livelock,
                symptom=change.symptom.name,
                seconds=change.seconds,
                offset=oldest,
                committed=livelock.committed,
                tasks=sorted({task for held in livelock.held for task in held.tasks}),
            ),
        )
        if self._hook is not None:
            result = self._hook(livelock)
            if inspect.isawaitable(result):
                await result
