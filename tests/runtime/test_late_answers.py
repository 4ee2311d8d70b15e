"""A broker that answers late, loses answers and throws members out, drawn from seeds."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
import trio

from trio_consumer import CommitFailedError
from trio_consumer.testing import Faults
from trio_consumer.transports.memory import CommitFault

from .support import COOPERATIVE, GROUP, Journal, broker, chance, consuming, run

PASSING = (
    CommitFault.COORDINATOR_UNAVAILABLE,
    CommitFault.TIMEOUT,
    CommitFault.ILLEGAL_GENERATION,
    CommitFault.REBALANCE_IN_PROGRESS,
)


@pytest.mark.parametrize("seed", range(24))
def test_late_and_lost_answers_lose_no_message(seed: int) -> None:
    """Rebalances, outages, expelled members and late commits: all is handled, none passed."""
    random = Random(seed)

    async def main() -> None:
        it = broker(40, 3, seed=seed)
        journal = Journal(it)
        it.faults = Faults(
            latency=(0.0, random.choice([0.5, 3.0])),
            commit_failure_rate=0.2,
            commit_faults=PASSING,
            answer_lost_rate=0.2,
        )
        client: dict[str, Any] = {"session_timeout_ms": 12_000, "max_poll_interval_ms": 20_000}
        if chance(random, 0.5):
            client |= COOPERATIVE

        async def member() -> None:
            while True:
                with trio.move_on_after(random.uniform(30, 90)):
                    try:
                        async with (
                            consuming(
                                it, client_options=client, commit_interval=1.0, drain_timeout=3.0
                            ) as consumer,
                            consumer.stream("t", max_buffered=5) as stream,
                        ):
                            async for message in stream:
                                await trio.sleep(random.uniform(0.0, 0.8))
                                journal.add(message)
                    except CommitFailedError:
                        pass  # the last one: what was finished since the one before comes again

        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(member)
            for _ in range(12):
                await trio.sleep(random.uniform(1, 15))
                match random.randrange(4):
                    case 0:
                        it.rebalance(GROUP)
                    case 1:
                        it.pause_answers()
                        await trio.sleep(random.uniform(0, 8))
                        it.resume_answers()
                    case 2:
                        it.down()
                        await trio.sleep(random.uniform(0, 14))
                        it.up()
                    case _:
                        for name in list(it.members(GROUP))[:1]:
                            it.expire(name)
            it.faults = Faults(latency=(0.0, 0.5))
            with trio.fail_after(1000):
                while not journal.is_complete():
                    await trio.sleep(1)
            nursery.cancel_scope.cancel()
        # A member that was thrown out may have committed less than the one before it.
        journal.check_commits(monotonic=False)
        journal.check_complete()

    run(main, seed=seed)
