"""Calling a handler with each message of a stream, until told to stop.

The runner ends in one of these ways: enough messages were handed out, a signal
came, a handler raised, or the consumer failed.  In all of them nothing is handed
out any more, handlers that are at work may finish, and what is finished is
committed; only a second signal cancels them.  A message whose handler raised or
was cancelled stays unfinished.
"""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import trio

from .. import (
    Consumer,
    ConsumerStatistics,
    Message,
    Stream,
    TopicPartition,
    open_consumer,
)
from .loading import Handler

__all__ = ["HandlerFailure", "Job", "Progress", "Runner"]

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)

ECHO = 0.25
"""Seconds in which a second signal is taken for the first one: ``timeout``, and what
passes Ctrl-C on to a process that has it from the terminal, send two at once, and
nobody has asked for a handler to be cut off.  Arbitrary."""

REFRESH = 0.2
RATE_WINDOW = 15
"""Refreshes over which the rate is taken: three seconds."""


@dataclass(frozen=True, slots=True)
class Job:
    """What to run.

    Attributes:
        handler: Called with each message.
        url: Where to consume from.
        group: The consumer group.
        topics: What to subscribe to.
        concurrency: Worker tasks.
        ack: Whether a message is finished when its handler returns, or by the handler.
        max_messages: How many messages to hand out; None for no end.
        settings: More arguments for ``open_consumer``.
    """

    handler: Handler
    url: str
    group: str
    topics: tuple[str, ...]
    concurrency: int = 1
    ack: Literal["auto", "manual"] = "auto"
    max_messages: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class HandlerFailure:
    """A handler raised."""

    tp: TopicPartition
    offset: int
    error: BaseException


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run is.

    Attributes:
        handed_out: Messages given to handlers.
        returned: Handlers that returned.
        in_hand: Messages handed out and not finished.
        unfinished: Messages given to the stream and not finished.
        lag: Offsets between what is committed and the ends, as far as known: what other
            tools call the lag of the group.
        committed: What the broker confirmed, by partition.
        rate: Handlers that returned, a second, over the last seconds.
        elapsed: Seconds since the start.
        statistics: What the consumer tells of itself, None before it is opened.
    """

    handed_out: int
    returned: int
    in_hand: int
    unfinished: int
    lag: int
    committed: dict[TopicPartition, int]
    rate: float
    elapsed: float
    statistics: ConsumerStatistics | None = None


class Runner:
    """One run of a job; use it once.

    Args:
        job: What to run.
        show: Called now and then with the progress, if given.

    Attributes:
        failures: What handlers raised, in the order of time.
        stopped_by: The signal that began the stop.
        cancelled_by: The signal that cancelled, if the stop was not let finish.
        connected: Whether the consumer was ever opened.
        committed_all: Whether the last commit covers all that was finished.
    """

    def __init__(self, job: Job, show: Callable[[Progress], None] | None = None) -> None:
        self._job = job
        self._show = show
        self._scope = trio.CancelScope()
        self._consumer: Consumer | None = None
        self._stream: Stream | None = None
        self._tickets = job.max_messages
        self._began = 0.0
        self._samples: deque[tuple[float, int]] = deque(maxlen=RATE_WINDOW)
        self._handed_out = 0
        self._returned = 0
        self.failures: list[HandlerFailure] = []
        self.stopped_by: signal.Signals | None = None
        self.cancelled_by: signal.Signals | None = None
        self.connected: bool = False
        self.committed_all: bool = False
        self.progress: Progress = Progress(0, 0, 0, 0, 0, {}, 0.0, 0.0)

    async def run(self) -> None:
        """Run to the end.

        Raises:
            ConsumerError: The consumer failed, maybe in a group that a nursery made.

        Cancelling it cancels the handlers; what is finished is committed.
        """
        self._began = trio.current_time()
        async with trio.open_nursery() as nursery:
            await nursery.start(self._watch_signals)
            with self._scope:
                await self._consume()
            nursery.cancel_scope.cancel()

    async def _watch_signals(self, task_status: trio.TaskStatus[None]) -> None:
        with trio.open_signal_receiver(*STOP_SIGNALS) as received:
            task_status.started()
            stopped_at = 0.0
            async for number in received:
                if self.stopped_by is None:
                    self.stopped_by = signal.Signals(number)
                    stopped_at = trio.current_time()
                    if self._consumer is not None:
                        self._consumer.close()
                    else:
                        self._scope.cancel()  # it is connecting: there is nothing to finish
                elif self.cancelled_by is None and trio.current_time() - stopped_at > ECHO:
                    self.cancelled_by = signal.Signals(number)
                    self._scope.cancel()

    async def _consume(self) -> None:
        job = self._job
        async with open_consumer(job.url, group=job.group, **job.settings) as consumer:
            self._consumer = consumer
            self.connected = True
            if self.stopped_by is not None:
                consumer.close()
                return
            async with consumer.stream(*job.topics, ack=job.ack) as stream:
                self._stream = stream
                try:
                    await self._call_handlers(stream)
                    consumer.close()
                    await consumer.commit()
                    self.committed_all = True
                finally:
                    self._sample()

    async def _call_handlers(self, stream: Stream) -> None:
        async with trio.open_nursery() as watcher:
            if self._show is not None:
                watcher.start_soon(self._keep_showing, self._show)
            async with trio.open_nursery() as workers:
                for number in range(1, self._job.concurrency + 1):
                    # The name by which the statistics tell who has a message.
                    workers.start_soon(self._work, stream, name=f"worker-{number}")
            watcher.cancel_scope.cancel()

    async def _work(self, stream: Stream) -> None:
        messages = aiter(stream)
        while self._take_ticket():
            try:
                message = await anext(messages)
            except StopAsyncIteration:
                return
            self._handed_out += 1
            try:
                await self._job.handler(message)
            except (Exception, SystemExit) as exc:
                # The others finish what they have in hand; this one stays unfinished.
                self._fail(message, exc)
                return
            if self._job.ack == "auto":
                # Not left to the loop: the last message has none coming back.
                message.ack()
            self._returned += 1

    def _take_ticket(self) -> bool:
        """Whether one more message may be asked for.

        Before asking, not after: a message that was handed out cannot be put back.
        """
        if self._tickets is None:
            return True
        if self._tickets == 0:
            return False
        self._tickets -= 1
        return True

    def _fail(self, message: Message, error: BaseException) -> None:
        self.failures.append(HandlerFailure(message.tp, message.offset, error))
        assert self._consumer is not None
        self._consumer.close()

    # -- looking -----------------------------------------------------------------

    async def _keep_showing(self, show: Callable[[Progress], None]) -> None:
        while True:
            self._sample()
            show(self.progress)
            await trio.sleep(REFRESH)

    def _sample(self) -> None:
        assert self._consumer is not None
        assert self._stream is not None
        now = trio.current_time()
        statistics = self._consumer.statistics()
        self._samples.append((now, self._returned))
        then, before = self._samples[0]
        self.progress = Progress(
            handed_out=self._handed_out,
            returned=self._returned,
            in_hand=max(0, statistics.unfinished - self._stream.buffered),
            unfinished=statistics.unfinished,
            lag=statistics.commit_lag or 0,
            committed={
                tp: p.committed
                for tp, p in statistics.partitions.items()
                if p.committed is not None
            },
            rate=(self._returned - before) / (now - then) if now > then else 0.0,
            elapsed=now - self._began,
            statistics=statistics,
        )
