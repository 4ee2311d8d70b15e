"""What is known of one partition's log and of its committed offset.

Plain numbers: no name of the library occurs here or in :mod:`._observer`, so that
a mistake of the library cannot hide in what it is judged by.  A record is known by
a number of its own, because a truncated log gives offsets out again.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable
from dataclasses import dataclass, field

__all__ = ["Fall", "PartitionHistory"]


@dataclass
class Fall:
    """A leave for the committed offset to fall once, down to ``floor``.

    Attributes:
        floor: How far.
        reader: Whose account it belongs to, None if anybody's.
    """

    floor: int
    reader: object = None


@dataclass
class PartitionHistory:
    """One partition.

    Attributes:
        records: Number of each record that readers may be given, by offset.
        produced: Every record that ever was, by number, with its offset.
        start: First offset of the log.
        end: Next offset of the log.
        committed: What the group has committed, None for nothing.
        safe: Nothing unprocessed lies below this offset.
        falls: Leaves for the committed offset to fall.
        truncations: How often the tail was cut off.
        reused: Below this offset, offsets were given out twice: a reader that was
            beyond them cannot know that there are new records.
        owner: Member id that the coordinator gave the partition to last.
        owned_since: Generation in which it did.
    """

    records: dict[int, int] = field(default_factory=dict)
    produced: dict[int, int] = field(default_factory=dict)
    start: int = 0
    end: int = 0
    committed: int | None = None
    safe: int = 0
    falls: list[Fall] = field(default_factory=list)
    truncations: int = 0
    reused: int = 0
    owner: str | None = None
    owned_since: int = -1
    _offsets: list[int] = field(default_factory=list)

    def append(self, offset: int, record: int) -> None:
        """A record was written."""
        self.records[offset] = record
        self.produced[record] = offset
        insort(self._offsets, offset)
        self.end = max(self.end, offset + 1)

    def remove(self, offsets: Iterable[int]) -> None:
        """These were compacted away, or aborted."""
        for offset in offsets:
            if self.records.pop(offset, None) is not None:
                del self._offsets[bisect_left(self._offsets, offset)]

    def truncate(self, offset: int) -> None:
        """The log ends here now."""
        if offset >= self.end:
            return
        self.remove([o for o in self._offsets if o >= offset])
        self.truncations += 1
        self.reused = max(self.reused, self.end)
        self.end = offset
        self.safe = min(self.safe, offset)
        # Whoever stood beyond the end begins where the reset policy says.
        self.falls.append(Fall(self.start))

    def between(self, first: int, stop: int) -> list[int]:
        """Offsets of the records from one offset up to another."""
        return self._offsets[bisect_left(self._offsets, first) : bisect_left(self._offsets, stop)]

    def is_reused(self, offset: int) -> bool:
        """Whether a record here may be passed over by a reader that was there before."""
        return offset < self.reused

    def take_fall(self, offset: int) -> bool:
        """Use a leave to fall to this offset, if there is one."""
        for fall in self.falls:
            if offset >= fall.floor:
                self.falls.remove(fall)
                return True
        return False
