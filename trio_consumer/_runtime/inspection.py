"""What a program may ask of a consumer; asking changes nothing.

:class:`ConsumerInspection` is the half of :class:`~.consumer.Consumer` that
only looks.  It also holds the parts that :func:`~.opening.open_consumer` made
the consumer of.
"""

from __future__ import annotations

from collections.abc import Iterable

import trio

from .._core.scheduling import SchedulingStrategy
from .._types import GroupMetadata, OffsetAndMetadata, TopicPartition
from ..transports.base import Session, Transport
from .committer import Committer
from .diagnostics import Diagnostics
from .flow_gate import FlowEvent, FlowGate
from .holding import HeldMessages, held_messages
from .message import Message
from .partitions import Partitions
from .positions import Positions
from .rebalance import Rebalancer
from .settings import ConsumerSettings
from .statistics import ConsumerStatistics, UnackedMessage, of_partition, of_stream
from .stream import Stream
from .subscription import Subscription
from .transactions import TransactionManager
from .watchdog import Livelock, Watchdog

__all__ = ["ConsumerInspection"]


class ConsumerInspection:
    """What a consumer is, has, and is doing."""

    def __init__(
        self,
        settings: ConsumerSettings,
        *,
        transport: Transport,
        session: Session,
        partitions: Partitions,
        committer: Committer,
        rebalancer: Rebalancer,
        subscription: Subscription,
        flow: FlowGate,
        positions: Positions,
        diagnostics: Diagnostics,
        watchdog: Watchdog,
        transactions: TransactionManager | None,
    ) -> None:
        self._settings = settings
        self._transport = transport
        self._session = session
        self._partitions = partitions
        self._committer = committer
        self._rebalancer = rebalancer
        self._subscription = subscription
        self._flow = flow
        self._positions = positions
        self._diagnostics = diagnostics
        self._watchdog = watchdog
        self._transactions = transactions
        self._token = trio.lowlevel.current_trio_token()
        self._fetched: Stream | None = None
        self._stopping = False

    # -- what it is -------------------------------------------------------------------

    @property
    def transport(self) -> Transport:
        """Where it consumes from."""
        return self._transport

    @property
    def consumer_stopped_errors(self) -> tuple[type[BaseException], ...]:
        """What the client raises once it is closed.

        A normal end while the consumer stops, a failure at any other time.
        """
        return self._transport.closed_errors

    @property
    def commit_interval(self) -> float:
        """Seconds between commits."""
        return self._settings.commit_interval

    @property
    def commit_every(self) -> int | None:
        """Acknowledgements after which to commit too, or None."""
        return self._settings.commit_every

    @property
    def randomly_assigned_topics(self) -> frozenset[str]:
        """Topics whose records are taken even of partitions that are not assigned."""
        return self._settings.randomly_assigned_topics

    @property
    def scheduler(self) -> SchedulingStrategy:
        """The order of delivery out of one poll."""
        return self._settings.scheduler

    # -- transactions ----------------------------------------------------------------

    @property
    def transactions(self) -> TransactionManager | None:
        """Who begins and ends the transactions; None without ``transactional_id``."""
        return self._transactions

    @property
    def in_transaction(self) -> bool:
        """Whether a block of :meth:`transaction` is open."""
        return self._transactions is not None and self._transactions.in_transaction

    # -- flow ---------------------------------------------------------------------------

    @property
    def flow_active(self) -> bool:
        """False between :meth:`stop_flow` and :meth:`resume_flow`."""
        return self._flow.active

    @property
    def can_resume_flow(self) -> FlowEvent:
        """Set while messages are handed out."""
        return self._flow.flowing

    @property
    def suspend_flow(self) -> FlowEvent:
        """Set while flow is stopped."""
        return self._flow.suspended

    @property
    def not_waiting_next_records(self) -> FlowEvent:
        """Set while flow is stopped and no record is on its way from the broker."""
        return self._flow.not_fetching

    # -- messages -----------------------------------------------------------------------

    def track_message(self, message: Message) -> bool:
        """Whether an acknowledgement of this message is still awaited.

        Every message is tracked before anybody sees it, so nothing has to be
        done for that (in Faust whoever fetches a message must call this).

        Returns:
            False if its stream has finished it or only observes, or if the
            partition has been revoked or sought.
        """
        return message._chunk.is_tracked(message._index)

    @property
    def unacked(self) -> frozenset[UnackedMessage]:
        """Messages that were delivered and that some stream has not finished.

        Takes time in proportion to their number; ``statistics().unfinished``
        only counts them.
        """
        return frozenset(
            UnackedMessage(assignment.tp, offset)
            for assignment in self._partitions
            for offset in assignment.ledger.unfinished()
        )

    def held(self) -> list[HeldMessages]:
        """What is unfinished: by partition and stream, how long, and which task has it."""
        return held_messages(self._partitions)

    # -- what is known -----------------------------------------------------------------

    @property
    def assignment(self) -> frozenset[TopicPartition]:
        """The partitions that this member has now."""
        return frozenset(a.tp for a in self._partitions if a.is_open)

    @property
    def generation(self) -> int:
        """The group's generation at the last assignment, -1 before the first."""
        return self._rebalancer.generation

    @property
    def diag(self) -> Diagnostics:
        """What it is doing at this moment: ``consumer.diag.flags``."""
        return self._diagnostics

    @property
    def group_metadata(self) -> GroupMetadata:
        """The membership of this consumer in its group now."""
        return self._session.group_metadata()

    def position(self, tp: TopicPartition) -> int | None:
        """Offset after the last message given to the streams, None before the first.

        Raises:
            ConfigurationError: The partition is not assigned to this member.
        """
        return self._positions.assigned(tp).ledger.position

    async def committed(
        self, tps: Iterable[TopicPartition] | None = None
    ) -> dict[TopicPartition, OffsetAndMetadata | None]:
        """Ask the broker for the committed offsets of the group.

        Args:
            tps: Which partitions; None for those assigned.

        Raises:
            TransportError: The broker did not answer in time.
        """
        return await self._positions.committed(self.assignment if tps is None else tps)

    async def beginning_offsets(self, tps: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Ask the broker for the first offset in each partition."""
        return await self._positions.beginning_offsets(tps)

    async def end_offsets(self, tps: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Ask the broker for the end of each partition (last stable offset if committed only)."""
        return await self._positions.end_offsets(tps)

    def statistics(self) -> ConsumerStatistics:
        """A frozen snapshot of what this consumer is doing; asks the broker nothing.

        ``statistics().what_holds_back()`` says in words why committed offsets
        stand still.  Each call looks at each partition once, so it may be made
        some times a second; :meth:`held` looks at each unfinished message.
        """
        committer = self._committer
        return ConsumerStatistics(
            group=self._settings.group,
            generation=self._rebalancer.generation,
            rebalances=self._rebalancer.rebalances,
            commits=committer.commits,
            commit_failures=committer.failures,
            commit_error=None if committer.error is None else str(committer.error),
            seconds_since_commit=(
                None
                if committer.committed_at is None
                else trio.current_time() - committer.committed_at
            ),
            activities=self._diagnostics.flags,
            partitions={a.tp: of_partition(a, self._partitions.flow) for a in self._partitions},
            streams=tuple(of_stream(stream) for stream in self._partitions.streams),
        )

    def verify_event_path(self, now: float, tp: TopicPartition) -> list[Livelock]:
        """What of a partition has not moved for too long at a time; tells nobody.

        Args:
            now: On Trio's clock; in the future, what would show if nothing moves.
            tp: The partition.
        """
        return self._watchdog.verify(now, tp, fetching_only=False)

    def verify_recovery_event_path(self, now: float, tp: TopicPartition) -> list[Livelock]:
        """The same for the way from the broker to the buffers only.

        (In Faust: for partitions of tables that are being recovered, which are
        fetched and not acknowledged.)
        """
        return self._watchdog.verify(now, tp, fetching_only=True)
