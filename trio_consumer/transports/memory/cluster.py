"""What broker and sessions share: topics, groups, clock, and who is to be woken.

:class:`Cluster` is the inside of a :class:`MemoryBroker`.  It has no task: a
group's timers are looked at whenever somebody asks the group something, and
each session drives those of its own group while it lives.  So the time of a
group without sessions stands still until somebody looks, which nobody can tell
from the outside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Protocol, TypeVar

import trio

from ..._errors import UnknownTopicError
from ..._types import TopicPartition
from .faults import FaultInjector, Faults
from .group import Group
from .log import PartitionLog
from .protocol import GroupObserver
from .waiting import Watchers

if TYPE_CHECKING:
    from .transactions import Transaction

__all__ = ["Clock", "Cluster", "Connection", "Signal"]

T = TypeVar("T")


class Signal:
    """Wakes whoever waits; remembers nothing.

    A waiter checks its condition, waits, and checks again; between the check
    and the wait there is no checkpoint, so no wake-up is missed.
    """

    __slots__ = ("_lot", "_token")

    def __init__(self) -> None:
        self._lot = trio.lowlevel.ParkingLot()
        self._token: trio.lowlevel.TrioToken | None = None

    async def wait(self) -> None:
        """Wait for the next :meth:`notify`.  Cancelling it is harmless."""
        self._token = trio.lowlevel.current_trio_token()
        await self._lot.park()

    def notify(self) -> None:
        """Wake everybody who waits now.

        Also from outside of the run: in guest mode the host loop's own
        callbacks may produce records.
        """
        if not self._lot:
            return
        if trio.lowlevel.in_trio_run():
            self._lot.unpark_all()
        elif self._token is not None:
            self._token.run_sync_soon(self._lot.unpark_all)


class Clock:
    """Trio's clock in seconds, going on from where it was if a run ends.

    A broker may outlive a ``trio.run``, and each run may begin at another time.
    Within the first run this is ``trio.current_time()`` itself.
    """

    __slots__ = ("_first", "_now", "_shift")

    def __init__(self) -> None:
        self._now = 0.0
        self._shift = 0.0
        self._first: float | None = None

    def now(self) -> float:
        """The time; outside of a run the last time that was read."""
        if trio.lowlevel.in_trio_run():
            time = trio.current_time()
            if self._first is None:
                self._first = time
            if time + self._shift < self._now:
                self._shift = self._now - time
            self._now = time + self._shift
        return self._now

    def elapsed(self) -> float:
        """Seconds since the clock was first read within a run."""
        now = self.now()
        return 0.0 if self._first is None else now - self._first

    def trio_time(self, time: float) -> float:
        """A time of this clock as a deadline for Trio."""
        return time - self._shift


class Connection(Protocol):
    """What the cluster needs to know of a session."""

    @property
    def member_id(self) -> str:
        """The member id now, "" before the first join."""
        ...

    @property
    def client_id(self) -> str:
        """What the session was opened as."""
        ...

    @property
    def group(self) -> str:
        """The group of the session."""
        ...

    @property
    def frozen(self) -> bool:
        """Whether :meth:`freeze` was called and :meth:`thaw` was not."""
        ...

    @property
    def has_topics(self) -> bool:
        """Whether it subscribes to something."""
        ...

    @property
    def holds(self) -> frozenset[TopicPartition] | None:
        """What it has been told to own; None while it is about to be told something else."""
        ...

    def freeze(self) -> None:
        """Let nothing reach the broker from now on."""
        ...

    def thaw(self) -> None:
        """Undo :meth:`freeze`."""
        ...

    def wake(self) -> None:
        """Let a waiting poll look again."""
        ...


class Cluster:
    """Topics, groups and connections of one broker.

    Attributes:
        reachable: False while the broker is down: no request arrives.
        answering: False while requests arrive and no answer comes back.
        gate: Woken when one of these changes.
        transactions: Those that are open.
        watchers: Who waits for something to become true.
        observer: Told what the coordinators do, or None.
    """

    def __init__(
        self,
        seed: int,
        faults: Faults,
        *,
        initial_rebalance_delay: float,
        observer: GroupObserver | None = None,
    ) -> None:
        self.seed = seed
        self.observer = observer
        self.injector: FaultInjector = FaultInjector(faults)
        self.clock: Clock = Clock()
        self.reachable = True
        self.answering = True
        self.gate: Signal = Signal()
        self.watchers: Watchers = Watchers()
        self.topics: dict[str, list[PartitionLog]] = {}
        self.connections: list[Connection] = []
        # By number, in the order in which they began.
        self.transactions: dict[int, Transaction] = {}
        self._initial_rebalance_delay = initial_rebalance_delay
        self._groups: dict[str, Group] = {}
        self._signals: dict[str, Signal] = {}
        self._seen: dict[str, int] = {}
        self._members = 0
        self._sessions = 0

    def next_session_number(self) -> int:
        """A number for each session, from 1."""
        self._sessions += 1
        return self._sessions

    def log(self, tp: TopicPartition) -> PartitionLog:
        """The log of a partition.

        Raises:
            UnknownTopicError: There is none.
        """
        found = self.find_log(tp)
        if found is None:
            raise UnknownTopicError(
                f"cannot use {tp}: the memory broker has no such partition."
                f" Create it with create_topic() or add_partitions();"
                f" there are {self._describe_topics()}"
            )
        return found

    def find_log(self, tp: TopicPartition) -> PartitionLog | None:
        """The log of a partition, or None."""
        logs = self.topics.get(tp.topic, ())
        return logs[tp.partition] if 0 <= tp.partition < len(logs) else None

    def create(self, topic: str, partitions: int) -> None:
        """Create a topic, or add partitions to it until it has this many."""
        logs = self.topics.setdefault(topic, [])
        logs.extend(PartitionLog(topic, n) for n in range(len(logs), partitions))

    def require_topics(self, topics: Iterable[str]) -> None:
        """Check that all of them exist.

        Raises:
            UnknownTopicError: One does not.
        """
        missing = sorted(topic for topic in topics if topic not in self.topics)
        if missing:
            raise UnknownTopicError(
                f"cannot find the topic {', '.join(map(repr, missing))} on the memory broker."
                f" Create it with create_topic(); there are {self._describe_topics()}"
            )

    def partition_counts(self, topics: Iterable[str]) -> dict[str, int]:
        """Number of partitions of each of these topics that exists."""
        return {topic: len(self.topics[topic]) for topic in topics if topic in self.topics}

    def group(self, name: str) -> Group:
        """The group of this name, created on first use, with its timers up to date."""
        group = self._groups.get(name)
        if group is None:
            group = Group(
                name,
                self._new_member_id,
                initial_delay=self._initial_rebalance_delay,
                observer=self.observer,
            )
            self._groups[name] = group
            self._signals[name] = Signal()
            self._seen[name] = 0
        self.expire_transactions()
        group.tick(self.clock.now())
        self.announce(name)
        return group

    def peek(self, name: str) -> Group | None:
        """The group of this name as it was left, and no time passes; None if there is none."""
        return self._groups.get(name)

    def expire_transactions(self) -> None:
        """End the transactions whose time is over."""
        now = self.clock.now()
        for late in [each for each in self.transactions.values() if each.expires <= now]:
            late.fence()

    def ask(self, name: str, request: Callable[[Group, float], T]) -> T:
        """Put a request to a group's coordinator and wake those whom it concerns."""
        result = request(self.group(name), self.clock.now())
        self.announce(name)
        self.watchers.changed()
        return result

    def groups(self) -> Mapping[str, Group]:
        """All groups by name."""
        return {name: self.group(name) for name in list(self._groups)}

    def signal(self, name: str) -> Signal:
        """Woken when an answer of this group may have come."""
        self.group(name)
        return self._signals[name]

    def announce(self, name: str) -> None:
        """Wake those who wait for this group, if it has changed."""
        version = self._groups[name].version
        if version != self._seen[name]:
            self._seen[name] = version
            self._signals[name].notify()
            self.watchers.changed()

    def wake(self) -> None:
        """Let every session look for records again."""
        for connection in self.connections:
            connection.wake()
        self.watchers.changed()

    def _new_member_id(self, client_id: str) -> str:
        # Padded, so that the order by name is the order of joining.
        self._members += 1
        return f"{client_id}-{self._members:04}"

    def _describe_topics(self) -> str:
        return f"the topics {', '.join(sorted(self.topics))}" if self.topics else "no topics"
