"""The example of docs/simulation.md does what the page says."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from trio_consumer.testing import SimulationFailedError, simulate

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _examples(monkeypatch: pytest.MonkeyPatch) -> None:
    """The examples lie beside the package, not in it."""
    monkeypatch.syspath_prepend(ROOT)
    monkeypatch.delitem(sys.modules, "examples", raising=False)


def test_example_that_acknowledges_early_is_found() -> None:
    """With the first seed: it takes no luck."""
    from examples.early_ack import charge_wrong

    with pytest.raises(SimulationFailedError, match=r"^seed 0: I1 violated at .* passes"):
        simulate(charge_wrong, ack="manual")


def test_example_without_the_bug_passes() -> None:
    """The same seeds find nothing."""
    from examples.early_ack import charge

    assert simulate(charge, ack="manual", seeds=40).simulations == 40


def test_page_shows_the_example_as_it_is() -> None:
    """Each block of Python on the page that is from the example stands in it."""
    page = (ROOT / "docs" / "simulation.md").read_text("utf-8")
    source = (ROOT / "examples" / "early_ack.py").read_text("utf-8")
    blocks = [block.split("```")[0] for block in page.split("```python\n")[1:]]
    taken = [block for block in blocks if "async def charge" in block]
    assert len(taken) == 2
    for block in taken:
        assert block.strip() in source
