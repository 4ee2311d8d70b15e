"""The rules hold in every state, and each broken one fails in a few steps."""

from __future__ import annotations

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from trio_consumer import TP
from trio_consumer._core.delivered_batch import FIRST_STREAM_BIT
from trio_consumer._core.ledger import Ledger

from .__main__ import main
from .machine import Machine, Member, Rules, State
from .search import search


def test_no_state_breaks_a_promise() -> None:
    """Every order of three records, two members and two changes of hands."""
    found = search(Machine(offsets=3, rebalances=2))
    assert (found.violated, found.trace) == (None, ())
    assert found.states > 100_000
    assert found.steps > 5 * found.states


@pytest.mark.parametrize(
    ("broken", "violated", "steps"),
    [
        ("commits_past_gaps", "safe", 5),
        ("commits_position", "safe", 3),
        ("commits_at_revocation_what_is_in_hand", "safe", 3),
        ("accepts_any_generation", "forward", 12),
        ("gives_up_before_the_answer", "forward", 8),
        ("believes_in_a_failed_commit", "live", 13),
    ],
)
def test_broken_rule_has_a_counterexample(broken: str, violated: str, steps: int) -> None:
    """The shortest one; it must not get longer unnoticed, nor vanish."""
    found = search(Machine(offsets=3, rebalances=2, rules=Rules(**{broken: True})))
    assert found.violated == violated
    assert len(found.trace) <= steps
    assert found.trace[0] == "A is assigned from 0"


def test_every_rule_has_its_counterexample() -> None:
    """No rule is listed that nobody breaks."""
    params = test_broken_rule_has_a_counterexample.pytestmark[0].args[1]  # type: ignore[attr-defined]
    assert {name for name, _, _ in params} == set(Rules.__dataclass_fields__)


def test_search_sees_a_state_that_cannot_end() -> None:
    """The last of three questions, asked of a machine that forgets to finish."""

    class Lazy(Machine):
        def following(self, state: State):  # type: ignore[no-untyped-def]
            for what, then in super().following(state):
                if "finishes 1" not in what:
                    yield what, then

    assert search(Lazy(offsets=2, rebalances=0)).violated == "live"


@given(st.integers(0, 3), st.lists(st.integers(0, 11), max_size=30))
def test_ledger_commits_what_the_machine_does(start: int, choices: list[int]) -> None:
    """Any order of deliveries and acknowledgements, answered and not."""
    machine, ledger = Machine(offsets=12, rebalances=0), Ledger(TP("t", 0))
    ledger.begin(start)
    member = Member(1, start, start, 0, start)
    entries = {}
    for choice in choices:
        if choice < 4 and member.position < 12:
            batch = ledger.deliver([member.position], FIRST_STREAM_BIT)
            entries[member.position] = batch
            member = member._replace(position=member.position + 1)
        elif choice in entries:
            assert entries[choice].finish(0, FIRST_STREAM_BIT) == (
                not member.finished >> choice & 1
            )
            member = member._replace(finished=member.finished | 1 << choice)
        snapshot = ledger.snapshot()
        offset = machine.committable(member)
        assert (snapshot.offset if snapshot else member.known) == offset
        if snapshot is not None and choice % 3 == 0:
            ledger.confirm(snapshot)
            member = member._replace(known=offset)


def test_command_prints_states_and_counterexamples() -> None:
    """What docs/model.md quotes."""
    result = CliRunner().invoke(main, ["--offsets", "2", "--rebalances", "1"])
    assert result.exit_code == 0, result.output
    assert "violated: nothing" in result.output.replace("\n", " ")
    assert result.output.count("safe") >= 3
