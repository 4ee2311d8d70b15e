"""The life of a transactional producer."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_consumer._core.transaction_states import (
    TABLE,
    ProducerEvent,
    ProducerState,
    ProducerStates,
)

E, S = ProducerEvent, ProducerState


@pytest.mark.parametrize(
    ("events", "state"),
    [
        ([], S.READY),
        ([E.BEGIN], S.OPEN),
        ([E.BEGIN, E.COMMIT], S.COMMITTING),
        ([E.BEGIN, E.COMMIT, E.DONE], S.READY),
        ([E.BEGIN, E.COMMIT, E.REFUSED, E.ABORT, E.DONE, E.BEGIN], S.OPEN),
        ([E.BEGIN, E.COMMIT, E.FAIL], S.FAILED),
    ],
)
def test_ways_that_there_are(events: list[ProducerEvent], state: ProducerState) -> None:
    """A commit, a refused one, an unknown one."""
    states = ProducerStates()
    for event in events:
        states.happen(event)
    assert states.is_in(state)


def test_event_that_cannot_happen_is_refused_and_changes_nothing() -> None:
    """Nothing can be committed that was not begun."""
    states = ProducerStates()
    with pytest.raises(ValueError, match="that is ready cannot commit"):
        states.happen(E.COMMIT)
    assert repr(states) == "<ProducerStates ready>"


@given(st.lists(st.sampled_from(ProducerEvent)))
def test_what_cannot_happen_changes_nothing(events: list[ProducerEvent]) -> None:
    """The table decides, failed is for ever, and a commit is never begun twice."""
    states = ProducerStates()
    committing = False
    for event in events:
        before = states.state
        if (before, event) in TABLE:
            states.happen(event)
            assert not (committing and event is E.COMMIT)
            committing = states.state is S.COMMITTING
        else:
            with pytest.raises(ValueError, match=rf"^a producer that is {before.value} cannot"):
                states.happen(event)
            assert states.state is before
        if before is S.FAILED:
            assert states.state is S.FAILED
        assert repr(states) == f"<ProducerStates {states.state.value}>"


def test_diagram_of_the_design_is_the_table() -> None:
    """Drawn from the table; what it should be is in the failure."""
    ways = [
        f"    {before.value} --> {after.value}: {event.value}"
        for (before, event), after in TABLE.items()
        if before is not after
    ]
    drawn = "\n".join(["stateDiagram-v2", f"    [*] --> {ProducerStates().state.value}", *ways])
    design = Path(__file__).parents[2].joinpath("DESIGN.md").read_text(encoding="utf-8")
    assert f"```mermaid\n{drawn}\n```\n" in design, drawn
