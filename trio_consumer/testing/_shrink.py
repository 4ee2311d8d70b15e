"""Shorten a schedule that fails, as long as it goes on failing in the same way.

Delta debugging over the actions, then settings made plain one at a time, then the
actions again: what a simpler group does not need goes with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TypeVar

from ._schedule import Action, Schedule, Settings

__all__ = ["SpentError", "shrink"]

T = TypeVar("T")


class SpentError(Exception):
    """It has cost enough; what was found until then counts."""


def shrink(
    schedule: Schedule, fails: Callable[[Schedule], bool], *, runs: int = 150
) -> tuple[Schedule, int]:
    """Find a shorter schedule that fails too.

    Args:
        schedule: One that fails.
        fails: Runs a schedule; True if it fails as the first one did.  It may
            raise :class:`SpentError` to end the search.
        runs: How often to run one at most.

    Returns:
        The schedule, and how many runs it took.
    """
    best = schedule
    made = 0

    def attempt(candidate: Schedule) -> bool:
        nonlocal best, made
        if made >= runs:
            raise SpentError
        made += 1
        if candidate != best and fails(candidate):
            best = candidate
            return True
        return False

    try:
        while True:
            before = best
            _fewer_actions(lambda: best, attempt)
            _plainer_settings(lambda: best, attempt)
            if best == before:
                break
    except SpentError:
        pass
    return best, made


def _fewer_actions(best: Callable[[], Schedule], attempt: Callable[[Schedule], bool]) -> None:
    size = max(1, len(best().actions) // 2)
    while True:
        start = 0
        while start < len(best().actions):
            actions = best().actions
            kept = actions[:start] + actions[start + size :]
            if not attempt(replace(best(), actions=kept)):
                start += size
        if size == 1:
            return
        size = max(1, size // 2)


def _plainer_settings(best: Callable[[], Schedule], attempt: Callable[[Schedule], bool]) -> None:
    last = best().actions[-1].at if best().actions else 0.0
    attempt(replace(best(), horizon=min(best().horizon, last + 1.0)))
    for change in list(_changes(best().settings)):
        settings = change(best().settings)
        actions = tuple(_valid(best().actions, settings))
        attempt(replace(best(), settings=settings, actions=actions))


def _changes(settings: Settings) -> Iterator[Callable[[Settings], Settings]]:
    plain = Settings()
    for name in ("trouble", "workers", "batches", "latency", "static", "cooperative"):
        yield lambda s, n=name: replace(s, **{n: 0.0 if n == "trouble" else getattr(plain, n)})  # type: ignore[misc]
    for name in ("read_committed", "commit_every", "max_poll_records", "max_buffered"):
        yield lambda s, n=name: replace(s, **{n: getattr(plain, n)})  # type: ignore[misc]
    for name in ("commit_interval", "drain_timeout", "rebalance_timeout", "heartbeat"):
        yield lambda s, n=name: replace(s, **{n: getattr(plain, n)})  # type: ignore[misc]
    yield lambda s: s if s.on_error == "stream" else replace(s, reopening=False)
    for records in (0, 1, 3):
        yield lambda s, r=records: replace(s, records=min(s.records, r))  # type: ignore[misc]
    for index in reversed(range(len(settings.streams))):
        yield lambda s, i=index: _without_stream(s, i)  # type: ignore[misc]
    for topic in settings.partitions:
        yield lambda s, t=topic: _with_one_partition(s, t)  # type: ignore[misc]


def _with_one_partition(settings: Settings, topic: str) -> Settings:
    """Unless the topic was left out meanwhile."""
    if topic not in settings.partitions:
        return settings
    return replace(settings, partitions={**settings.partitions, topic: 1})


def _without_stream(settings: Settings, index: int) -> Settings:
    """Leave a stream out, and its topic if it was the last one that acknowledges."""
    if index >= len(settings.streams):
        return settings
    streams = settings.streams[:index] + settings.streams[index + 1 :]
    topics = {topic for topic, ack in streams if ack != "none"}
    if not topics:
        return settings
    return replace(
        settings,
        streams=tuple((topic, ack) for topic, ack in streams if topic in topics),
        partitions={t: n for t, n in settings.partitions.items() if t in topics},
    )


def _valid(actions: tuple[Action, ...], settings: Settings) -> Iterator[Action]:
    """The actions that make sense with these settings."""
    for action in actions:
        if settings.reopening or action.args.get("place") != "stream":
            yield action
