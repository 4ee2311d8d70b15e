"""The page about dead letters: nothing is finished before it is where it belongs."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from typing import Any

import pytest
import trio
from kafka import KafkaConsumer

from trio_consumer import TP

from ..kafka.cluster import Cluster
from .support import Address, raised_alone, run_until

ORDERS = [b'{"id": %d, "amount": %d}' % (n, n * 10) for n in range(6)]
BAD = b"no order"
TOPICS = ("orders", "orders.dead", "invoices")


@pytest.fixture
def broker(address: Address) -> Address:
    """Three orders, a value that is none, three orders."""
    for topic in TOPICS:
        address.broker.create_topic(topic)
    for value in [*ORDERS[:3], BAD, *ORDERS[3:]]:
        address.broker.produce("orders", value, key=b"k", headers=[("trace", b"7")])
    return address


class Work:
    """Stands in for ``charge``: some orders fail, some times or always."""

    def __init__(self, fails: dict[int, float]) -> None:
        self.fails = fails
        self.attempts: Counter[int] = Counter()
        self.charged: list[int] = []

    async def __call__(self, order: dict[str, Any]) -> None:
        number = order["id"]
        self.attempts[number] += 1
        if self.attempts[number] <= self.fails.get(number, 0):
            raise ValueError(f"attempt {self.attempts[number]} of {number}")
        self.charged.append(number)


class Sender:
    """Produces to the broker in memory, where nobody has committed past it by then."""

    def __init__(self, broker: Address) -> None:
        self.broker = broker
        self.committed: list[int | None] = []
        self.fails = False

    async def __call__(self, topic: str, value: bytes | None, **more: Any) -> None:
        await trio.sleep(10)
        if self.fails:
            raise OSError("the broker is away")
        self.committed.append(self.broker.committed("billing", "orders"))
        self.broker.broker.produce(topic, value, **more)


def dead(broker: Address) -> list[tuple[bytes | None, dict[str, bytes | None]]]:
    """Value and headers of the dead letters."""
    records = broker.broker.records(TP("orders.dead", 0), committed_only=True)
    return [(record.value, dict(record.headers)) for record in records]


def test_what_fails_is_tried_again_and_then_dead(
    broker: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its bytes go there with where from and why; the others are charged, in order."""
    from examples import dead_letters

    work, send = Work({1: 4, 4: 5}), Sender(broker)
    monkeypatch.setattr(dead_letters, "charge", work)
    run_until(
        dead_letters.consume,
        broker.url,
        send,
        done=lambda: broker.committed("billing", "orders") == 7,
    )
    assert work.charged == [0, 1, 2, 3, 5]
    assert work.attempts[1] == work.attempts[4] == dead_letters.ATTEMPTS
    (bad, why_bad), (failed, why_failed) = dead(broker)
    assert (bad, failed) == (BAD, ORDERS[4])
    assert why_bad["trace"] == why_failed["trace"] == b"7"
    assert why_bad["dead.source"] == b"orders[0]@3"
    assert str(why_bad["dead.error"]).startswith("b'JSONDecodeError: ")
    assert why_failed["dead.source"] == b"orders[0]@5"
    assert why_failed["dead.error"] == b"ValueError: attempt 5 of 4"
    # Nothing was committed past a message before its dead letter was stored.
    assert all((at or 0) <= offset for at, offset in zip(send.committed, (3, 5), strict=True))


