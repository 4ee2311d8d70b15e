"""Who holds what: the messages that keep a commit back, for people."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import trio

from .._core.delivered_batch import DeliveredBatch
from .._types import TopicPartition
from .partitions import Assignment
from .stream import Stream

__all__ = [
    "HeldMessages",
    "OldestUnfinished",
    "Whereabouts",
    "held_messages",
    "oldest_unfinished",
]


class Whereabouts(enum.Enum):
    """Where an unfinished message is."""

    BUFFER = "in the buffer"
    """No loop has taken it yet."""
    HAND = "in hand"
    """It was handed out, and somebody may still finish it."""
    LEFT = "left behind"
    """Whoever had it has gone; it waits for another stream or for the next member."""


@dataclass(frozen=True, slots=True)
class HeldMessages:
    """What one stream has not finished of one partition.

    Attributes:
        tp: The partition.
        oldest: The lowest offset.
        count: How many messages.
        seconds: How long ago the oldest was delivered to the stream's buffer.
        whereabouts: Where the oldest is.
        stream: The stream, as text; "" if it has gone.
        tasks: Names of the tasks that have the oldest in hand.  With
            ``ack="manual"`` and without ``async with message``: the tasks that
            loop over the stream, one of which took it.
    """

    tp: TopicPartition
    oldest: int
    count: int
    seconds: float
    whereabouts: Whereabouts
    stream: str
    tasks: tuple[str, ...]

    def __str__(self) -> str:
        text = f"{self.tp}: {self.count} unfinished, the oldest at offset {self.oldest}"
        text += f" for {self.seconds:.1f} s {self.whereabouts.value}"
        if self.tasks:
            text += f" of {' or '.join(self.tasks)}"
        if self.stream:
            text += f" ({self.stream})"
        return text


@dataclass(frozen=True, slots=True)
class OldestUnfinished:
    """The message that holds back the commit of a partition.

    Attributes:
        offset: Its offset.
        seconds: How long ago it was delivered to the streams.
        whereabouts: Where it is; in hand, if one of several streams has it there.
        streams: The streams that have not finished it, as text; empty if it
            waits for a stream or for the next member.
        tasks: Names of the tasks that have it in hand, see :class:`HeldMessages`.
    """

    offset: int
    seconds: float
    whereabouts: Whereabouts
    streams: tuple[str, ...]
    tasks: tuple[str, ...]

    def __str__(self) -> str:
        text = f"offset {self.offset} unfinished for {self.seconds:.1f} s, {self.whereabouts.value}"
        if self.tasks:
            text += f" of {' or '.join(self.tasks)}"
        return text


def oldest_unfinished(assignment: Assignment) -> OldestUnfinished | None:
    """The message that holds back the commit of a partition, None if all is finished.

    Unlike :func:`held_messages` it looks at this one message only, so it may be
    asked often.
    """
    offset = assignment.ledger.oldest_unfinished
    if offset is None:
        return None
    places = [
        (batch, index)
        for batch in assignment.ledger.oldest_batches()
        if (index := batch.lowest()) is not None and batch.offsets[index] == offset
    ]
    streams: set[str] = set()
    tasks: set[str] = set()
    in_hand = False
    for taker in assignment.takers:
        for batch, index in places:
            if taker.bit and batch.awaits(index, taker.bit):
                streams.add(repr(taker.stream))
                if not taker.stream.has_buffered(batch, index):
                    in_hand = True
                    tasks.update(taker.stream.holders(batch, index))
    if in_hand:
        whereabouts = Whereabouts.HAND
    else:
        whereabouts = Whereabouts.BUFFER if streams else Whereabouts.LEFT
    return OldestUnfinished(
        offset,
        trio.current_time() - min(batch.delivered_at for batch, _ in places),
        whereabouts,
        tuple(sorted(streams)),
        tuple(sorted(tasks)),
    )


def held_messages(assignments: Iterable[Assignment]) -> list[HeldMessages]:
    """What is unfinished, by partition and stream; oldest first in each partition."""
    now = trio.current_time()
    return [held for assignment in assignments for held in sorted(_of(assignment, now), key=_age)]


def _age(held: HeldMessages) -> int:
    return held.oldest


def _of(assignment: Assignment, now: float) -> Iterator[HeldMessages]:
    batches = assignment.ledger.oldest_batches()
    for taker in assignment.takers:
        if taker.bit:
            found = _of_stream(assignment.tp, taker.stream, taker.bit, batches, now)
            if found is not None:
                yield found
    owed = [(batch, offset) for batch in batches for offset in batch.owed_offsets()]
    if owed:
        batch, oldest = min(owed, key=lambda each: each[1])
        yield HeldMessages(
            assignment.tp,
            oldest,
            len({offset for _, offset in owed}),
            now - batch.delivered_at,
            Whereabouts.LEFT,
            "",
            (),
        )


def _of_stream(
    tp: TopicPartition, stream: Stream, bit: int, batches: list[DeliveredBatch], now: float
) -> HeldMessages | None:
    waiting = [(batch, indices) for batch in batches if (indices := batch.waiting_for(bit))]
    if not waiting:
        return None
    batch, indices = min(waiting, key=lambda each: each[0].offsets[each[1][0]])
    index = indices[0]
    buffered = stream.has_buffered(batch, index)
    return HeldMessages(
        tp,
        batch.offsets[index],
        sum(len(indices) for _, indices in waiting),
        now - batch.delivered_at,
        Whereabouts.BUFFER if buffered else Whereabouts.HAND,
        repr(stream),
        () if buffered else stream.holders(batch, index),
    )
