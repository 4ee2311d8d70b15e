"""The memory broker: Kafka's behaviour inside the process, under the caller's hand.

:class:`MemoryBroker` is both an address to connect to (a ``Transport``) and the
hand that produces, looks and breaks things.  Everything on it is a plain
function that works at once, in an outage too: an outage concerns the sessions,
not who arranges it.

It has no thread and no task, reads only Trio's clock, and draws random numbers
from generators with a seed, so a run under a virtual clock can be repeated.
(Trio itself shuffles the tasks that are ready at one moment; a repetition to
the last step needs Trio's own scheduler to be seeded, as Hypothesis does.)

The module is long because all that a test may ask of a broker is one class, mostly
docstrings; what is done stands in the modules beside it.
"""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Collection, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import ClassVar

import trio

from ..._errors import ConfigurationError, UnknownTopicError
from ..._types import OffsetAndMetadata, TopicPartition
from ..base import (
    ProducerSettings,
    RebalanceListener,
    SessionSettings,
    TransactionalProducer,
)
from .cluster import Cluster, Connection
from .faults import CommitFault, Faults
from .log import Headers, MemoryRecord
from .producer import open_producer
from .protocol import AcceptedCommit, GroupObserver, GroupState
from .session import MemorySession, open_session
from .transactions import Transaction
from .waiting import describe, lag_of, settled_members, wait_until

__all__ = ["MemoryBroker"]

_named: dict[str, MemoryBroker] = {}


