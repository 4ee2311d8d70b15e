"""Where partitions are read, and moving that place.

A seek is a plain function of the session and of the ledgers, so it happens in
one step.  What has to be asked of the broker first is asked while no commit can
run, and an answer counts only for the assignment that it was asked for.
"""

from __future__ import annotations

from collections.abc import Iterable

import trio

from .._errors import ConfigurationError
from .._types import OffsetAndMetadata, TopicPartition
from ..transports.base import Session
from .arguments import check_offset, check_partition, check_partitions
from .committer import Committer
from .diagnostics import Activity, Diagnostics
from .partitions import Assignment, Partitions

__all__ = ["Positions"]


class Positions:
    """Reads and moves the positions of what is assigned.

    Args:
        session: The client.
        partitions: What is assigned.
        committer: Holds commits back while positions are looked up.
        diagnostics: Told of each seek.
        auto_offset_reset: Where a partition without a committed offset begins.
    """

    def __init__(
        self,
        session: Session,
        partitions: Partitions,
        committer: Committer,
        diagnostics: Diagnostics,
        *,
        auto_offset_reset: str,
    ) -> None:
        self._session = session
        self._partitions = partitions
        self._committer = committer
        self._diagnostics = diagnostics
        self._reset = auto_offset_reset

    def assigned(self, tp: TopicPartition) -> Assignment:
        """The assignment of a partition that this member has.

        Raises:
            ConfigurationError: It is not assigned to this member.
        """
        tp = check_partition("tp", tp)
        assignment = self._partitions.get(tp)
        if assignment is None or not assignment.is_open:
            mine = sorted(str(a.tp) for a in self._partitions if a.is_open)
            raise ConfigurationError(f"{tp} is not assigned to this member; it has {mine}")
        return assignment

    async def seek(self, tp: TopicPartition, offset: int) -> None:
        """Go on reading a partition at an offset."""
        await trio.lowlevel.checkpoint()
        assignment = self.assigned(tp)
        self._partitions.seek(assignment, check_offset("offset", offset))

    async def seek_to_committed(self) -> dict[TopicPartition, int]:
        """Go back to the committed offsets; where each partition goes on."""
        with self._diagnostics._doing(Activity.SEEKING):
            # A commit that is confirmed between the answer and the seek would be
            # read back, and the next one would be lower.
            async with self._committer.held():
                asked = [a for a in self._partitions if a.is_open]
                stored = await self.committed([a.tp for a in asked])
                fresh = [a for a in asked if stored.get(a.tp) is None]
                begins: dict[TopicPartition, int] = {}
                if fresh and self._reset == "earliest":
                    begins = await self._session.beginning_offsets([a.tp for a in fresh])
                return self._seek_back(asked, stored, begins)

    def _seek_back(
        self,
        assignments: Iterable[Assignment],
        stored: dict[TopicPartition, OffsetAndMetadata | None],
        begins: dict[TopicPartition, int],
    ) -> dict[TopicPartition, int]:
        found = {}
        for assignment in assignments:
            if not assignment.is_open:
                continue
            committed = stored.get(assignment.tp)
            if committed is not None:
                target: int | None = committed.offset
            else:
                target = begins.get(assignment.tp, assignment.began)
            if target is not None:
                self._partitions.seek(assignment, target)
                found[assignment.tp] = target
        return found

    async def committed(
        self, tps: Iterable[TopicPartition]
    ) -> dict[TopicPartition, OffsetAndMetadata | None]:
        """Ask the broker for the committed offsets of the group."""
        return await self._session.committed(check_partitions("tps", tps))

    async def beginning_offsets(self, tps: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Ask the broker for the first offset in each partition."""
        return await self._session.beginning_offsets(check_partitions("tps", tps))

    async def end_offsets(self, tps: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Ask the broker for the end of each partition."""
        return await self._session.end_offsets(check_partitions("tps", tps))
