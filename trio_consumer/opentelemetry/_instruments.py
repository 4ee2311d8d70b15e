"""The instruments of one meter provider, and what they observe.

An exporter asks for observations in a *thread of its own*, and the state of a
consumer belongs to the thread of its event loop.  So the exporter's thread asks:
it has the event loop take a snapshot (:meth:`Consumer.statistics`), which happens
between two steps of its tasks, and waits for it, :data:`PATIENCE` seconds at most.
An event loop that is blocked for longer reports nothing, rather than numbers of
before; so does one that waits itself for the exporter (``shutdown()`` called in
it), which costs that second and nothing else.  Nothing runs and nothing is counted
while nobody asks.

The totals of counters are plain integers that only grow.  They are read as they
are, from any thread, and stay when a consumer has gone: what it counted is added up
for good then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NoAnswerError
from dataclasses import dataclass
from threading import Lock, get_ident
from time import monotonic
from typing import NamedTuple

import trio
from opentelemetry.metrics import CallbackOptions, Meter, Observation

from .._runtime.inspection import ConsumerInspection
from .._runtime.statistics import ConsumerStatistics, PartitionStatistics
from .._types import TopicPartition

__all__ = ["PATIENCE", "Instruments", "Watched"]

PATIENCE = 1.0
"""Seconds that an exporter's thread waits for an event loop.  Arbitrary."""

FRESH = 0.1
"""Seconds for which a snapshot serves: the instruments of one collection are asked
one after another.  Arbitrary."""

DURATIONS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
"""Bounds of the histograms in seconds, as the conventions give them."""

Attributes = Mapping[str, "str | int | bool"]


class Totals(NamedTuple):
    """What a consumer has counted since it was opened."""

    commits: int = 0
    failures: int = 0
    rebalances: int = 0


class Watched:
    """A consumer that is observed.

    Args:
        consumer: The consumer; made in the thread of its event loop.
        attributes: Go with each observation.
    """

    def __init__(self, consumer: ConsumerInspection, attributes: Attributes) -> None:
        self._consumer = consumer
        self._attributes = attributes
        self._thread = get_ident()
        self._lock = Lock()
        self._asked_at = 0.0
        self._answer: Future[ConsumerStatistics] | None = None
        self.left = False

    def attributes(self, tp: TopicPartition | None = None) -> Attributes:
        """Those of the consumer, or of one of its partitions."""
        if tp is None:
            return self._attributes
        return {
            **self._attributes,
            "messaging.destination.name": tp.topic,
            "messaging.destination.partition.id": str(tp.partition),
        }

    @property
    def has_ended(self) -> bool:
        """Whether it counts nothing any more."""
        return self._consumer._stopping and not len(self._consumer._partitions)

    def totals(self) -> Totals:
        """What it has counted; from any thread."""
        committer = self._consumer._committer
        return Totals(committer.commits, committer.failures, self._consumer._rebalancer.rebalances)

    def statistics(self) -> ConsumerStatistics | None:
        """A snapshot, from any thread; None if the event loop does not answer in time."""
        if self.left:
            return None
        if get_ident() == self._thread:
            try:
                return self._consumer.statistics()
            except RuntimeError:
                return None  # outside of the run: it has ended
        with self._lock:
            now = monotonic()
            answer = self._answer
            if answer is None or (answer.done() and now - self._asked_at > FRESH):
                answer = Future()
                try:
                    self._consumer._token.run_sync_soon(self._take, answer)
                except trio.RunFinishedError:
                    return None
                self._answer, self._asked_at = answer, now
            patience = max(0.0, self._asked_at + PATIENCE - now)
        try:
            return answer.result(patience)
        except NoAnswerError:
            return None

    def _take(self, answer: Future[ConsumerStatistics]) -> None:
        try:
            answer.set_result(self._consumer.statistics())
        except BaseException as exc:  # in a callback of Trio's own it would be the end of all
            answer.set_exception(exc)


@dataclass(frozen=True, slots=True)
class OfPartition:
    """A gauge with a value for each partition."""

    name: str
    unit: str
    description: str
    read: Callable[[PartitionStatistics], int | float | None]


@dataclass(frozen=True, slots=True)
class OfConsumer:
    """A gauge with a value for each consumer."""

    name: str
    unit: str
    description: str
    read: Callable[[ConsumerStatistics], int | float | None]


@dataclass(frozen=True, slots=True)
class OfTotals:
    """A counter of each consumer."""

    name: str
    unit: str
    description: str
    index: int


