"""The thread that owns the client.

One thread at a time may be in a method of a confluent-kafka consumer (2.16), and a
poll loop is in one all the time.  So this thread does everything: seeks, pauses and
commits are commands that it carries out between two polls, and none of them waits.
The answer to a commit comes out of a later poll, as a callback.

A rebalance callback must not wait either, or no answer could come to the last
commit.  It puts the rebalance off (``internals``), and when the Trio side has
answered, the loop completes it between two polls.  Until then nothing is owned that
goes or comes: what was polled of it is dropped.

The loop never stops polling for long, or the member would be thrown out of its
group.  When everything is held, it waits a moment first, because librdkafka throws
away what it has prefetched of a partition that is paused.
"""

from __future__ import annotations

import logging
import operator
import threading
import time
from collections import deque
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka import TopicPartition as ClientPartition

from ..._types import GroupMetadata, OffsetAndMetadata, TopicPartition
from ..base import PolledBatch
from ..record import KafkaRecord
from . import internals
from .records import SLICE, errors_of, runs, take_apart, without_errors
from .translate import fatal_error, is_passing, is_refusal, record_error

__all__ = ["Barrier", "Commit", "PollLoop", "Polled", "Rebalance", "Seek", "Subscribe"]

logger: logging.Logger = logging.getLogger("trio_consumer.fetcher")

STEP = 0.02
"""Seconds that a poll may wait for a first record: the delay of a command while
nothing arrives.  Fifty calls a second are about 0.3 % of a core."""

PATIENCE = 0.1
"""Seconds until what is held is paused at the client; a rebalance waits as long."""

LOOK = 0.1
"""Seconds between two looks at positions, which move over transaction markers."""

DEPTH = 3
"""Polls that may wait for the Trio side.  One keeps the thread from waiting for a
task switch; more only cost memory."""


class Polled(NamedTuple):
    """A batch, and how many seeks of its partition had been asked for before."""

    batch: PolledBatch
    seeks: int


class Seek(NamedTuple):
    """Go on reading there."""

    tp: TopicPartition
    offset: int


class Subscribe(NamedTuple):
    """Replace the subscription."""

    topics: frozenset[str]


class Barrier(NamedTuple):
    """Counted once the pauses asked for are in force, between two polls."""


class Rebalance(NamedTuple):
    """What the group wants of us.

    Attributes:
        kind: ``"assigned"``, ``"revoked"`` or ``"lost"``.
        tps: What comes or goes; may be empty.
        generation: Of the group, then.
    """

    kind: str
    tps: frozenset[TopicPartition]
    generation: int


class Answer(NamedTuple):
    """The runtime has done its part; where to start, of what was assigned."""

    rebalance: Rebalance
    starts: dict[TopicPartition, int]


class Commit:
    """A commit and, once ``done``, what the broker said.

    Attributes:
        offsets: What to commit.
        error: The client's error, or another exception; None if there is none.
        failed: Errors of single partitions.
    """

    def __init__(self, offsets: dict[TopicPartition, OffsetAndMetadata]) -> None:
        self.offsets = offsets
        self.done = False
        self.error: BaseException | None = None
        self.failed: dict[TopicPartition, Any] = {}


