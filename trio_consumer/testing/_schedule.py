"""What is going to happen in one simulation, as data.

A :class:`Schedule` is drawn from a seed (:func:`draw`): the settings of the group
and a list of timed :class:`Action`.  It can be written as JSON, shortened and run
again.  Nothing else is drawn while it runs: how a handler treats a message is
computed from the seed, the message and the attempt, so leaving an action out does
not change what the others mean.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from random import Random
from typing import Any, Literal

from ..transports.memory import CommitFault

__all__ = ["KINDS", "Action", "OnError", "Schedule", "Settings", "draw"]

OnError = Literal["nack", "member", "stream"]


@dataclass(frozen=True)
class Settings:
    """How the group is made; the same for each member.

    Attributes:
        partitions: Number of partitions of each topic at the beginning.
        records: Records in each partition at the beginning.
        streams: Topic and ``ack`` of each stream of a member.
        cooperative: The assignment strategy; else ``range``.
        read_committed: The isolation level.
        static: Members have a ``group_instance_id``.
        reopening: Streams are closed and opened while the member goes on.
        on_error: What a handler that raises ends: its attempt only (the message
            is given back), its member, or its stream (with ``reopening``).
        trouble: Share of the messages (0 to 1) that a handler is not quick with.
        workers: Tasks that share a stream.
        batches: Whether some of them take batches.
        max_poll_records, max_buffered, commit_interval, commit_every,
        commit_timeout, drain_timeout: As for ``open_consumer``.
        session_timeout, heartbeat, rebalance_timeout: Of the client, in seconds.
        latency: Of each request, in seconds, between two bounds.
    """

    partitions: dict[str, int] = field(default_factory=lambda: {"t": 2})
    records: int = 10
    streams: tuple[tuple[str, str], ...] = (("t", "auto"),)
    cooperative: bool = False
    read_committed: bool = False
    static: bool = False
    reopening: bool = False
    on_error: OnError = "nack"
    trouble: float = 0.3
    workers: int = 1
    batches: bool = False
    max_poll_records: int = 10
    max_buffered: int = 10
    commit_interval: float = 2.8
    commit_every: int | None = None
    commit_timeout: float = 5.0
    drain_timeout: float = 2.0
    session_timeout: float = 10.0
    heartbeat: float = 3.0
    rebalance_timeout: float = 20.0
    latency: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class Action:
    """One thing that happens.

    Attributes:
        at: Seconds after the beginning.
        kind: One of :data:`KINDS`.
        args: What that kind needs; plain data.
    """

    at: float
    kind: str
    args: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        given = " ".join(f"{name}={value}" for name, value in self.args.items())
        return f"{self.at:8.3f} s  {self.kind} {given}".rstrip()


@dataclass(frozen=True)
class Schedule:
    """One simulation.

    Attributes:
        seed: Draws the order of tasks, latencies, and how handlers behave.
        settings: How the group is made.
        actions: What happens, in order.
        horizon: Seconds after which every fault stops.
    """

    seed: int
    settings: Settings
    actions: tuple[Action, ...]
    horizon: float

    def __str__(self) -> str:
        default = asdict(Settings())
        given = {k: v for k, v in asdict(self.settings).items() if v != default[k]}
        lines = [f"seed {self.seed}, faults stop at {self.horizon:g} s"]
        lines += [f"    {name}={value}" for name, value in given.items()]
        return "\n".join([*lines, *(f"  {action}" for action in self.actions)])

    def to_json(self) -> str:
        """The schedule as text that :meth:`from_json` reads."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Schedule:
        """The schedule that :meth:`to_json` wrote."""
        given = json.loads(text)
        settings = given.pop("settings")
        settings["streams"] = tuple((topic, ack) for topic, ack in settings["streams"])
        settings["latency"] = tuple(settings["latency"])
        actions = tuple(Action(**action) for action in given.pop("actions"))
        return cls(settings=Settings(**settings), actions=actions, **given)


Draw = Callable[[Random, Settings], dict[str, Any]]

MEMBERS = ("a", "b", "c", "d")


def _member(random: Random, settings: Settings) -> dict[str, Any]:
    return {"member": random.choice(MEMBERS)}


def _seconds(low: float, high: float, *, member: bool = False) -> Draw:
    def draw(random: Random, settings: Settings) -> dict[str, Any]:
        given = _member(random, settings) if member else {}
        return given | {"seconds": round(random.uniform(low, high), 3)}

    return draw


def _nothing(random: Random, settings: Settings) -> dict[str, Any]:
    return {}


def _where(random: Random, settings: Settings) -> dict[str, Any]:
    return {"tp": random.randrange(12), "share": round(random.random(), 3)}


def _join(random: Random, settings: Settings) -> dict[str, Any]:
    return _member(random, settings) | {"delay": round(random.uniform(0.1, 3), 3)}


def _freeze(random: Random, settings: Settings) -> dict[str, Any]:
    longest = settings.session_timeout * 2.5
    return _seconds(0.5, longest, member=True)(random, settings) | {"asleep": random.random() < 0.5}


def _cancel(random: Random, settings: Settings) -> dict[str, Any]:
    # The third place leaves a message behind that only a new stream can get.
    places = ["program", "body", "stream"] if settings.reopening else ["program", "body"]
    return _member(random, settings) | {
        "place": random.choice(places),
        "steps": int(random.paretovariate(0.7)) % 500,
    }


def _produce(random: Random, settings: Settings) -> dict[str, Any]:
    return {"tp": random.randrange(12), "count": random.choice([1, 2, 5, 20, 60])}


