"""The observer: keeps the history of a simulation and checks what has to hold.

It is told what happens in the step in which it happens: by whoever produces, by the
handlers, and by the coordinator of the group.  It asks the library nothing and shares
nothing with it, not even a type (a partition is a pair of a text and a number).

The first violation ends the simulation.  What is checked, by the names that a
violation carries (I1 to I12 are the invariants of DESIGN.md):

=============  ======================================================================
``I1``         A commit passes no record that was not processed, by any member.
``I2``         The committed offset falls only after a seek or a truncated log.
``I3``         Once the faults have stopped, everything is committed in bounded time.
``I4``         Only the first acknowledgement of a message counts.
``I5``         No acknowledgement counts after its assignment ended.
``I6``         A commit that failed changes nothing: by ``I3`` and ``I12``, which see
               what would be left out afterwards, and ``I1``.
``I7``         What would come again after a crash is at most what the statistics say.
``I8``         A stream gets each partition in order, but for what is given back.
``I9``         A stream gets each record once within an assignment.
``I10``        What is buffered stays below its bound plus one poll.
``I11``        No task, thread or socket is left, and nothing is lost by a cancellation.
``I12``        A clean exit, or a hand-over in order, commits everything finished.
``loss``       Once the faults have stopped, everything is processed in bounded time.
``owner``      Commits come from the member that the coordinator gave the partition to;
               messages are handed out only while it is assigned.
``position``   Nothing below the committed offset is delivered without a cause.
``invented``   What is delivered was produced, and not aborted.
``error``      Nothing is raised but what a fault explains.
=============  ======================================================================
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from ._partition_history import Fall, PartitionHistory

__all__ = ["CHECKS", "Delivery", "Observer", "Partition", "Violation", "plain"]

Partition = tuple[str, int]


def plain(tp: tuple[str, int]) -> Partition:
    """The partition as a plain pair, whatever pair it was."""
    topic, number = tp
    return topic, number


CHECKS = (
    *(f"I{n}" for n in range(1, 13)),
    *("loss", "owner", "position", "invented", "error"),
)


@dataclass(frozen=True)
class Violation:
    """Something that must not happen.

    Attributes:
        check: Its name in the table of :mod:`._observer`.
        text: What happened.
        at: When, in seconds after the beginning.
    """

    check: str
    text: str
    at: float

    def __str__(self) -> str:
        return f"{self.check} violated at {self.at:.3f} s: {self.text}"


@dataclass(eq=False)
class _Seen:
    """What one stream got in one account."""

    last: int = -1
    offsets: set[int] = field(default_factory=set)
    again: Counter[int] = field(default_factory=Counter)


@dataclass(eq=False)
class Account:
    """One assignment of one partition to one life of a member, or what follows a seek."""

    reader: str
    partition: Partition
    begin: int
    truncations: int
    owner: str | None
    closed: bool = False
    streams: dict[object, _Seen] = field(default_factory=dict)
    finished: dict[int, dict[int, float]] = field(default_factory=dict)
    delivered: set[int] = field(default_factory=set)


@dataclass(eq=False)
class Delivery:
    """One message in a handler's hand."""

    account: Account
    stream: object
    number: int
    offset: int
    record: int
    attempt: int
    acknowledging: bool
    over: bool = False


