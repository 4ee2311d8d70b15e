"""Which stream gets which record: a broker log, streams that come and go, and a model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from trio_consumer._core.delivered_batch import FIRST_STREAM_BIT, DeliveredBatch
from trio_consumer._core.fanout import Run, Taker, plan_runs, rewind_to
from trio_consumer._core.ledger import Ledger
from trio_consumer._types import TopicPartition

from .strategies import picks, starts, steps

TP = TopicPartition("orders", 0)
A, B, C = (FIRST_STREAM_BIT << n for n in range(3))


@dataclass(eq=False)
class Item:
    """A record in the hands, or in the buffer, of one stream."""

    offset: int
    batch: DeliveredBatch | None
    index: int
    state: str = "buffered"
    """buffered, hand, dropped (its iterator is gone), stuck (that, and nobody can
    finish it any more), done, released, withdrawn, abandoned, stale (somebody else
    has the record now)"""


@dataclass(eq=False)
class Part:
    """One delivery of a record: the parts of the streams that got it together."""

    items: list[Item] = field(default_factory=list)
    superseded: bool = False

    @property
    def states(self) -> set[str]:
        return {item.state for item in self.items}

    @property
    def unfinished(self) -> bool:
        waiting = self.states - {"done", "released", "stale"}
        return bool(waiting) or not ("done" in self.states or self.superseded)

    @property
    def free(self) -> bool:
        """Owed, and another stream may get it."""
        states = self.states
        if states & {"dropped", "stuck"}:
            return False
        if states & {"abandoned", "withdrawn"}:
            return True
        return self.unfinished and not states & {"buffered", "hand"}

    def supersede(self) -> None:
        self.superseded = True
        for item in self.items:
            if item.state in ("abandoned", "withdrawn", "released"):
                item.state = "stale"


@dataclass(eq=False)
class Reader:
    """A stream as the model of the runtime has it."""

    name: int
    bit: int
    taker: Taker[Reader] = field(init=False)
    items: list[Item] = field(default_factory=list)
    received: list[int] = field(default_factory=list)
    fresh: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.taker = Taker(self, self.bit)


class FanoutMachine(RuleBasedStateMachine):
    """The runtime in small: one assignment, read in batches, rewound as told."""

    @initialize(start=starts, distances=steps, fresh_first=st.booleans(), fail_last=st.booleans())
    def prepare(self, start: int, distances: list[int], fresh_first: bool, fail_last: bool) -> None:
        self.log = [start]
        self.fresh_first = fresh_first
        self.fail_last = fail_last
        self.ledger = Ledger(TP)
        self.ledger.begin(start)
        self.cursor = start
        self.observed = False
        self.open: list[Reader] = []
        self.gone: list[Reader] = []
        self.processed: set[int] = set()
        self.parts: dict[int, list[Part]] = {}
        self.front = start
        self.names = 0
        self.committable = start
        self.produce(distances)

    # -- the broker

    @rule(distances=steps)
    def produce(self, distances: list[int]) -> None:
        for distance in distances:
            self.log.append(self.log[-1] + distance)

    # -- the model

    def is_free(self, offset: int) -> bool:
        return any(part.free for part in self.parts.get(offset, ()))

    @property
    def free(self) -> list[int]:
        return sorted(offset for offset in self.parts if self.is_free(offset))

    @property
    def acknowledging(self) -> list[Reader]:
        return [reader for reader in self.open if reader.bit]

    def wanting(self, offset: int) -> set[Reader]:
        """Who has to get a record that is read now."""
        due = offset >= self.front or self.is_free(offset)
        return {
            reader
            for reader in self.open
            if (
                due and offset not in reader.received
                if reader.bit
                else not reader.received or offset > reader.received[-1]
            )
        }

    # -- the runtime

    @precondition(lambda self: len(self.open) < 5)
    @rule(acknowledging=st.integers(0, 3))
    def open_stream(self, acknowledging: int) -> None:
        self.subscribe(bool(acknowledging))

    def subscribe(self, acknowledging: bool) -> Reader:
        bit = 0
        if acknowledging:
            bit = FIRST_STREAM_BIT
            while bit in {reader.bit for reader in self.open}:
                bit <<= 1
        reader = Reader(self.names, bit)
        self.names += 1
        self.open.append(reader)
        self.rewind()
        return reader

    @precondition(lambda self: self.open)
    @rule(pick=picks, failed=st.booleans())
    def close_stream(self, pick: int, failed: bool) -> None:
        reader = self.open.pop(pick % len(self.open))
        self.gone.append(reader)
        for item in reader.items:
            if item.state == "buffered":
                item.state = "withdrawn" if failed else "released"
                if item.batch is not None:
                    give_back = item.batch.withdraw if failed else item.batch.release
                    give_back(item.index, item.index + 1, reader.bit)
                    if failed:
                        self.too_late(item)
            elif item.state in ("hand", "dropped"):
                item.state = self.given_up(item, "abandoned", "withdrawn")
            elif item.state == "stuck":
                item.state = "withdrawn"
        if reader.bit:
            self.ledger.close_stream(reader.bit)
        self.rewind()

    def part_of(self, item: Item) -> Part | None:
        parts = self.parts.get(item.offset, ())
        return next((part for part in parts if item in part.items), None)

    def too_late(self, withdrawn: Item) -> None:
        """Nobody who abandoned it before can make up for a part that is owed."""
        part = self.part_of(withdrawn)
        assert part is not None
        for item in part.items:
            if item.state in ("abandoned", "dropped"):
                item.state = "withdrawn" if item.state == "abandoned" else "stuck"

    def given_up(self, item: Item, state: str, too_late: str) -> str:
        part = self.part_of(item)
        return too_late if part is not None and "withdrawn" in part.states else state

    def rewind(self) -> None:
        takers = [reader.taker for reader in self.open]
        target = rewind_to(self.ledger, takers, self.cursor if self.observed else None)
        owing = [o for o in self.free if any(o not in r.received for r in self.acknowledging)]
        if owing:
            assert target == owing[0]
        elif self.acknowledging and self.observed and self.front < self.cursor:
            assert target == self.front
        else:
            assert target is None
        if target is not None:
            self.cursor = target
            self.observed = False

    @precondition(lambda self: self.open)
    @rule(count=st.integers(1, 12))
    def read(self, count: int) -> None:
        waiting = [offset for offset in self.log if offset >= self.cursor]
        offsets = waiting[:count]
        if not offsets:
            return
        self.cursor = waiting[count] if len(waiting) > count else offsets[-1] + 1
        before = self.ledger.position
        wanted = {offset: self.wanting(offset) for offset in offsets}
        given: dict[int, set[Reader]] = {offset: set() for offset in offsets}
        takers = [reader.taker for reader in self.open]
        for run in plan_runs(offsets, self.ledger, takers):
            assert run.takers
            self.give(offsets[run.start : run.stop], run)
            for offset in offsets[run.start : run.stop]:
                assert not given[offset]
                given[offset] = {taker.stream for taker in run.takers}
        assert given == wanted
        if any(reader.bit for readers in wanted.values() for reader in readers):
            acked = [o for o, readers in wanted.items() if any(r.bit for r in readers)]
            self.front = max(self.front, acked[-1] + 1)
        assert before is not None
        assert self.ledger.position == self.front
        if self.front < offsets[-1] + 1:
            self.observed = True
        if self.front >= offsets[-1] + 1:
            self.ledger.advance(self.cursor)
            self.front = max(self.front, self.cursor)

    def give(self, offsets: Sequence[int], run: Run[Reader]) -> None:
        batch = None
        if run.mask:
            again = offsets[0] < self.front
            batch = self.ledger.deliver(offsets, run.mask)
            for offset in offsets:
                parts = self.parts.setdefault(offset, [])
                assert again == bool(parts)
                for part in parts:
                    if part.free:
                        part.supersede()
                parts.append(Part())
        for taker in run.takers:
            reader = taker.stream
            taker.give(offsets[0], offsets[-1] + 1)
            for index, offset in enumerate(offsets):
                assert offset not in reader.received  # I9: never twice
                reader.received.append(offset)
                item = Item(offset, batch if reader.bit else None, index)
                reader.items.append(item)
                if reader.bit:
                    self.parts[offset][-1].items.append(item)
                    if offset >= self.front:
                        reader.fresh.append(offset)

    # -- the user

    def held(self, *states: str) -> list[tuple[Reader, Item]]:
        return [
            (reader, item)
            for reader in (*self.open, *self.gone)
            for item in reader.items
            if item.batch is not None and item.state in states
        ]

    @precondition(lambda self: self.open)
    @rule(pick=picks, count=st.integers(1, 6))
    def take(self, pick: int, count: int) -> None:
        """A loop gets the next messages out of the buffer."""
        reader = self.open[pick % len(self.open)]
        buffered = [item for item in reader.items if item.state == "buffered"]
        for item in buffered[:count]:
            item.state = "hand"

    @rule(pick=picks, everything=st.booleans())
    def acknowledge(self, pick: int, everything: bool) -> None:
        """Finish what is in somebody's hand, sometimes long after its stream closed."""
        held = self.held("hand", "dropped", "abandoned")
        if not everything:
            held = held[pick % len(held) :][:1] if held else []
        for reader, item in held:
            self.finish(reader, item)

    def finish(self, reader: Reader, item: Item) -> None:
        assert item.batch is not None
        assert item.batch.finish(item.index, reader.bit)
        item.state = "done"
        self.processed.add(item.offset)

    @precondition(lambda self: self.held("stale", "released", "withdrawn", "stuck", "done"))
    @rule(pick=picks)
    def acknowledge_in_vain(self, pick: int) -> None:
        held = self.held("stale", "released", "withdrawn", "stuck", "done")
        reader, item = held[pick % len(held)]
        assert item.batch is not None
        assert not item.batch.finish(item.index, reader.bit)

    @precondition(lambda self: self.held("hand"))
    @rule(pick=picks)
    def drop_iterator(self, pick: int) -> None:
        held = self.held("hand")
        reader, item = held[pick % len(held)]
        assert item.batch is not None
        item.batch.abandon(item.index, reader.bit, again=False)
        item.state = self.given_up(item, "dropped", "stuck")

    # -- what has to hold

    @invariant()
    def streams_are_in_order(self) -> None:
        """I8: new records ascend; an observer has no others."""
        for reader in (*self.open, *self.gone):
            own = reader.fresh if reader.bit else reader.received
            assert own == sorted(own)

    @invariant()
    def the_ledger_agrees(self) -> None:
        unfinished = [o for o, parts in self.parts.items() if any(p.unfinished for p in parts)]
        assert self.ledger.unfinished() == sorted(unfinished)
        assert self.ledger.owed() == self.free
        snapshot = self.ledger.snapshot()
        committable = min(unfinished, default=self.front)
        assert (self.log[0] if snapshot is None else snapshot.offset) == committable
        for offset in self.log:  # I1
            assert offset >= committable or offset in self.processed
        for reader in self.open:  # and nobody processes in the place of a stream that is open
            for item in reader.items:
                assert item.batch is None or item.state == "done" or item.offset >= committable
        assert committable >= self.committable  # I2
        self.committable = committable

    def teardown(self) -> None:
        """Nothing is lost: streams that stay get every record processed."""
        if not hasattr(self, "fresh_first"):
            return
        stay = []
        if self.fresh_first:
            stay.append(self.subscribe(True))
            self.read(len(self.log))
        while len(self.open) > len(stay):
            self.close_stream(0 if self.open[0] not in stay else 1, failed=self.fail_last)
            if self.open:
                self.read(len(self.log))
        # Takes the place of those that failed, or that left something in hand.
        stay.append(self.subscribe(True))
        self.read(len(self.log))
        for reader in stay:
            for item in reader.items:
                if item.state in ("buffered", "hand"):
                    self.finish(reader, item)
        self.the_ledger_agrees()
        assert self.processed == set(self.log)
        assert self.ledger.unfinished() == []
        snapshot = self.ledger.snapshot()
        assert snapshot is not None
        assert snapshot.offset == self.log[-1] + 1