PARTITION_GAUGES = (
    OfPartition(
        "trio_consumer.partition.position",
        "{offset}",
        "Offset after the last message given to the streams",
        lambda p: p.position,
    ),
    OfPartition(
        "trio_consumer.partition.lag",
        "{offset}",
        "Offsets from the position to the end of the partition",
        lambda p: p.lag,
    ),
    OfPartition(
        "trio_consumer.partition.commit_lag",
        "{offset}",
        "Offsets from what is committed to the end of the partition",
        lambda p: p.commit_lag,
    ),
    OfPartition(
        "trio_consumer.partition.unfinished",
        "{message}",
        "Messages delivered and not finished",
        lambda p: p.unfinished,
    ),
    OfPartition(
        "trio_consumer.partition.oldest_unfinished.age",
        "s",
        "Time since the oldest unfinished message was delivered; 0 if all are finished",
        lambda p: 0.0 if p.oldest is None else p.oldest.seconds,
    ),
    OfPartition(
        "trio_consumer.partition.replay",
        "{message}",
        "Messages that would be delivered again if the process died now",
        lambda p: p.replay,
    ),
    OfPartition(
        "trio_consumer.partition.paused",
        "1",
        "1 if something keeps the partition from being fetched, else 0",
        lambda p: int(bool(p.pause_reasons)),
    ),
)
CONSUMER_GAUGES = (
    OfConsumer(
        "trio_consumer.partitions",
        "{partition}",
        "Partitions that the consumer has",
        lambda c: len(c.partitions),
    ),
    OfConsumer(
        "trio_consumer.commit.age",
        "s",
        "Time since the broker confirmed a commit",
        lambda c: c.seconds_since_commit,
    ),
)
COUNTERS = (
    OfTotals("trio_consumer.commits", "{commit}", "Commits that the broker confirmed", 0),
    OfTotals("trio_consumer.commit.failures", "{commit}", "Commits that failed", 1),
    OfTotals("trio_consumer.rebalances", "{rebalance}", "Assignments of partitions", 2),
)


class Instruments:
    """Everything that one meter measures.

    Args:
        meter: Where it is measured.
    """

    def __init__(self, meter: Meter) -> None:
        self._lock = Lock()
        self._watched: list[Watched] = []
        # What consumers counted that have ended, by their attributes.
        self._ended: dict[tuple[tuple[str, str | int | bool], ...], Totals] = {}
        self.process_duration = meter.create_histogram(
            "messaging.process.duration",
            "s",
            "Duration of processing operation.",
            explicit_bucket_boundaries_advisory=DURATIONS,
        )
        self.operation_duration = meter.create_histogram(
            "messaging.client.operation.duration",
            "s",
            "Duration of messaging operation initiated by a producer or consumer client.",
            explicit_bucket_boundaries_advisory=DURATIONS,
        )
        self.consumed = meter.create_counter(
            "messaging.client.consumed.messages",
            "{message}",
            "Number of messages that were delivered to the application.",
        )
        for gauge in PARTITION_GAUGES:
            meter.create_observable_gauge(
                gauge.name, [self._partitions(gauge)], gauge.unit, gauge.description
            )
        for each in CONSUMER_GAUGES:
            meter.create_observable_gauge(
                each.name, [self._consumers(each)], each.unit, each.description
            )
        for counter in COUNTERS:
            meter.create_observable_counter(
                counter.name, [self._totals(counter)], counter.unit, counter.description
            )

    def watch(self, watched: Watched) -> None:
        """Observe a consumer until it has :attr:`~Watched.left` and has ended."""
        with self._lock:
            self._forget_ended()
            self._watched.append(watched)

    def _all(self) -> list[Watched]:
        with self._lock:
            return list(self._watched)

    def _forget_ended(self) -> None:
        for watched in [each for each in self._watched if each.left and each.has_ended]:
            self._watched.remove(watched)
            self._add(self._ended, watched)

    @staticmethod
    def _add(
        sums: dict[tuple[tuple[str, str | int | bool], ...], Totals], watched: Watched
    ) -> None:
        key = tuple(watched.attributes().items())
        sums[key] = Totals(*map(sum, zip(sums.get(key, Totals()), watched.totals(), strict=True)))

    def _partitions(self, gauge: OfPartition) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(_: CallbackOptions) -> Iterable[Observation]:
            for watched in self._all():
                statistics = watched.statistics()
                for tp, partition in () if statistics is None else statistics.partitions.items():
                    value = gauge.read(partition)
                    if value is not None:
                        yield Observation(value, watched.attributes(tp))

        return observe

    def _consumers(self, gauge: OfConsumer) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(_: CallbackOptions) -> Iterable[Observation]:
            for watched in self._all():
                statistics = watched.statistics()
                value = None if statistics is None else gauge.read(statistics)
                if value is not None:
                    yield Observation(value, watched.attributes())

        return observe

    def _totals(self, counter: OfTotals) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(_: CallbackOptions) -> Iterable[Observation]:
            with self._lock:
                self._forget_ended()
                sums = dict(self._ended)
                for watched in self._watched:
                    self._add(sums, watched)
            for key, totals in sums.items():
                yield Observation(totals[counter.index], dict(key))

        return observe
