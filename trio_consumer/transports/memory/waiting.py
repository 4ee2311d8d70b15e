"""Waiting for something to become true of the broker, from whichever event loop.

Who waits puts in a :class:`Watcher` with a *look*: a function that reads the
broker and returns what was waited for, or None.  The broker looks in the very step
in which something changed (:meth:`Watchers.changed`), so what is true for one step
only is not missed, and nobody polls.  Only the wake-up crosses to the event loop,
and the thread, of the one who waits.

A look must not change anything, or it would be called from within itself: it
reads groups with :meth:`Cluster.peek`, which lets no time pass.  So that time goes
on for a group of which no session is left (a crashed member has to expire), the
wait itself drives its timers then.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import anyio
import anyio.lowlevel
import outcome
import sniffio
import trio

from ..._errors import ConfigurationError
from ..._types import TopicPartition
from .protocol import GroupState

if TYPE_CHECKING:
    from .cluster import Cluster
    from .group import Group

__all__ = ["Watcher", "Watchers", "describe", "lag_of", "settled_members", "wait_until"]

T = TypeVar("T")

Members = dict[str, frozenset[TopicPartition]]

# See membership: a timer must not spin on a virtual clock that stands still.
_TICK = 1e-6


class Watcher(Generic[T]):
    """One wait, made in the event loop that waits.

    Attributes:
        found: What the look returned or raised, once it did.
    """

    def __init__(self, look: Callable[[], T | None]) -> None:
        self.found: outcome.Outcome[T] | None = None
        self._look = look
        self._event = anyio.Event()
        self._post = _poster()

    def look(self) -> None:
        """Look, and wake who waits if it is found; from any thread."""
        if self.found is not None:
            return
        try:
            value = self._look()
        except Exception as exc:
            self.found = outcome.Error(exc)
        else:
            if value is None:
                return
            self.found = outcome.Value(value)
        self.wake()

    def wake(self) -> None:
        """Let who waits think again; from any thread."""
        # Its event loop may have ended a moment ago; then nobody waits.
        with suppress(trio.RunFinishedError, RuntimeError):
            self._post(self._event.set)

    async def woken(self, seconds: float) -> None:
        """Wait for the next :meth:`wake`, or so long."""
        with anyio.move_on_after(seconds):
            await self._event.wait()
            self._event = anyio.Event()


class Watchers:
    """Everybody who waits at one broker."""

    def __init__(self) -> None:
        self._all: list[Watcher[Any]] = []

    def add(self, watcher: Watcher[Any]) -> None:
        """Let it look at every change from now on."""
        self._all.append(watcher)

    def remove(self, watcher: Watcher[Any]) -> None:
        """Undo :meth:`add`."""
        self._all.remove(watcher)

    def changed(self) -> None:
        """Something has changed; everybody looks."""
        if self._all:
            for watcher in list(self._all):
                watcher.look()

    def sessions_changed(self) -> None:
        """A session has come or gone: who drives timers may be another one now."""
        self.changed()
        for watcher in list(self._all):
            watcher.wake()


async def wait_until(
    cluster: Cluster,
    group: str,
    look: Callable[[], T | None],
    failed: Callable[[], str],
    timeout: float,
) -> T:
    """Wait until a look finds something.

    Args:
        cluster: The broker.
        group: The group that it is about.
        look: Returns None while there is nothing; what it raises is raised here.
        failed: What to say when the time is over.
        timeout: Seconds on the clock of the running event loop.

    Raises:
        TimeoutError: The time is over.
    """
    if not timeout >= 0:
        raise ConfigurationError(f"timeout is in seconds, at least 0; not {timeout!r}")
    watcher = Watcher(look)
    cluster.watchers.add(watcher)
    try:
        await anyio.lowlevel.checkpoint()
        watcher.look()
        with anyio.move_on_after(timeout):
            while watcher.found is None:
                await watcher.woken(_until_timer(cluster, group))
    finally:
        cluster.watchers.remove(watcher)
    if watcher.found is None:
        raise TimeoutError(f"{failed()} within {timeout:g} s: {describe(cluster, group)}")
    return watcher.found.unwrap()


def _until_timer(cluster: Cluster, group: str) -> float:
    """Seconds until the group's next timer; infinity if a session drives it, or no clock runs."""
    if not trio.lowlevel.in_trio_run() or any(c.group == group for c in cluster.connections):
        return float("inf")
    deadline = cluster.group(group).next_deadline()
    return max(deadline - cluster.clock.now(), _TICK)


def _poster() -> Callable[[Callable[[], object]], object]:
    """How to have something done in the running event loop, from any thread."""
    if sniffio.current_async_library() == "trio":
        token = trio.lowlevel.current_trio_token()

        def post(function: Callable[[], object]) -> None:
            if trio.lowlevel.in_trio_run() and trio.lowlevel.current_trio_token() is token:
                function()
            else:
                token.run_sync_soon(function)

        return post
    # Imported by AnyIO as soon as it runs on it, and not before.
    import asyncio

    return asyncio.get_running_loop().call_soon_threadsafe


# Looks


def lag_of(cluster: Cluster, group: Group | None, what: str | TopicPartition) -> int:
    """Offsets between what the group has committed and the end, see ``MemoryBroker.lag``."""
    if isinstance(what, TopicPartition):
        log = cluster.log(what)
        stored = None if group is None else group.offsets.get(what)
        return max(0, log.end - (log.start if stored is None else stored.offset))
    cluster.require_topics([what])
    counts = range(len(cluster.topics[what]))
    return sum(lag_of(cluster, group, TopicPartition(what, n)) for n in counts)


def settled_members(cluster: Cluster, name: str) -> Members | None:
    """The members with their partitions if no rebalance is under way or due, else None.

    Each session has to have been told, and its callbacks to have returned; frozen
    ones are left out, as they learn nothing.
    """
    group = cluster.peek(name)
    members: Members = {}
    if group is not None:
        if group.state not in (GroupState.EMPTY, GroupState.STABLE):
            return None
        # Copies, because another thread may be at work.
        members = {key: member.assignment for key, member in dict(group.members).items()}
    for session in list(cluster.connections):
        if session.group != name or session.frozen:
            continue
        holds = session.holds
        if holds is None or holds != members.get(session.member_id, frozenset()):
            return None
        if session.has_topics and session.member_id not in members:
            return None
        # The leader asks for a rebalance with its next heartbeat if topics have changed.
        if (
            group is not None
            and session.member_id == group.leader
            and cluster.partition_counts(group.topics()) != group.assigned_from
        ):
            return None
    return members


def describe(cluster: Cluster, name: str) -> str:
    """A group in one line, for an error."""
    group = cluster.peek(name)
    if group is None:
        return f"there is no group {name!r}"
    members = "; ".join(
        f"{key} has {', '.join(map(str, sorted(member.assignment)))}"
        if member.assignment
        else f"{key} has nothing"
        for key, member in dict(group.members).items()
    )
    offsets = ", ".join(
        f"{tp} at {stored.offset}" for tp, stored in sorted(dict(group.offsets).items())
    )
    return (
        f"the group {name!r} is {group.state.value}, {members or 'has no member'};"
        f" committed: {offsets or 'nothing'}"
    )
