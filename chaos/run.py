"""One run: the cluster, the network, the members, what happens to them, and the judge."""

from __future__ import annotations

import json
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import trio
from confluent_kafka import Consumer, KafkaException, TopicPartition
from kafka.errors import KafkaError

from tests.kafka import Cluster, ClusterError
from tests.kafka.processes import Keeper

from .history import History, Rule, Violation, Window
from .leaders import move_leaders
from .members import TOPIC, Members, Place, Producers
from .proxy import Proxy
from .resources import Sample, growth
from .schedule import GROUPS, ON_NODES, Kind, MemberPlan, Options, Step, draw, draw_members

__all__ = ["Outcome", "Settings", "run"]

OFFSETS_TOPIC = "__consumer_offsets"
COMMIT_INTERVAL = 0.5
OBSERVE = 0.25
"""Seconds between two looks at what the groups have committed."""
REQUEST_TIMEOUT = 10.0
RECOVERY = 25.0
"""Seconds for which what happened may keep commits from arriving after it is over: a
request into a black hole is given up after 10 s, the client waits 1 s before it connects
again, a member that was thrown out in the meantime learns of it with the next heartbeat
and has 6 s for the join; the rest is for a machine with other things to do."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a run is like, apart from its schedule.

    Attributes:
        options: What the schedule is drawn from.
        folder: For journals, logs and reports.
        partitions: Of the topic.
        producers: Processes that write.
        rate: Messages a second, 0 for as fast as it goes.
        size: Bytes of a message.
        settle: Seconds after the last fault in which all has to be processed and
            committed.
        faults: Whether anything happens at all.
        say: Gets a line for each thing that happens.
    """

    options: Options
    folder: Path
    partitions: int = 8
    producers: int = 2
    rate: float = 400.0
    size: int = 100
    settle: float = 120.0
    faults: bool = True
    say: Callable[[str], object] = print


@dataclass(slots=True)
class Outcome:
    """What a run showed.

    Attributes:
        violations: Broken rules; none is what it should be.
        happened: Faults by kind.
        skipped: Steps of the schedule that did not fit in: a second node would have
            been down, the member was on its way already.
        messages: How many were written.
        groups: How many groups read all of them.
        missing: How many some group did not process.
        replays: How many came again.
        bound: How many could have, by the windows.
        observations: How often committed offsets were read.
        settled: Seconds from the last fault until all was processed and committed.
        seconds: Of the run.
        counted: Lives, lost and handed-over partitions, connections and so on.
        samples: What the members used, by life.
        log: What happened, with its time.
    """

    violations: list[Violation]
    happened: Counter[str] = field(default_factory=Counter)
    skipped: int = 0
    messages: int = 0
    groups: int = len(GROUPS)
    missing: int = 0
    replays: int = 0
    bound: int = 0
    observations: int = 0
    settled: float = 0.0
    seconds: float = 0.0
    counted: Counter[str] = field(default_factory=Counter)
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)


def _ignore(error: object) -> None:
    pass


