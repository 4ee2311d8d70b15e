"""What this member is subscribed to: what its streams name, and what their patterns mean.

Patterns are matched here and not by the client: the group only ever sees names,
whatever the transport.  The cluster is asked for its topics when a stream with
a pattern begins to wait, and again as often as the client renews its metadata.
A topic that appears later joins the subscription then, one that was deleted
leaves it.  A pattern that means nothing yet just waits.
"""

from __future__ import annotations

import logging
import math

import trio

from .._errors import TransportError, UnknownTopicError
from ..transports.base import Session
from .logs import about
from .partitions import Partitions
from .stream import Stream

__all__ = ["Subscription"]

logger = logging.getLogger("trio_consumer.subscription")

RETRY = 1.0
"""Seconds until the cluster is asked again that did not answer; arbitrary."""


class Subscription:
    """Keeps the subscription what the streams want.

    Args:
        session: The client.
        partitions: Has the streams that are open.
        topics: Topics to subscribe to from the start, before a stream asks.
    """

    def __init__(self, session: Session, partitions: Partitions, topics: frozenset[str]) -> None:
        self._session = session
        self._partitions = partitions
        self._topics = topics
        self._subscribed: frozenset[str] = frozenset()
        self._wanted = trio.Event()
        # A stream with a pattern was opened since the cluster was last asked.
        self._unresolved = False
        self._resolve_at = math.inf
        self._failing = False
        self._waiting = False
        # Named topics that were there once and are not now.
        self._missing: frozenset[str] = frozenset()
        self._suspect = False
        self._look_at = math.inf
        if topics:
            self._wanted.set()

    def opened(self, stream: Stream) -> None:
        """A stream was opened; nothing happens before one waits."""
        if stream.pattern is not None:
            self._unresolved = True

    def needed(self) -> None:
        """A stream waits: now the subscription has to be what the streams want."""
        if self._unresolved or self._changed():
            self._wanted.set()

    def rebalanced(self) -> None:
        """Partitions came or went: a topic may have been deleted."""
        self._suspect = True
        self._wanted.set()

    async def run(self) -> None:
        """Subscribe whenever something else is wanted, for ever.

        Raises:
            UnknownTopicError: A topic that was named does not exist.
            TransportError: The cluster refused to say which topics it has.
        """
        while True:
            resolve_at = self._resolve_at if self._patterned() else math.inf
            with trio.move_on_at(min(resolve_at, self._look_at)):
                await self._wanted.wait()
            self._wanted = trio.Event()
            if self._suspect or trio.current_time() >= self._look_at:
                await self._look_for_missing()
            if self._unresolved or (self._patterned() and trio.current_time() >= self._resolve_at):
                await self._resolve()
            if self._changed():
                await self._subscribe(self._desired() - self._missing)

    def _patterned(self) -> list[Stream]:
        return [stream for stream in self._partitions.streams if stream.pattern is not None]

    def _changed(self) -> bool:
        """Whether something else is wanted, apart from what does not exist just now."""
        desired = self._desired() - self._missing
        return bool(desired) and desired != self._subscribed - self._missing

    async def _look_for_missing(self) -> None:
        """Say which of the named topics were deleted, and which are there again."""
        self._suspect = False
        self._look_at = math.inf
        # A pattern's topics leave when it is resolved anew.
        named = self._topics.union(*(s.topics for s in self._partitions.streams if not s.pattern))
        named &= self._subscribed | self._missing
        missing = set()
        for topic in sorted(named):
            try:
                if not await self._session.partitions_for(topic):
                    missing.add(topic)
            except TransportError as exc:
                if not exc.retriable:
                    raise
                missing |= self._missing & {topic}
        for topic in sorted(missing - self._missing):
            logger.warning(
                "topic %r does not exist any more: its messages are gone, waiting until it is"
                " made again",
                topic,
                extra=about(self._session, topic=topic),
            )
        for topic in sorted(named & self._missing - missing):
            logger.info("topic %r exists again", topic, extra=about(self._session, topic=topic))
        self._missing = frozenset(missing)
        if missing:
            self._look_at = trio.current_time() + RETRY

    def _desired(self) -> frozenset[str]:
        return self._topics.union(*(stream.topics for stream in self._partitions.streams))

    async def _resolve(self) -> None:
        """Ask the cluster for its topics, and tell the streams which of them they mean."""
        self._unresolved = False
        try:
            topics = await self._session.topics()
            meant = frozenset[str]().union(*(stream.topics for stream in self._patterned()))
            for topic in sorted(meant - topics):
                # An answer may be about a part of the cluster's topics only, if
                # the client renewed what it knows of its own at the same moment.
                if await self._session.partitions_for(topic):
                    topics |= {topic}
        except TransportError as exc:
            if not exc.retriable:
                raise
            if not self._failing:
                self._failing = True
                logger.warning(
                    "cannot tell which topics the patterns mean, new ones are not consumed yet;"
                    " trying again: %s",
                    exc,
                    extra=about(self._session, error=str(exc)),
                )
            self._resolve_at = trio.current_time() + RETRY
            return
        self._failing = False
        self._resolve_at = trio.current_time() + self._session.metadata_max_age
        for stream in self._patterned():
            stream.resolve(topics)

    async def _subscribe(self, topics: frozenset[str]) -> None:
        try:
            await self._session.subscribe(topics)
        except UnknownTopicError:
            before = self._missing
            await self._look_for_missing()
            if self._missing - before:
                # It was there when it was subscribed to: no reason to end now.
                self._wanted.set()
                return
            named = self._topics.union(
                *(s.topics for s in self._partitions.streams if s.pattern is None)
            )
            if topics <= named or not await self._all_exist(topics & named):
                raise
            # One that a pattern meant was deleted since the cluster was asked.
            self._resolve_at = trio.current_time() + RETRY
            return
        except TransportError as exc:
            if not exc.retriable:
                raise
            # An outage that a running consumer survives must not end one that just
            # then wants a topic more.
            if not self._waiting:
                self._waiting = True
                logger.warning(
                    "not subscribed yet, trying again: %s",
                    exc,
                    extra=about(self._session, topics=sorted(topics), error=str(exc)),
                )
            self._look_at = min(self._look_at, trio.current_time() + RETRY)
            return
        self._waiting = False
        self._subscribed = topics

    async def _all_exist(self, topics: frozenset[str]) -> bool:
        for topic in sorted(topics):
            if not await self._session.partitions_for(topic):
                return False
        return True
