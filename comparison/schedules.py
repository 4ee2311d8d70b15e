"""What both consumers are put through, as data.

A :class:`Schedule` is a small world (topics whose records have given offsets,
what the group has committed), the programs that read it, and steps.  It says
nothing about what has to come out: that is computed from the steps alone, in
:mod:`.rule`.  How a step is done with one consumer stands in its driver,
:mod:`.ours` and :mod:`.theirs`.

Every topic has one partition.  No commit is made but those of the steps, and of
the consumer itself when it hands its partition over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

__all__ = [
    "SCHEDULES",
    "Background",
    "Commit",
    "CommitMeanwhile",
    "Finish",
    "HandOver",
    "Pause",
    "Produce",
    "Reader",
    "RefuseCommit",
    "Resume",
    "ResumeFlow",
    "Schedule",
    "Seek",
    "Step",
    "StopFlow",
    "Take",
    "Wait",
    "WaitForStoppedFlow",
    "Watch",
    "Work",
]


@dataclass(frozen=True)
class Reader:
    """A stream and the program that iterates it.

    Attributes:
        topic: What it reads.
        json: Whether it decodes its messages as JSON; else it takes bytes.
        fails_at: Acknowledges automatically, by coming back for the next
            message; at this offset the program breaks off, once, and begins
            anew.  None: it acknowledges by name.
        failing: How it breaks off.
    """

    topic: str = "t"
    json: bool = False
    fails_at: int | None = None
    failing: Literal["raise", "cancel"] = "raise"


@dataclass(frozen=True)
class Take:
    """A program takes so many messages and holds them in its hands."""

    count: int
    reader: int = 0


@dataclass(frozen=True)
class Finish:
    """A program has done its work on messages in its hands and acknowledges them."""

    offsets: tuple[int, ...]
    reader: int = 0
    times: int = 1


@dataclass(frozen=True)
class Work:
    """A program takes messages and does them one by one, so many or all there are."""

    count: int | None = None
    reader: int = 0


@dataclass(frozen=True)
class Background:
    """The same, while the schedule goes on after a second."""

    work: Work


@dataclass(frozen=True)
class Commit:
    """Ask for a commit, of all topics or of some."""

    topics: tuple[str, ...] | None = None


@dataclass(frozen=True)
class CommitMeanwhile:
    """While a commit is on its way to the broker, finish more and ask for another."""

    finish: Finish


@dataclass(frozen=True)
class RefuseCommit:
    """The broker will refuse the next commit: the group is said to have rebalanced."""


@dataclass(frozen=True)
class HandOver:
    """The partition is revoked; meanwhile programs finish messages, one a second."""

    finish: tuple[Finish, ...] = ()


@dataclass(frozen=True)
class Pause:
    """Pause the partition of ``t``."""


@dataclass(frozen=True)
class Resume:
    """Resume it."""


@dataclass(frozen=True)
class StopFlow:
    """``stop_flow()``."""


@dataclass(frozen=True)
class ResumeFlow:
    """``resume_flow()``."""


@dataclass(frozen=True)
class WaitForStoppedFlow:
    """``wait_for_stopped_flow()``; from its return to ResumeFlow nothing may be fetched."""


@dataclass(frozen=True)
class Seek:
    """Seek the partition of ``t``."""

    offset: int


@dataclass(frozen=True)
class Produce:
    """So many new records in ``t``."""

    count: int


@dataclass(frozen=True)
class Wait:
    """Let time pass."""

    seconds: float


@dataclass(frozen=True)
class Watch:
    """Let time pass, and listen for the livelock detector's alarm."""

    seconds: float


Step = (
    Take
    | Finish
    | Work
    | Background
    | Commit
    | CommitMeanwhile
    | RefuseCommit
    | HandOver
    | Pause
    | Resume
    | StopFlow
    | ResumeFlow
    | WaitForStoppedFlow
    | Seek
    | Produce
    | Wait
    | Watch
)


@dataclass(frozen=True)
class Schedule:
    """One thing that happens to a consumer.

    Attributes:
        name: Short, for the command line.
        text: What happens, for the table.
        steps: In order.
        topics: The offsets that hold a record; what is missing was compacted away.
        committed: What the group has committed for ``t`` before, or None.
        readers: The programs.
        not_json: Offsets whose value is not JSON.
        buffer: Messages that the buffer of a stream holds.
        where: Which functions of Faust decide it, if Faust is not right.
    """

    name: str
    text: str
    steps: tuple[Step, ...]
    topics: Mapping[str, Sequence[int]] = field(default_factory=lambda: {"t": range(6)})
    committed: int | None = None
    readers: tuple[Reader, ...] = (Reader(),)
    not_json: frozenset[int] = frozenset()
    buffer: int = 4096
    where: str = ""


def _finish(*offsets: int, reader: int = 0, times: int = 1) -> Finish:
    return Finish(offsets, reader, times)


FRESH_GROUP = (
    "`transport/consumer.py:_new_offset` looks for a gap below the first acked offset only if"
    " something was committed before"
)
ACK_IN_FINALLY = (
    "`streams.py:Stream._py_aiter` (and `_c_aiter`) acks in a `finally:`, however the loop was left"
)

