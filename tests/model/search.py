"""Breadth first through every state of the machine."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from .machine import Machine, State

__all__ = ["Finding", "search"]


@dataclass(frozen=True)
class Finding:
    """What the search found.

    Attributes:
        states: How many there are.
        steps: How many ways lead from one to another.
        violated: ``safe``, ``forward`` or ``live``; None if none is.
        trace: The shortest way to the violation.
    """

    states: int
    steps: int
    violated: str | None = None
    trace: tuple[str, ...] = ()


def search(machine: Machine) -> Finding:
    """Visit every state; the shortest way to the first violation, if there is one."""
    first = machine.first()
    came: dict[State, tuple[State, str] | None] = {first: None}
    back: dict[State, list[State]] = {}
    waiting = deque([first])
    steps = 0
    while waiting:
        state = waiting.popleft()
        for what, following in machine.following(state):
            steps += 1
            if following.committed < state.committed:
                return Finding(len(came), steps, "forward", (*trace(came, state), what))
            if not machine.safe(following):
                return Finding(len(came), steps, "safe", (*trace(came, state), what))
            back.setdefault(following, []).append(state)
            if following not in came:
                came[following] = (state, what)
                waiting.append(following)
    stuck = cannot_end(machine, came, back)
    if stuck is not None:
        return Finding(len(came), steps, "live", trace(came, stuck))
    return Finding(len(came), steps)


def trace(came: dict[State, tuple[State, str] | None], state: State) -> tuple[str, ...]:
    """The way that led to a state."""
    way: list[str] = []
    step = came[state]
    while step is not None:
        state, what = step
        way.append(what)
        step = came[state]
    return tuple(reversed(way))


def cannot_end(
    machine: Machine,
    came: dict[State, tuple[State, str] | None],
    back: dict[State, list[State]],
) -> State | None:
    """The first state that has an owner and from which not everything can be committed.

    (Without an owner the allowance of rebalances may be used up.)
    """
    good = {state for state in came if machine.done(state)}
    waiting = deque(good)
    while waiting:
        for state in back.get(waiting.popleft(), ()):
            if state not in good:
                good.add(state)
                waiting.append(state)
    return next(
        (
            state
            for state in came
            if state not in good
            and state.owner is not None
            and state.members[state.owner].generation == state.generation
        ),
        None,
    )