class _Run:
    def __init__(self, settings: Settings, cluster: Cluster, proxies: dict[int, Proxy]) -> None:
        self.settings = settings
        self.options = settings.options
        self.cluster = cluster
        self.proxies = proxies
        self.history = History(GROUPS, settings.partitions, before=COMMIT_INTERVAL + 3.0)
        self.outcome = Outcome(self.history.violations)
        self.keeper = Keeper()
        self.began = time.monotonic()
        self._node_down = False
        self._proxies_busy: set[int] = set()
        self._observers: dict[str, Any] = {}
        self.members = Members(
            self._plans(),
            settings.folder,
            ",".join(f"127.0.0.1:{proxy.port}" for proxy in proxies.values()),
            self._client(),
            {
                "commit_interval": COMMIT_INTERVAL,
                "commit_timeout": 5.0,
                "drain_timeout": 5.0,
            },
            self.history,
            self.keeper,
            self.options.seed,
        )
        self.producers: Producers

    def _plans(self) -> list[MemberPlan]:
        plans = draw_members(self.options)
        if self.settings.rate:
            return plans
        return [MemberPlan(p.slot, p.group, p.static, p.elder, "flat-out", 0.0) for p in plans]

    def _client(self) -> dict[str, Any]:
        return {
            "session_timeout_ms": round(self.options.session * 1000),
            "heartbeat_interval_ms": round(self.options.session * 1000 / 6),
            "max_poll_interval_ms": 20_000,
            "request_timeout_ms": round(REQUEST_TIMEOUT * 1000),
            "reconnect_backoff_max_ms": 1000,
        }

    # --- the course of it ---------------------------------------------------------------

    async def main(self) -> None:
        settings = self.settings
        await trio.to_thread.run_sync(self.cluster.create_topic, TOPIC, settings.partitions)
        for group in GROUPS:
            # It subscribes to nothing, so it never joins.  librdkafka's admin client has
            # an assertion that fails now and then when a coordinator moves.
            self._observers[group] = Consumer(
                {
                    "bootstrap.servers": self.cluster.bootstrap,
                    "group.id": group,
                    "enable.auto.commit": False,
                    "reconnect.backoff.max.ms": 1000,
                    "error_cb": _ignore,  # a node that is away is no news here
                    "log_level": 0,
                }
            )
        self.producers = Producers(
            settings.producers,
            settings.partitions,
            rate=settings.rate,
            lead=200_000 if settings.rate else 100_000,
            size=settings.size,
            bootstrap=self.cluster.bootstrap,
            folder=settings.folder,
            keeper=self.keeper,
        )
        for place in self.members.places:
            self.members.start(place)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.members.watch)
            for group in GROUPS:
                nursery.start_soon(self._observe_for_ever, group)
            nursery.start_soon(self._feed)
            await self._warm_up()
            with trio.CancelScope() as scope:
                nursery.start_soon(self._stop_at_a_violation, scope)
                await self._course()
            if scope.cancelled_caught:
                self._say("a rule is broken: the run ends here")
            nursery.cancel_scope.cancel()

    async def _course(self) -> None:
        begin = self.began
        if self.settings.faults:
            async with trio.open_nursery() as happening:
                for step in draw(self.options):
                    await trio.sleep(max(0, begin + step.at - time.monotonic()))
                    if step.calm:
                        due = time.monotonic()
                        while not self.history.is_calm(time.monotonic()):
                            await trio.sleep(0.2)
                        begin += time.monotonic() - due
                    happening.start_soon(self._carry_out, step)
        await trio.sleep(max(0, begin + self.options.minutes * 60 - time.monotonic()))
        self._say("no more faults")
        over = time.monotonic()
        ends = await self.producers.finish()
        with trio.move_on_after(self.settings.settle):
            while not self.history.is_done(ends):
                await trio.sleep(0.2)
        self.outcome.settled = time.monotonic() - over
        self.outcome.messages = sum(ends.values())
        await trio.sleep(2)  # a last report of what each still holds
        self._judge_leftovers()
        self._say(f"all is committed {self.outcome.settled:.1f} s after the last fault")
        async with trio.open_nursery() as nursery:
            for place in self.members.places:
                nursery.start_soon(self._retire, place)
        for group in GROUPS:
            await self._observe(group)
        self.history.conclude(ends, within=self.settings.settle)
        self.outcome.missing = self.history.missing(ends)

    async def _warm_up(self) -> None:
        """Wait until both groups are at work: the schedule begins then."""
        with trio.fail_after(120):
            while not all(
                min(self.history.committed(group), default=0) > 0 for group in GROUPS
            ) or not all(
                self.history.lives[place.process.name].tasks
                for place in self.members.places
                if place.process is not None
            ):
                await trio.sleep(0.1)
        self.began = time.monotonic()
        self._say("both groups are at work")

    async def _stop_at_a_violation(self, scope: trio.CancelScope) -> None:
        while not self.history.violations:
            await trio.sleep(0.2)
        await trio.sleep(1)  # for what belongs to it
        scope.cancel()

    def _judge_leftovers(self) -> None:
        for place in self.members.places:
            if place.process is None or place.process.over:
                continue
            life = self.history.lives[place.process.name]
            if life.unfinished:
                self.history.violations.append(
                    Violation(
                        Rule.GROWTH,
                        f"{life.name} holds {life.unfinished} messages as unfinished, though"
                        " everything is finished",
                    )
                )

    async def _retire(self, place: Place) -> None:
        place.wanted = False
        if place.process is not None and not place.process.over:
            self.members.signal(place.process, signal.SIGTERM)
            await self.members.until_over(place.process)

    def conclude(self) -> Outcome:
        """Close what is left, and sum up."""
        outcome, history = self.outcome, self.history
        self.keeper.close()
        for observer in self._observers.values():
            observer.close()
        outcome.seconds = time.monotonic() - self.began
        outcome.samples = {p.name: p.samples for p in self.members.lives}
        history.violations.extend(growth(outcome.samples))
        outcome.replays = history.replays
        outcome.bound = history.replay_bound()
        outcome.observations = history.observations
        outcome.counted.update(self.members.counted)
        for life in history.lives.values():
            outcome.counted["partitions lost"] += life.lost
            outcome.counted["partitions handed over"] += life.handed_over
        for proxy in self.proxies.values():
            outcome.counted.update({f"connections {k}": n for k, n in proxy.counted.items()})
        return outcome

    def _say(self, text: str) -> None:
        line = f"{time.monotonic() - self.began:7.1f} s  {text}"
        self.outcome.log.append(line)
        self.settings.say(line)

    # --- looking on ---------------------------------------------------------------------

    async def _observe_for_ever(self, group: str) -> None:
        while True:
            await self._observe(group)
            await trio.sleep(OBSERVE)

    async def _observe(self, group: str) -> None:
        try:
            offsets = await trio.to_thread.run_sync(self._committed, group)
        except KafkaException:
            self.outcome.counted["observations failed"] += 1
            return
        now = time.monotonic()
        # After the answer: whatever is committed by now was journaled before.
        self.members.read_journals(group)
        self.history.observed(group, offsets, now)

    def _committed(self, group: str) -> dict[int, int]:
        asked = [TopicPartition(TOPIC, number) for number in range(self.settings.partitions)]
        found = self._observers[group].committed(asked, timeout=3)
        for each in found:
            if each.error is not None:
                raise KafkaException(each.error)
        return {tp.partition: tp.offset for tp in found if tp.offset >= 0}

    async def _feed(self) -> None:
        while True:
            self.producers.allow(min(sum(self.history.committed(group)) for group in GROUPS))
            await trio.sleep(0.25)

    # --- what happens -------------------------------------------------------------------

    async def _carry_out(self, step: Step) -> None:
        if step.kind in ON_NODES:
            did = await self._harm_node(step)
        elif step.kind is Kind.NETWORK:
            did = await self._harm_network(step)
        elif step.kind in (Kind.MOVE_LEADERS, Kind.MOVE_COORDINATORS):
            did = await self._move(step)
        else:
            did = await self._harm_member(step)
        if did:
            kind = step.kind.value
            if step.fault is not None:
                kind = f"network: {step.fault.trouble.value}"
            self.outcome.happened[kind] += 1
        else:
            self.outcome.skipped += 1

    def _begin(self, what: str, life: str | None = None) -> Window:
        self._say(what)
        return self.history.happens(what, time.monotonic(), life)

    @staticmethod
    def _over(window: Window) -> None:
        window.end = time.monotonic() + RECOVERY

    async def _harm_node(self, step: Step) -> bool:
        if self._node_down:
            return False
        self._node_down = True
        node, cluster = step.target or 1, self.cluster
        window = self._begin(f"{step.kind.value} {node} for {step.lasts:.1f} s")
        harm, mend = {
            Kind.KILL_NODE: (cluster.kill, cluster.start),
            Kind.STOP_NODE: (cluster.stop, cluster.start),
            Kind.FREEZE_NODE: (cluster.pause, cluster.resume),
        }[step.kind]
        try:
            await trio.to_thread.run_sync(harm, node)
            await trio.sleep(step.lasts)
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(mend, node)
                # At most one down at a time: all copies are in sync again before the next.
                await trio.to_thread.run_sync(cluster.wait_ready)
        self._over(window)
        self._say(f"node {node} is back")
        self._node_down = False
        return True

    async def _harm_network(self, step: Step) -> bool:
        node, fault = step.target or 1, step.fault
        assert fault is not None
        if node in self._proxies_busy:
            return False
        self._proxies_busy.add(node)
        window = self._begin(str(step)[11:].strip())
        proxy = self.proxies[node]
        proxy.begin(fault)
        try:
            await trio.sleep(step.lasts)
        finally:
            proxy.end()
        self._over(window)
        self._proxies_busy.discard(node)
        return True

    async def _move(self, step: Step) -> bool:
        topic = TOPIC if step.kind is Kind.MOVE_LEADERS else OFFSETS_TOPIC
        window = self._begin(step.kind.value)
        moved = 0
        for _ in range(3):
            try:
                moved = await trio.to_thread.run_sync(partial(move_leaders, self.cluster, topic))
                break
            except (KafkaError, OSError, ClusterError):
                await trio.sleep(1)  # it has just lost a node
        self._over(window)
        self._say(f"{step.kind.value}: {moved} partitions")
        return moved > 0

    async def _harm_member(self, step: Step) -> bool:
        place = self.members.places[step.target or 0]
        process = place.process
        if place.busy or process is None or process.over:
            return False
        place.busy = True
        try:
            if step.kind is Kind.KILL_MEMBER:
                window = self._begin(f"{step.kind.value}: {process.name}", process.name)
                self.members.kill(process)
                await self.members.until_over(process)
                window.end = time.monotonic()
            elif step.kind is Kind.FREEZE_MEMBER:
                text = f"{step.kind.value}: {process.name} for {step.lasts:.1f} s"
                window = self._begin(text, process.name)
                process.frozen = True
                self.members.signal(process, signal.SIGSTOP)
                try:
                    await trio.sleep(step.lasts)
                finally:
                    self.members.signal(process, signal.SIGCONT)
                process.frozen = False
                self._over(window)
                return True
            elif step.kind is Kind.TWIN:
                # It has to have joined, or there is nobody to be fenced.
                if not self.history.lives[process.name].epochs:
                    return False
                window = self._begin(f"{step.kind.value}: {process.name}", process.name)
                window.fences = True
                self.members.start(place)
                await self.members.until_over(process)
                self._over(window)
                return True
            else:
                self._say(f"{step.kind.value}: {process.name}")
                number = signal.SIGTERM if step.kind is Kind.LEAVE else signal.SIGUSR1
                # Before it listens the signal would just end it.
                if not self.history.lives[process.name].tasks:
                    return False
                self.members.signal(process, number)
                await self.members.until_over(process)
            await trio.sleep(step.lasts)
            self.members.start(place)
        finally:
            place.busy = False
        return True