SCHEDULES: tuple[Schedule, ...] = (
    Schedule(
        "gap in a fresh group",
        "Nothing is committed yet; of 0 to 5 only 5 is finished, then commit.",
        (Take(6), _finish(5), Commit()),
        where=FRESH_GROUP,
    ),
    Schedule(
        "only offset 0 finished",
        "Of 0 to 5 only 0 is finished, then commit.",
        (Take(6), _finish(0), Commit()),
    ),
    Schedule(
        "out of order",
        "0 to 5 are finished in reverse order; a commit before 0, and one at the end.",
        (Take(6), _finish(5, 4, 3, 2, 1), Commit(), _finish(0), Commit()),
        where=FRESH_GROUP,
    ),
    Schedule(
        "committed offset 0",
        "The group has committed 0; of 0 to 5 only 2 is finished, then commit.",
        (Take(6), _finish(2), Commit()),
        committed=0,
        where="`transport/consumer.py:perform_seek` (`offset if offset else None`) and"
        " `_new_offset` (`if committed_offset:`) take the offset 0 for none",
    ),
    Schedule(
        "one past one unfinished",
        "0 to 2 are finished and committed; then 4 is finished, not 3; commit.",
        (Take(6), _finish(0, 1, 2), Commit(), _finish(4), Commit()),
        where="`transport/consumer.py:_new_offset`: `min(acked) - committed_offset > 1` lets a gap"
        " of one message pass",
    ),
    Schedule(
        "hole before an unfinished one",
        "3 and 4 were compacted away; all but 5 are finished, then commit.",
        (Take(6), _finish(0, 1, 2, 6, 7), Commit()),
        topics={"t": (0, 1, 2, 5, 6, 7)},
        where="`transport/consumer.py:_drain_messages` calls `_add_gap(tp, r_offset + 1, offset)`,"
        " which counts the message after the hole as part of it",
    ),
    Schedule(
        "hole after offset 0",
        "1 and 2 were compacted away; everything is finished, then commit, twice.",
        (Take(4), _finish(0, 3, 4, 5), Commit(), Commit()),
        topics={"t": (0, 3, 4, 5)},
        where="`transport/consumer.py:_drain_messages` (`gap > 1 and r_offset`) sees no hole after"
        " offset 0",
    ),
    Schedule(
        "holes, everything finished",
        "3, 4 and 8 were compacted away; everything is finished, then commit.",
        (Work(), Commit()),
        topics={"t": (0, 1, 2, 5, 6, 7, 9)},
        where="`transport/consumer.py:_drain_messages` counts the message after the hole as part of"
        " it; so it is in the list twice, where `_new_offset` sees a gap",
    ),
    Schedule(
        "pause in mid-batch",
        "The partition is paused after 3 of 300 fetched messages, and resumed; 5 more are produced;"
        " all that comes is finished, then commit.",
        (Work(3), Pause(), Wait(5), Resume(), Work(), Produce(5), Work(), Commit()),
        topics={"t": range(300)},
        where="`transport/consumer.py:getmany` passes over fetched records of a partition that is"
        " not active; the client's position is past them, and `_drain_messages` makes a hole of"
        " them that `_new_offset` commits",
    ),
    Schedule(
        "flow stopped in mid-batch",
        "`stop_flow()` after 3 of 300 fetched messages, then `resume_flow()`; 5 more are produced;"
        " all that comes is finished, then commit.",
        (Work(3), StopFlow(), Wait(5), ResumeFlow(), Work(), Produce(5), Work(), Commit()),
        topics={"t": range(300)},
        where="`transport/consumer.py:getmany` (`if not self.flow_active: break`) drops the rest of"
        " the fetched records, and `_drain_messages` makes a hole of them",
    ),
    Schedule(
        "a refused commit",
        "Everything is finished; the broker refuses a commit, and takes the next one.",
        (Work(), RefuseCommit(), Commit(), Commit()),
        where="`transport/consumer.py:_new_offset` takes the acks off its list before the commit,"
        " and `_commit_offsets` moves `_committed_offset` whether or not `_commit` succeeded",
    ),
    Schedule(
        "a commit meets an ack",
        "While a commit is on its way, 3 to 5 are finished and a commit is asked for; when that"
        " returns, they are committed.",
        (Take(6), _finish(0, 1, 2), CommitMeanwhile(_finish(3, 4, 5))),
        where="`transport/consumer.py:maybe_wait_for_commit_to_finish`: a commit that finds another"
        " one under way waits for it and does nothing; the next tick makes up for it",
    ),
    Schedule(
        "a topic filter",
        "Two topics are finished; a commit of one of them.",
        (Work(reader=0), Work(reader=1), Commit(("u",))),
        topics={"t": range(6), "u": range(6)},
        readers=(Reader("t"), Reader("u")),
    ),
    Schedule(
        "revoked with finished messages",
        "Everything is finished and not committed yet; the partition is revoked.",
        (Work(), HandOver()),
        where="`transport/consumer.py:on_partitions_revoked` drops the acks before"
        " `app/base.py:_on_partitions_revoked` commits",
    ),
    Schedule(
        "revoked with two in hand",
        "0 to 3 are committed; the partition is revoked, and meanwhile 5 is finished, then 4.",
        (Take(6), _finish(0, 1, 2, 3), Commit(), HandOver((_finish(5), _finish(4)))),
        where="`transport/consumer.py:on_partitions_revoked` drops `_committed_offset`, and"
        " `wait_empty` commits while it waits: to `_new_offset` it is a fresh group",
    ),
    Schedule(
        "revoked while a handler hangs",
        "5 is in hand and never finished; the partition is revoked.",
        (Take(6), _finish(0, 1, 2, 3, 4), HandOver()),
        where="`transport/consumer.py:wait_empty` has no deadline",
    ),
    Schedule(
        "a stream acks twice",
        "Two streams read the topic; one acknowledges each message twice, the other none.",
        (Take(6), Take(6, reader=1), _finish(*range(6), times=2), Commit()),
        readers=(Reader(), Reader()),
        where="`types/tuples.py:Message.ack` counts references and does not ask whose",
    ),
    Schedule(
        "not JSON, and a full stream",
        "One stream wants JSON and skips 3, which is none; the buffer of the other, which takes"
        " bytes, is full at that moment; then commit.",
        (Background(Work(reader=1)), Work(), Commit()),
        readers=(Reader(), Reader(json=True)),
        not_json=frozenset({3}),
        buffer=2,
        where="`transport/conductor.py:on_message` (and `_cython/conductor.pyx`): a stream whose"
        " queue is full is not among `delivered`, so a decode error of another one acks the"
        " message in its name and drops it",
    ),
    Schedule(
        "a handler raises",
        "An agent raises at 2, once, and is started again; then commit.",
        (Work(), Commit()),
        readers=(Reader(fails_at=2),),
        where=ACK_IN_FINALLY,
    ),
    Schedule(
        "a handler is cancelled",
        "The task of an agent is cancelled while it works on 2, and started again; then commit.",
        (Work(), Commit()),
        readers=(Reader(fails_at=2, failing="cancel"),),
        where=ACK_IN_FINALLY,
    ),
    Schedule(
        "wait_for_stopped_flow",
        "A fetch is waiting for records; `stop_flow()`, `wait_for_stopped_flow()`, then a record"
        " is produced.",
        (Work(), StopFlow(), WaitForStoppedFlow(), Produce(1), Wait(10), ResumeFlow()),
        where="`transport/consumer.py:_wait_next_records` sets `not_waiting_next_records` when a"
        " fetch begins, and nothing ever clears it",
    ),
    Schedule(
        "seek while flow is stopped",
        "Everything is committed; `stop_flow()`, `wait_for_stopped_flow()`, seek to 2,"
        " `resume_flow()`: 2 to 5 come again.",
        (
            Work(),
            Commit(),
            StopFlow(),
            WaitForStoppedFlow(),
            Seek(2),
            Wait(5),
            ResumeFlow(),
            Work(),
        ),
        where="`transport/consumer.py:getmany` seeks back to the committed offset when the fetch"
        " that was not waited for returns",
    ),
    Schedule(
        "a forward seek",
        "0 to 2 are committed; seek to 7 of 10; what comes is finished, then commit, twice.",
        (
            Work(),
            Commit(),
            Pause(),
            Wait(5),
            Produce(7),
            Seek(7),
            Resume(),
            Work(),
            Commit(),
            Commit(),
        ),
        topics={"t": range(3)},
        where="`transport/consumer.py:seek` leaves `_committed_offset` as it was, so to"
        " `_new_offset` there is a gap for ever",
    ),
    Schedule(
        "a seek past buffered messages",
        "0 to 2 of 10 are committed, 3 to 9 lie in the stream's buffer; seek to 7; what comes is"
        " finished, then commit.",
        (Take(3), _finish(0, 1, 2), Wait(5), Commit(), Seek(7), Work(), Commit()),
        topics={"t": range(10)},
        where="`transport/consumer.py:seek` leaves the buffers of the streams as they were",
    ),
    Schedule(
        "a hang at the end",
        "All messages are fetched, 5 is never finished, 20 minutes pass: an alarm?",
        (Take(6), _finish(0, 1, 2, 3, 4), Commit(), Watch(1200)),
        where="`transport/drivers/aiokafka.py:verify_event_path` compares the end with the"
        " position of fetching, not of what is acked",
    ),
    Schedule(
        "a hang with more behind it",
        "0 is never finished and the stream's buffer is full; 5 more are produced, 20 minutes"
        " pass: an alarm?",
        (Take(1), Wait(5), Produce(5), Watch(1200)),
        buffer=2,
    ),
    Schedule(
        "a healthy quiet partition",
        "Everything is finished and committed, 20 minutes pass: no alarm?",
        (Work(), Commit(), Watch(1200)),
    ),
)
