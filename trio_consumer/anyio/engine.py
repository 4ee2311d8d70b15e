"""Trio as a guest of an asyncio event loop, and the way from one to the other.

Both run in one thread.  A plain function of the consumer may therefore be called
from either, and what wakes a Trio task up wakes the guest.  What has to be
*awaited* crosses over: :meth:`Engine.run` has a Trio task do it and waits,
:meth:`Engine.entered` has one that stays inside of a context manager.

Cancelling the asyncio side cancels the Trio side and waits for its end, so that
no work goes on that nobody waits for.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import (
    AbstractAsyncContextManager,
    ExitStack,
    asynccontextmanager,
    contextmanager,
)
from contextvars import copy_context
from typing import Any, ClassVar, TypeVar
from weakref import WeakKeyDictionary

import anyio
import outcome
import trio

from .._runtime.callers import working_for

__all__ = ["Engine", "Lot", "in_host"]

T = TypeVar("T")


class Engine:
    """The guest run of one event loop; it lasts as long as somebody uses it.

    A thread has one run at a time: whoever comes while one ends waits for its end.
    """

    _engines: ClassVar[WeakKeyDictionary[asyncio.AbstractEventLoop, Engine]] = WeakKeyDictionary()

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._users = 0
        self._ending = False
        self._nursery: trio.Nursery
        self._stop: trio.Event
        self._started = loop.create_future()
        self._ended = loop.create_future()

    @staticmethod
    def new_clock() -> trio.abc.Clock | None:
        """Make the clock of a guest run; None is the system's."""
        return None

    @classmethod
    @asynccontextmanager
    async def running(cls) -> AsyncGenerator[Engine, None]:
        """The engine of the running loop; the first user starts it, the last one ends it."""
        loop = asyncio.get_running_loop()
        while (engine := cls._engines.get(loop)) is not None and engine._ending:
            await asyncio.wait([engine._ended])
        if engine is None:
            engine = cls(loop)
            trio.lowlevel.start_guest_run(
                engine._main,
                clock=cls.new_clock(),
                run_sync_soon_threadsafe=loop.call_soon_threadsafe,
                run_sync_soon_not_threadsafe=loop.call_soon,
                done_callback=engine._done,
                host_uses_signal_set_wakeup_fd=True,
            )
            cls._engines[loop] = engine
        engine._users += 1
        try:
            await asyncio.shield(engine._started)
            yield engine
        finally:
            engine._users -= 1
            if not engine._users:
                engine._ending = True
                cancelled: asyncio.CancelledError | None = None
                with anyio.CancelScope(shield=True):
                    cancelled = await _settled(engine._started)
                    engine._stop.set()
                    cancelled = await _settled(engine._ended) or cancelled
                engine._ended.result().unwrap()
                if cancelled is not None:
                    raise cancelled

    async def _main(self) -> None:
        self._stop = trio.Event()
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            self._started.set_result(None)
            await self._stop.wait()

    def _done(self, result: outcome.Outcome[None]) -> None:
        if not self._started.done():
            self._started.set_result(None)
        del self._engines[self.loop]
        self._ended.set_result(result)

    async def run(self, function: Callable[[], Awaitable[T]]) -> T:
        """Have a Trio task await something, and return or raise what came of it.

        Cancelling cancels the Trio task and waits until it has ended.
        """
        if trio.lowlevel.in_trio_task():
            return await function()
        result: asyncio.Future[outcome.Outcome[T]] = self.loop.create_future()
        scope = trio.CancelScope()

        async def work() -> None:
            with scope:
                got = await outcome.acapture(_checked, function)
                if isinstance(got, outcome.Error) and isinstance(got.error, trio.Cancelled):
                    raise got.error
                result.set_result(got)

        def finish() -> None:
            if not result.done():
                result.cancel()

        self._spawn(work, finish)
        await _awaited(result, scope.cancel)
        return result.result().unwrap()

    def _spawn(self, work: Callable[[], Awaitable[None]], finish: Callable[[], None]) -> None:
        context = copy_context()
        context.run(working_for.set, asyncio.current_task())

        async def task() -> None:
            try:
                await work()
            finally:
                finish()

        context.run(self._nursery.start_soon, task)

    @asynccontextmanager
    async def entered(self, manager: AbstractAsyncContextManager[T]) -> AsyncGenerator[T, None]:
        """Enter a Trio context manager in a Trio task of its own for the length of a block.

        If the manager cancels its block, this one is cancelled.  What the block
        raises goes through the manager as itself; a cancellation of the block
        does as a cancellation.

        The block may be left in another task than it was entered in, once that has
        ended, as the fixtures of pytest-asyncio are: then there is nothing to cancel,
        and what the manager raises is raised when the block is left.
        """
        visit = Visit(self, manager)
        value = await visit.enter()
        error: BaseException | None = None
        try:
            with visit.cancellable():
                try:
                    yield value
                except asyncio.CancelledError:
                    raise
                except BaseException as exc:
                    error = exc
        except BaseException as exc:
            # A cancellation; or the scope's complaint of a task that is not its own.
            await visit.leave(exc)
            raise
        await visit.leave(error)
        visit.check(error)


