"""What was finished in one transaction, and whether its offsets can go with it.

A record that was sent counts once, so the offset of the message that it was made
of has to count with it.  A commit has one offset for each partition: it cannot
carry messages whose account has ended, nor those behind an unfinished one.
"""

from __future__ import annotations

from .._core.ledger import Ledger

__all__ = ["Finished"]


class Finished:
    """Up to where messages were acknowledged in a transaction, and by which streams.

    Acknowledgements that came too late belong to it: what was sent for them does.
    """

    def __init__(self) -> None:
        self._ends: dict[Ledger, tuple[int, int]] = {}

    def note(self, ledger: Ledger, end: int, bit: int) -> None:
        """A stream acknowledges a message that ends at an offset."""
        before, bits = self._ends.get(ledger, (0, 0))
        self._ends[ledger] = max(before, end), bits | bit

    def clear(self) -> None:
        """The transaction has ended."""
        self._ends.clear()

    @property
    def is_void(self) -> bool:
        """Whether nothing that was finished could have counted."""
        return bool(self._ends) and all(ledger.closed for ledger in self._ends)

    @property
    def waits_for_others(self) -> bool:
        """Whether other streams alone hold the offsets back, and nothing else does."""
        behind = [
            (ledger, end, bits)
            for ledger, (end, bits) in self._ends.items()
            if not ledger.covers(end)
        ]
        return bool(behind) and all(
            ledger.waits_for_others(end, bits) for ledger, end, bits in behind
        )

    def uncovered(self) -> str | None:
        """Why an offset cannot go with the transaction; None if all can."""
        for ledger, (end, _) in self._ends.items():
            if ledger.closed:
                return (
                    f"{ledger.tp} was revoked, lost or sought, or another transaction aborted,"
                    f" after messages up to offset {end - 1} of it were handed out"
                )
            if not ledger.covers(end):
                return (
                    f"{ledger.tp} was finished up to offset {end - 1} in it, while offset"
                    f" {ledger.oldest_unfinished} is unfinished; finish them in order"
                )
        return None
