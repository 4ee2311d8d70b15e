"""A Kafka broker in memory: no thread, no socket, one process, Trio's clock.

It keeps what Kafka promises and breaks what Kafka breaks: groups with eager and
cooperative rebalances, generations, fencing, expiring sessions; logs with
holes, transactions and moving bounds; commits that fail in every way that they
do.  :class:`MemoryBroker` is the whole of it; the modules below are its parts.
"""

from __future__ import annotations

from .assign import Assignor
from .broker import MemoryBroker
from .faults import CommitFault, Faults
from .log import MemoryRecord
from .protocol import AcceptedCommit, GroupObserver, GroupState
from .session import MemorySession
from .transactions import Transaction, TransactionState
from .transport import MemoryTransport

__all__ = [
    "AcceptedCommit",
    "Assignor",
    "CommitFault",
    "Faults",
    "GroupObserver",
    "GroupState",
    "MemoryBroker",
    "MemoryRecord",
    "MemorySession",
    "MemoryTransport",
    "Transaction",
    "TransactionState",
]