async def run(settings: Settings) -> Outcome:
    """Do one run from beginning to end.

    A cluster of its own is started for it, which takes some 20 s.  Cancelling ends all
    processes.

    Raises:
        KafkaUnavailable: Java, Maven or Kafka's jars cannot be had.
        ClusterError: A node did not become ready.
        RuntimeError: The producers failed, so that nothing is shown.
    """
    seed = settings.options.seed
    proxies = {node: Proxy(f"{seed} {node}") for node in range(1, settings.options.nodes + 1)}
    cluster = Cluster(
        settings.options.nodes,
        proxies={node: proxy.port for node, proxy in proxies.items()},
        properties={"group.max.session.timeout.ms": 60_000},
    )
    try:
        await trio.to_thread.run_sync(cluster.__enter__)
        for node, port in cluster.proxied_ports.items():
            proxies[node].target = port
        async with trio.open_nursery() as nursery:
            for proxy in proxies.values():
                nursery.start_soon(proxy.run)
            this = _Run(settings, cluster, proxies)
            try:
                await this.main()
            finally:
                outcome = this.conclude()
            nursery.cancel_scope.cancel()
    finally:
        cluster.close()
        for proxy in proxies.values():
            proxy.close()
    return outcome


def figures(outcome: Outcome, settings: Settings) -> dict[str, Any]:
    """What a run showed, for a file."""
    return {
        "seed": settings.options.seed,
        "seconds": round(outcome.seconds, 1),
        "happened": dict(outcome.happened),
        "skipped": outcome.skipped,
        "messages": outcome.messages,
        "missing": outcome.missing,
        "replays": outcome.replays,
        "bound": outcome.bound,
        "observations": outcome.observations,
        "settled": round(outcome.settled, 1),
        "counted": dict(outcome.counted),
        "violations": [str(each) for each in outcome.violations],
        "log": outcome.log,
    }


def write_figures(outcome: Outcome, settings: Settings) -> Path:
    """Keep what a run showed beside its journals."""
    path = settings.folder / "figures.json"
    path.write_text(json.dumps(figures(outcome, settings), indent=1))
    return path
