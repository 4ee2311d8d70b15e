"""The thread that polls.

kafka-python cannot be woken out of a poll, so the loop polls in short steps.
It owns everything that would race with a poll: seeks are commands that it
carries out between two polls, and each batch says how many seeks of its
partition came before it, so that the Trio side can tell old from new.

The loop never stops polling, or the member would be thrown out of its group.
When the Trio side is behind, it pauses every partition at the client and goes
on polling for membership alone.
"""

# kafka-python has no types; the stubs that pyright brings are of an older one.
# pyright: basic, reportAttributeAccessIssue=false, reportCallIssue=false

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from kafka import errors
from kafka.structs import TopicPartition as ClientPartition

from ..._types import TopicPartition
from ..base import PolledBatch
from . import internals
from .translate import is_passing, poll_error

if TYPE_CHECKING:
    from kafka import KafkaConsumer

__all__ = ["PollLoop", "Polled"]

logger: logging.Logger = logging.getLogger("trio_consumer.fetcher")

STEP = 0.1
"""Seconds a poll may block: about 1 % of a core when idle, and the delay of a seek
or a stop while nothing arrives."""

METADATA_PATIENCE_MS = 2000
"""Milliseconds to wait for metadata before a join: it only saves a rebalance."""

DEPTH = 3
"""Polls that may wait for the Trio side.  One keeps the thread from waiting for a
task switch; more only cost memory."""

RECORDS_A_PARTITION = 5
"""Records that one poll may take for each partition, where the user has not said how many:
the client looks at every partition in each poll."""

MOST_RECORDS = 10_000
"""But not more than these."""


class Polled(NamedTuple):
    """A batch, and how many seeks of its partition had been carried out before."""

    batch: PolledBatch
    seeks: int


class Seek(NamedTuple):
    tp: TopicPartition
    offset: int


class Subscribe(NamedTuple):
    topics: frozenset[str]


class Barrier(NamedTuple):
    """Counted once the pauses asked for are in force, between two polls."""


