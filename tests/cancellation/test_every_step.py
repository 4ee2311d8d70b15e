"""Every scenario, cancelled at each of its steps, at each place (I1-I3, I6-I9, I11, I12)."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any

import pytest

import trio_consumer
from trio_consumer import Transaction, TransactionManager
from trio_consumer._runtime.fetching import FetchIterator
from trio_consumer._runtime.flow_gate import FlowEvent
from trio_consumer._runtime.iterators import BatchIterator, MessageIterator

from . import scenarios
from .kit import SCENARIOS, Place, Scenario, trial

assert scenarios  # importing it fills the list

# Transactions are cancelled in test_exactly_once.py, where their output is the judge.
ELSEWHERE = {Transaction, TransactionManager}

FACES: list[type] = [
    *(
        face
        for face in map(vars(trio_consumer).get, trio_consumer.__all__)
        if isinstance(face, type) and face not in ELSEWHERE
    ),
    MessageIterator,
    BatchIterator,
    FetchIterator,
    FlowEvent,
]


# With and without time between a request and its answer; inside of the consumer one is enough.
WAYS = [(Place.PROGRAM, 0.0), (Place.PROGRAM, 0.01), (Place.BODY, 0.01), (Place.LOOP, 0.0)]


@pytest.mark.parametrize(("place", "latency"), WAYS, ids=str)
@pytest.mark.parametrize("chosen", SCENARIOS, ids=lambda chosen: chosen.name)
def test_cancellation_at_every_step_loses_nothing(
    chosen: Scenario, place: Place, latency: float
) -> None:
    """Whichever step a cancellation meets, nothing is lost, finished unseen or left behind."""
    step = 1
    while trial(chosen, place, step, latency):
        step += 1
    assert step > 10


def test_scenarios_call_every_public_async_function(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is new has to join a scenario, or this fails."""
    public: set[str] = set()
    called: set[str] = set()

    def watch(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        async def watched(*args: Any, **kwargs: Any) -> Any:
            called.add(name)
            return await function(*args, **kwargs)

        return watched

    for face in FACES:
        for name, function in inspect.getmembers(face, inspect.iscoroutinefunction):
            if not name.startswith("_") or name in ("__aenter__", "__aexit__", "__anext__"):
                full = f"{face.__name__}.{name}"
                public.add(full)
                monkeypatch.setattr(face, name, watch(full, function))
    for chosen in SCENARIOS:
        trial(chosen, Place.PROGRAM, 10**9, 0.0)
    # Only a member that is thrown out loses partitions; see tests/runtime/test_rebalance.py.
    assert public - called == {"Consumer.on_partitions_lost"}
