"""Consumer, stream and transaction as tasks of asyncio use them.

A stream waits by asyncio's own means, so that nothing crosses over for a
message.  The methods of a consumer are awaited in a Trio task.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial, wraps
from types import TracebackType
from typing import Any, TypeVar, cast

import anyio
import anyio.lowlevel
import trio

from .._runtime.callers import caller_name
from .._runtime.consumer import Consumer
from .._runtime.stream import Stream
from .._runtime.transactions import Transaction, TransactionManager, _inside
from .engine import Engine, Lot

__all__ = ["AsyncioConsumer", "AsyncioStream", "AsyncioTransaction"]

Method = TypeVar("Method", bound=Callable[..., Awaitable[Any]])


def task_name() -> str:
    """Name of the task that runs now, of whichever event loop."""
    name = caller_name()
    if name or trio.lowlevel.in_trio_task():
        return name
    try:
        task = asyncio.current_task()
    except RuntimeError:
        return ""
    return "" if task is None else task.get_name()


class AsyncioStream(Stream):
    """A stream over which tasks of asyncio iterate."""

    _checkpoint = staticmethod(anyio.lowlevel.checkpoint)
    _checkpoint_if_cancelled = staticmethod(anyio.lowlevel.checkpoint_if_cancelled)
    _move_on_after = staticmethod(anyio.move_on_after)
    _new_lot = staticmethod(Lot)
    _task_name = staticmethod(task_name)


class AsyncioTransaction(Transaction):
    """A transaction around a block of an asyncio task."""

    _checkpoint_if_cancelled = staticmethod(anyio.lowlevel.checkpoint_if_cancelled)

    def __init__(self, engine: Engine, manager: TransactionManager) -> None:
        super().__init__(manager)
        self._engine = engine
        self._visit: AbstractAsyncContextManager[Transaction] | None = None
        self._host_token: Any = None

    async def flush(self) -> None:
        """Hand everything queued to the client; the end of the block does so too."""
        await self._engine.run(super().flush)

    async def __aenter__(self) -> Transaction:
        visit = self._engine.entered(_Guest(self))
        await visit.__aenter__()
        self._visit = visit
        self._host_token = _inside.set(self)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        assert self._visit is not None  # it was entered
        try:
            return await self._visit.__aexit__(exc_type, exc, traceback)
        finally:
            _inside.reset(self._host_token)


class _Guest:
    """Enters and leaves a transaction as a Trio task does."""

    def __init__(self, transaction: AsyncioTransaction) -> None:
        self._transaction = transaction

    async def __aenter__(self) -> Transaction:
        return await Transaction.__aenter__(self._transaction)

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        return await Transaction.__aexit__(self._transaction, exc_type, exc, traceback)


class AsyncioConsumer(Consumer):
    """A consumer whose methods tasks of asyncio may await."""

    _stream_type = AsyncioStream
    _engine: Engine

    def use(self, engine: Engine) -> None:
        """Say where the consumer's own tasks run."""
        self._engine = engine
        self._new_transaction = partial(AsyncioTransaction, engine)
        self._partitions.new_scope = cast("Callable[[], trio.CancelScope]", anyio.CancelScope)


def _crossing(method: Method) -> Method:
    """The method, awaited in a Trio task."""

    @wraps(method)
    async def cross(self: AsyncioConsumer, *args: Any, **named: Any) -> Any:
        return await self._engine.run(partial(method, self, *args, **named))

    return cast("Method", cross)


for _name, _method in inspect.getmembers(Consumer, inspect.iscoroutinefunction):
    if not _name.startswith("_"):
        setattr(AsyncioConsumer, _name, _crossing(_method))