class PollLoop:
    """Polls until told to stop; to be run in a thread of its own.

    Args:
        client: The client; nobody else may poll or seek it.
        deliver: Called, in this thread, when ``polled`` has something new.
        adapt: Whether polls may take more than ``max_poll_records`` of many partitions.
    """

    def __init__(
        self,
        client: KafkaConsumer,
        listener: Any,
        deliver: Callable[[], None],
        *,
        adapt: bool = False,
    ) -> None:
        self._client = client
        self._adapt = adapt
        self._max_records: int = client.config["max_poll_records"]
        self._listener = listener
        self._deliver = deliver
        self._commands: deque[Seek | Subscribe | Barrier] = deque()
        self._nudge = threading.Event()
        self._stopping = False
        self._subscribed = False
        self._seeks: dict[TopicPartition, int] = {}
        # Where the Trio side believes each position to be.
        self._reported: dict[TopicPartition, int] = {}
        # Of which partitions an end was reported.
        self._with_end: set[TopicPartition] = set()
        # Replaced, never changed, so that the other thread may read it.
        self._paused: frozenset[TopicPartition] = frozenset()
        self._stale_pauses = False
        self._choked = False
        self._nothing_to_fetch = False
        self._troubled = False
        # Of the topics that are read, and which partitions were found to be of a successor
        # and have not brought anything of it yet: old offsets are not to be committed.
        self.identities: dict[str, object] = {}
        self.remade: set[TopicPartition] = set()
        self.polled: deque[list[Polled]] = deque()
        self.failure: BaseException | None = None
        self.barriers: int = 0
        self.ended: bool = False

    # -- called in the Trio thread ---------------------------------------------

    def send(self, command: Seek | Subscribe | Barrier) -> None:
        """Have a command carried out before the next poll."""
        self._commands.append(command)
        self._nudge.set()

    def set_paused(self, paused: frozenset[TopicPartition]) -> None:
        """Fetch all assigned partitions but these, from the next poll on."""
        self._paused = paused
        self._stale_pauses = True
        self._nudge.set()

    def refresh_pauses(self) -> None:
        """Apply the pauses again: the client forgot them with an assignment."""
        self._stale_pauses = True

    def forget(self, tps: frozenset[TopicPartition]) -> None:
        """Partitions went away: their next position is news, whatever it is."""
        for tp in tps:
            self._reported.pop(tp, None)
            self._with_end.discard(tp)
            self.remade.discard(tp)
        internals.forget_beginnings(self._client, tps)

    def took_one(self) -> None:
        """The Trio side took a poll out of ``polled``."""
        if self._choked or len(self.polled) == DEPTH - 1:
            self._nudge.set()

    def stop(self) -> None:
        """Return from :meth:`run` within about :data:`STEP` seconds."""
        self._stopping = True
        self._nudge.set()

    # -- called in the client's IO thread, and in its own ----------------------------

    def reset_remade(self) -> None:
        """Have partitions read anew whose topic is another one of the same name.

        Raises:
            kafka.errors.OffsetOutOfRangeError: There is no policy that says where.
        """
        remade = internals.remade_topics(self._client, self.identities)
        if remade:
            logger.warning(
                "%s: deleted and made again, reading begins where the reset policy says",
                ", ".join(sorted(remade)),
                extra={"topics": sorted(remade)},
            )
            self.remade |= internals.reset_positions(self._client, remade)

    # -- called in its own thread ------------------------------------------------

    def run(self) -> None:
        """Poll until stopped, or until the client fails for good."""
        try:
            while not self._stopping:
                self._turn()
        except BaseException as exc:
            self.failure = exc
        finally:
            self.ended = True
            self._deliver()

    def _turn(self) -> None:
        while self._commands:
            self._carry_out(self._commands.popleft())
        if not self._subscribed:
            self._wait()
            return
        if len(self.polled) >= DEPTH:
            self._wait()
            if self._commands or self._stopping or len(self.polled) < DEPTH:
                return
            self._choke(True)
            # Brings positions at most; whatever comes must not be dropped.
            batches = self._poll(0)
        else:
            self._choke(False)
            if self._nothing_to_fetch and not internals.is_joining(self._client):
                # A blocked poll would not notice for the rest of its step that the
                # streams have room again; short of messages, they would wait.
                batches = self._poll(0)
                if not batches:
                    self._wait()
            else:
                batches = self._poll(round(STEP * 1000))
        # Stopped in the middle of a poll: nobody answered for what came with it.
        if batches and not self._stopping:
            self.polled.append(batches)
            self._deliver()

    def _wait(self) -> None:
        self._nudge.wait(STEP)
        self._nudge.clear()

    def _carry_out(self, command: Seek | Subscribe | Barrier) -> None:
        if isinstance(command, Subscribe):
            self._client.subscribe(sorted(command.topics), listener=self._listener)
            self._subscribed = True
            with suppress(errors.KafkaError):
                internals.refresh_metadata(self._client, METADATA_PATIENCE_MS)
            return
        if isinstance(command, Barrier):
            if self._stale_pauses:
                self._apply_pauses()
            self.barriers += 1
            self._deliver()
            return
        tp, offset = command
        self._seeks[tp] = self._seeks.get(tp, 0) + 1
        try:
            self._client.seek(ClientPartition(*tp), offset)
        except (AssertionError, KeyError, errors.IllegalStateError):
            logger.debug("%s is not assigned any more: no seek to %d", tp, offset)
        else:
            self._reported[tp] = offset

    def _choke(self, choked: bool) -> None:
        if choked != self._choked:
            self._choked = choked
            self._stale_pauses = True
        if self._stale_pauses:
            self._apply_pauses()

    def _apply_pauses(self) -> None:
        self._stale_pauses = False
        client = self._client
        # The client insists on its own type of partition, though ours is equal.
        assigned = client.assignment()
        paused = client.paused()
        wanted = {tp for tp in assigned if self._choked or tp in self._paused}
        if wanted - paused:
            client.pause(*(wanted - paused))
        resumed = {tp for tp in paused if tp in assigned and tp not in wanted}
        if resumed:
            client.resume(*resumed)
        self._nothing_to_fetch = bool(wanted) and len(wanted) == len(assigned)
        if self._adapt:
            self._max_records = max(
                client.config["max_poll_records"],
                min(RECORDS_A_PARTITION * len(assigned), MOST_RECORDS),
            )

    def _poll(self, timeout_ms: int) -> list[Polled]:
        client = self._client
        internals.release_parked(client)
        try:
            self.reset_remade()
            polled = client.poll(timeout_ms=timeout_ms, max_records=self._max_records)
        except Exception as exc:
            poison = internals.release_poison(client)
            if self._stopping:
                return []
            # What is half read then has nothing to do with it, and is read again.
            if is_passing(exc):
                if not self._troubled:
                    self._troubled = True
                    logger.warning(
                        "no messages for now, trying on: %s: %s", type(exc).__name__, exc
                    )
                time.sleep(STEP)
                return []
            raise poll_error(exc, poison) from exc
        if internals.is_fenced(client):
            raise poll_error(errors.FencedInstanceIdError(), None)
        if polled:
            self._troubled = False
            return [self._batch(TopicPartition(*tp), records) for tp, records in polled.items()]
        # Nothing to deliver; but a position may have moved over transaction
        # markers or aborted records.
        moved = [
            (tp, offset)
            for tp, offset in internals.positions(client)
            # Or the end is known now: nothing else would tell it of a partition that
            # is quiet from the start.
            if self._reported.get(tp) != offset
            or (tp not in self._with_end and self._end(tp) is not None)
        ]
        return [self._batch(tp, (), offset) for tp, offset in moved]

    def _batch(self, tp: TopicPartition, records: Any, moved_to: int | None = None) -> Polled:
        if moved_to is None:
            moved_to = internals.position(self._client, tp)
        next_offset: int = records[-1].offset + 1 if moved_to is None else moved_to
        begins: int | None = None
        if tp not in self._reported:
            begins = internals.beginning(self._client, tp)
            if begins is not None:
                # What was noted of an assignment before this one may lie behind.
                begins = min(begins, next_offset)
        self._reported[tp] = next_offset
        self.remade.discard(tp)
        high_watermark = self._end(tp)
        if high_watermark is not None:
            self._with_end.add(tp)
        batch = PolledBatch(tp, records, next_offset, high_watermark, begins)
        return Polled(batch, self._seeks.get(tp, 0))

    def _end(self, tp: TopicPartition) -> int | None:
        """The end of a partition as the last fetch told it; asks nobody."""
        try:
            end: int | None = self._client.highwater(ClientPartition(*tp))
        except (AssertionError, KeyError, errors.IllegalStateError):
            return None
        return end
