"""From polls to streams: the fetch loop and the fan-out conductor.

The :class:`Fetcher` takes whole polls from the session and notes under which
assignment they were read; the :class:`Conductor` hands them to the streams in
the scheduler's order.  Between them lies a memory channel of one poll.

A record counts as delivered at the moment the conductor puts it into a buffer,
not before.  What was polled while its partition is held waits in
``Assignment.pending``; what was polled under an assignment (or a position) that
has ended is dropped, and read again by whoever has the partition now.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

import trio

from .._core.delivered_batch import as_offsets
from .._core.fanout import Run, plan_runs
from .._core.scheduling import SchedulingStrategy, Slice
from .._errors import ConfigurationError
from .._types import TopicPartition
from ..transports.base import PolledBatch, Record, Session
from .decoding import Decode, Deserializers, SharedDecoding
from .logs import about
from .message import Chunk
from .partitions import Assignment, AssignmentState, Partitions, Pending
from .stream import Stream

__all__ = ["Conductor", "Fetcher", "Parcel", "Transit"]

logger = logging.getLogger("trio_consumer.conductor")


class Parcel(NamedTuple):
    """A polled batch with what it was read under."""

    assignment: Assignment
    reading: object
    batch: PolledBatch


class Transit:
    """Counts the polls that the fetcher has taken and the conductor has not."""

    def __init__(self) -> None:
        self._polls = 0
        self._empty = trio.lowlevel.ParkingLot()

    def depart(self) -> None:
        """The fetcher has taken a poll."""
        self._polls += 1

    def arrive(self) -> None:
        """The conductor has handed it on, or put it aside."""
        self._polls -= 1
        if not self._polls:
            self._empty.unpark_all()

    async def wait_empty(self) -> None:
        """Wait until no poll is between the two."""
        while self._polls:
            await self._empty.park()


class Fetcher:
    """The task that polls.

    Cancelling it loses nothing: a poll that was taken and not handed on was
    never delivered, and is read again by the next owner.

    Args:
        session: Where to poll.
        partitions: What this member has; the records of others are dropped.
        parcels: Where polls go.
        transit: Told of each of them.
        randomly_assigned: Topics of which records are handed on even if their
            partition is not assigned, to whom they concern; see
            :meth:`Partitions.stray`.
    """

    def __init__(
        self,
        session: Session,
        partitions: Partitions,
        parcels: trio.MemorySendChannel[list[Parcel]],
        transit: Transit,
        randomly_assigned: Collection[str] = (),
    ) -> None:
        self._session = session
        self._partitions = partitions
        self._parcels = parcels
        self._transit = transit
        self._randomly_assigned = randomly_assigned

    async def run(self) -> None:
        """Poll for ever."""
        while True:
            polled = await self._session.poll()
            parcels = [
                Parcel(assignment, assignment.reading, batch)
                for batch in polled
                if (assignment := self._assignment(batch.tp)) is not None
            ]
            if parcels:
                self._transit.depart()
                await self._parcels.send(parcels)

    def _assignment(self, tp: TopicPartition) -> Assignment | None:
        assignment = self._partitions.get(tp)
        if assignment is None and tp.topic in self._randomly_assigned:
            return self._partitions.stray(tp)
        return assignment


class Conductor:
    """The task that fans out."""

    def __init__(
        self,
        partitions: Partitions,
        parcels: trio.MemoryReceiveChannel[list[Parcel]],
        scheduler: SchedulingStrategy,
        transit: Transit,
    ) -> None:
        self._partitions = partitions
        self._parcels = parcels
        self._transit = transit
        self._scheduler = scheduler
        partitions.on_released = self.flush  # type: ignore[method-assign]  # meant to be set

    async def run(self) -> None:
        """Hand on every poll that the fetcher sends."""
        async for parcels in self._parcels:
            self.take(parcels)
            self._transit.arrive()

    def take(self, parcels: Sequence[Parcel]) -> None:
        """Hand on one poll, or put it aside where its partition is held."""
        fresh: dict[TopicPartition, tuple[Assignment, PolledBatch]] = {}
        for assignment, reading, batch in parcels:
            if assignment.state is AssignmentState.STRAY:
                self._hand_on_stray(assignment, batch)
                continue
            if assignment.reading is not reading or assignment.state is not AssignmentState.OPEN:
                continue
            self._take_in(assignment, batch)
            fresh[batch.tp] = (assignment, batch)
        for tp, start, stop in self._slices({tp: len(b.records) for tp, (_, b) in fresh.items()}):
            assignment, batch = fresh[tp]
            self._hand_on(assignment, batch, start, stop)
        for assignment, batch in fresh.values():
            if not batch.records:
                self._hand_on(assignment, batch, 0, 0)

    def _slices(self, sizes: Mapping[TopicPartition, int]) -> Iterator[Slice]:
        """What the scheduler says, checked: a record left out would be committed past."""
        done = dict.fromkeys(sizes, 0)
        for each in self._scheduler.slices(sizes):
            tp, start, stop = each
            if start != done.get(tp) or not start < stop <= sizes[tp]:
                raise ConfigurationError(
                    f"the scheduler {self._scheduler!r} gave records {start} to {stop} of {tp}"
                    f" after {done.get(tp)} of {sizes.get(tp)}: it has to cover each record once,"
                    " in ascending order"
                )
            done[tp] = stop
            yield each
        left = {str(tp): sizes[tp] - stop for tp, stop in done.items() if stop < sizes[tp]}
        if left:
            raise ConfigurationError(
                f"the scheduler {self._scheduler!r} left out records of {left}: it has to cover"
                " each record once, in ascending order"
            )

    def _hand_on_stray(self, assignment: Assignment, batch: PolledBatch) -> None:
        takers = tuple(assignment.takers)
        if takers and batch.records:
            run = Run(0, len(batch.records), takers)
            self._give(assignment, batch.records, _offsets(batch.records), run)
        # Its entries are void from the beginning: no acknowledgement counts.
        assignment.ledger.close()

    def _take_in(self, assignment: Assignment, batch: PolledBatch) -> None:
        if batch.high_watermark is not None:
            assignment.high_watermark = batch.high_watermark
        if batch.records:
            first = batch.records[0].offset
        elif assignment.cursor is None and batch.begins is not None and assignment.acknowledges:
            first = batch.begins  # what lies between needs no finishing, and a commit
        else:
            first = batch.next_offset
        if assignment.cursor is not None and first < assignment.cursor:
            # Nobody sought, so the client did: the log was truncated or made
            # anew, and the reset policy chose this place.
            logger.warning(
                "%s: position went back from %d to %d by itself (log truncated or topic made"
                " anew); messages in hand can no longer be acknowledged",
                assignment.tp,
                assignment.cursor,
                first,
                extra=about(
                    self._partitions._session,
                    [assignment.tp],
                    offset=first,
                    position=assignment.cursor,
                ),
            )
            reading = assignment.reading
            self._partitions.restart(assignment, None)
            # Polls come in order: what the fetcher has noted since is from the
            # new place too, and nothing would read it again.
            assignment.reading = reading
        # Also after a seek, if only observers read on from there: a stream that is opened
        # later begins where the account does.
        assignment.ledger.begin(first)
        if assignment.cursor is not None:
            # Compacted or deleted since it was delivered: it cannot come again.
            offsets = (record.offset for record in batch.records)
            assignment.ledger.vanish(assignment.cursor, batch.next_offset, offsets)
        if assignment.began is None:
            assignment.began = first
        assignment.cursor = batch.next_offset

    def _hand_on(self, assignment: Assignment, batch: PolledBatch, start: int, stop: int) -> None:
        if assignment.state is not AssignmentState.OPEN:
            return
        if assignment.pending or not self._partitions.flow.is_open(assignment.tp):
            pending = assignment.pending
            # Slices of a batch that is waiting already belong to it.
            if not (pending and pending[-1].batch is batch):
                pending.append(Pending(batch, start))
            return
        self._deliver(assignment, batch, start, stop)

    def flush(self, tps: Collection[TopicPartition]) -> None:
        """Hand on what these partitions have pending, until they are held again."""
        # Sorted, as everywhere: the order of a set differs between two processes.
        for tp in sorted(tps):
            assignment = self._partitions.get(tp)
            while (
                assignment is not None
                and assignment.state is AssignmentState.OPEN
                and assignment.pending
                and self._partitions.flow.is_open(tp)
            ):
                batch, start = assignment.pending.popleft()
                self._deliver(assignment, batch, start, len(batch.records))

    def _deliver(self, assignment: Assignment, batch: PolledBatch, start: int, stop: int) -> None:
        ledger = assignment.ledger
        before = ledger.position
        if start < stop:
            records = batch.records
            if stop - start < len(records):
                records = records[start:stop]
            end = records[-1].offset + 1
            offsets = _offsets(records)
            for run in plan_runs(offsets, ledger, assignment.takers):
                self._give(assignment, records, offsets, run)
            # Also if it went to nobody: observers may have had it before a rewind.
            if ledger.position is None or ledger.position < end:
                assignment.observed = True
        elif assignment.observed:
            return
        else:
            end = batch.next_offset if before is None else before
        # The position moves over a hole at the end of the batch, but only if
        # the account covers everything before it (observers keep none).
        if stop == len(batch.records) and ledger.position is not None and ledger.position >= end:
            ledger.advance(batch.next_offset)

    def _give(
        self,
        assignment: Assignment,
        records: Sequence[Record],
        offsets: Sequence[int],
        run: Run[Stream],
    ) -> None:
        if run.stop - run.start < len(records):
            records = records[run.start : run.stop]
            offsets = offsets[run.start : run.stop]
        mask = run.mask
        entries = None
        if mask:
            entries = assignment.ledger.deliver(offsets, mask, at=trio.current_time())
        shared: list[tuple[Deserializers, Decode]] = []
        for taker in run.takers:
            stream = taker.stream
            taker.give(offsets[0], offsets[-1] + 1)
            decode = _decode(stream.deserializers, records, run, shared)
            stream._push(
                Chunk(
                    stream,
                    assignment,
                    assignment.ledger,
                    records,
                    entries if taker.bit else None,
                    taker.bit,
                    decode,
                )
            )


def _offsets(records: Sequence[Record]) -> Sequence[int]:
    first, last = records[0].offset, records[-1].offset
    if last - first + 1 == len(records):
        return range(first, last + 1)
    return as_offsets([record.offset for record in records])


def _decode(
    deserializers: Deserializers,
    records: Sequence[Record],
    run: Run[Stream],
    shared: list[tuple[Deserializers, Decode]],
) -> Decode | None:
    """How a stream decodes these records; shared with those that decode alike."""
    if deserializers == (None, None):
        return None
    # Not a dictionary: a callable object need not be hashable.
    for other, decode in shared:
        if other == deserializers:
            return decode
    alike = sum(1 for taker in run.takers if taker.stream.deserializers == deserializers)
    if alike > 1:
        decode = SharedDecoding(deserializers, records).decode
    else:

        def decode(index: int, /) -> tuple[object, object]:
            return deserializers.decode(records[index])

    shared.append((deserializers, decode))
    return decode
