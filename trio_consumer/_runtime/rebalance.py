"""What this member does when the group moves its partitions.

Revocation is a hand-over: stop handing out, wait for what is in hand, commit,
tell the user, close the ledgers, and only then let the group go on.  The wait
ends well before the group would throw this member out.  A message that is not
finished by then is not committed; the next owner gets it again.  Work on it that
runs in a scope of that message is cancelled before the commit.

Losing partitions is not a hand-over: they belong to somebody else already, so
nothing is waited for and nothing is committed.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable

import trio

from .._errors import CommitFailedError
from .._types import TopicPartition
from ..transports.base import Session
from .committer import Committer
from .diagnostics import Activity, Diagnostics
from .holding import Whereabouts, held_messages
from .logs import about
from .partitions import Assignment, Partitions

__all__ = ["RebalanceCallback", "Rebalancer", "wait_settled"]

logger = logging.getLogger("trio_consumer.rebalance")

RebalanceCallback = Callable[[frozenset[TopicPartition]], "Awaitable[object] | object"]

SAFE_SHARE = 0.7
"""Share of the client's rebalance timeout that draining and the last commit may
take together; the rest is for the join itself.  Arbitrary."""


class Rebalancer:
    """Answers the group; the session calls it, one event at a time.

    Args:
        partitions: What this member has.
        committer: Commits before partitions go.
        session: Says how long the group waits.
        diagnostics: Told of each rebalance.
        drain_timeout: Seconds to wait for messages in hand.
        on_assigned: The user's callback, plain or async.
        on_revoked: The user's callback, called after the commit and before the
            partitions go.
        on_lost: The user's callback.
    """

    def __init__(
        self,
        partitions: Partitions,
        committer: Committer,
        session: Session,
        diagnostics: Diagnostics,
        *,
        drain_timeout: float,
        on_assigned: RebalanceCallback | None,
        on_revoked: RebalanceCallback | None,
        on_lost: RebalanceCallback | None,
    ) -> None:
        self._partitions = partitions
        self._committer = committer
        self._session = session
        self._diagnostics = diagnostics
        self._drain_timeout = drain_timeout
        self._on_assigned = on_assigned
        self._on_revoked = on_revoked
        self._on_lost = on_lost
        self.generation: int = -1
        self.rebalances: int = 0
        self.on_rebalanced: Callable[[], object] = lambda: None

    async def assigned(self, tps: frozenset[TopicPartition], generation: int) -> None:
        """Begin an assignment of each partition."""
        self.generation = generation
        self.rebalances += 1
        logger.info(
            "assigned %s in generation %d",
            _names(tps),
            generation,
            extra=about(self._session, tps, generation=generation),
        )
        with self._diagnostics._doing(Activity.PARTITIONS_ASSIGNED):
            self._partitions.assign(tps)
            await _call(self._on_assigned, tps)
        self.on_rebalanced()

    async def revoked(self, tps: frozenset[TopicPartition]) -> None:
        """Hand partitions over."""
        logger.info("revoked %s", _names(tps), extra=about(self._session, tps))
        with self._diagnostics._doing(Activity.PARTITIONS_REVOKED):
            await self._hand_over(tps)
        self.on_rebalanced()

    async def _hand_over(self, tps: frozenset[TopicPartition]) -> None:
        started = trio.current_time()
        safe = self._session.rebalance_timeout * SAFE_SHARE
        going = self._partitions.withdraw(tps)
        drained_by = started + min(self._drain_timeout, safe / 2)
        await wait_settled(going, drained_by, self._session)
        self._partitions.end_drain(going)
        try:
            await self._committer.last_commit(going, started + safe, drained_by=drained_by)
        except CommitFailedError as exc:
            logger.warning(
                "the commit before giving up %s failed, their next owner gets what was finished"
                " since the last commit again: %s",
                _names(tps),
                exc,
                extra=about(self._session, tps, error=str(exc)),
            )
        try:
            await _call(self._on_revoked, tps)
        finally:
            self._partitions.close(going)
        # The ticker may have begun a commit for them while the callback ran; it
        # must not arrive after the partitions went.
        await self._committer.settle()

    async def lost(self, tps: frozenset[TopicPartition]) -> None:
        """Give up partitions that others own already."""
        self._committer.doom_transaction(f"this member has lost {_names(tps)}")
        going = self._partitions.withdraw(tps)
        self._partitions.close(going)
        logger.warning(
            "lost %s: this member was thrown out of its group; what it finished since the last"
            " commit is delivered again",
            _names(tps),
            extra=about(self._session, tps),
        )
        # A commit in flight would be repeated by the client under the next
        # generation, over the new owner's: it has to end before the join.
        await self._committer.settle()
        await _call(self._on_lost, tps)


async def wait_settled(assignments: list[Assignment], deadline: float, session: Session) -> None:
    """Wait until nothing of these is in hand; say what still is if the deadline comes first."""
    with trio.move_on_at(deadline):
        for assignment in assignments:
            await assignment.wait_settled()
        return
    for assignment in assignments:
        in_hand = [h for h in held_messages([assignment]) if h.whereabouts is Whereabouts.HAND]
        if in_hand:
            tasks = " or ".join(sorted({task for held in in_hand for task in held.tasks}))
            logger.warning(
                "%s goes with %d messages in hand%s, the oldest at offset %s: they are not"
                " committed and will be delivered again",
                assignment.tp,
                sum(held.count for held in in_hand),
                f" of {tasks}" if tasks else "",
                in_hand[0].oldest,
                extra=about(
                    session,
                    [assignment.tp],
                    offset=in_hand[0].oldest,
                    count=sum(held.count for held in in_hand),
                    tasks=sorted({task for held in in_hand for task in held.tasks}),
                ),
            )


async def _call(callback: RebalanceCallback | None, tps: frozenset[TopicPartition]) -> None:
    if callback is not None:
        result = callback(tps)
        if inspect.isawaitable(result):
            await result


def _names(tps: frozenset[TopicPartition]) -> str:
    return ", ".join(str(tp) for tp in sorted(tps))