TestFanoutMachine = FanoutMachine.TestCase


# -- one rule at a time --------------------------------------------------------------


@pytest.fixture
def ledger() -> Ledger:
    """A ledger that has seen nothing."""
    return Ledger(TP)


def hand_out(
    ledger: Ledger, offsets: Sequence[int], takers: Sequence[Taker[str]]
) -> list[tuple[list[int], str, DeliveredBatch | None]]:
    """Read a batch as the runtime does; what went to whom."""
    result = []
    for run in plan_runs(offsets, ledger, takers):
        part = offsets[run.start : run.stop]
        batch = ledger.deliver(part, run.mask) if run.mask else None
        for taker in run.takers:
            taker.give(part[0], part[-1] + 1)
        result.append((list(part), "".join(taker.stream for taker in run.takers), batch))
    return result


def went(given: Iterable[tuple[list[int], str, object]]) -> list[tuple[list[int], str]]:
    """Without the batches."""
    return [(offsets, streams) for offsets, streams, _ in given]


def test_batch_goes_to_everybody_as_one_run(ledger: Ledger) -> None:
    """In the ordinary case nothing is looked at record by record."""
    takers = [Taker("a", A), Taker("b", B), Taker("o", 0)]
    [run] = plan_runs(range(100), ledger, takers)
    assert run == Run(0, 100, tuple(takers))
    assert run.mask == A | B


