"""Kafka through kafka-python: one polling thread, one committing thread.

``transport`` opens and closes, ``session`` is the Trio side, ``poll_loop`` the
thread that polls, ``bridge`` carries rebalances across, ``translate`` turns the
client's errors into ours, ``options`` guards its settings, and ``internals`` is
the only place that touches anything private of kafka-python.
"""

from .transport import KafkaTransport

__all__ = ["KafkaTransport"]
