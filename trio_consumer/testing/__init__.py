"""For tests of programs: a Kafka broker inside the process, and simulations.

:class:`MemoryBroker` is a broker to connect to.  :func:`simulate` runs a handler under
a thousand schedules of faults and shows that nothing is lost, or which schedule loses
what; ``python -m trio_consumer.testing`` does the same from the command line.
"""

from ..transports.memory import CommitFault, Faults, MemoryBroker
from ._simulate import SimulationFailedError, SimulationReport, processed, simulate

__all__ = [
    "CommitFault",
    "Faults",
    "MemoryBroker",
    "SimulationFailedError",
    "SimulationReport",
    "processed",
    "simulate",
]
