"""The Trio side of a confluent-kafka client."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

import trio
from confluent_kafka import KafkaError, KafkaException

from ..._errors import UnknownTopicError
from ..._types import GroupMetadata, OffsetAndMetadata, TopicPartition
from ..base import PolledBatch, RebalanceListener, SessionSettings
from .inquirer import Inquirer
from .options import MAX_POLL_INTERVAL_MS, METADATA_REFRESH_MS, is_cooperative, seconds
from .poll_loop import Barrier, Commit, PollLoop, Rebalance, Seek, Subscribe
from .rebalances import RebalanceTask, StartFinder
from .translate import commit_error, query_error

__all__ = ["ConfluentSession"]

logger: logging.Logger = logging.getLogger("trio_consumer.transport")

T = TypeVar("T")

TOPIC_PATIENCE = 3.0
"""Seconds until a topic that no broker knows is an error: one that was made a moment
ago is not known everywhere at once."""

RETRY = 0.2
"""Seconds between two commits for a partition that the broker did not know; arbitrary."""

MISSING = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.UNKNOWN_TOPIC_ID)


class ConfluentSession:
    """A group member on confluent-kafka, see :class:`~trio_consumer.transports.Session`.

    Args:
        inquirer: A client that is connected already.
        options: What the member's client is made with.
        settings: What the runtime wants.
        listener: Who is told of rebalances.
        max_poll_records: The most that one poll may take.
    """

    def __init__(
        self,
        inquirer: Inquirer,
        options: dict[str, Any],
        settings: SessionSettings,
        listener: RebalanceListener,
        max_poll_records: int,
    ) -> None:
        self._inquirer = inquirer
        self._options = options
        self._settings = settings
        self._cooperative = is_cooperative(options)
        self._token = trio.lowlevel.current_trio_token()
        self.loop: PollLoop = PollLoop(
            options,
            cooperative=self._cooperative,
            max_poll_records=max_poll_records,
            deliver=self._wake_from_thread,
            ask=self._ask_from_thread,
        )
        fallbacks = {"earliest": self.beginning_offsets, "latest": self.end_offsets}
        starts = StartFinder(self.committed, fallbacks.get(settings.auto_offset_reset))
        self._rebalances = RebalanceTask(self.loop, listener, starts, self._gone)
        self._arrived = trio.lowlevel.ParkingLot()
        self._quiesced = trio.lowlevel.ParkingLot()
        self._committed = trio.lowlevel.ParkingLot()
        self._barriers = 0
        # A commit whose answer was given up; the next one has to wait for it.
        self._doubtful: Commit | None = None
        self._paused: frozenset[TopicPartition] = frozenset()
        self._seeks: Counter[TopicPartition] = Counter()
        self._poll_limiter = trio.CapacityLimiter(1)
        self._query_limiter = trio.CapacityLimiter(1)

    # -- the thread --------------------------------------------------------------

    async def run(self) -> None:
        """Poll and pass rebalances on until :meth:`stop`."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._answer_group)
            await trio.to_thread.run_sync(self.loop.run, limiter=self._poll_limiter)
            nursery.cancel_scope.cancel()

    async def _answer_group(self) -> None:
        try:
            await self._rebalances.run()
        except Exception:
            # The thread polls on, and this nursery waits for the thread.
            self.stop()
            raise

    def stop(self) -> None:
        """Let the polling thread end; a rebalance that waits for us ends with the client."""
        self.loop.stop()

    def _wake_from_thread(self) -> None:
        try:
            self._token.run_sync_soon(self._wake, idempotent=True)
        except trio.RunFinishedError:
            self.loop.stop()

    def _wake(self) -> None:
        self._arrived.unpark_all()
        self._quiesced.unpark_all()
        self._committed.unpark_all()

    def _ask_from_thread(self, rebalance: Rebalance) -> None:
        try:
            self._token.run_sync_soon(self._rebalances.receive, rebalance)
        except trio.RunFinishedError:
            self.loop.stop()

    def _gone(self, tps: frozenset[TopicPartition]) -> None:
        """Drop what was polled of partitions that are going away."""
        self._paused -= tps
        self.loop.set_paused(self._paused)
        self._drop(tps)

    def _drop(self, tps: Collection[TopicPartition]) -> None:
        for polled in self.loop.polled:
            polled[:] = [each for each in polled if each.batch.tp not in tps]

    # -- the seam ------------------------------------------------------------------

    @property
    def rebalance_timeout(self) -> float:
        """The client's ``max.poll.interval.ms``, in seconds."""
        return seconds(self._options, "max.poll.interval.ms", MAX_POLL_INTERVAL_MS)

    @property
    def metadata_max_age(self) -> float:
        """The client's ``topic.metadata.refresh.interval.ms``, in seconds."""
        return seconds(self._options, "topic.metadata.refresh.interval.ms", METADATA_REFRESH_MS)

    async def subscribe(self, topics: frozenset[str]) -> None:
        """Replace the subscription, once every topic is known to exist."""
        deadline = trio.current_time() + TOPIC_PATIENCE
        missing = sorted(topics)
        while True:
            missing = [topic for topic in missing if not await self.partitions_for(topic)]
            if not missing:
                break
            if trio.current_time() >= deadline:
                raise UnknownTopicError(
                    f"cannot subscribe to {', '.join(map(repr, missing))}: the cluster has no such"
                    " topic, or does not show it to this principal; create it, or mend the name"
                )
            await trio.sleep(0.2)
        self.loop.send(Subscribe(topics))

    async def poll(self) -> Sequence[PolledBatch]:
        """Wait for the next poll's batches."""
        loop = self.loop
        while True:
            while loop.polled:
                polled = loop.polled.popleft()
                loop.took_one()
                batches = [batch for batch, seeks in polled if seeks == self._seeks[batch.tp]]
                if batches:
                    return batches
            self._quiesced.unpark_all()
            if loop.failure is not None:
                raise loop.failure
            await self._arrived.park()

    def pause(self, tps: Collection[TopicPartition]) -> None:
        """Stop fetching these."""
        self._paused |= frozenset(tps)
        self.loop.set_paused(self._paused)

    def resume(self, tps: Collection[TopicPartition]) -> None:
        """Fetch these again."""
        self._paused -= frozenset(tps)
        self.loop.set_paused(self._paused)

    async def quiesce(self) -> None:
        """Wait for the turn of the polling thread, and for what it had polled before."""
        await trio.lowlevel.checkpoint()
        self._barriers += 1
        number, loop = self._barriers, self.loop
        loop.send(Barrier())
        while not loop.ended and (loop.barriers < number or loop.polled):
            await self._quiesced.park()

    def seek(self, tp: TopicPartition, offset: int) -> None:
        """Move the position; records from before are dropped from now on."""
        self._seeks[tp] += 1
        self._drop([tp])
        self.loop.send(Seek(tp, offset))

    async def commit(self, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        """Commit and wait for the answer, even when cancelled, up to ``commit_timeout``.

        A commit that was not answered in time may still be in flight.  The next one
        waits until it is not, and so does the end of a revocation.
        """
        deadline = trio.current_time() + self._settings.commit_timeout
        left = dict(offsets)
        with trio.CancelScope(shield=True):
            if self._doubtful is not None:
                await self._finish(self._doubtful, deadline, offsets)
            while left:
                commit = Commit(left)
                self.loop.send(commit)
                await self._finish(commit, deadline, offsets)
                left = self._missing(commit, offsets)
                if left and trio.current_time() + RETRY >= deadline:
                    break
                if left:
                    await trio.sleep(RETRY)
        if left:
            logger.warning(
                "%s not committed for the group %r: the broker has no such partition, its topic"
                " was deleted",
                ", ".join(f"{tp}={stored.offset}" for tp, stored in left.items()),
                self._settings.group,
                extra={"group": self._settings.group, "partitions": [str(tp) for tp in left]},
            )

    async def _finish(
        self, commit: Commit, deadline: float, offsets: Mapping[TopicPartition, OffsetAndMetadata]
    ) -> None:
        self._doubtful = commit
        with trio.move_on_at(deadline):
            while not commit.done and not self.loop.ended:
                await self._committed.park()
        if not commit.done:
            # The loop may have ended with the answer on its way.
            reason = "the client has ended" if self.loop.ended else "no answer in time"
            raise commit_error(RuntimeError(reason), offsets)
        self._doubtful = None

    def _missing(
        self, commit: Commit, offsets: Mapping[TopicPartition, OffsetAndMetadata]
    ) -> dict[TopicPartition, OffsetAndMetadata]:
        """What the broker has no partition for; raises if anything else went wrong."""
        missing = {tp for tp, error in commit.failed.items() if error.code() in MISSING}
        others = [error for tp, error in commit.failed.items() if tp not in missing]
        error: BaseException | None = KafkaException(others[0]) if others else None
        if error is None and not missing:
            error = commit.error
        if error is not None:
            raise commit_error(error, offsets, cooperative=self._cooperative) from error
        return {tp: stored for tp, stored in commit.offsets.items() if tp in missing}

    async def _ask(self, attempt: str, function: Callable[..., T], *args: Any) -> T:
        """Ask in a thread; a cancelled question is abandoned, it changes nothing."""
        try:
            return await trio.to_thread.run_sync(
                function, *args, limiter=self._query_limiter, abandon_on_cancel=True
            )
        except (KafkaException, RuntimeError) as exc:
            raise query_error(exc, attempt) from exc

    async def committed(
        self, tps: Collection[TopicPartition]
    ) -> dict[TopicPartition, OffsetAndMetadata | None]:
        """Ask the group's coordinator."""
        if not tps:
            return {}
        found = await self._ask(
            "cannot read committed offsets",
            self._inquirer.committed,
            list(tps),
            self._settings.commit_timeout,
        )
        return {tp: found.get(tp) for tp in tps}

    async def beginning_offsets(self, tps: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """Ask the leaders for the first offsets."""
        if not tps:
            return {}
        return await self._ask(
            "cannot read beginning offsets",
            self._inquirer.beginning_offsets,
            list(tps),
            self._settings.commit_timeout,
        )

    async def end_offsets(self, tps: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """Ask the leaders for the ends."""
        if not tps:
            return {}
        return await self._ask(
            "cannot read end offsets",
            self._inquirer.end_offsets,
            list(tps),
            self._settings.commit_timeout,
        )

    async def topics(self) -> frozenset[str]:
        """Ask any broker."""
        return await self._ask(
            "cannot list the topics", self._inquirer.topics, self._settings.connect_timeout
        )

    async def partitions_for(self, topic: str) -> frozenset[int]:
        """Ask any broker."""
        return await self._ask(
            f"cannot look up topic {topic!r}",
            self._inquirer.partitions_for,
            topic,
            self._settings.connect_timeout,
        )

    def group_metadata(self) -> GroupMetadata:
        """The membership, as of the last tenth of a second."""
        return self.loop.metadata
