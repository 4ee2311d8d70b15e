"""The Trio side of a kafka-python client."""

# kafka-python has no types; the stubs that pyright brings are of an older one.
# pyright: basic, reportAttributeAccessIssue=false, reportCallIssue=false

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import trio
from kafka import errors
from kafka.structs import OffsetAndMetadata as ClientOffset
from kafka.structs import TopicPartition as ClientPartition

from ..._errors import BrokerUnavailableError, UnknownTopicError
from ..._types import GroupMetadata, OffsetAndMetadata, TopicPartition
from ..base import PolledBatch, RebalanceListener, SessionSettings
from . import internals
from .bridge import RebalanceBridge
from .poll_loop import Barrier, PollLoop, Seek, Subscribe
from .translate import commit_error, query_error

if TYPE_CHECKING:
    from kafka import KafkaConsumer

__all__ = ["KafkaSession"]

logger: logging.Logger = logging.getLogger("trio_consumer.transport")

T = TypeVar("T")

TOPIC_PATIENCE = 3.0
"""Seconds until a topic that no broker knows is an error: one that was made a moment
ago is not known everywhere at once."""


class KafkaSession:
    """A group member on kafka-python, see :class:`~trio_consumer.transports.Session`.

    Commits and questions have a limiter each, so that neither waits for a
    program that keeps the default threads busy.
    """

    def __init__(
        self, client: KafkaConsumer, settings: SessionSettings, listener: RebalanceListener
    ) -> None:
        self._client = client
        self._settings = settings
        self._token = trio.lowlevel.current_trio_token()
        self._bridge = RebalanceBridge(
            client, listener, self._gone, self._assigned, self._look_at_topics
        )
        self._loop = PollLoop(
            client,
            self._bridge.client_listener,
            self._wake_from_thread,
            adapt="max_poll_records" not in settings.client_options,
        )
        self._arrived = trio.lowlevel.ParkingLot()
        self._quiesced = trio.lowlevel.ParkingLot()
        self._barriers = 0
        self._watch = internals.CommitWatch()
        internals.watch_commits(client, self._watch)
        internals.finish_joins(client)
        internals.fetch_while_joining(client)
        internals.lose_before_joining(client)
        self._paused: frozenset[TopicPartition] = frozenset()
        self._seeks: Counter[TopicPartition] = Counter()
        self._poll_limiter = trio.CapacityLimiter(1)
        self._commit_limiter = trio.CapacityLimiter(1)
        self._query_limiter = trio.CapacityLimiter(4)

    # -- the threads -------------------------------------------------------------

    async def run(self) -> None:
        """Poll and pass rebalances on until :meth:`stop`."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._answer_group)
            await trio.to_thread.run_sync(self._loop.run, limiter=self._poll_limiter)
            nursery.cancel_scope.cancel()

    async def _answer_group(self) -> None:
        try:
            await self._bridge.run()
        except Exception:
            # The threads wait for an answer, and this nursery for the threads.
            self.stop()
            raise

    def stop(self) -> None:
        """Let the polling thread end; a rebalance that waits for us goes on."""
        # In this order: a rebalance that goes on would bring records at once.
        self._loop.stop()
        self._bridge.close()

    def _wake_from_thread(self) -> None:
        try:
            self._token.run_sync_soon(self._wake, idempotent=True)
        except trio.RunFinishedError:
            self._loop.stop()

    def _wake(self) -> None:
        self._arrived.unpark_all()
        self._quiesced.unpark_all()

    def _gone(self, tps: frozenset[TopicPartition]) -> None:
        """Drop what was polled of partitions that are going away."""
        self._paused -= tps
        self._loop.set_paused(self._paused)
        self._loop.forget(tps)
        self._drop(tps)

    def _assigned(self, tps: frozenset[TopicPartition]) -> None:
        self._loop.refresh_pauses()

    def _look_at_topics(self) -> None:
        # Without a policy it is an error, which is the poll's to raise.
        if self._settings.auto_offset_reset != "none":
            self._loop.reset_remade()

    def _drop(self, tps: Collection[TopicPartition]) -> None:
        for polled in self._loop.polled:
            polled[:] = [each for each in polled if each.batch.tp not in tps]

    # -- the seam ------------------------------------------------------------------

    @property
    def rebalance_timeout(self) -> float:
        """The client's ``max_poll_interval_ms``, in seconds."""
        milliseconds: int = self._client.config["max_poll_interval_ms"]
        return milliseconds / 1000

    @property
    def metadata_max_age(self) -> float:
        """The client's ``metadata_max_age_ms``, in seconds."""
        milliseconds: int = self._client.config["metadata_max_age_ms"]
        return milliseconds / 1000

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
        self._loop.send(Subscribe(topics))

    async def poll(self) -> Sequence[PolledBatch]:
        """Wait for the next poll's batches."""
        loop = self._loop
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
        self._loop.set_paused(self._paused)

    def resume(self, tps: Collection[TopicPartition]) -> None:
        """Fetch these again."""
        self._paused -= frozenset(tps)
        self._loop.set_paused(self._paused)

    async def quiesce(self) -> None:
        """Wait for the turn of the polling thread, and for what it had polled before."""
        await trio.lowlevel.checkpoint()
        self._barriers += 1
        number, loop = self._barriers, self._loop
        loop.send(Barrier())
        while not loop.ended and (loop.barriers < number or loop.polled):
            await self._quiesced.park()

    def seek(self, tp: TopicPartition, offset: int) -> None:
        """Move the position; records from before are dropped from now on."""
        self._seeks[tp] += 1
        self._drop([tp])
        self._loop.send(Seek(tp, offset))

    async def commit(self, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        """Commit in the commit thread; waits for it even when cancelled."""
        wanted = {
            ClientPartition(*tp): ClientOffset(stored.offset, stored.metadata, stored.leader_epoch)
            for tp, stored in offsets.items()
        }
        try:
            await trio.to_thread.run_sync(self._commit, wanted, limiter=self._commit_limiter)
        except Exception as exc:
            raise commit_error(exc, offsets) from exc

    def _commit(self, wanted: dict[Any, Any]) -> None:
        watch = self._watch
        watch.begin(self._loop.identities)
        done = {tp: stored for tp, stored in wanted.items() if tp not in self._loop.remade}
        try:
            if done:
                self._client.commit(done, timeout_ms=self._timeout_ms)
        except errors.KafkaTimeoutError:
            left_out = watch.missing | watch.remade
            left = {tp: stored for tp, stored in done.items() if tp not in left_out}
            if len(left) == len(done):
                raise
            if left:
                self._client.commit(left, timeout_ms=self._timeout_ms)
            done = left
        not_done = [tp for tp in wanted if tp not in done or tp in watch.remade]
        if not_done:
            logger.warning(
                "%s not committed for the group %r: the broker has no such partition, its topic"
                " was deleted",
                ", ".join(f"{TopicPartition(*tp)}={wanted[tp].offset}" for tp in not_done),
                self._settings.group,
                extra={
                    "group": self._settings.group,
                    "partitions": [str(TopicPartition(*tp)) for tp in not_done],
                },
            )

    @property
    def _timeout_ms(self) -> int:
        return max(1, round(self._settings.commit_timeout * 1000))

    async def _ask(self, attempt: str, function: Callable[..., T], *args: Any) -> T:
        """Ask the client in a thread; a cancelled question is abandoned, it changes nothing."""
        try:
            return await trio.to_thread.run_sync(
                function, *args, limiter=self._query_limiter, abandon_on_cancel=True
            )
        except Exception as exc:
            raise query_error(exc, attempt) from exc

    async def committed(
        self, tps: Collection[TopicPartition]
    ) -> dict[TopicPartition, OffsetAndMetadata | None]:
        """Ask the group's coordinator."""
        if not tps:
            return {}
        found = await self._ask(
            "cannot read committed offsets",
            internals.fetch_committed,
            self._client,
            list(tps),
            self._timeout_ms,
        )
        return {tp: found.get(tp) for tp in tps}

    async def beginning_offsets(self, tps: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """Ask the leaders for the first offsets."""
        return await self._offsets(tps, "cannot read beginning offsets", "beginning_offsets")

    async def end_offsets(self, tps: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """Ask the leaders for the ends."""
        return await self._offsets(tps, "cannot read end offsets", "end_offsets")

    async def _offsets(
        self, tps: Collection[TopicPartition], attempt: str, method: str
    ) -> dict[TopicPartition, int]:
        if not tps:
            return {}
        question = partial(
            getattr(self._client, method),
            [ClientPartition(*tp) for tp in tps],
            timeout_ms=self._timeout_ms,
        )
        found: dict[Any, int] = await self._ask(attempt, question)
        return {TopicPartition(*tp): offset for tp, offset in found.items()}

    async def topics(self) -> frozenset[str]:
        """Ask any broker."""
        with trio.move_on_after(self._settings.connect_timeout):
            return frozenset(await self._ask("cannot list the topics", self._client.topics))
        raise BrokerUnavailableError(
            f"no broker answered within {self._settings.connect_timeout:g} s which topics there"
            " are",
            retriable=True,
        )

    async def partitions_for(self, topic: str) -> frozenset[int]:
        """Ask any broker."""
        with trio.move_on_after(self._settings.connect_timeout):
            attempt = f"cannot look up topic {topic!r}"
            return frozenset(await self._ask(attempt, self._client.partitions_for_topic, topic))
        raise BrokerUnavailableError(
            f"no broker answered within {self._settings.connect_timeout:g} s whether topic"
            f" {topic!r} exists",
            retriable=True,
        )

    def group_metadata(self) -> GroupMetadata:
        """The membership now."""
        now = self._client.group_metadata()
        return GroupMetadata(
            group=self._settings.group,
            generation=now.generation_id,
            member_id=now.member_id,
            group_instance_id=now.group_instance_id,
        )