def _transaction(random: Random, settings: Settings) -> dict[str, Any]:
    return {
        "tps": [random.randrange(12) for _ in range(random.randint(1, 3))],
        "count": random.randint(1, 8),
        "seconds": round(random.choice([0.0, random.uniform(0, 15)]), 3),
        "commit": random.random() < 0.6,
    }


def _seek(random: Random, settings: Settings) -> dict[str, Any]:
    where = random.choice(["back", "committed", "restart", "forward"])
    return _member(random, settings) | _where(random, settings) | {"where": where}


def _faults(random: Random, settings: Settings) -> dict[str, Any]:
    return {
        "seconds": round(random.uniform(1, 20), 3),
        "failures": random.choice([0.0, 0.3, 0.9]),
        "answers_lost": random.choice([0.0, 0.3, 0.9]),
        "latency": random.choice([[0.0, 0.0], [0.0, 0.3], [0.1, 2.0]]),
        "commit_latency": random.choice([[0.0, 0.0], [0.0, 4.0], [3.0, 8.0]]),
    }


_PASSING = [
    CommitFault.COORDINATOR_UNAVAILABLE,
    CommitFault.TIMEOUT,
    CommitFault.ANSWER_LOST,
    CommitFault.UNKNOWN_MEMBER,
    CommitFault.ILLEGAL_GENERATION,
    CommitFault.REBALANCE_IN_PROGRESS,
]
_FATAL = [CommitFault.METADATA_TOO_LARGE, CommitFault.UNAUTHORIZED, CommitFault.FENCED]


def _fail_commits(random: Random, settings: Settings) -> dict[str, Any]:
    fault = random.choice(_PASSING if random.random() < 0.8 else _FATAL)
    return {"count": random.choice([1, 1, 2, 5]), "fault": fault.value}


KINDS: dict[str, tuple[float, Draw]] = {
    "join": (6, _join),
    "leave": (3, _member),
    "crash": (3, _member),
    "freeze": (3, _freeze),
    "cancel": (5, _cancel),
    "expire": (2, _member),
    "rebalance": (2, _nothing),
    "produce": (10, _produce),
    "marker": (1, _where),
    "transaction": (3, _transaction),
    "compact": (3, _where),
    "delete_records": (1, _where),
    "truncate": (1, _where),
    "add_partitions": (1, _where),
    "seek": (3, _seek),
    "commit": (3, _member),
    "pause": (2, _seconds(0.1, 5, member=True)),
    "stop_flow": (2, _seconds(0.1, 5, member=True)),
    "outage": (2, _seconds(0.5, 15)),
    "hold_answers": (2, _seconds(0.5, 15)),
    "faults": (3, _faults),
    "fail_commits": (4, _fail_commits),
}
"""Every kind of action, how often it is drawn, and what draws its arguments."""


def draw(seed: int, *, without: frozenset[str] = frozenset()) -> Schedule:
    """Draw a schedule, without some kinds of actions."""
    random = Random(f"{seed}/schedule")
    settings = _settings(random)
    # Some kinds only: where everything happens at once, nothing goes far.
    chosen = [kind for kind in KINDS if kind in ("join", "produce") or random.random() < 0.45]
    chosen = [kind for kind in chosen if kind not in without]
    count = random.choice([3, 8, 15, 30])
    horizon = round(count * random.uniform(0.5, 4), 3)
    weights = [KINDS[kind][0] for kind in chosen]
    beginning = [
        Action(0.0, "join", {"member": name, "delay": 1.0})
        for name in MEMBERS[: random.choice([1, 2, 2, 3])]
    ]
    later = [
        Action(round(random.uniform(0, horizon), 3), kind, KINDS[kind][1](random, settings))
        for kind in random.choices(chosen, weights, k=count)
    ]
    later.sort(key=lambda action: action.at)
    return Schedule(seed, settings, (*beginning, *later), horizon)


def _settings(random: Random) -> Settings:
    partitions = {name: random.randint(1, 3) for name in "tu"[: random.randint(1, 2)]}
    streams = [
        (topic, ack)
        for topic in partitions
        for ack in [
            random.choice(["auto", "manual"]),
            *random.choices(["auto", "manual", "none"], k=random.choice([0, 0, 1, 2])),
        ]
    ]
    reopening = random.random() < 0.35
    on_error: list[OnError] = ["nack", "member", "stream"]
    settings = Settings(
        partitions=partitions,
        records=random.choice([0, 3, 10, 40]),
        streams=tuple(streams),
        cooperative=random.random() < 0.5,
        read_committed=random.random() < 0.5,
        static=random.random() < 0.2,
        reopening=reopening,
        on_error=random.choice(on_error if reopening else on_error[:2]),
        trouble=random.choice([0.0, 0.1, 0.3, 0.6]),
        workers=random.choice([1, 1, 2, 3]),
        batches=random.random() < 0.3,
        max_poll_records=random.choice([1, 3, 10, 500]),
        max_buffered=random.choice([1, 5, 50, 10_000]),
        commit_interval=random.choice([0.5, 2.8, 2.8, 60.0]),
        commit_every=random.choice([None, None, 1, 7]),
        commit_timeout=random.choice([1.0, 5.0]),
        drain_timeout=random.choice([0.0, 2.0, 30.0]),
        session_timeout=random.choice([6.0, 10.0]),
        heartbeat=random.choice([1.0, 3.0]),
        rebalance_timeout=random.choice([8.0, 20.0, 60.0]),
    )
    if random.random() < 0.4:
        settings = replace(settings, latency=random.choice([(0.0, 0.05), (0.0, 0.5)]))
    return settings
