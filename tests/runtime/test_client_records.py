"""Records of a client's own kind, which only its functions can read, as messages."""

from __future__ import annotations

from dataclasses import replace
from operator import attrgetter, itemgetter

from trio_consumer import TP, open_consumer
from trio_consumer.testing import MemoryBroker
from trio_consumer.transports import PolledBatch
from trio_consumer.transports.base import ClientRecords, RecordFields

from .support import GROUP, T0, Poll, PollingOtherwise, broker, committed, run, take

FIELDS = RecordFields(
    topic=itemgetter(0),
    partition=itemgetter(1),
    offset=itemgetter(2),
    timestamp=itemgetter(3),
    key=itemgetter(4),
    value=itemgetter(5),
    headers=itemgetter(6),
)


as_tuple = attrgetter("topic", "partition", "offset", "timestamp", "key", "value", "headers")


class TupleTransport(PollingOtherwise):
    """A memory broker whose sessions bring tuples."""

    def polling(self, poll: Poll) -> Poll:
        async def poll_tuples() -> list[PolledBatch]:
            return [
                replace(batch, records=ClientRecords([*map(as_tuple, batch.records)], FIELDS))
                for batch in await poll()
            ]

        return poll_tuples


def tuples(*timestamps: int) -> MemoryBroker:
    """A broker with a record for each timestamp."""
    it = broker(0)
    for timestamp in timestamps:
        it.produce("t", b"7", key=b"k", headers=[("h", b"1")], timestamp=timestamp)
    return it


def test_message_of_a_tuple_carries_what_was_produced() -> None:
    """Its attributes are those of any message."""

    async def main() -> None:
        it = tuples(1500, 0, -1)
        async with (
            open_consumer(TupleTransport(it), group=GROUP) as consumer,
            consumer.stream("t") as stream,
        ):
            messages = await take(stream)
            first = messages[0]
            assert (first.topic, first.partition, first.offset, first.tp) == ("t", 0, 0, T0)
            assert (first.key, first.value, list(first.headers)) == (b"k", b"7", [("h", b"1")])
            assert [message.timestamp for message in messages] == [1.5, 0.0, None]
            assert repr(messages[2]) == "<Message t[0] offset=2>"
        assert committed(it) == 3

    run(main)


def test_message_of_a_tuple_is_decoded_and_given_back() -> None:
    """As any other: once decoded, and once more the same after it was given back."""

    async def main() -> None:
        it = tuples(1000, 2000)
        async with (
            open_consumer(TupleTransport(it), group=GROUP) as consumer,
            consumer.stream("t", ack="manual", value_deserializer=int) as stream,
        ):
            first, second = await take(stream, ack=False)
            assert (first.key, first.value, first.timestamp) == (b"k", 7, 1.0)
            assert second.ack()
            assert first.nack()
            (again,) = await take(stream)
            assert (again.tp, again.offset, again.value) == (TP("t", 0), 0, 7)
        assert committed(it) == 2

    run(main)
