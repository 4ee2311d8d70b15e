"""Mutants that change nothing that anybody could observe, each with the reason.

A mutant is known by its function and by the lines that it takes away and puts in their place, without
their indentation: mutmut's numbers change with each line above.  `tests/mutation/` holds the
list to the code and to docs/mutants.md.
"""

from __future__ import annotations

from typing import NamedTuple


class Equivalent(NamedTuple):
    """A mutant.

    Attributes:
        function: ``module.function`` or ``module.Class.method``.
        gone: The lines that it takes away.
        instead: What it has in their place.
    """

    function: str
    gone: str
    instead: str


EQUIVALENTS: dict[str, list[Equivalent]] = {
    "A shortcut: the long way comes to the same.": [
        Equivalent(
            "delivered_batch.DeliveredBatch.abandon_all",
            "for index in range(self._low, len(self._row)):",
            "for index in range(len(self._row)):",
        ),
        Equivalent(
            "delivered_batch.DeliveredBatch.abandon_all",
            "if self._row[index] & bit:",
            "if self._row[index] | bit:",
        ),
        Equivalent(
            "delivered_batch.DeliveredBatch.waits_for_others",
            "return not any(row[index] & (OWED | bits) for index in range(self._low, stop))",
            "return not any(row[index] & (OWED | bits) for index in range(stop))",
        ),
        Equivalent(
            "delivered_batch.DeliveredBatch.waiting_for",
            "return [index for index in range(self._low, len(row)) if row[index] & bit]",
            "return [index for index in range(len(row)) if row[index] & bit]",
        ),
        Equivalent(
            "delivered_batch.DeliveredBatch.unfinished",
            "return (self.offsets[i] for i in range(self._low, len(row)) if row[i])",
            "return (self.offsets[i] for i in range(len(row)) if row[i])",
        ),
        Equivalent(
            "fanout.plan_runs",
            "if (position is None or first >= position) and all(t.seen <= first for t in takers):",
            "if (position is None or first > position) and all(t.seen <= first for t in takers):",
        ),
        Equivalent(
            "fanout.plan_runs",
            "if (position is None or first >= position) and all(t.seen <= first for t in takers):",
            "if (position is None or first >= position) and all(t.seen < first for t in takers):",
        ),
        Equivalent(
            "ledger.Ledger.vanish",
            "if self.position is None or first >= self.position:",
            "if self.position is None or first > self.position:",
        ),
        Equivalent(
            "ledger.Ledger.waits_for_others",
            "batch.waits_for_others(end, bits) for batch in self._batches if batch.offsets[0] < end",
            "batch.waits_for_others(end, bits) for batch in self._batches if batch.offsets[0] <= end",
        ),
        Equivalent(
            "iterators.BatchIterator.__anext__",
            "if self._max_wait and stream.buffered < self._max_size:",
            "if self._max_wait or stream.buffered < self._max_size:",
        ),
        Equivalent(
            "iterators.BatchIterator.__anext__",
            "if self._max_wait and stream.buffered < self._max_size:",
            "if self._max_wait and stream.buffered <= self._max_size:",
        ),
        Equivalent(
            "conductor._offsets",
            "if last - first + 1 == len(records):",
            "if last + first + 1 == len(records):",
        ),
        Equivalent(
            "conductor._offsets",
            "if last - first + 1 == len(records):",
            "if last - first + 2 == len(records):",
        ),
        Equivalent(
            "ledger.Ledger._find_owed",
            "for index in range(start, bisect_right(batch.offsets, offsets[-1])):",
            "for index in range(bisect_right(batch.offsets, offsets[-1])):",
        ),
    ],
    "How often finished batches are looked for while batches overlap: speed, and no more.": [
        Equivalent(
            "ledger.Ledger.__init__",
            "self._settled = 0",
            "self._settled = 1",
        ),
        Equivalent(
            "ledger.Ledger._settle",
            "self._settled += 1",
            "self._settled += 2",
        ),
        Equivalent(
            "ledger.Ledger._settle",
            "if not self._scattered or 2 * self._settled >= len(self._batches):",
            "if not self._scattered or 3 * self._settled >= len(self._batches):",
        ),
        Equivalent(
            "ledger.Ledger._drop_finished",
            "self._settled = 0",
            "self._settled = 1",
        ),
    ],
    "An entry that somebody has abandoned is owed, so it is odd here and never equal to the bit.": [
        Equivalent(
            "delivered_batch.DeliveredBatch._finish_abandoned",
            "if entry >= FIRST_STREAM_BIT:",
            "if entry > FIRST_STREAM_BIT:",
        ),
        Equivalent(
            "delivered_batch.DeliveredBatch.abandon",
            "if entry < FIRST_STREAM_BIT:",
            "if entry <= FIRST_STREAM_BIT:",
        ),
        Equivalent(
            "delivered_batch.DeliveredBatch.abandon",
            "entry &= OWED",
            "entry = OWED",
        ),
    ],
    "It is only asked whether it is true.": [
        Equivalent(
            "ledger.Ledger.__init__",
            "self.closed = False",
            "self.closed = None",
        ),
        Equivalent(
            "ledger.Ledger.__init__",
            "self._scattered = False",
            "self._scattered = None",
        ),
        Equivalent(
            "delivered_batch.DeliveredBatch.release",
            "self._give_back(start, stop, bit, force=False)",
            "self._give_back(start, stop, bit, force=None)",
        ),
        Equivalent(
            "partitions.Partitions.resume_flow",
            "self._flow_stopped = False",
            "self._flow_stopped = None",
        ),
        Equivalent(
            "partitions.Partitions.restart",
            "assignment._cancel_message_scopes(forfeit=False)",
            "assignment._cancel_message_scopes(forfeit=None)",
        ),
        Equivalent(
            "delivered_batch.DeliveredBatch._give_back",
            "changed = False",
            "changed = None",
        ),
        Equivalent(
            "partitions.Assignment.__init__",
            "self.observed = False",
            "self.observed = None",
        ),
        Equivalent(
            "partitions.Assignment.jump",
            "self.observed = False",
            "self.observed = None",
        ),
        Equivalent(
            "partitions.Partitions.__init__",
            "self._flow_stopped = False",
            "self._flow_stopped = None",
        ),
    ],
    "The check never fails: a batch has an entry for each of its offsets.": [
        Equivalent(
            "delivered_batch.DeliveredBatch.owed_offsets",
            "offset for offset, entry in zip(self.offsets, self._row, strict=True) if entry & OWED",
            "offset for offset, entry in zip(self.offsets, self._row, strict=None) if entry & OWED",
        ),
        Equivalent(
            "delivered_batch.DeliveredBatch.owed_offsets",
            "offset for offset, entry in zip(self.offsets, self._row, strict=True) if entry & OWED",
            "offset for offset, entry in zip(self.offsets, self._row, ) if entry & OWED",
        ),
        Equivalent(
            "delivered_batch.DeliveredBatch.owed_offsets",
            "offset for offset, entry in zip(self.offsets, self._row, strict=True) if entry & OWED",
            "offset for offset, entry in zip(self.offsets, self._row, strict=False) if entry & OWED",
        ),
    ],
    "A value that nobody reads before it is set anew, or at all.": [
        Equivalent(
            "conductor.Conductor._give",
            "entries = None",
            'entries = ""',
        ),
        Equivalent(
            "stream.Stream.__init__",
            "self._next = 0",
            "self._next = 1",
        ),
        Equivalent(
            "iterators.MessageIterator.__init__",
            "self._index = 0",
            "self._index = None",
        ),
        Equivalent(
            "iterators.MessageIterator.__init__",
            "self._index = 0",
            "self._index = 1",
        ),
        Equivalent(
            "ledger.Ledger.close",
            "self.on_settled = None",
            'self.on_settled = ""',
        ),
        Equivalent(
            "rebalance.Rebalancer.__init__",
            "self.on_rebalanced: Callable[[], object] = lambda: None",
            "self.on_rebalanced: Callable[[], object] = None",
        ),
        Equivalent(
            "rebalance.Rebalancer.__init__",
            "self.on_rebalanced: Callable[[], object] = lambda: None",
            "self.on_rebalanced: Callable[[], object] = lambda: 0",
        ),
        Equivalent(
            "fanout.Taker.__init__",
            "self._again: list[tuple[int, int]] = []",
            "self._again: list[tuple[int, int]] = None",
        ),
    ],
    "It sets what is so already.": [
        Equivalent(
            "ledger.Ledger.advance",
            "if not self.closed and self.position is not None and next_offset > self.position:",
            "if not self.closed and self.position is not None and next_offset >= self.position:",
        ),
    ],
    "The account has been closed before: nothing of it can be forfeited.": [
        Equivalent(
            "partitions.Partitions.restart",
            "assignment._cancel_message_scopes(forfeit=False)",
            "assignment._cancel_message_scopes(forfeit=True)",
        ),
    ],
    "Something was taken, so the next index is at least 1 and the fast path ends either way.": [
        Equivalent("stream.Stream._take", "self._limit = 0", "self._limit = 1"),
        Equivalent("stream.Stream._take_decoded", "self._limit = 0", "self._limit = 1"),
    ],
    "More, smaller segments of the same messages.": [
        Equivalent(
            "stream.Stream._take_decoded",
            "if segments and segments[-1][0] is chunk and segments[-1][2] == index:",
            "if segments and segments[-1][1] is chunk and segments[-1][2] == index:",
        ),
    ],
    "It matters at one exact moment of the clock, and then either will do.": [
        Equivalent(
            "stream.Stream._pace",
            "if elapsed < PACE / 2:",
            "if elapsed <= PACE / 2:",
        ),
        Equivalent(
            "committer.Committer._last_commit",
            "if not exc.retriable or trio.current_time() + delay >= limit:",
            "if not exc.retriable or trio.current_time() + delay > limit:",
        ),
    ],
    "While batches overlap one of them has something unfinished.": [
        Equivalent(
            "ledger.Ledger._committable",
            "default=(self.position, self._delivered),\n)",
            ")",
        ),
        Equivalent(
            "ledger.Ledger._committable",
            "default=(self.position, self._delivered),",
            "default=None,",
        ),
    ],
    "Levels are whole numbers: they compare alike with a half and with the half rounded down.": [
        Equivalent(
            "flow.Pressure.__init__",
            "self.drained_at = bound // 2",
            "self.drained_at = bound / 2",
        ),
    ],
    "The exponent is bounded so that a power stays a number; `max_backoff` cuts off long before.": [
        Equivalent(
            "commit_policy.CommitPolicy.failed",
            "delay = min(self.interval * 2 ** min(self._failures - 1, 32), self.max_backoff)",
            "delay = min(self.interval * 2 ** min(self._failures - 1, 33), self.max_backoff)",
        ),
    ],
    "Offsets are never negative.": [
        Equivalent(
            "delivered_batch.as_offsets",
            'return array("q", offsets)',
            'return array("Q", offsets)',
        ),
    ],
    "How often a quick loop gives way, within the bounds that tests hold: speed, and no more.": [
        Equivalent(
            "stream.Stream.__init__",
            "self._stride = 1",
            "self._stride = 2",
        ),
        Equivalent(
            "stream.Stream.__init__",
            "self._looked_at = 0.0",
            "self._looked_at = 1.0",
        ),
        Equivalent(
            "stream.Stream._pace",
            "if elapsed < PACE / 2:",
            "if elapsed < PACE * 2:",
        ),
        Equivalent(
            "stream.Stream._pace",
            "if elapsed < PACE / 2:",
            "if elapsed < PACE / 3:",
        ),
        Equivalent(
            "stream.Stream._pace",
            "self._stride = min(self._stride * 2, LONGEST_STRIDE)",
            "self._stride = min(self._stride * 3, LONGEST_STRIDE)",
        ),
        Equivalent(
            "stream.Stream._pace",
            "elif elapsed > PACE:",
            "elif elapsed >= PACE:",
        ),
        Equivalent(
            "stream.Stream._pace",
            "self._stride = max(1, int(self._stride * PACE / elapsed))",
            "self._stride = max(2, int(self._stride * PACE / elapsed))",
        ),
    ],
    "It goes to where reading goes on anyway: nothing lies between.": [
        Equivalent(
            "partitions.Partitions._rewind",
            "if target is not None and (assignment.cursor is None or target < assignment.cursor):",
            "if target is not None and (assignment.cursor is None or target <= assignment.cursor):",
        ),
    ],
    "It is compared by identity, and each later one is an object of its own.": [
        Equivalent(
            "partitions.Assignment.__init__",
            "self.reading = object()",
            "self.reading = None",
        ),
    ],
    "When a consumer ends its streams have given back what they had, and hand out nothing more.": [
        Equivalent(
            "partitions.Partitions.close",
            "if assignment.state is AssignmentState.OPEN:",
            "if assignment.state is not AssignmentState.OPEN:",
        ),
    ],
    "Bits need not follow each other: a wider row, and no more.": [
        Equivalent(
            "partitions.Partitions.open_stream",
            "bit <<= 1",
            "bit <<= 2",
        ),
    ],
    "A batch without records: there is none to begin at.": [
        Equivalent(
            "conductor.Conductor.take",
            "self._hand_on(assignment, batch, 0, 0)",
            "self._hand_on(assignment, batch, 1, 0)",
        ),
    ],
    "A copy of all records instead of the records themselves.": [
        Equivalent(
            "conductor.Conductor._deliver",
            "if stop - start < len(records):",
            "if stop - start <= len(records):",
        ),
        Equivalent(
            "conductor.Conductor._give",
            "if run.stop - run.start < len(records):",
            "if run.stop - run.start <= len(records):",
        ),
    ],
}