def test_batch_without_takers_goes_nowhere(ledger: Ledger) -> None:
    """No stream, no run, whether the records are new or not."""
    assert hand_out(ledger, [0, 1], []) == []
    ledger.deliver([0, 1], A)
    assert hand_out(ledger, [0, 1], []) == []
    assert ledger.position == 2


def test_run_of_observers_has_no_mask(ledger: Ledger) -> None:
    """Observers have nothing to finish, so the ledger is not asked."""
    ledger.begin(0)
    assert hand_out(ledger, [0, 1], [Taker("o", 0)]) == [([0, 1], "o", None)]
    assert ledger.position == 0


def test_owed_record_goes_to_a_stream_that_has_not_had_it(ledger: Ledger) -> None:
    """A stream that had it, or a record that is not owed, gets nothing again."""
    a, b, c = Taker("a", A), Taker("b", B), Taker("c", C)
    [(_, _, batch)] = hand_out(ledger, [0, 1, 2], [a, b])
    assert batch is not None
    batch.finish(1, A)
    batch.finish_range(0, 3, B)
    ledger.close_stream(A)
    assert ledger.owed() == [0, 2]
    assert rewind_to(ledger, [b], 3) is None
    assert rewind_to(ledger, [b, c], 3) == 0
    assert went(hand_out(ledger, [0, 1, 2, 3], [b, c])) == [([0], "c"), ([2], "c"), ([3], "bc")]