class Visit:
    """A Trio task inside of a context manager, on behalf of an asyncio block."""

    def __init__(self, engine: Engine, manager: AbstractAsyncContextManager[Any]) -> None:
        self._engine = engine
        self._manager = manager
        self._scope = trio.CancelScope()
        self._left = False
        self._leave: Callable[[], None]
        self._body: outcome.Outcome[None] | None = None
        self._entered: asyncio.Future[Any] = engine.loop.create_future()
        self._ended: asyncio.Future[outcome.Outcome[None]] = engine.loop.create_future()
        self._host = asyncio.current_task()
        self._host_scope = anyio.CancelScope()

    @contextmanager
    def cancellable(self) -> Generator[None, None, None]:
        """Let the manager cancel the block."""
        with ExitStack() as stack:
            stack.enter_context(self._host_scope)
            try:
                yield
            finally:
                if self._host is None or self._host.done():
                    # A scope is left in its own task only; that one needs none any more.
                    stack.pop_all()

    def _cancel_host(self) -> None:
        # A scope of a task that has ended would be cancelled again and again.
        if self._host is not None and not self._host.done():
            self._host_scope.cancel()

    async def enter(self) -> Any:
        """Start the task; what the manager yields, or what it raises."""
        self._wakeup = trio.Event()
        self._engine._spawn(self._work, self._finish)
        try:
            await _awaited(self._entered, self._scope.cancel)
        except asyncio.CancelledError:
            self._wakeup.set()
            with anyio.CancelScope(shield=True):
                await _settled(self._ended)
            raise
        if self._entered.cancelled():
            self._ended.result().unwrap()
            raise asyncio.CancelledError
        return self._entered.result()

    async def leave(self, error: BaseException | None) -> None:
        """End the block in the task; wait until the manager is through."""
        if isinstance(error, (asyncio.CancelledError, GeneratorExit)):
            self._scope.cancel()
        elif error is not None:
            self._body = outcome.Error(error)
        self._left = True
        self._wakeup.set()
        await _awaited(self._ended, self._scope.cancel)

    def check(self, error: BaseException | None) -> None:
        """Raise what the manager raised; let pass what the block raised itself."""
        result = self._ended.result()
        if isinstance(result, outcome.Error):
            raise result.error
        if error is not None and isinstance(self._body, outcome.Error):
            return  # swallowed by the manager

    async def _work(self) -> None:
        result: outcome.Outcome[None] = outcome.Value(None)
        with self._scope:
            result = await outcome.acapture(self._inside)
            if isinstance(result, outcome.Error) and isinstance(result.error, trio.Cancelled):
                cancelled, result = result.error, outcome.Value(None)
                raise cancelled
        self._ended.set_result(result)

    async def _inside(self) -> None:
        async with self._manager as value:
            self._entered.set_result(value)
            try:
                await self._wakeup.wait()
            except trio.Cancelled:
                if not self._left:
                    # The manager's own doing: the block has to go first.
                    self._cancel_host()
                    with trio.CancelScope(shield=True):
                        await self._wakeup.wait()
                    if self._body is not None:
                        self._body.unwrap()
                raise
            if self._scope.cancel_called:
                await trio.lowlevel.checkpoint()
            if self._body is not None:
                self._body.unwrap()

    def _finish(self) -> None:
        if not self._ended.done():
            self._ended.set_result(outcome.Value(None))
        if not self._entered.done():
            self._entered.cancel()


async def _checked(function: Callable[[], Awaitable[T]]) -> T:
    return await function()


async def _settled(future: asyncio.Future[Any]) -> asyncio.CancelledError | None:
    """Wait until a future is done, whatever is cancelled; the cancellation that came meanwhile."""
    cancelled = None
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError as exc:
            cancelled = exc
    return cancelled


async def _awaited(future: asyncio.Future[Any], cancel: Callable[[], object]) -> None:
    """Wait until a future is done; when cancelled, cancel what leads to it and go on waiting.

    Raises:
        asyncio.CancelledError: After the future is done.
    """
    try:
        if not future.done():
            await asyncio.wait([future])
    except asyncio.CancelledError:
        cancel()
        with anyio.CancelScope(shield=True):
            await _settled(future)
        raise


class Lot:
    """A parking place for tasks of both event loops.

    The runtime unparks it as it does Trio's own.
    """

    def __init__(self) -> None:
        self._guests = trio.lowlevel.ParkingLot()
        self._waiting: set[asyncio.Future[None]] = set()

    async def park(self) -> None:
        """Wait for the next :meth:`unpark_all`."""
        if trio.lowlevel.in_trio_task():
            await self._guests.park()
            return
        place = asyncio.get_running_loop().create_future()
        self._waiting.add(place)
        try:
            await place
        finally:
            self._waiting.discard(place)

    def unpark_all(self) -> None:
        """Let everybody go on who waits now."""
        for place in self._waiting:
            if not place.done():
                place.set_result(None)
        self._waiting.clear()
        self._guests.unpark_all()


def in_host(
    loop: asyncio.AbstractEventLoop, function: Callable[..., Any]
) -> Callable[..., Awaitable[Any]]:
    """Make a function of the user, plain or async, one that a Trio task can await.

    It runs in an asyncio task.  Cancelling cancels that and waits for its end.
    """

    async def call(*args: Any) -> Any:
        result = function(*args)
        return await result if inspect.isawaitable(result) else result

    async def called(*args: Any) -> Any:
        waiting = trio.lowlevel.current_task()
        task = loop.create_task(call(*args))
        raise_cancelled: Callable[[], Any] | None = None

        def ended(_: object) -> None:
            trio.lowlevel.reschedule(waiting)

        def abort(raise_cancel: Callable[[], Any]) -> trio.lowlevel.Abort:
            nonlocal raise_cancelled
            raise_cancelled = raise_cancel
            task.cancel()
            return trio.lowlevel.Abort.FAILED

        task.add_done_callback(ended)
        await trio.lowlevel.wait_task_rescheduled(abort)
        if task.cancelled() and raise_cancelled is not None:
            raise_cancelled()
        return task.result()

    return called
