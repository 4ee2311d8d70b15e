"""What happens when: a schedule of faults, drawn from a seed and from nothing else.

A run is a row of cycles.  Each begins with a *storm*, in which everything happens; then
nothing does, so that the groups recover; then members join and leave in order and nothing
else happens, and not one message may come twice.
"""

from __future__ import annotations

import enum
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

from .proxy import Fault, Trouble

__all__ = ["GROUPS", "Kind", "MemberPlan", "Options", "Step", "draw", "draw_members"]

GROUPS = ("eager", "cooperative")
STYLES = ("loop", "batches", "context", "workers")


class Kind(enum.Enum):
    """What can happen."""

    KILL_NODE = "kill -9 of a node"
    FREEZE_NODE = "SIGSTOP of a node"
    STOP_NODE = "orderly restart of a node"
    MOVE_LEADERS = "leaders move"
    MOVE_COORDINATORS = "coordinators move"
    NETWORK = "network"
    KILL_MEMBER = "kill -9 of a member"
    FREEZE_MEMBER = "SIGSTOP of a member"
    LEAVE = "leave and join again"
    CANCEL = "cancelled and joined again"
    TWIN = "second process of a static member"


ON_NODES = (Kind.KILL_NODE, Kind.FREEZE_NODE, Kind.STOP_NODE)
CLEAN = (Kind.LEAVE, Kind.CANCEL)
WEIGHTS = {
    Kind.KILL_NODE: 3,
    Kind.FREEZE_NODE: 1,
    Kind.STOP_NODE: 1,
    Kind.MOVE_LEADERS: 2,
    Kind.MOVE_COORDINATORS: 3,
    Kind.NETWORK: 9,
    Kind.KILL_MEMBER: 5,
    Kind.FREEZE_MEMBER: 4,
    Kind.LEAVE: 3,
    Kind.CANCEL: 2,
    Kind.TWIN: 2,
}


@dataclass(frozen=True, slots=True)
class Options:
    """What a schedule is drawn for.

    Attributes:
        seed: Draws everything.
        minutes: From the first fault to the end of the last.
        members: In both groups together, at least two in each.
        nodes: Numbered from 1.
        session: Seconds after which a silent member is thrown out.
        pace: Seconds from one fault of a storm to the next, on average.
        storm: Seconds that a storm lasts.
        recovery: Seconds in which nothing happens.
        calm: Seconds with orderly moves only.
    """

    seed: int
    minutes: float = 10.0
    members: int = 8
    nodes: int = 3
    session: float = 6.0
    pace: float = 3.0
    storm: float = 75.0
    recovery: float = 40.0
    calm: float = 25.0