def test_owed_records_on_both_sides_of_one_that_is_not_all_come_again(ledger: Ledger) -> None:
    """A stream that read on already gets every owed record, not only the first."""
    a, c = Taker("a", A), Taker("c", C)
    [(_, _, batch)] = hand_out(ledger, [0, 1, 2], [a])
    assert batch is not None
    batch.finish(1, A)
    hand_out(ledger, [3], [a, c])
    ledger.close_stream(A)
    assert rewind_to(ledger, [c], 4) == 0
    given = hand_out(ledger, [0, 1, 2, 3], [c])
    assert went(given) == [([0], "c"), ([2], "c")]
    assert ledger.owed() == [3]  # of stream a; c has it already
    assert rewind_to(ledger, [c], 4) is None


def test_record_between_two_that_came_again_may_come_later(ledger: Ledger) -> None:
    """What lies between was not given to the new stream: it gets that once it is owed."""
    a, c = Taker("a", A), Taker("c", C)
    [(_, _, batch)] = hand_out(ledger, [0, 1, 2, 3, 4], [a])
    assert batch is not None
    for index in (1, 3):
        batch.abandon(index, A, again=True)
    assert went(hand_out(ledger, [1, 2, 3, 4], [a, c])) == [([1], "c"), ([3], "c")]
    batch.abandon(2, A, again=True)
    assert rewind_to(ledger, [a, c], 5) == 2
    assert went(hand_out(ledger, [2, 3, 4, 5], [a, c])) == [([2], "c"), ([5], "ac")]


def test_owed_record_does_not_wait_for_the_streams_that_still_have_it(ledger: Ledger) -> None:
    """A stream that takes the place of another gets its records before newer ones."""
    a, b, c = Taker("a", A), Taker("b", B), Taker("c", C)
    [(_, _, batch)] = hand_out(ledger, [0, 1], [a, b])
    assert batch is not None
    batch.finish(0, B)
    ledger.close_stream(A)
    assert rewind_to(ledger, [b, c], 2) == 0
    [(_, _, again), _] = hand_out(ledger, [0, 1, 2], [b, c])
    assert again is not None
    assert again.offsets == range(2)
    assert ledger.owed() == []
    assert again.finish_range(0, 2, C) == 2
    assert ledger.unfinished() == [1, 2]
    assert batch.finish(1, B)
    assert ledger.unfinished() == [2]


