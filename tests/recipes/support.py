"""What the tests of the recipes share: a broker with its URL, programs that are ended."""

from __future__ import annotations

import re
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_consumer import TP
from trio_consumer.testing import MemoryBroker

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup


ROOT = Path(__file__).parents[2]


def blocks(page: str) -> list[str]:
    """The blocks of Python of a page, as it shows them."""
    text = (ROOT / page).read_text("utf-8")
    return re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def block_with(page: str, word: str) -> str:
    """The one block of a page that has a word in it."""
    (found,) = [block for block in blocks(page) if word in block]
    return found


@contextmanager
def raised_alone() -> Iterator[None]:
    """Take the one exception out of the group that the nursery of a test has made of it."""
    try:
        yield
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        raise error from None


@dataclass(frozen=True)
class Address:
    """A broker, and the URL that a program finds it by."""

    url: str
    broker: MemoryBroker

    def committed(self, group: str, topic: str, partition: int = 0) -> int | None:
        """What a group has committed of a partition."""
        stored = self.broker.committed(group, TP(topic, partition))
        return None if stored is None else stored.offset

    def sent(self, topic: str) -> list[bytes | None]:
        """The values in the only partition of a topic, but for aborted transactions."""
        records = self.broker.records(TP(topic, 0), committed_only=True)
        return [record.value for record in records]


def run_until(
    main: Callable[..., Awaitable[object]],
    *arguments: object,
    done: Callable[[], bool],
    virtual: bool = True,
) -> None:
    """Run a program that has no end, and cancel it when enough is done.

    Args:
        main: The program.
        arguments: What it is called with.
        done: Whether enough is done; then the program is let do what it still can.
        virtual: Whether its clock jumps; not with threads in it.
    """

    async def watched() -> None:
        with trio.fail_after(3600 if virtual else 60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(main, *arguments)
                while not done():
                    await trio.sleep(0.05)
                await wait_all_tasks_blocked(0.05)
                nursery.cancel_scope.cancel()

    with raised_alone():
        trio.run(watched, clock=MockClock(autojump_threshold=0) if virtual else None)