class MemoryBroker:
    """A Kafka broker in memory; satisfies ``Transport``.

    Args:
        seed: Where latencies and chance faults are drawn from.
        latency: Seconds that each request takes, or a range to draw from;
            takes the place of the latency of ``faults``.
        faults: What goes wrong by chance; nothing by default.
        epoch: Timestamp, in seconds, of the moment at which the clock is first
            read within a run.  The default is fixed, so that runs are equal;
            give ``time.time()`` for timestamps of today.
        initial_rebalance_delay: Seconds that an empty group waits for more
            members before its first generation.
        observer: Told of rebalances, assignments and stored commits when they
            happen, or None.
        name: Reachable in this process as ``memory://name`` from now on, until
            :meth:`forget`; or None.

    Raises:
        ConfigurationError: Another broker has the name.
    """

    closed_errors: ClassVar[tuple[type[BaseException], ...]] = (trio.ClosedResourceError,)

    def __init__(
        self,
        *,
        seed: int = 0,
        latency: float | tuple[float, float] = 0.0,
        faults: Faults | None = None,
        epoch: float = 1_700_000_000.0,
        initial_rebalance_delay: float = 0.0,
        observer: GroupObserver | None = None,
        name: str | None = None,
    ) -> None:
        if name is not None and (name in _named or not name):
            raise ConfigurationError(
                f"cannot call a memory broker {name!r}: "
                + ("another one has that name; forget() it first" if name else "give it a name")
            )
        if faults is None:
            faults = Faults(latency=latency)
        elif latency != 0.0:
            faults = replace(faults, latency=latency)
        self._cluster = Cluster(
            seed,
            faults,
            initial_rebalance_delay=initial_rebalance_delay,
            observer=observer,
        )
        self._epoch = epoch
        self._round_robin: dict[str, int] = {}
        self._transaction_numbers = itertools.count(1)
        self._epochs: dict[str, int] = {}
        self._transactions: dict[str, Transaction] = {}
        self._name = name
        if name is not None:
            _named[name] = self

    def __repr__(self) -> str:
        cluster = self._cluster
        return (
            f"<MemoryBroker {'up' if cluster.reachable else 'down'},"
            f" {len(cluster.topics)} topics, {len(cluster.connections)} sessions>"
        )

    # The broker as a transport

    @classmethod
    def named(cls, name: str) -> MemoryBroker:
        """The broker of this name in this process, created on first use."""
        if name not in _named:
            cls(name=name)
        return _named[name]

    @staticmethod
    def forget(name: str) -> None:
        """Let the next :meth:`named` create a new one; nothing if there is none."""
        _named.pop(name, None)

    @property
    def url(self) -> str:
        """The address ``memory://name``, for a program that takes one.

        Raises:
            ConfigurationError: It has no name.
        """
        if self._name is None:
            raise ConfigurationError(
                "this memory broker has no name: make it with MemoryBroker(name=...),"
                " or pass the broker itself to open_consumer()"
            )
        return f"memory://{self._name}"

    def connect(
        self, settings: SessionSettings, listener: RebalanceListener
    ) -> AbstractAsyncContextManager[MemorySession]:
        """Open a session for the length of a block; leaving it leaves the group.

        Cancelling the block leaves the group too, within ``commit_timeout``.

        Raises:
            ConfigurationError: A setting or client option is refused.
            BrokerUnavailableError: The broker is down.
        """
        return open_session(self._cluster, settings, listener)

    # Topics and records

    @property
    def topics(self) -> dict[str, int]:
        """Number of partitions of each topic."""
        return {topic: len(logs) for topic, logs in self._cluster.topics.items()}

    def create_topic(self, name: str, partitions: int = 1) -> None:
        """Create a topic.

        Raises:
            ConfigurationError: It exists, or there would be no partition.
        """
        if name in self._cluster.topics:
            raise ConfigurationError(f"cannot create the topic {name!r}: it exists already")
        if partitions < 1:
            raise ConfigurationError(f"a topic has at least 1 partition, not {partitions}")
        self._cluster.create(name, partitions)

    def add_partitions(self, name: str, total: int) -> None:
        """Let a topic have ``total`` partitions; groups notice with a heartbeat.

        Raises:
            ConfigurationError: It has more already.
            UnknownTopicError: There is no such topic.
        """
        self._cluster.require_topics([name])
        now = len(self._cluster.topics[name])
        if total < now:
            raise ConfigurationError(
                f"cannot reduce the topic {name!r} from {now} to {total} partitions; delete it"
            )
        self._cluster.create(name, total)

    def delete_topic(self, name: str) -> None:
        """Delete a topic with its records and what groups committed of it.

        Groups notice with a heartbeat.
        """
        self._cluster.require_topics([name])
        del self._cluster.topics[name]
        for group in self._cluster.groups().values():
            group.forget_topic(name)
        self._cluster.watchers.changed()

    def produce(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        partition: int | None = None,
        headers: Headers = (),
        timestamp: int | None = None,
    ) -> int:
        """Append a record and return its offset.

        Args:
            topic: An existing topic.
            value: Bytes; None is a tombstone.
            key: Without a partition, equal keys go to the same one (CRC-32).
            partition: Without one and without a key, partitions take turns.
            headers: Pairs of name and value.
            timestamp: Milliseconds since the epoch; by default the broker's clock.

        Raises:
            UnknownTopicError: There is no such partition.
        """
        if value is not None and not isinstance(value, bytes):
            raise TypeError(f"a record's value is bytes or None, not {value!r}; encode it")
        offset = self._cluster.log(self._choose(topic, key, partition)).append(
            value,
            key=key,
            headers=headers,
            timestamp=self._timestamp() if timestamp is None else timestamp,
        )
        self._cluster.wake()
        return offset

    def produce_many(
        self,
        topic: str,
        values: Iterable[bytes | None],
        *,
        partition: int | None = None,
        keys: Iterable[bytes | None] | None = None,
        timestamp: int | None = None,
    ) -> dict[TopicPartition, range]:
        """Append many records at once, without headers.

        Args:
            topic: An existing topic.
            values: The values.
            partition: As for :meth:`produce`.
            keys: The keys, as many as values.
            timestamp: Milliseconds since the epoch, one for all of them.

        Returns:
            The offsets that were given, by partition.
        """
        pairs: list[tuple[bytes | None, bytes | None]]
        if keys is None:
            pairs = [(None, value) for value in values]
        else:
            pairs = list(zip(keys, values, strict=True))
        stamp = self._timestamp() if timestamp is None else timestamp
        sorted_out: dict[TopicPartition, list[tuple[bytes | None, bytes | None]]] = {}
        if partition is not None:
            sorted_out[self._choose(topic, None, partition)] = pairs
        elif keys is None:
            # Turns by slices, not by records: benchmarks fill logs with this.
            turns = min(len(pairs), len(self._cluster.topics.get(topic, ())) or 1)
            for first in range(turns):
                sorted_out[self._choose(topic, None, None)] = pairs[first::turns]
            self._round_robin[topic] = self._round_robin.get(topic, 0) + len(pairs) - turns
        else:
            for key, value in pairs:
                sorted_out.setdefault(self._choose(topic, key, None), []).append((key, value))
        result = {
            tp: self._cluster.log(tp).extend(items, timestamp=stamp)
            for tp, items in sorted_out.items()
        }
        self._cluster.wake()
        return result

    def transaction(
        self, producer_id: str = "producer", *, timeout: float = math.inf
    ) -> Transaction:
        """Begin a transaction; ``with`` commits it, or aborts it on an exception.

        One that is open under the same id is aborted, and its owner fenced; so
        is this one after ``timeout`` seconds.
        """
        if (old := self._transactions.get(producer_id)) is not None:
            old.fence()
        new = Transaction(
            self._cluster,
            next(self._transaction_numbers),
            producer_id,
            self._choose,
            self._timestamp,
            timeout,
        )
        self._transactions[producer_id] = new
        return new

    begin_transaction = transaction

    def producer(
        self, settings: ProducerSettings
    ) -> AbstractAsyncContextManager[TransactionalProducer]:
        """Open a producer, see :class:`~trio_consumer.transports.TransactionalTransport`."""
        return open_producer(self, self._cluster, settings)

    def begin_epoch(self, producer_id: str) -> int:
        """A producer of this name begins: fence its predecessor, abort what that left open."""
        if (old := self._transactions.get(producer_id)) is not None:
            old.fence()
        epoch = self._epochs.get(producer_id, -1) + 1
        self._epochs[producer_id] = epoch
        return epoch

    def epoch(self, producer_id: str) -> int:
        """The epoch of the newest producer of this name."""
        return self._epochs[producer_id]

    def append_marker(self, tp: TopicPartition) -> int:
        """Take one offset without a record, as a control record does; return it."""
        offset = self._cluster.log(tp).append_marker()
        self._cluster.wake()
        return offset

    def delete_offsets(self, tp: TopicPartition, offsets: Collection[int]) -> None:
        """Turn these records into holes."""
        self._cluster.log(tp).delete_offsets(offsets)

    def compact(self, tp: TopicPartition, *, keep: Collection[int] | None = None) -> None:
        """Compact a partition: keep these offsets, or the last one of each key."""
        log = self._cluster.log(tp)
        if keep is None:
            log.compact()
        else:
            kept = frozenset(keep)
            log.delete_offsets([r.offset for r in log.records() if r.offset not in kept])

    def delete_records(self, tp: TopicPartition, before: int) -> None:
        """Delete the head of a log; the first offset becomes ``before``."""
        self._cluster.log(tp).delete_before(before)
        self._cluster.wake()

    def truncate(self, tp: TopicPartition, offset: int) -> None:
        """Drop the tail of a log from this offset on; its offsets are used again."""
        self._cluster.log(tp).truncate(offset)
        self._cluster.wake()

    def corrupt(self, tp: TopicPartition, offset: int) -> None:
        """Damage a record: polls raise ``CorruptRecordError`` when they get there."""
        self._cluster.log(tp).corrupt(offset)

    def repair(self, tp: TopicPartition, offset: int) -> None:
        """Undo :meth:`corrupt`."""
        self._cluster.log(tp).repair(offset)
        self._cluster.wake()

    def records(self, tp: TopicPartition, *, committed_only: bool = False) -> list[MemoryRecord]:
        """Everything in a partition that a reader would be given."""
        return self._cluster.log(tp).records(committed_only=committed_only)

    def beginning_offset(self, tp: TopicPartition) -> int:
        """The first offset available."""
        return self._cluster.log(tp).start

    def end_offset(self, tp: TopicPartition) -> int:
        """The next offset to be written."""
        return self._cluster.log(tp).end

    # Groups

    def committed(self, group: str, tp: TopicPartition) -> OffsetAndMetadata | None:
        """What a group has committed, or None."""
        return self._cluster.group(group).offsets.get(tp)

    def lag(self, group: str, what: str | TopicPartition) -> int:
        """How many offsets a group has not committed yet.

        That is the end of the log less the committed offset, or less the first offset
        available where nothing is committed.  As in Kafka, holes and the markers of
        transactions count.

        Args:
            group: The group.
            what: A partition, or a topic: the sum of its partitions.

        Raises:
            UnknownTopicError: There is no such topic or partition.
        """
        return lag_of(self._cluster, self._cluster.group(group), what)

    def set_committed(
        self, group: str, tp: TopicPartition, offset: int | OffsetAndMetadata
    ) -> None:
        """Commit for a group as an administrator; it is not asked who it is."""
        stored = OffsetAndMetadata(offset) if isinstance(offset, int) else offset
        self._cluster.ask(group, lambda state, now: state.store("", -1, {tp: stored}, now))

    def commit_history(self, group: str) -> list[AcceptedCommit]:
        """Every commit that was stored, in order."""
        return list(self._cluster.group(group).history)

    def forget_commit_history(self, group: str) -> None:
        """Let :meth:`commit_history` begin anew, for runs that would fill the memory with it."""
        self._cluster.group(group).history.clear()

    def members(self, group: str) -> dict[str, frozenset[TopicPartition]]:
        """The partitions of each member by its id, as last assigned."""
        state = self._cluster.group(group)
        return {member_id: member.assignment for member_id, member in state.members.items()}

    def generation(self, group: str) -> int:
        """Number of the current generation, 0 before the first."""
        return self._cluster.group(group).generation

    def group_state(self, group: str) -> GroupState:
        """Where the group is between two generations."""
        return self._cluster.group(group).state

    def rebalance(self, group: str) -> None:
        """Begin a rebalance; members learn of it with a heartbeat."""
        self._cluster.ask(group, lambda state, now: state.force_rebalance(now))

    def revoke(self, group: str, *tps: TopicPartition) -> None:
        """Take partitions from whoever has them, by a rebalance, and give them to nobody.

        Members learn of it with a heartbeat, commit what is finished, and are told
        ``revoked``.  An eager group (the default) gives all of its partitions back for
        that, as on Kafka, and gets the others again; a cooperative one keeps the others.
        Wait for the end with :meth:`wait_settled`.

        Args:
            group: The group.
            tps: The partitions; without any, all that its members have.

        Raises:
            UnknownTopicError: There is no such partition.
        """
        for tp in tps:
            self._cluster.log(tp)
        state = self._cluster.group(group)
        taken = frozenset(tps) or frozenset[TopicPartition]().union(*self.members(group).values())
        self._cluster.ask(group, lambda _, now: state.withhold(state.withheld | taken, now))

    def give_back(self, group: str, *tps: TopicPartition) -> None:
        """Undo :meth:`revoke`, by another rebalance.

        Args:
            group: The group.
            tps: The partitions; without any, all that were revoked.
        """
        state = self._cluster.group(group)
        kept = state.withheld.difference(tps) if tps else frozenset[TopicPartition]()
        if kept != state.withheld:
            self._cluster.ask(group, lambda _, now: state.withhold(kept, now))

    def lose(self, group: str, *tps: TopicPartition) -> None:
        """Let the members that have these partitions lose all that they have.

        Their sessions expire: no commit of theirs is taken any more.  They learn of it
        at their next contact, are told ``lost``, and join again as new members, which
        :meth:`wait_settled` waits for.

        Args:
            group: The group.
            tps: The partitions; without any, every member loses what it has.

        Raises:
            ConfigurationError: No member has one of them.
        """
        losers = {key for key, has in self.members(group).items() if not tps or has & {*tps}}
        owned = frozenset[TopicPartition]().union(*self.members(group).values())
        if not losers or not owned.issuperset(tps):
            raise ConfigurationError(
                f"cannot lose {', '.join(map(str, tps)) or 'anything'}:"
                f" no member has it now; {describe(self._cluster, group)}."
                f" Wait for the members with wait_members()"
            )
        for member_id in sorted(losers):
            self.expire(member_id)

    def expire(self, member: str) -> None:
        """Let a member's session expire now; it learns of it at its next contact.

        Args:
            member: Its member id, or the ``client_id`` of its session; of several
                sessions of that name, the first.

        Raises:
            ConfigurationError: No group has such a member.
        """
        named = [c.member_id for c in self._cluster.connections if c.client_id == member]
        known = {key for group in self._cluster.groups().values() for key in group.members}
        member_id = named[0] if named and member not in known else member
        for name, group in self._cluster.groups().items():
            if member_id in group.members:
                self._cluster.ask(name, lambda state, now: state.leave(member_id, now))
                return
        raise ConfigurationError(f"cannot remove the member {member!r}: no group has it")

    kick = expire

    # Waiting

    async def wait_committed(
        self, group: str, tp: TopicPartition, offset: int, *, timeout: float = 60.0
    ) -> OffsetAndMetadata:
        """Wait until a group has committed at least this offset of a partition.

        This and the other waits may be called from a task of Trio or of asyncio, of any
        thread.  They wait for the change itself: nobody polls, and under a virtual clock
        no time passes but that of the others.  Cancelling one changes nothing.

        Args:
            group: The group.
            tp: The partition.
            offset: The offset, the next one to be read.
            timeout: Seconds, on the clock of the running event loop.

        Returns:
            What is committed then.

        Raises:
            TimeoutError: It has not come to that in time; the text says to what it has.
            UnknownTopicError: There is no such partition.
        """

        def look() -> OffsetAndMetadata | None:
            self._cluster.log(tp)
            state = self._cluster.peek(group)
            stored = None if state is None else state.offsets.get(tp)
            return stored if stored is not None and stored.offset >= offset else None

        what = f"{tp} is not committed at {offset}"
        return await wait_until(self._cluster, group, look, lambda: what, timeout)

    async def wait_lag(
        self, group: str, what: str | TopicPartition, lag: int = 0, *, timeout: float = 60.0
    ) -> None:
        """Wait until a group lags by at most so many offsets; by default until it has everything.

        Cancelling it changes nothing; see :meth:`wait_committed`.

        Args:
            group: The group.
            what: A partition, or a topic: the sum of its partitions.
            lag: See :meth:`lag`.
            timeout: Seconds, on the clock of the running event loop.

        Raises:
            TimeoutError: It has not come to that in time; the text says to what it has.
            UnknownTopicError: There is no such topic or partition.
        """

        def now() -> int:
            return lag_of(self._cluster, self._cluster.peek(group), what)

        def failed() -> str:
            return f"the lag of {what} is {now()} and not down to {lag}"

        await wait_until(
            self._cluster, group, lambda: True if now() <= lag else None, failed, timeout
        )

    async def wait_settled(
        self, group: str, *, timeout: float = 60.0
    ) -> dict[str, frozenset[TopicPartition]]:
        """Wait until no rebalance of a group is under way or due.

        Each member has been told then, and its callbacks have returned; members that are
        frozen do not count.  A consumer that has no topic yet is no member: for the first
        one use :meth:`wait_members`.  Cancelling it changes nothing; see
        :meth:`wait_committed`.

        Args:
            group: The group.
            timeout: Seconds, on the clock of the running event loop.

        Returns:
            The partitions of each member by its id.

        Raises:
            TimeoutError: It has not come to that in time.
        """
        return await wait_until(
            self._cluster,
            group,
            lambda: settled_members(self._cluster, group),
            lambda: f"the group {group!r} has not settled",
            timeout,
        )

    async def wait_members(
        self, group: str, n: int = 1, *, timeout: float = 60.0
    ) -> dict[str, frozenset[TopicPartition]]:
        """Wait until a group has settled with so many members; see :meth:`wait_settled`.

        Cancelling it changes nothing; see :meth:`wait_committed`.

        Args:
            group: The group.
            n: How many members; with 0, until all have left.
            timeout: Seconds, on the clock of the running event loop.

        Returns:
            The partitions of each member by its id.

        Raises:
            TimeoutError: It has not come to that in time.
        """

        def look() -> dict[str, frozenset[TopicPartition]] | None:
            members = settled_members(self._cluster, group)
            return members if members is not None and len(members) == n else None

        what = f"the group {group!r} has not settled with {n} members"
        return await wait_until(self._cluster, group, look, lambda: what, timeout)

    # Faults

    @property
    def faults(self) -> Faults:
        """What goes wrong by chance, from now on."""
        return self._cluster.injector.faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        self._cluster.injector.faults = faults

    def fail_next_commits(
        self, n: int = 1, error: CommitFault | str = CommitFault.COORDINATOR_UNAVAILABLE
    ) -> None:
        """Let the next ``n`` commits that arrive fail, from whichever session.

        Args:
            n: How many.
            error: How, as a :class:`CommitFault` or its value.
        """
        self._cluster.injector.fail_next_commits(n, CommitFault(error))

    @property
    def unmet_commit_faults(self) -> int:
        """How many faults that :meth:`fail_next_commits` ordered have met no commit yet."""
        return self._cluster.injector.ordered

    def down(self) -> None:
        """Outage: requests wait, and sessions may expire meanwhile."""
        self._cluster.reachable = False

    def up(self) -> None:
        """End of the outage; what was waiting arrives."""
        self._cluster.reachable = True
        self._cluster.gate.notify()

    def pause_answers(self) -> None:
        """Requests arrive and are done, but no answer comes back."""
        self._cluster.answering = False

    def resume_answers(self) -> None:
        """The answers come back."""
        self._cluster.answering = True
        self._cluster.gate.notify()

    def freeze(self, member: str) -> None:
        """Nothing of this member's session reaches the broker, as if its process slept.

        A frozen session that is closed does not leave its group: a crash.

        Args:
            member: Its member id, or, before it has one, the ``client_id`` of
                its session; of several sessions of that name, the first.

        Raises:
            ConfigurationError: No session is this member.
        """
        self._connection(member).freeze()
        self._cluster.watchers.changed()

    def thaw(self, member: str) -> None:
        """Undo :meth:`freeze`; what was waiting is sent now.

        Raises:
            ConfigurationError: No session is this member.
        """
        self._connection(member).thaw()
        self._cluster.watchers.changed()

    def heal(self) -> None:
        """End every fault but frozen sessions: outage, held answers, ordered and by chance."""
        self._cluster.injector.clear()
        self.faults = Faults()
        self.up()
        self.resume_answers()

    # Inside

    def _connection(self, member: str) -> Connection:
        connections = self._cluster.connections
        # Ids first: a client may have been given the name of another one's id.
        for named in ([c.member_id for c in connections], [c.client_id for c in connections]):
            if member in named:
                return connections[named.index(member)]
        raise ConfigurationError(f"no session of this broker is the member {member!r} now")

    def _timestamp(self) -> int:
        return int((self._epoch + self._cluster.clock.elapsed()) * 1000)

    def _choose(self, topic: str, key: bytes | None, partition: int | None) -> TopicPartition:
        logs = self._cluster.topics.get(topic)
        if logs is None:
            self._cluster.require_topics([topic])
            raise UnknownTopicError(topic)  # pragma: no cover - the line above raises
        if partition is None:
            if key is not None:
                partition = zlib.crc32(key) % len(logs)
            else:
                turn = self._round_robin.get(topic, 0)
                self._round_robin[topic] = turn + 1
                partition = turn % len(logs)
        return TopicPartition(topic, partition)
