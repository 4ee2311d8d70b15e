"""A short run of the chaos: see ``chaos/``; ``nox -s chaos`` runs longer."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
import trio

from chaos.run import Settings, run, write_figures
from chaos.schedule import Options, draw

pytestmark = pytest.mark.kafka


def test_short_chaos_loses_nothing(tmp_path: Path) -> None:
    """A minute of everything, by a seed of its own: ``SEED=n`` runs the same again."""
    seed = int(os.environ.get("SEED") or random.randrange(1_000_000))
    options = Options(seed, minutes=1.0, members=6, pace=4.0)
    settings = Settings(options, tmp_path, rate=200.0, partitions=6)
    outcome = trio.run(run, settings)
    write_figures(outcome, settings)
    schedule = "\n".join(map(str, draw(options)))
    violations = "\n".join(map(str, outcome.violations))
    assert not outcome.violations, f"seed {seed}\n{schedule}\n{violations}\n{tmp_path}"
    assert outcome.messages > 5000
    assert outcome.missing == 0
    assert sum(outcome.happened.values()) >= 6
    assert outcome.observations > 20