def test_message_stays_unfinished_if_the_dead_letter_cannot_be_sent(
    broker: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error leaves the program, and the message comes again."""
    from examples import dead_letters

    send = Sender(broker)
    send.fails = True
    monkeypatch.setattr(dead_letters, "charge", Work({}))
    with pytest.raises(OSError, match=r"^the broker is away$"):
        run_until(dead_letters.consume, broker.url, send, done=lambda: False)
    assert broker.committed("billing", "orders") == 3
    assert dead(broker) == []


def test_cancellation_while_it_waits_finishes_nothing(
    broker: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no failure: no dead letter, and the message comes again."""
    from examples import dead_letters

    work = Work({2: 100})
    monkeypatch.setattr(dead_letters, "charge", work)
    run_until(dead_letters.consume, broker.url, Sender(broker), done=lambda: work.attempts[2] == 3)
    assert broker.committed("billing", "orders") == 2
    assert dead(broker) == []


def test_each_order_has_one_invoice_or_one_dead_letter(
    broker: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is cut off in the middle of its transaction leaves nothing behind."""
    from examples import dead_letters_exactly_once as program

    invoice, seen = program.invoice, itertools.count(1)

    def cut_off(message: Any) -> bytes:
        if next(seen) == 6:
            raise KeyboardInterrupt
        return invoice(message)

    monkeypatch.setattr(program, "invoice", cut_off)
    with pytest.raises(KeyboardInterrupt), raised_alone():
        run_until(program.main, broker.url, "billing-0", done=lambda: False)
    assert broker.sent("invoices") == broker.sent("orders.dead") == []
    run_until(
        program.main,
        broker.url,
        "billing-0",
        done=lambda: broker.committed("billing", "orders") == 7,
    )
    numbers = [json.loads(value or b"")["order"] for value in broker.sent("invoices")]
    assert numbers == list(range(6))
    ((value, headers),) = dead(broker)
    assert value == BAD
    assert headers["dead.source"] == b"orders[0]@3"


# -- on a real Kafka --------------------------------------------------------------


def read(cluster: Cluster, topic: str, count: int) -> list[Any]:
    """So many records of a topic, but for aborted transactions."""
    consumer = KafkaConsumer(
        topic,
        bootstrap_servers=cluster.bootstrap,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        consumer_timeout_ms=30_000,
    )
    try:
        return list(itertools.islice(consumer, count))
    finally:
        consumer.close()


@pytest.fixture
def filled(kafka_cluster: Cluster) -> Any:
    """The topics of the programs on a real Kafka, with the same orders."""
    from kafka import KafkaProducer

    for topic in TOPICS:
        kafka_cluster.create_topic(topic, 1)
    producer = KafkaProducer(bootstrap_servers=kafka_cluster.bootstrap)
    for value in [*ORDERS[:3], BAD, *ORDERS[3:]]:
        producer.send("orders", value, key=b"k", headers=[("trace", b"7")])
    producer.close()
    yield kafka_cluster
    for topic in TOPICS:
        kafka_cluster.delete_topic(topic)


@pytest.mark.kafka
def test_dead_letters_on_kafka(filled: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """With kafka-python's producer."""
    from examples import dead_letters

    work = Work({4: 5})
    monkeypatch.setattr(dead_letters, "charge", work)
    monkeypatch.setattr(dead_letters, "FIRST_WAIT", 0.01)
    run_until(
        dead_letters.main, filled.bootstrap, done=lambda: work.charged[-1:] == [5], virtual=False
    )
    records = read(filled, "orders.dead", 2)
    assert [record.value for record in records] == [BAD, ORDERS[4]]
    assert dict(records[1].headers)["dead.error"] == b"ValueError: attempt 5 of 4"
    assert filled.group_offsets("billing")["orders", 0][0] == 7


@pytest.mark.kafka
def test_exactly_once_on_kafka(filled: Cluster) -> None:
    """Invoices and dead letters, and the offset of their orders, in one transaction."""
    from examples import dead_letters_exactly_once as program

    def done() -> bool:
        return filled.end_offsets("orders.dead")[0] == 2  # one, and the end of a transaction

    run_until(program.main, f"kafka://{filled.bootstrap}", "billing-0", done=done, virtual=False)
    assert [json.loads(r.value)["order"] for r in read(filled, "invoices", 6)] == list(range(6))
    assert [record.value for record in read(filled, "orders.dead", 1)] == [BAD]
    assert filled.group_offsets("billing")["orders", 0][0] == 7
