"""A handler with a bug that no ordinary test finds, and the same handler without it.

``charge_wrong`` acknowledges before its own await has finished.  In every test in
which nothing goes wrong it is right; when it is cancelled, or its process dies,
between the two, the message is lost.  ``simulate`` shows it::

    python -m trio_consumer.testing examples.early_ack:charge_wrong --ack manual
    python -m trio_consumer.testing examples.early_ack:charge --ack manual

``python -m examples.early_ack`` does both.
"""

from __future__ import annotations

import trio

from trio_consumer import Message
from trio_consumer.testing import SimulationFailedError, simulate


async def write_to_ledger(value: bytes) -> None:
    """Stands for whatever takes time: a database, another service."""
    await trio.sleep(0.3)


async def charge_wrong(message: Message) -> None:
    """Acknowledges a charge, and then makes it."""
    message.ack()
    await write_to_ledger(message.value)


async def charge(message: Message) -> None:
    """Makes a charge, and then acknowledges it."""
    await write_to_ledger(message.value)
    message.ack()


def main() -> None:
    """Simulate both."""
    try:
        simulate(charge_wrong, ack="manual")
    except SimulationFailedError as failure:
        print(failure)
    print()
    print(simulate(charge, ack="manual", seeds=200))


if __name__ == "__main__":
    main()
