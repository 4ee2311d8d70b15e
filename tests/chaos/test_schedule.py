"""Schedules come from the seed alone, and have what they should."""

from __future__ import annotations

import pytest

from chaos.schedule import CLEAN, GROUPS, Kind, Options, draw, draw_members

SEEDS = range(30)


def test_schedule_is_the_seeds() -> None:
    """The same seed draws the same, another one something else."""
    assert draw(Options(5)) == draw(Options(5))
    assert draw_members(Options(5)) == draw_members(Options(5))
    assert draw(Options(5)) != draw(Options(6))


@pytest.mark.parametrize("seed", SEEDS)
def test_short_schedule_has_what_matters_most(seed: int) -> None:
    """A node and a member die, one freezes, the network fails, coordinators move."""
    kinds = {step.kind for step in draw(Options(seed, minutes=1.2))}
    assert kinds >= {Kind.KILL_NODE, Kind.KILL_MEMBER, Kind.FREEZE_MEMBER, Kind.NETWORK}
    assert Kind.MOVE_COORDINATORS in kinds


@pytest.mark.parametrize("seed", SEEDS)
def test_each_long_schedule_has_every_kind(seed: int) -> None:
    """Ten minutes are enough for all of them."""
    assert {step.kind for step in draw(Options(seed))} == set(Kind)


@pytest.mark.parametrize("seed", SEEDS)
def test_calm_has_orderly_moves_only(seed: int) -> None:
    """What happened before is over and nothing else begins."""
    options = Options(seed)
    cycle = options.storm + options.recovery + options.calm
    steps = draw(options)
    calm = [step for step in steps if step.at % cycle >= options.storm]
    assert len(calm) >= 6
    assert all(step.kind in CLEAN for step in calm)
    assert all(step.calm is (step in calm) for step in steps)
    assert all(step.at % cycle >= options.storm + options.recovery for step in calm)
    assert steps == sorted(steps, key=lambda step: step.at)


@pytest.mark.parametrize("seed", SEEDS)
def test_elders_are_left_alive_and_twins_are_static(seed: int) -> None:
    """Else growth could not be seen, or nobody would be fenced."""
    options = Options(seed)
    members = draw_members(options)
    assert {member.group for member in members if member.elder} == set(GROUPS)
    assert len({member.group for member in members if member.static}) == 1
    for step in draw(options):
        if step.kind in (Kind.KILL_MEMBER, Kind.TWIN, *CLEAN):
            assert step.target is not None
            assert not members[step.target].elder
        if step.kind is Kind.TWIN:
            assert step.target is not None
            assert members[step.target].static
        if step.kind is Kind.FREEZE_MEMBER:
            assert step.lasts > options.session


def test_two_groups_need_two_members_each() -> None:
    """One of them may be away."""
    with pytest.raises(ValueError, match=r"^two groups need two members each, not 3"):
        draw_members(Options(1, members=3))
