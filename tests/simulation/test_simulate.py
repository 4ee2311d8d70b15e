"""``simulate`` as a user meets it."""

from __future__ import annotations

import json
import pickle
import threading
from collections import Counter
from collections.abc import Callable

import pytest
import trio

from trio_consumer import ConfigurationError, Message
from trio_consumer.testing import (
    SimulationFailedError,
    SimulationReport,
    processed,
    simulate,
)


async def right(message: Message) -> None:
    """Takes its time, and returns when it is done."""
    await trio.sleep(0.05)


def test_right_handler_passes() -> None:
    """Nothing is lost, and the report says what was done."""
    report = simulate(right, seeds=30)
    assert isinstance(report, SimulationReport)
    assert report.simulations == 30
    assert report.events["delivered"] >= report.events["records"] > 1000
    assert report.checked["I1"] > 100
    assert str(report).startswith("30 simulations of")


def test_handler_that_acknowledges_too_early_is_found() -> None:
    """It acknowledges, and then does the work."""

    async def early(message: Message) -> None:
        message.ack()
        await trio.sleep(0.5)

    with pytest.raises(SimulationFailedError, match=r"^seed \d+: I1 violated") as caught:
        simulate(early, seeds=100, ack="manual")
    error = caught.value
    assert error.check == "I1"
    assert json.loads(error.schedule)["seed"] == error.seed
    assert f"seeds=[{error.seed}]" in str(error)
    assert "shortened from" in str(error)
    with pytest.raises(SimulationFailedError) as again:
        simulate(early, seeds=[error.seed], ack="manual")
    assert str(again.value) == str(error)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_handler_that_never_acknowledges_is_found() -> None:
    """Everything is processed, nothing committed."""

    async def forgetful(message: Message) -> None:
        pass

    with pytest.raises(SimulationFailedError, match="not everything is committed"):
        simulate(forgetful, seeds=20, ack="manual", within=40)


def test_handler_that_leaves_its_work_to_others_is_found_if_it_tells() -> None:
    """It returns before the work is done; only ``explicit`` can show that."""

    async def lazy(message: Message) -> None:
        if message.offset % 2:
            processed(message)

    with pytest.raises(SimulationFailedError, match="I1 violated"):
        simulate(lazy, seeds=10, explicit=True)
    assert simulate(lazy, seeds=1).simulations == 1


def test_explicit_handler_that_tells_in_time_passes() -> None:
    """The same word, said before it returns."""

    async def telling(message: Message) -> None:
        await trio.sleep(0.01)
        processed(message)

    assert simulate(telling, seeds=10, explicit=True, workers=2, partitions=3).simulations == 10


def test_handler_that_always_fails_is_found() -> None:
    """A message that cannot be processed holds everything up; its error is named."""

    async def failing(message: Message) -> None:
        if message.offset == 2:
            raise ZeroDivisionError("no good")

    with pytest.raises(SimulationFailedError, match="are not processed") as caught:
        simulate(failing, seeds=5, within=40)
    assert "ZeroDivisionError('no good')" in str(caught.value)


def test_handler_that_fails_once_passes() -> None:
    """Its member ends and is started again, as a process would be."""
    tries: Counter[tuple[str, int, int]] = Counter()

    async def shaky(message: Message) -> None:
        place = (message.topic, message.partition, message.offset)
        tries[place] += 1
        if tries[place] == 1 and message.offset % 5 == 0:
            raise OSError

    assert simulate(shaky, seeds=[1]).simulations == 1
    assert max(tries.values()) > 1


def test_values_are_the_users() -> None:
    """They are made of the number of a record."""
    seen: set[int] = set()

    async def reading(message: Message) -> None:
        seen.add(json.loads(message.value)["number"])

    simulate(reading, seeds=5, value=lambda n: json.dumps({"number": n}).encode())
    assert {1, 2, 3} <= seen


def test_processed_needs_a_simulation() -> None:
    """Outside of one there is nobody to tell."""
    kept: list[Message] = []

    async def keeping(message: Message) -> None:
        kept.append(message)

    simulate(keeping, seeds=1)
    with pytest.raises(RuntimeError, match=r"^processed\(\) is for handlers inside"):
        processed(kept[0])


@pytest.mark.parametrize(
    "call",
    [
        lambda: simulate(right, ack="none"),  # type: ignore[arg-type]  # that is the point
        lambda: simulate(right, workers=0),
        lambda: simulate(right, partitions=0),
        lambda: simulate(right, within=0),
    ],
)
def test_impossible_arguments_are_refused(call: Callable[[], object]) -> None:
    """Before anything is simulated."""
    with pytest.raises(ConfigurationError, match=r"to simulate|must be at least 1"):
        call()


def test_thread_of_before_may_end_meanwhile() -> None:
    """Trio keeps idle threads for some seconds after another test; one less is none left."""
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    thread.start()

    async def end_it(message: Message) -> None:
        over.set()
        thread.join()

    assert simulate(end_it, seeds=1).simulations == 1
