"""Mutants that change nothing that anybody could observe, each with the reason.

A mutant is known by its function and by the lines that it takes away and puts in their place, without
their indentation: mutmut's numbers change with each line above.  `tests/test_mutants.py` holds the
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
    "The exponent is bounded so that a power stays a number; `max_backoff` cuts off long before.": [
        Equivalent(
            "commit_policy.CommitPolicy.failed",
            "delay = min(self.interval * 2 ** min(self._failures - 1, 32), self.max_backoff)",
            "delay = min(self.interval * 2 ** min(self._failures - 1, 33), self.max_backoff)",
        ),
    ],
    "A level is a whole number, and compares alike with a half and with the half rounded down.": [
        Equivalent(
            "flow.Pressure.__init__",
            "self.drained_at = bound // 2",
            "self.drained_at = bound / 2",
        ),
    ],
    "What lies before the lowest unfinished entry is zero; the loop starts there to save time.": [
        Equivalent(
            "delivered_batch.DeliveredBatch.waits_for_others",
            "return not any(row[index] & (OWED | bits) for index in range(self._low, stop))",
            "return not any(row[index] & (OWED | bits) for index in range(stop))",
        ),
    ],
    "The guard only saves work: past it, nothing is found and nothing is done.": [
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
    ],
}
