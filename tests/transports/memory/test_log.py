"""The log of one partition."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trio_consumer.transports.memory.log import PartitionLog


def filled(n: int = 5) -> PartitionLog:
    """A log of some records with two keys in turn."""
    log = PartitionLog("t", 0)
    log.extend([(b"k%d" % (i % 2), b"v%d" % i) for i in range(n)], timestamp=7)
    return log


def write(log: PartitionLog, transaction: int | None = None) -> int:
    """Append a record without a key."""
    return log.append(b"v", key=None, headers=(), timestamp=7, transaction=transaction)


def offsets(log: PartitionLog, *, committed_only: bool = False) -> list[int]:
    """The offsets that a reader from the start would see."""
    return [record.offset for record in log.records(committed_only=committed_only)]


def test_append_gives_growing_offsets() -> None:
    """Records get the next offset, one by one and in bulk."""
    log = PartitionLog("t", 3)
    assert [write(log), write(log)] == [0, 1]
    assert log.extend([(None, b"a"), (b"k", None)], timestamp=9) == range(2, 4)
    assert log.end == 4
    record = log.records()[3]
    assert (record.topic, record.partition, record.offset) == ("t", 3, 3)
    assert (record.key, record.value, record.timestamp, record.headers) == (b"k", None, 9, ())
    assert repr(log) == "<PartitionLog t[3] 0..4 records=4>"


def test_read_stops_at_max_records() -> None:
    """A read gives at most so many records, and the position after them."""
    log = filled()
    found = log.read(1, 2)
    assert [r.offset for r in found.records] == [1, 2]
    assert found.next_offset == 3
    assert log.read(5, 2) == ((), 5)


def test_read_steps_over_holes() -> None:
    """Deleted offsets are skipped, and a trailing hole moves the position."""
    log = filled()
    log.delete_offsets({1, 2, 4})
    assert log.read(0, 1).next_offset == 1
    found = log.read(1, 10)
    assert [r.offset for r in found.records] == [3]
    assert found.next_offset == 5
    assert len(log) == 2


def test_marker_moves_position_beyond_last_record() -> None:
    """A trailing marker lies below the position of who has read everything."""
    log = filled(2)
    assert log.append_marker() == 2
    assert log.read(0, 2).next_offset == 3
    assert log.read(2, 2) == ([], 3)


def test_open_transaction_holds_last_stable_offset() -> None:
    """A committed-only reader stops at the oldest open transaction."""
    log = filled(2)
    write(log, 1)
    write(log)
    write(log, 2)
    assert (log.last_stable, log.end) == (2, 5)
    assert log.read(0, 10, committed_only=True).next_offset == 2
    assert log.read(0, 10).next_offset == 5
    assert log.end_transaction(1, commit=True) == 5
    assert log.last_stable == 4
    assert log.end_transaction(2, commit=True) == 6
    assert log.last_stable == log.end == 7


def test_aborted_records_are_hidden_from_committed_reader() -> None:
    """Aborting hides what was written, moves the position, and leaves a marker."""
    log = PartitionLog("t", 0)
    write(log, 1)
    write(log)
    write(log, 1)
    assert log.end_transaction(1, commit=False) == 3
    assert offsets(log, committed_only=True) == [1]
    assert offsets(log) == [0, 1, 2]
    assert log.read(2, 1, committed_only=True) == ([], 4)
    assert log.end_transaction(1, commit=False) is None


def test_compact_keeps_last_of_each_key() -> None:
    """Compaction keeps records without a key and what a transaction may change."""
    log = filled(4)
    write(log)
    log.append(b"v", key=b"k0", headers=(), timestamp=7, transaction=1)
    log.append(b"v", key=b"k1", headers=(), timestamp=7)
    log.compact()
    assert offsets(log) == [2, 3, 4, 5, 6]


def test_delete_before_moves_start_within_bounds() -> None:
    """The start never goes down and never beyond the end."""
    log = filled()
    log.delete_before(3)
    log.delete_before(1)
    assert (log.start, offsets(log)) == (3, [3, 4])
    log.delete_before(99)
    assert (log.start, log.end, offsets(log)) == (5, 5, [])


def test_truncate_reuses_offsets() -> None:
    """Dropping the tail forgets its transactions, and its offsets come again."""
    log = filled(3)
    write(log, 1)
    log.truncate(2)
    assert (log.end, log.last_stable, offsets(log)) == (2, 2, [0, 1])
    assert write(log) == 2


def test_corrupt_record_stops_the_read() -> None:
    """Everything below a damaged record is read, and the position stays at it."""
    log = filled()
    log.corrupt(2)
    assert [r.offset for r in log.read(0, 10).records] == [0, 1]
    assert log.read(2, 10) == ([], 2)
    assert log.is_corrupt(2)
    assert [r.offset for r in log.read(3, 10).records] == [3, 4]
    log.repair(2)
    assert offsets(log) == [0, 1, 2, 3, 4]


steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.none() | st.integers(1, 2)),
        st.tuples(st.just("commit"), st.integers(1, 2)),
        st.tuples(st.just("abort"), st.integers(1, 2)),
        st.tuples(st.just("marker"), st.none()),
        st.tuples(st.just("hole"), st.integers(0, 30)),
        st.tuples(st.just("head"), st.integers(0, 30)),
    ),
    max_size=40,
)


@given(steps, st.integers(1, 7))
def test_reader_sees_what_a_naive_log_says(steps: list[tuple[str, int | None]], size: int) -> None:
    """Reading in steps of any size gives the visible records once, in order."""
    log = PartitionLog("t", 0)
    plain: list[tuple[str, int | None]] = []  # one entry an offset
    start = 0
    for step, argument in steps:
        if step == "write":
            write(log, argument)
            plain.append(("open" if argument else "plain", argument))
        elif step in ("commit", "abort"):
            wrote = ("open", argument) in plain
            assert argument is not None
            marker = log.end_transaction(argument, commit=step == "commit")
            plain = [(step, None) if each == ("open", argument) else each for each in plain]
            assert marker == (len(plain) if wrote else None)
            if wrote:
                plain.append(("marker", None))
        elif step == "marker":
            log.append_marker()
            plain.append(("marker", None))
        elif step == "hole" and argument is not None:
            # An open transaction's first offset counts even when its record is gone.
            if argument < len(plain) and plain[argument][0] != "open":
                log.delete_offsets([argument])
                plain[argument] = ("hole", None)
        elif argument is not None:
            bound = min([n for n, each in enumerate(plain) if each[0] == "open"], default=argument)
            log.delete_before(min(bound, argument))
            start = max(start, min(bound, argument, len(plain)))
    stable = next((n for n, each in enumerate(plain) if each[0] == "open"), len(plain))
    assert (log.start, log.last_stable, log.end) == (start, stable, len(plain))
    for committed_only, limit, kinds in (
        (False, len(plain), {"plain", "open", "commit", "abort"}),
        (True, stable, {"plain", "commit"}),
    ):
        position, seen = start, []
        while position < limit:
            found = log.read(position, size, committed_only=committed_only)
            assert len(found.records) <= size
            assert found.next_offset > position
            seen += [record.offset for record in found.records]
            position = found.next_offset
        assert position == max(limit, start)
        assert seen == [n for n in range(start, limit) if plain[n][0] in kinds]
