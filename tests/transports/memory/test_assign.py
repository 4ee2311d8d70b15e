"""The assignors: complete, disjoint, balanced, and the sticky one keeps."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trio_consumer._types import TP
from trio_consumer.transports.memory.assign import (
    Assignor,
    Claim,
    assign,
    cooperative_sticky_assign,
    range_assign,
)

members = st.lists(st.sampled_from("abcdef"), min_size=1, unique=True)
counts = st.dictionaries(st.sampled_from(["t", "u", "v"]), st.integers(1, 9), min_size=1)
topics = frozenset({"t", "u", "v"})


def loads(result: dict[str, frozenset[TP]]) -> list[int]:
    """How many partitions each member has."""
    return [len(tps) for tps in result.values()]


def everything(partitions: dict[str, int]) -> list[TP]:
    """All partitions, in order."""
    return sorted(TP(topic, n) for topic, count in partitions.items() for n in range(count))


def rounds(claims: dict[str, Claim], partitions: dict[str, int]) -> dict[str, frozenset[TP]]:
    """Cooperative rounds until nobody has to give anything back."""
    for generation in range(10):
        result = cooperative_sticky_assign(claims, partitions)
        gave_back = any(claims[m].owned - result[m] for m in claims)
        claims = {
            m: Claim(claims[m].topics, result[m], generation, claims[m].instance_id) for m in claims
        }
        if not gave_back:
            return result
    raise AssertionError("no end of rounds")


def test_range_gives_contiguous_ranges() -> None:
    """Each topic is cut into ranges, the first members get the longer ones."""
    claims = {"b": Claim(topics), "a": Claim(topics), "c": Claim(frozenset({"u"}))}
    result = range_assign(claims, {"t": 3, "u": 3})
    assert result["a"] == {TP("t", 0), TP("t", 1), TP("u", 0)}
    assert result["b"] == {TP("t", 2), TP("u", 1)}
    assert result["c"] == {TP("u", 2)}


def test_range_orders_static_members_by_name() -> None:
    """A static member's place does not depend on its member id."""
    claims = {
        "a": Claim(topics),
        "z": Claim(topics, instance_id="1"),
        "m": Claim(topics, instance_id="2"),
    }
    result = assign(Assignor.RANGE, claims, {"t": 3})
    assert {m: min(tps).partition for m, tps in result.items()} == {"z": 0, "m": 1, "a": 2}


@given(members, counts)
def test_range_is_complete_and_balanced_within_a_topic(
    members: list[str], partitions: dict[str, int]
) -> None:
    """Every partition has one owner, and no topic is shared unevenly."""
    result = range_assign({m: Claim(topics) for m in members}, partitions)
    assert sorted(tp for tps in result.values() for tp in tps) == everything(partitions)
    for topic in partitions:
        share = [sum(tp.topic == topic for tp in tps) for tps in result.values()]
        assert max(share) - min(share) <= 1


@given(members, members, counts)
def test_sticky_is_balanced_and_moves_no_more_than_it_must(
    before: list[str], after: list[str], partitions: dict[str, int]
) -> None:
    """After any change of members: complete, within one, and few moves."""
    old = rounds({m: Claim(topics) for m in before}, partitions)
    claims = {m: Claim(topics, old.get(m, frozenset()), 10) for m in after}
    new = rounds(claims, partitions)
    assert sorted(tp for tps in new.values() for tp in tps) == everything(partitions)
    assert max(loads(new)) - min(loads(new)) <= 1
    if set(after) <= set(before):
        # Members that left: who stays keeps all.
        assert all(new[m] >= old[m] for m in after)
    if set(before) <= set(after):
        # Members that came: nobody gets anything from another old member.
        assert all(new[m] <= old[m] for m in before)
    if set(before) == set(after):
        assert new == old


@given(members, members, counts)
def test_cooperative_round_never_gives_what_another_owns(
    before: list[str], after: list[str], partitions: dict[str, int]
) -> None:
    """A partition moves only in a round that begins with nobody owning it."""
    old = rounds({m: Claim(topics) for m in before}, partitions)
    claims = {m: Claim(topics, old.get(m, frozenset()), 10) for m in after}
    result = cooperative_sticky_assign(claims, partitions)
    for member, tps in result.items():
        for other in after:
            assert other == member or not tps & claims[other].owned


def test_sticky_believes_the_later_generation() -> None:
    """Of two claims the later one counts, and two equal ones count for nothing."""
    t0, t1 = TP("t", 0), TP("t", 1)
    claims = {
        "a": Claim(topics, frozenset({t0, t1}), 3),
        "b": Claim(topics, frozenset({t1}), 4),
    }
    assert cooperative_sticky_assign(claims, {"t": 2}) == {"a": {t0}, "b": {t1}}
    claims = {m: Claim(topics, frozenset({t0, t1}), 3) for m in "ab"}
    assert sorted(loads(cooperative_sticky_assign(claims, {"t": 2}))) == [1, 1]


def test_sticky_respects_subscriptions() -> None:
    """A member gets nothing it does not subscribe to, and loses what it no longer does."""
    t0, u0 = TP("t", 0), TP("u", 0)
    claims = {
        "a": Claim(frozenset({"t"}), frozenset({u0})),
        "b": Claim(topics, frozenset({t0}), 1),
    }
    result = rounds(claims, {"t": 1, "u": 1, "w": 4})
    assert result == {"a": {t0}, "b": {u0}}


def test_sticky_forgets_deleted_partitions() -> None:
    """What a member owns of a deleted topic is not assigned."""
    claims = {"a": Claim(topics, frozenset({TP("t", 0), TP("t", 5)}), 1)}
    assert cooperative_sticky_assign(claims, {"t": 1}) == {"a": {TP("t", 0)}}
