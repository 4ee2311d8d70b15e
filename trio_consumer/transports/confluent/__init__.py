"""Kafka through confluent-kafka (librdkafka): one thread that owns the client.

``transport`` opens and closes, ``session`` is the Trio side, ``poll_loop`` the
thread that owns the client, ``rebalances`` carries rebalances across, ``inquirer``
asks about offsets and topics with a client of its own, ``records`` makes batches
of what was polled, ``translate`` turns the client's errors into ours, ``options``
guards its settings, and ``internals`` has what is not written in its manual.

Needs the extra: ``pip install trio_consumer[confluent]``.
"""

from .transport import ConfluentTransport

__all__ = ["ConfluentTransport"]