def test_record_that_two_entries_owe_comes_again_once(ledger: Ledger) -> None:
    """One delivery makes up for every part of a record that is owed."""
    a, b, c, d = Taker("a", A), Taker("b", B), Taker("c", C), Taker("d", FIRST_STREAM_BIT << 3)
    hand_out(ledger, [0], [a, b])
    ledger.close_stream(A)
    hand_out(ledger, [0], [c])
    ledger.close_stream(B)
    ledger.close_stream(C)
    assert ledger.owed() == ledger.unfinished() == [0]
    assert ledger.unfinished_count == 1
    [(_, _, batch)] = hand_out(ledger, [0], [d])
    assert batch is not None
    assert ledger.owed() == []
    assert batch.finish(0, d.bit)
    assert ledger.unfinished() == []


def test_run_ends_at_the_position(ledger: Ledger) -> None:
    """Owed and new records for the same stream are two runs: the ledger takes them so."""
    hand_out(ledger, [0, 1], [Taker("a", A)])
    ledger.close_stream(A)
    given = hand_out(ledger, [0, 1, 2], [Taker("b", B)])
    assert went(given) == [([0, 1], "b"), ([2], "b")]


def test_observer_reads_on_while_others_are_served_again(ledger: Ledger) -> None:
    """A rewind for an acknowledging stream shows an observer nothing that it passed."""
    a, c, seen, late = Taker("a", A), Taker("c", C), Taker("o", 0), Taker("l", 0)
    hand_out(ledger, [0, 1], [a])
    hand_out(ledger, [2], [a, seen])
    ledger.close_stream(A)
    assert went(hand_out(ledger, [0, 1, 2, 3], [c, seen, late])) == [
        ([0, 1, 2], "cl"),
        ([3], "col"),
    ]


def test_acknowledging_stream_gets_what_observers_read_before(ledger: Ledger) -> None:
    """Observers keep no account, so reading goes back to where the account ends."""
    observer, a = Taker("o", 0), Taker("a", A)
    ledger.begin(0)
    hand_out(ledger, [0, 1, 2], [observer])
    assert rewind_to(ledger, [observer], 3) is None
    assert rewind_to(ledger, [observer, a], 3) == 0
    assert went(hand_out(ledger, [0, 1, 2, 3], [observer, a])) == [([0, 1, 2], "a"), ([3], "oa")]
    assert rewind_to(ledger, [observer, a], 4) is None


def test_unknown_position_takes_everything_for_new(ledger: Ledger) -> None:
    """Before the ledger knows where reading starts there is nothing to go back to."""
    observer, a = Taker("o", 0), Taker("a", A)
    hand_out(ledger, [0, 1, 2], [observer])
    assert ledger.position is None
    assert rewind_to(ledger, [observer, a], 3) is None
    assert went(hand_out(ledger, [1, 2, 3], [observer, a])) == [([1, 2], "a"), ([3], "oa")]


def test_taker_begins_anew_after_a_seek() -> None:
    """Nothing that was given under the account before counts as had."""
    old, taker = Ledger(TP), Taker("a", A)
    hand_out(old, [0], [Taker("b", B)])
    hand_out(old, [1], [taker])
    old.close_stream(B)
    hand_out(old, [0, 1], [taker])
    assert taker.had(0)
    assert taker.had(1)
    assert not taker.had(2)
    assert repr(taker) == "<Taker 'a' bit=0x4 [1, 2)>"
    taker.since, taker.seen = None, 0
    assert not taker.had(0)
    hand_out(Ledger(TP), [5], [taker])
    assert not taker.had(0)
    assert taker.had(5)


def test_hole_inside_a_run_is_one_interval() -> None:
    """What a taker remembers does not grow with the holes of the log."""
    ledger, taker = Ledger(TP), Taker("a", A)
    for first in range(0, 1000, 10):
        hand_out(ledger, [first, first + 3], [taker])
    assert (taker.since, taker.seen) == (0, 994)
    assert taker._again == []