class PollLoop:
    """Polls until told to stop; to be run in a thread of its own.

    Args:
        options: What the client is made with.
        cooperative: Whether assignments change by parts.
        max_poll_records: The most that one poll may take.
        deliver: Called, in this thread, when there is something new.
        ask: Called, in this thread, with each rebalance.
    """

    def __init__(
        self,
        options: dict[str, Any],
        *,
        cooperative: bool,
        max_poll_records: int,
        deliver: Callable[[], None],
        ask: Callable[[Rebalance], None],
    ) -> None:
        self._client = Consumer(
            {**options, "on_commit": self._on_commit, "error_cb": self._on_error}
        )
        internals.check(self._client)
        self._cooperative = cooperative
        self._max_poll_records = max_poll_records
        self._deliver = deliver
        self._ask = ask
        self._commands: deque[Seek | Subscribe | Barrier | Commit] = deque()
        self._answers: deque[Answer] = deque()
        self._nudge = threading.Event()
        self._stopping = False
        self._subscribed = False
        self._closing = False
        # What may be polled, and what is assigned but not answered for yet.
        self._owned: set[TopicPartition] = set()
        self._coming: set[TopicPartition] = set()
        # Rebalances that librdkafka waits for us to complete; asked are the first.
        self._open: list[tuple[str, frozenset[TopicPartition]]] = []
        self._asked = 0
        # Sent and not answered, in order.
        self._commits: deque[Commit] = deque()
        self._seeks: dict[TopicPartition, int] = {}
        # Seeks that the client has not carried out yet.
        self._unsought: dict[TopicPartition, int] = {}
        # The highest position that the Trio side has been told since the last
        # assignment or seek, and so the least that the client's may be.
        self._floor: dict[TopicPartition, int] = {}
        # Of which partitions an end was reported.
        self._with_end: set[TopicPartition] = set()
        self._look_at = 0.0
        # Replaced, never changed, so that the other thread may read it.
        self._paused: frozenset[TopicPartition] = frozenset()
        self._applied: set[TopicPartition] = set()
        self._held_since: float | None = None
        self._troubled = False
        # What came in place of records in the last poll.
        self._errors: list[Any] = []
        self._broken: BaseException | None = None
        self.polled: deque[list[Polled]] = deque()
        self.metadata: GroupMetadata = internals.group_metadata(self._client)
        self.failure: BaseException | None = None
        self.barriers: int = 0
        self.ended: bool = False

    # -- called in the Trio thread ---------------------------------------------

    def send(self, command: Seek | Subscribe | Barrier | Commit) -> None:
        """Have a command carried out before the next poll."""
        self._commands.append(command)
        self._nudge.set()

    def answer(self, rebalance: Rebalance, starts: dict[TopicPartition, int]) -> None:
        """Let a rebalance go on, once no commit is in flight that it could overtake."""
        self._answers.append(Answer(rebalance, starts))
        self._nudge.set()

    def set_paused(self, paused: frozenset[TopicPartition]) -> None:
        """Fetch all assigned partitions but these, from the next poll on."""
        self._paused = paused
        self._nudge.set()

    def took_one(self) -> None:
        """The Trio side took a poll out of ``polled``."""
        # The loop may be about to wait, having seen one more than there are now.
        if self._held_since is not None or len(self.polled) == DEPTH - 1:
            self._nudge.set()

    def stop(self) -> None:
        """Return from :meth:`run` within about :data:`STEP` seconds."""
        self._stopping = True
        self._nudge.set()

    def fail(self, error: BaseException) -> None:
        """Stop, because of something that the Trio side found out."""
        if self._broken is None:
            self._broken = error
        self._nudge.set()

    # -- called in its own thread ------------------------------------------------

    def run(self) -> None:
        """Poll until stopped, or until the client fails for good."""
        try:
            while not self._stopping:
                self._turn()
        except KafkaException as exc:
            self.failure = fatal_error(exc)
            self.failure.__cause__ = exc
        except BaseException as exc:
            self.failure = exc
        finally:
            self.ended = True
            self._deliver()

    def close(self) -> None:
        """Leave the group.  Call it when :meth:`run` has ended, or was never begun."""
        self._closing = True
        for kind, tps in self._open:
            changed = [] if kind == "assigned" else internals.partitions(tps)
            internals.complete_rebalance(self._client, kind, changed, cooperative=self._cooperative)
        self._client.close()

    def _turn(self) -> None:
        while self._commands:
            self._carry_out(self._commands.popleft())
        if self._answers and not self._commits:
            self._complete(self._answers.popleft())
        if self._unsought:
            self._seek()
        if self._broken is not None:
            raise self._broken
        if not self._subscribed:
            self._wait(PATIENCE)
            return
        if len(self.polled) >= DEPTH or (self._owned and self._owned <= self._paused):
            now = time.monotonic()
            if self._held_since is None:
                self._held_since = now
            if now - self._held_since < PATIENCE:
                self._wait(PATIENCE)
                return
            self._apply_pauses(self._owned)
        else:
            self._held_since = None
            self._apply_pauses(self._owned & self._paused)
        batches = self._poll()
        # Stopped in the middle of a poll: nobody answered for what came with it.
        if batches and not self._stopping:
            self.polled.append(batches)
            self._deliver()
        for error in self._errors:
            self._consider(error)

    def _wait(self, seconds: float) -> None:
        self._nudge.wait(seconds)
        self._nudge.clear()

    # -- polling ---------------------------------------------------------------

    def _poll(self) -> list[Polled]:
        found: dict[TopicPartition, list[KafkaRecord]] = {}
        self._errors = []
        room = self._max_poll_records
        # With a time limit it would wait for so many records, or that long.
        taken = self._take(min(SLICE, room), 0, found) or self._take(1, STEP, found)
        while taken and room > taken:
            room -= taken
            taken = self._take(min(SLICE, room), 0, found)
        if self._broken is not None:
            raise self._broken
        batches = self._batches(found)
        if self._errors:
            self._note_ends(batches)
        now = time.monotonic()
        if now >= self._look_at:
            batches += self._moved({polled.batch.tp for polled in batches})
            self.metadata = internals.group_metadata(self._client)
            # However many partitions there are, below a hundredth of the time.
            took = time.monotonic() - now
            self._look_at = now + max(LOOK, 100 * took)
        if len(self._open) > self._asked:
            self._dispatch()
        return batches

    def _take(self, most: int, wait: float, found: dict[TopicPartition, list[KafkaRecord]]) -> int:
        """Sort up to so many messages by partition; how many there were, errors too."""
        messages = self._client.consume(most, wait)
        taken = len(messages)
        if errors := errors_of(messages):
            self._errors += errors
            messages = without_errors(messages)
        for tp, run in runs(messages):
            records = take_apart(tp, run)
            if tp in found:
                found[tp] += records
            else:
                found[tp] = records
        return taken

    def _batches(self, found: dict[TopicPartition, list[KafkaRecord]]) -> list[Polled]:
        if found:
            self._troubled = False
        # What was taken before a callback took its partition away is dropped too.
        return [
            self._batch(tp, records)
            for tp, records in found.items()
            if tp in self._owned and tp not in self._unsought
        ]

    def _batch(self, tp: TopicPartition, records: list[KafkaRecord]) -> Polled:
        first, last = records[0].offset, records[-1].offset
        again: int | None = None
        if last - first + 1 != len(records):
            offsets = [record.offset for record in records]
            # The client went back by itself in the middle, to where its reset policy
            # says: the rest is of another reading.
            for index, falls in enumerate(map(operator.ge, offsets, offsets[1:]), 1):
                if falls:
                    again, last = offsets[index], offsets[index - 1]
                    del records[index:]
                    break
        position = last + 1
        if first < self._floor.get(tp, 0) and again is None:
            again = position
        if again is not None:
            # The position that it would resume at after a pause is still the old one
            # (2.16), and everything in between would be passed over; a seek mends it.
            self._unsought[tp] = again
            self._floor[tp] = 0
        self._floor[tp] = max(self._floor.get(tp, 0), position)
        return self._polled(tp, records, position)

    def _polled(self, tp: TopicPartition, records: Any, position: int) -> Polled:
        # None if nothing was fetched yet, whatever its type says.
        known: Any = self._client.get_watermark_offsets(ClientPartition(*tp), cached=True)
        high = known[1] if known is not None and known[1] >= 0 else None
        if high is not None:
            self._with_end.add(tp)
        return Polled(PolledBatch(tp, records, position, high), self._seeks.get(tp, 0))

    def _note_ends(self, batches: list[Polled]) -> None:
        """Take the ends of partitions out of the errors, for what they tell."""
        ends = {}
        for error in self._errors:
            if error.error().code() == KafkaError._PARTITION_EOF:
                ends[TopicPartition(error.topic(), error.partition())] = error.offset()
        if not ends:
            return
        self._errors = [e for e in self._errors if e.error().code() != KafkaError._PARTITION_EOF]
        polled = {each.batch.tp for each in batches}
        for tp, end in ends.items():
            if tp not in self._owned or tp in self._unsought:
                continue
            if end == self._floor[tp] and tp in self._with_end:
                continue  # told before; once it is, or a quiet partition had none
            if tp in polled:
                # One batch a partition in a poll; a later look finds it.
                continue
            if end < self._floor[tp]:
                # Reset to an end below the old position, with nothing to read.
                self._unsought[tp] = end
            self._floor[tp] = end
            batches.append(self._polled(tp, (), end))

    def _moved(self, polled: Collection[TopicPartition]) -> list[Polled]:
        """Positions that have moved over what nobody gets to see."""
        settled = self._owned - self._unsought.keys() - set(polled)
        if not settled:
            return []
        moved = []
        for place in self._client.position(internals.partitions(settled)):
            tp = TopicPartition(place.topic, place.partition)
            if place.error is None and place.offset > self._floor[tp]:
                self._floor[tp] = place.offset
                moved.append(self._polled(tp, (), place.offset))
        return moved

    def _consider(self, error: Any) -> None:
        """Go on after an error that came in place of a record, or fail."""
        inner = error.error()
        if not is_passing(inner):
            topic = error.topic()
            tp = None if topic is None else TopicPartition(topic, error.partition())
            failure = record_error(inner, tp, error.offset())
            raise failure from KafkaException(inner)
        self._note_trouble(inner)

    def _note_trouble(self, error: Any) -> None:
        if not self._troubled:
            self._troubled = True
            logger.warning("trouble with the cluster, trying on: %s: %s", error.name(), error.str())

    # -- commands --------------------------------------------------------------

    def _carry_out(self, command: Seek | Subscribe | Barrier | Commit) -> None:
        if isinstance(command, Commit):
            self._send_commit(command)
        elif isinstance(command, Subscribe):
            self._client.subscribe(
                sorted(command.topics),
                on_assign=self._on_assign,
                on_revoke=self._on_revoke,
                on_lost=self._on_lost,
            )
            self._subscribed = True
        elif isinstance(command, Barrier):
            # What is held as a whole is not polled, or is paused already.
            if not self._owned <= self._paused:
                self._apply_pauses(self._owned & self._paused)
            self.barriers += 1
            self._deliver()
        else:
            self._seeks[command.tp] = self._seeks.get(command.tp, 0) + 1
            if command.tp in self._owned or command.tp in self._coming:
                self._unsought[command.tp] = command.offset
            else:
                logger.debug("%s is not assigned any more: no seek", command.tp)

    def _seek(self) -> None:
        for tp, offset in list(self._unsought.items()):
            if tp not in self._owned:
                continue
            try:
                self._client.seek(ClientPartition(*tp, offset))
            except KafkaException as exc:
                # It is between two states; what comes of it meanwhile is dropped.
                if not is_passing(exc.args[0]):
                    raise
            else:
                del self._unsought[tp]
                self._floor[tp] = offset

    def _apply_pauses(self, wanted: set[TopicPartition]) -> None:
        more = wanted - self._applied
        if more:
            self._client.pause(internals.partitions(more))
            self._applied |= more
        # The client remembers it of a partition that was revoked, too.
        less = (self._applied - wanted) & self._owned
        if less:
            self._client.resume(internals.partitions(less))
            self._applied -= less

    def _send_commit(self, commit: Commit) -> None:
        wanted = [
            ClientPartition(*tp, stored.offset, stored.metadata)
            for tp, stored in commit.offsets.items()
        ]
        try:
            self._client.commit(offsets=wanted, asynchronous=True)
        except Exception as exc:
            commit.error = exc
            commit.done = True
            self._deliver()
        else:
            self._commits.append(commit)

    # -- rebalances ------------------------------------------------------------

    def _dispatch(self) -> None:
        """Ask the runtime about the rebalances that callbacks have put off."""
        self.metadata = internals.group_metadata(self._client)
        for kind, tps in self._open[self._asked :]:
            self._asked += 1
            if kind == "assigned":
                self._coming |= tps
            self._ask(Rebalance(kind, tps, self.metadata.generation))

    def _complete(self, answer: Answer) -> None:
        kind, tps, _ = answer.rebalance
        if kind == "assigned":
            starts = {tp: self._unsought.pop(tp, offset) for tp, offset in answer.starts.items()}
            changed = [ClientPartition(*tp, offset) for tp, offset in starts.items()]
        else:
            starts = {}
            changed = internals.partitions(tps)
        self._open.pop(0)
        self._asked -= 1
        internals.complete_rebalance(self._client, kind, changed, cooperative=self._cooperative)
        self._coming -= tps
        if self._cooperative:
            # librdkafka paused what stays from a thread of its own, maybe just while a
            # poll took records of it, and would hand those out once more.
            for tp in self._owned - self._unsought.keys():
                self._unsought[tp] = self._floor[tp]
        if starts:
            self._owned |= tps
            self._floor.update(starts)
            self.polled.append([self._polled(tp, (), offset) for tp, offset in starts.items()])
            self._deliver()

    # -- called by the client, in a poll: nothing may come out of these ------------

    def _on_assign(self, client: Any, partitions: Any) -> None:
        self._on_rebalance("assigned", partitions)

    def _on_revoke(self, client: Any, partitions: Any) -> None:
        self._on_rebalance("revoked", partitions)

    def _on_lost(self, client: Any, partitions: Any) -> None:
        self._on_rebalance("lost", partitions)

    def _on_rebalance(self, kind: str, partitions: Any) -> None:
        if self._closing:
            return
        try:
            tps = frozenset(TopicPartition(each.topic, each.partition) for each in partitions)
            if kind != "assigned":
                self._owned -= tps
                for tp in tps:
                    self._unsought.pop(tp, None)
                    self._floor.pop(tp, None)
                    self._with_end.discard(tp)
            self._open.append((kind, tps))
            internals.put_off_rebalance(self._client, kind, cooperative=self._cooperative)
        except BaseException as exc:
            # Out of a callback it would cost the records of this poll.
            self._broken = exc

    def _on_commit(self, error: Any, partitions: Any) -> None:
        if not self._commits:
            return
        commit = self._commits.popleft()
        commit.error = None if error is None else KafkaException(error)
        for each in partitions:
            if each.error is not None:
                commit.failed[TopicPartition(each.topic, each.partition)] = each.error
        commit.done = True
        self._deliver()

    def _on_error(self, error: Any) -> None:
        if error.fatal():
            self._broken = fatal_error(KafkaException(error))
        elif is_refusal(error):
            logger.warning("a broker refuses us, trying on: %s: %s", error.name(), error.str())
        else:
            self._note_trouble(error)