@dataclass(frozen=True, slots=True)
class MemberPlan:
    """What a place in a group is like, through all the lives in it.

    Attributes:
        slot: Its number among all members.
        group: Which group.
        static: Its ``group_instance_id``, or None.
        elder: Never killed and never asked to leave: what it uses is watched for growth.
        style: How it works.
        work: The longest time that a piece of work takes, in seconds.
    """

    slot: int
    group: str
    static: str | None
    elder: bool
    style: str
    work: float

    @property
    def name(self) -> str:
        """How journals and faults call it."""
        return f"{self.group}-{self.slot}"


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that happens.

    Attributes:
        at: Seconds after the beginning.
        kind: What.
        target: Number of a node or a member, None where all are meant.
        lasts: Seconds until it is undone.
        fault: What the network before the node does.
        calm: Only when the consequences of everything before are over, however long a
            node needs to come back; what follows is put off by as much.
    """

    at: float
    kind: Kind
    target: int | None = None
    lasts: float = 0.0
    fault: Fault | None = None
    calm: bool = False

    def __str__(self) -> str:
        what = self.kind.value
        if self.fault is not None:
            fault = self.fault
            what = f"network: {fault.trouble.value}, {fault.share:.0%} of connections"
            if fault.amount:
                what += f", {fault.amount:g}"
            if fault.trouble in (Trouble.HOLE, Trouble.DEAF):
                what += ", then late" if fault.late else ", then cut"
        where = "" if self.target is None else f" {self.target}"
        return f"{self.at:7.1f} s  {what}{where}" + (f" for {self.lasts:.1f} s" * bool(self.lasts))


def draw_members(options: Options) -> list[MemberPlan]:
    """Half of them in each group; one group's members are static, which one the seed says."""
    if options.members < 4:
        raise ValueError(f"two groups need two members each, not {options.members} in all")
    chance = random.Random(f"members {options.seed}")
    static = chance.choice(GROUPS)
    styles = {group: chance.sample(STYLES, len(STYLES)) for group in GROUPS}
    plans = []
    for slot in range(options.members):
        group = GROUPS[slot % 2]
        style = styles[group][slot // 2 % len(STYLES)]
        plans.append(
            MemberPlan(
                slot=slot,
                group=group,
                static=f"static-{slot}" if group == static else None,
                elder=slot < 2,
                style=style,
                work=chance.choice((0.0, 0.003)) if style != "batches" else chance.choice((0, 0.2)),
            )
        )
    return plans


def draw(options: Options) -> list[Step]:
    """The schedule, in the order of time."""
    return sorted(_draw(options), key=lambda step: step.at)


def _draw(options: Options) -> Iterator[Step]:
    chance = random.Random(f"schedule {options.seed}")
    end = options.minutes * 60
    cycle = options.storm + options.recovery + options.calm
    members = draw_members(options)
    begin = 0.0
    while begin < end:
        storm_end = min(begin + options.storm, end)
        yield from _storm(options, chance, members, begin, storm_end)
        calm = begin + options.storm + options.recovery
        # Two moves in order, the second when the first is over.
        for at in (calm, calm + options.calm / 2):
            if at + options.calm / 2 <= end:
                move = _member_step(at, chance.choice(CLEAN), chance, members)
                yield replace(move, calm=True)
        begin += cycle


def _storm(
    options: Options,
    chance: random.Random,
    members: list[MemberPlan],
    begin: float,
    end: float,
) -> Iterator[Step]:
    static = any(member.static and not member.elder for member in members)
    kinds = [kind for kind in Kind if static or kind is not Kind.TWIN]
    weights = [WEIGHTS[kind] for kind in kinds]
    # One of each kind that matters most comes for certain, so that a short run has them.
    due = [Kind.KILL_NODE, Kind.KILL_MEMBER, Kind.FREEZE_MEMBER, Kind.NETWORK]
    due += [Kind.MOVE_COORDINATORS, Kind.MOVE_LEADERS]
    if begin:  # and the rare ones in a longer one
        due = kinds.copy()
    chance.shuffle(due)
    at = begin + chance.uniform(0.5, 2.0)
    while at < end:
        kind = due.pop() if due else chance.choices(kinds, weights)[0]
        left = end - at
        if kind is Kind.NETWORK:
            fault = _network(chance)
            # One that holds longer than a session is another thing than a short one.
            lasts = chance.choice((0.5, 3.0, options.session * 1.7))
            target = chance.randint(1, options.nodes)
            yield Step(at, kind, target, min(lasts, left), fault)
        elif kind in ON_NODES:
            node = chance.randint(1, options.nodes)
            yield Step(at, kind, node, min(chance.uniform(1.0, 8.0), left))
        elif kind in (Kind.MOVE_LEADERS, Kind.MOVE_COORDINATORS):
            yield Step(at, kind)
        else:
            step = _member_step(at, kind, chance, members)
            if kind is Kind.FREEZE_MEMBER:
                lasts = options.session * chance.uniform(1.3, 2.0)
                step = Step(at, kind, step.target, lasts)
            yield step
        at += chance.uniform(0.3, 1.7) * options.pace


def _network(chance: random.Random) -> Fault:
    trouble = chance.choice(tuple(Trouble))
    share = chance.choice((0.3, 0.6, 1.0))
    amount = {
        Trouble.DELAY: chance.choice((0.02, 0.2, 1.0)),
        Trouble.THROTTLE: chance.choice((2_000.0, 20_000.0)),
    }.get(trouble, 0.0)
    return Fault(trouble, share, amount, late=chance.random() < 0.6)


def _member_step(at: float, kind: Kind, chance: random.Random, members: list[MemberPlan]) -> Step:
    fit = [member for member in members if not member.elder or kind is Kind.FREEZE_MEMBER]
    if kind is Kind.TWIN:
        fit = [member for member in fit if member.static]
    lasts = chance.uniform(0.0, 4.0) if kind is not Kind.TWIN else 0.0
    return Step(at, kind, chance.choice(fit).slot, lasts)
