"""The life of a transactional producer, as a table.

An event that the table does not have for a state is refused and changes nothing.
"""

from __future__ import annotations

import enum

__all__ = ["ProducerEvent", "ProducerState", "ProducerStates"]


class ProducerState(enum.Enum):
    """What a transactional producer is in the middle of."""

    READY = "ready"
    """No transaction has begun at the client."""
    OPEN = "open"
    """Records or offsets were sent."""
    COMMITTING = "committing"
    """The end was sent; nobody knows yet what becomes of it."""
    ABORTING = "aborting"
    FAILED = "failed"
    """Fenced, or a call gave up: of no use any more."""


class ProducerEvent(enum.Enum):
    """What happens to it."""

    BEGIN = "begin"
    COMMIT = "commit"
    ABORT = "abort"
    DONE = "done"
    """The broker has confirmed the end."""
    REFUSED = "refused"
    """The broker refused the end and wants an abort."""
    FAIL = "fail"


S, E = ProducerState, ProducerEvent

TABLE: dict[tuple[ProducerState, ProducerEvent], ProducerState] = {
    (S.READY, E.BEGIN): S.OPEN,
    (S.OPEN, E.COMMIT): S.COMMITTING,
    (S.OPEN, E.ABORT): S.ABORTING,
    (S.COMMITTING, E.DONE): S.READY,
    (S.COMMITTING, E.REFUSED): S.OPEN,
    (S.ABORTING, E.DONE): S.READY,
    (S.READY, E.FAIL): S.FAILED,
    (S.OPEN, E.FAIL): S.FAILED,
    (S.COMMITTING, E.FAIL): S.FAILED,
    (S.ABORTING, E.FAIL): S.FAILED,
    (S.FAILED, E.FAIL): S.FAILED,
}


class ProducerStates:
    """Where one producer is.

    Attributes:
        state: Now.
    """

    __slots__ = ("state",)

    def __init__(self) -> None:
        self.state = ProducerState.READY

    def __repr__(self) -> str:
        return f"<ProducerStates {self.state.value}>"

    def is_in(self, state: ProducerState) -> bool:
        """Whether it is in this state."""
        return self.state is state

    def happen(self, event: ProducerEvent) -> ProducerState:
        """Move on.

        Raises:
            ValueError: The event cannot happen in this state; nothing has changed.
        """
        after = TABLE.get((self.state, event))
        if after is None:
            raise ValueError(f"a producer that is {self.state.value} cannot {event.value}")
        self.state = after
        return after
