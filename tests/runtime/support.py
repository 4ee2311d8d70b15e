"""What the tests of the runtime share: a clock, a broker, an observer with a journal."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from random import Random
from typing import Any

import trio
from trio._core import _run as trio_run
from trio.testing import MockClock

from trio_consumer import TP, Consumer, Message, Stream, open_consumer
from trio_consumer.testing import MemoryBroker
from trio_consumer.transports import PolledBatch, RebalanceListener, Session, SessionSettings

T0, T1, T2 = (TP("t", n) for n in range(3))
COOPERATIVE = {"partition_assignment_strategy": "cooperative-sticky"}
GROUP = "g"


def run(
    main: Callable[[], Awaitable[object]],
    *,
    seed: int | None = None,
    instruments: tuple[trio.abc.Instrument, ...] = (),
) -> None:
    """Run under a virtual clock; with a seed Trio's own order of tasks is fixed too."""
    if seed is None:
        trio.run(main, clock=MockClock(autojump_threshold=0), instruments=instruments)
        return
    before = trio_run._ALLOW_DETERMINISTIC_SCHEDULING
    trio_run._ALLOW_DETERMINISTIC_SCHEDULING = True
    state = trio_run._r.getstate()
    trio_run._r.seed(seed)
    try:
        trio.run(main, clock=MockClock(autojump_threshold=0), instruments=instruments)
    finally:
        trio_run._ALLOW_DETERMINISTIC_SCHEDULING = before
        trio_run._r.setstate(state)


def broker(records: int = 0, partitions: int = 1, topic: str = "t", **given: Any) -> MemoryBroker:
    """A broker with one topic and this many records in each partition."""
    result = MemoryBroker(**given)
    add_topic(result, topic, records, partitions)
    return result


def add_topic(broker: MemoryBroker, topic: str, records: int, partitions: int = 1) -> None:
    """One topic more, with this many records in each partition."""
    broker.create_topic(topic, partitions)
    for n in range(partitions):
        broker.produce_many(topic, values(records), partition=n)


def values(count: int) -> list[bytes]:
    """As many values, no two alike."""
    return [b"%d" % i for i in range(count)]


def consuming(broker: MemoryBroker, **options: Any) -> AbstractAsyncContextManager[Consumer]:
    """A consumer of the group of the tests."""
    return open_consumer(broker, group=GROUP, **options)


Poll = Callable[[], Awaitable[Sequence[PolledBatch]]]


class PollingOtherwise:
    """A memory broker whose sessions poll what a subclass makes of it."""

    closed_errors: tuple[type[BaseException], ...] = MemoryBroker.closed_errors

    def __init__(self, it: MemoryBroker) -> None:
        self.it = it

    @asynccontextmanager
    async def connect(
        self, settings: SessionSettings, listener: RebalanceListener
    ) -> AsyncGenerator[Session, None]:
        """Open a session of the broker, and put another poll in place of its own."""
        async with self.it.connect(settings, listener) as session:
            session.poll = self.polling(session.poll)  # type: ignore[method-assign]
            yield session

    def polling(self, poll: Poll) -> Poll:
        """Another poll, made of that of a session."""
        raise AssertionError("a subclass says which")


def committed(broker: MemoryBroker, tp: TP = T0) -> int | None:
    """What the broker has for the group of the tests."""
    stored = broker.committed(GROUP, tp)
    return None if stored is None else stored.offset


async def take(
    stream: Stream, count: int = 1_000_000, *, wait: float = 1.0, ack: bool = True
) -> list[Message]:
    """Take up to so many messages, until none comes for some seconds."""
    taken: list[Message] = []
    messages = aiter(stream)
    while len(taken) < count:
        with trio.move_on_after(wait) as scope:
            message = await anext(messages)
        if scope.cancelled_caught:
            break
        taken.append(message)
        if ack:
            message.ack()
    return taken


def offsets(messages: list[Message], tp: TP = T0) -> list[int]:
    """The offsets of the messages of one partition, as they came."""
    return [message.offset for message in messages if message.tp == tp]


class Journal:
    """What was really processed by each stream, kept apart from the library.

    Each entry remembers how many commits the broker had stored when it was
    made, so that afterwards each stored commit can be held against what had
    been processed by then.

    Args:
        broker: Where the records are.
        streams: How many streams have to process each record of a topic;
            one, if the topic is not named.
    """

    def __init__(self, broker: MemoryBroker, streams: Mapping[str, int] | None = None) -> None:
        self.broker = broker
        self._streams = streams or {}
        self._first: dict[tuple[TP, int], dict[int, int]] = {}

    def add(self, message: Message, stream: int = 0) -> None:
        """A stream has processed a message; call it before the message is finished."""
        commits = len(self.broker.commit_history(GROUP))
        self._first.setdefault((message.tp, message.offset), {}).setdefault(stream, commits)

    def processed_at(self, tp: TP, offset: int) -> int | None:
        """Commits that were stored when the last of the streams was done, or None."""
        done = self._first.get((tp, offset), {})
        if len(done) < self._streams.get(tp.topic, 1):
            return None
        return max(done.values())

    def missing(self) -> list[tuple[TP, int]]:
        """Records that some stream has not processed."""
        return [
            (tp, record.offset)
            for tp in self._partitions()
            for record in self.broker.records(tp)
            if self.processed_at(tp, record.offset) is None
        ]

    def check_commits(self, *, monotonic: bool = True) -> None:
        """No commit passes a record unprocessed by then (I1), none falls (I2)."""
        highest: dict[TP, int] = {}
        for number, commit in enumerate(self.broker.commit_history(GROUP)):
            for tp, stored in commit.offsets.items():
                for record in self.broker.records(tp):
                    if record.offset < stored.offset:
                        since = self.processed_at(tp, record.offset)
                        assert since is not None, f"commit {number} of {tp} passes {record.offset}"
                        assert since <= number, (
                            f"commit {number} of {tp} at {stored.offset} passes {record.offset},"
                            f" processed at commit {since}"
                        )
                if monotonic:
                    assert stored.offset >= highest.get(tp, 0), f"commit {number} of {tp} falls"
                    highest[tp] = stored.offset

    def check_complete(self) -> None:
        """Everything was processed (no loss) and committed (I3, I12)."""
        assert self.missing() == []
        assert self.uncommitted() == []

    def is_complete(self) -> bool:
        """Whether everything was processed and committed."""
        return not self.missing() and not self.uncommitted()

    def uncommitted(self) -> list[TP]:
        """Partitions that are not committed up to their end."""
        return [
            tp
            for tp in self._partitions()
            if (committed(self.broker, tp) or 0) < self.broker.end_offset(tp)
        ]

    def _partitions(self) -> list[TP]:
        return [TP(topic, n) for topic, count in self.broker.topics.items() for n in range(count)]


class CancelAtStep(trio.abc.Instrument):
    """Cancels a scope when the tasks of the run have made so many steps."""

    def __init__(self, step: int) -> None:
        self.left = step
        self.scope: trio.CancelScope | None = None

    @property
    def fired(self) -> bool:
        """Whether it came to the cancellation."""
        return self.left <= 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Count one step, within the scope only."""
        if self.scope is None or self.left <= 0:
            return
        self.left -= 1
        if self.left == 0:
            self.scope.cancel()


def tasks_living() -> int:
    """Tasks of the run that have not ended."""
    return trio.lowlevel.current_statistics().tasks_living


def chance(random: Random, share: float) -> bool:
    """True as often as the share says."""
    return random.random() < share