class Observer:
    """See the module's text.

    Args:
        now: Seconds after the beginning.
        needed: How many streams have to process a record of a topic.
        streams: The acknowledging streams of a topic, by number.
        read_committed: Whether aborted records are hidden.
        ordered: Whether streams stay as long as their member; else what another one
            left behind may come to a stream after newer records.
        eager: Whether everything is given up in each rebalance.
        quiet_since: When the last fault ended; infinity while there is one.
        on_violation: Called at the first violation.
    """

    def __init__(
        self,
        *,
        now: Callable[[], float],
        needed: Mapping[str, int],
        streams: Mapping[str, frozenset[int]],
        read_committed: bool,
        ordered: bool,
        eager: bool,
        quiet_since: Callable[[], float],
        on_violation: Callable[[], object],
    ) -> None:
        self.partitions: dict[Partition, PartitionHistory] = {}
        self.violation: Violation | None = None
        self.trace: list[str] = []
        self.digest = 0
        self.counts: Counter[str] = Counter()
        self.checked: Counter[str] = Counter()
        self.excused: set[int] = set()
        self._now = now
        self._needed = needed
        self._streams = streams
        self._read_committed = read_committed
        self._ordered = ordered
        self._eager = eager
        self._quiet_since = quiet_since
        self._on_violation = on_violation
        self._processed: dict[int, set[int]] = {}
        self._aborted: set[int] = set()
        self._attempts: Counter[tuple[int, int]] = Counter()
        self._accounts: dict[tuple[str, Partition], Account] = {}
        # The rebalance that goes on or was the last, and the one before.
        self._rebalances = (-1.0, -1.0)
        self._completed = True
        self._completed_at = -1.0
        self._leaving: dict[str, dict[Account, int]] = {}
        self._next = 0

    # -- the record ------------------------------------------------------------------

    def note(self, kind: str, *what: object) -> None:
        """Keep an event, and make it part of the digest of this run."""
        text = f"{self._now():10.4f}  {kind} {' '.join(map(str, what))}"
        self.counts[kind] += 1
        self.trace.append(text)
        self.digest = zlib.crc32(text.encode(), self.digest)

    def fail(self, check: str, text: str) -> None:
        """Something must not be; only the first one counts."""
        assert check in CHECKS
        if self.violation is None:
            self.violation = Violation(check, text, self._now())
            self.note("VIOLATION", check, text)
            self._on_violation()

    def _require(self, check: str, holds: bool, text: Callable[[], str]) -> bool:
        self.checked[check] += 1
        if not holds:
            self.fail(check, text())
        return holds

    # -- the log -----------------------------------------------------------------------

    def number(self) -> int:
        """A number for a record that is about to be produced."""
        self._next += 1
        return self._next

    def log(self, partition: Partition) -> PartitionHistory:
        """The history of a partition."""
        return self.partitions.setdefault(partition, PartitionHistory())

    def produced(self, partition: Partition, offset: int, record: int) -> None:
        """A record was appended, in a transaction or not."""
        self.log(partition).append(offset, record)
        self.counts["records"] += 1

    def marked(self, partition: Partition) -> None:
        """One offset was taken without a record."""
        self.log(partition).end += 1

    def aborted(self, partition: Partition, records: Iterable[int]) -> None:
        """Records of a transaction that was aborted."""
        log = self.log(partition)
        if self._read_committed:
            gone = set(records)
            self._aborted |= gone
            log.remove([o for o, r in list(log.records.items()) if r in gone])

    def compacted(self, partition: Partition, offsets: Iterable[int]) -> None:
        """These offsets are holes now."""
        self.note("compacted", partition, len(list(offsets)))
        self.log(partition).remove(offsets)

    def deleted(self, partition: Partition, before: int) -> None:
        """The log begins here now."""
        self.note("deleted", partition, before)
        log = self.log(partition)
        log.remove(log.between(0, before))
        log.start = max(log.start, min(before, log.end))

    def truncated(self, partition: Partition, offset: int) -> None:
        """The log ends here now."""
        self.note("truncated", partition, offset)
        self.log(partition).truncate(offset)

    # -- the coordinator ---------------------------------------------------------------

    def rebalancing(self) -> None:
        """A rebalance begins."""
        self.note("rebalancing")
        if self._completed:
            self._rebalances = (self._rebalances[1], self._now())
            self._completed = False

    def rebalanced_since(self, time: float) -> bool:
        """Whether the group was between two generations at any moment since then."""
        return not self._completed or self._completed_at >= time

    def given(self, generation: int, assignment: Mapping[str, Iterable[Partition]]) -> None:
        """The coordinator has assigned."""
        self.note("given", generation, {m: sorted(tps) for m, tps in assignment.items()})
        self._completed = True
        self._completed_at = self._now()
        for member, partitions in assignment.items():
            for partition in partitions:
                log = self.log(partition)
                log.owner, log.owned_since = member, generation

    def committed(self, member: str, generation: int, offsets: Mapping[Partition, int]) -> None:
        """The coordinator has stored a commit."""
        self.note("committed", member, generation, sorted(offsets.items()))
        for partition, offset in offsets.items():
            log = self.log(partition)
            self._require(
                "owner",
                member == log.owner and generation >= log.owned_since,
                lambda p=partition, o=offset, h=log: (  # type: ignore[misc]
                    f"{member} of generation {generation} commits {o} of {p}, which belongs to"
                    f" {h.owner} since generation {h.owned_since}"
                ),
            )
            before = log.committed
            if before is not None and offset < before:
                self._require(
                    "I2",
                    log.take_fall(offset),
                    lambda p=partition, o=offset, b=before: (  # type: ignore[misc]
                        f"the committed offset of {p} falls from {b} to {o}"
                    ),
                )
            self._pass(partition, log, offset)
            log.committed = offset

    def _pass(self, partition: Partition, log: PartitionHistory, offset: int) -> None:
        for passed in log.between(log.safe, offset):
            record = log.records[passed]
            done = self.is_processed(partition, record) or log.is_reused(passed)
            if not self._require(
                "I1",
                done,
                lambda p=partition, r=passed: (  # type: ignore[misc]
                    f"a commit at {offset} of {p} passes {r}, which is not processed"
                ),
            ):
                return
        log.safe = max(log.safe, offset)

    def is_processed(self, partition: Partition, record: int) -> bool:
        """Whether enough streams have processed a record, or nobody has to."""
        done = len(self._processed.get(record, ()))
        return done >= self._needed.get(partition[0], 1) or record in self.excused

    # -- members -----------------------------------------------------------------------

    def assigned(self, reader: str, partitions: Iterable[Partition]) -> None:
        """A life of a member begins with these."""
        mine = sorted(partitions)
        self.note("assigned", reader, mine)
        for partition in mine:
            log = self.log(partition)
            log.falls = [fall for fall in log.falls if fall.reader is None]
            # Out of the log, so the reset policy says where to begin.
            beyond = log.committed is not None and log.committed > log.end
            self._open(reader, partition, log.start if beyond else log.committed or 0)

    def revoked(self, reader: str, partitions: Iterable[Partition]) -> None:
        """It has handed these over; nothing of them counts after this."""
        mine = sorted(partitions)
        self.note("revoked", reader, mine)
        for partition in mine:
            account = self._accounts.get((reader, partition))
            if account is not None:
                # A cooperative member gives up what the round before took away.
                began = self._rebalances[1 if self._eager else 0]
                mine_still = self.log(partition).owner == account.owner
                if mine_still and self._quiet_since() < began:
                    self._check_committed(account, began, "was handed over")
                self._close(account)

    def lost(self, reader: str, partitions: Iterable[Partition]) -> None:
        """These are gone."""
        mine = sorted(partitions)
        self.note("lost", reader, mine)
        for partition in mine:
            account = self._accounts.get((reader, partition))
            if account is not None:
                self._close(account)

    def sought(self, reader: str, partition: Partition, offset: int) -> None:
        """Reading goes on elsewhere."""
        self.note("sought", reader, partition, offset)
        log = self.log(partition)
        # Out of the log, so the reset policy says where to begin.
        begin = offset if offset <= log.end else log.start
        self._open(reader, partition, begin)
        log.falls.append(Fall(begin, reader))

    def excuse(self, partition: Partition, before: int) -> None:
        """A seek forward leaves these out: that is what was asked for."""
        log = self.log(partition)
        for offset in log.between(log.committed or 0, before):
            self.excused.add(log.records[offset])

    def ended(self, reader: str) -> None:
        """A life of a member is over."""
        self.note("ended", reader)
        for (whose, _), account in list(self._accounts.items()):
            if whose == reader:
                self._close(account)

    def leaving(self, reader: str) -> None:
        """A member begins to stop in order."""
        self.note("leaving", reader)
        self._leaving[reader] = {
            account: self._prefix(account, self._now())
            for account in self._accounts.values()
            if account.reader == reader
        }

    def left(self, reader: str, since: float) -> None:
        """It has stopped in order, which began at this time."""
        expected = self._leaving.pop(reader, {})
        if self._quiet_since() >= since:
            return
        for account, offset in expected.items():
            if not account.closed:
                self._check_at_least(account.partition, offset, f"{reader} left in order")

    def _open(self, reader: str, partition: Partition, begin: int) -> Account:
        old = self._accounts.get((reader, partition))
        if old is not None:
            old.closed = True
        log = self.log(partition)
        account = Account(reader, partition, begin, log.truncations, log.owner)
        self._accounts[reader, partition] = account
        return account

    def _close(self, account: Account) -> None:
        account.closed = True
        self._accounts.pop((account.reader, account.partition), None)

    def _prefix(self, account: Account, by: float) -> int:
        """The offset up to which everything was finished at a time, 0 if unknown."""
        log = self.log(account.partition)
        if log.truncations != account.truncations or not self._ordered:
            # A stream that was opened anew may have got again what others finished.
            return 0
        wanted = self._streams[account.partition[0]]
        result = 0
        # What was compacted away since it was delivered is still to be finished.
        for offset in sorted(account.delivered.union(log.between(account.begin, log.end))):
            done = account.finished.get(offset, {})
            if any(done.get(number, by + 1) > by for number in wanted):
                break
            result = offset + 1
        return result

    def _check_committed(self, account: Account, by: float, how: str) -> None:
        self._check_at_least(account.partition, self._prefix(account, by), how)

    def _check_at_least(self, partition: Partition, offset: int, how: str) -> None:
        committed = self.log(partition).committed
        self._require(
            "I12",
            (committed or 0) >= offset or self.log(partition).truncations > 0,
            lambda: (
                f"everything below {offset} of {partition} was finished, {committed} is"
                f" committed when it {how}"
            ),
        )

    # -- messages ----------------------------------------------------------------------

    def delivered(
        self,
        reader: str,
        stream: object,
        number: int,
        partition: Partition,
        offset: int,
        record: int,
    ) -> Delivery:
        """A handler gets a message.

        Args:
            reader: A life of a member.
            stream: Which stream, new each time that one is opened.
            number: Which of the streams of a member.
            partition: Where it lies.
            offset: Likewise.
            record: Number of the record.
        """
        self.note("delivered", reader, number, partition, offset, record)
        log = self.log(partition)
        self._require(
            "invented",
            log.produced.get(record) == offset and record not in self._aborted,
            lambda: f"{partition} offset {offset} is delivered as record {record}",
        )
        self._attempts[number, record] += 1
        account = self._accounts.get((reader, partition))
        if account is None:
            self._require("owner", False, lambda: f"{reader} is handed {partition}, not its own")
            account = Account(reader, partition, 0, log.truncations, None, closed=True)
        acknowledging = number in self._streams[partition[0]]
        self._check_order(log, account, stream, offset)
        if acknowledging:
            account.delivered.add(offset)
        return Delivery(
            account, stream, number, offset, record, self._attempts[number, record], acknowledging
        )

    def _check_order(
        self, log: PartitionHistory, account: Account, stream: object, offset: int
    ) -> None:
        seen = account.streams.setdefault(stream, _Seen())
        back = offset < account.begin or offset <= seen.last
        if back and account.truncations < log.truncations and not seen.again[offset]:
            # The client's position went back by itself.
            account.truncations = log.truncations
            account.begin = log.start
            account.streams.clear()
            account.delivered.clear()
            account.finished.clear()
            seen = account.streams.setdefault(stream, _Seen())
        where = f"{account.partition} offset {offset} to {account.reader}"
        self._require(
            "position",
            offset >= account.begin,
            lambda: f"{where}, which began at {account.begin}",
        )
        if seen.again[offset]:
            seen.again[offset] -= 1
        else:
            self._require(
                "I9", offset not in seen.offsets, lambda: f"{where}: the same stream had it"
            )
            if self._ordered:
                self._require("I8", offset > seen.last, lambda: f"{where} after {seen.last}")
            seen.last = max(seen.last, offset)
        seen.offsets.add(offset)

    def given_back(self, delivery: Delivery, accepted: bool) -> None:
        """A message was given back; whether it will come again."""
        self.note("given back", delivery.account.reader, delivery.offset, accepted)
        if accepted:
            self._check_ack(delivery)
            seen = delivery.account.streams.setdefault(delivery.stream, _Seen())
            seen.again[delivery.offset] += 1
            delivery.over = True

    def processed(self, delivery: Delivery) -> None:
        """A handler has done all that it wants to do with a message."""
        if delivery.acknowledging:
            self.note("processed", delivery.account.reader, delivery.number, delivery.record)
            self._processed.setdefault(delivery.record, set()).add(delivery.number)

    def finished(self, delivery: Delivery) -> None:
        """A message is finished without a call: its loop comes back in this step."""
        if delivery.acknowledging:
            delivery.over = True
            done = delivery.account.finished.setdefault(delivery.offset, {})
            done.setdefault(delivery.number, self._now())

    def acknowledged(self, delivery: Delivery, accepted: bool) -> None:
        """A message was acknowledged; whether that counted."""
        self.note("acknowledged", delivery.account.reader, delivery.offset, accepted)
        if accepted:
            self._check_ack(delivery)
            self.finished(delivery)

    def _check_ack(self, delivery: Delivery) -> None:
        where = f"{delivery.account.partition} offset {delivery.offset}"
        self._require("I4", not delivery.over, lambda: f"{where} is acknowledged twice")
        self._require(
            "I5",
            not delivery.account.closed,
            lambda: f"{where} is acknowledged after {delivery.account.reader} gave it up",
        )

    # -- from time to time ---------------------------------------------------------------

    def replayable(self, reader: str, partition: Partition, bound: int) -> None:
        """The library says that so many would come again if this member died now."""
        account = self._accounts.get((reader, partition))
        if account is None or account.truncations < self.log(partition).truncations:
            return
        committed = self.log(partition).committed
        again = sum(1 for o in account.delivered if committed is None or o >= committed)
        self._require(
            "I7",
            again <= bound,
            lambda: (
                f"{again} messages of {partition} would come again to the next owner,"
                f" the statistics of {reader} say {bound}"
            ),
        )

    def buffered(self, reader: str, size: int, bound: int) -> None:
        """A stream's buffer and what it may hold at most."""
        self._require("I10", size <= bound, lambda: f"{reader} buffers {size}, at most {bound}")

    def unprocessed(self) -> list[tuple[Partition, int]]:
        """Records that have to be processed and are not."""
        return [
            (partition, offset)
            for partition, log in self.partitions.items()
            for offset, record in log.records.items()
            if not log.is_reused(offset) and not self.is_processed(partition, record)
        ]

    def uncommitted(self) -> list[tuple[Partition, int]]:
        """Partitions with a record at or beyond the committed offset, with that offset."""
        return [
            (partition, log.committed or 0)
            for partition, log in self.partitions.items()
            if any(
                o >= (log.committed or 0) and not log.is_reused(o) and r not in self.excused
                for o, r in log.records.items()
            )
        ]

    def is_complete(self) -> bool:
        """Whether everything is processed and committed."""
        return not self.uncommitted() and not self.unprocessed()

    def check_complete(self, seconds: float) -> None:
        """Everything has to be, so many seconds after the faults have stopped."""
        late = f"{seconds:g} s after the last fault"
        missing = self.unprocessed()
        self._require(
            "loss",
            not missing,
            lambda: f"{late}, {len(missing)} records are not processed: {missing[:5]}",
        )
        behind = self.uncommitted()
        self._require("I3", not behind, lambda: f"{late}, not everything is committed: {behind}")

    def check_left_behind(self, text: str) -> None:
        """What is still there when everything has ended; "" if nothing is."""
        self._require("I11", not text, lambda: text)
