"""A topic that was deleted and made again is another one, though it has the same name."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from kafka import errors

from trio_consumer import TP
from trio_consumer.transports.kafka import internals

OLD, NEW = "one identity", "another one"
A, B = TP("orders", 0), TP("bills", 0)


class Client:
    """As much of a client as a commit needs.

    Attributes:
        known: Identities of topics, as the next metadata will have them.
        sent: What each attempt sent.
    """

    def __init__(self, known: dict[str, str], *, answers: bool = True) -> None:
        self.known = known
        self.sent: list[dict[TP, int]] = []
        self._seen: dict[str, str] = {"orders": OLD, "bills": OLD}
        self._answers = answers
        self._cluster = SimpleNamespace(
            request_update=lambda: None, topic_id=self._topic_id, _topics={"orders", "bills"}
        )
        self._coordinator = SimpleNamespace(
            _send_offset_commit_request=self._send,
            _handle_offset_commit_response=lambda *args: None,
            _manager=SimpleNamespace(wait_for=self._wait_for),
        )

    def _topic_id(self, topic: str) -> str | None:
        return self._seen.get(topic)

    async def _wait_for(self, future: Any, timeout_ms: int) -> None:
        if not self._answers:
            raise errors.KafkaTimeoutError
        self._seen = self.known
        if "orders" not in self.known:
            # The client's answer if it asks for one topic; here also if for more.
            raise errors.UnknownTopicOrPartitionError

    async def _send(self, offsets: dict[TP, int]) -> None:
        self.sent.append(offsets)

    def attempt(self) -> None:
        """Send both offsets, as the client does until it succeeds or its time is up."""
        asyncio.run(self._coordinator._send_offset_commit_request({A: 5, B: 7}))


def begun(client: Any, missing: set[TP]) -> internals.CommitWatch:
    """A commit of which the broker did not know some partitions."""
    watch = internals.CommitWatch()
    internals.watch_commits(client, watch)
    watch.begin({"orders": OLD, "bills": OLD})
    watch.missing |= missing
    return watch


def test_first_attempt_asks_nobody() -> None:
    """Metadata are asked for only if there is a doubt."""
    client = Client({"orders": NEW, "bills": OLD}, answers=False)
    watch = begun(client, set())
    client.attempt()
    assert client.sent == [{A: 5, B: 7}]
    assert not watch.remade


def test_partition_is_sent_again_to_the_topic_that_was_read() -> None:
    """Its coordinator was just behind."""
    client = Client({"orders": OLD, "bills": OLD})
    watch = begun(client, {A})
    client.attempt()
    assert client.sent == [{A: 5, B: 7}]
    assert not watch.remade


def test_nothing_is_sent_to_a_topic_made_in_its_place() -> None:
    """Its offsets mean nothing there, and whoever got them would skip what is below."""
    client = Client({"orders": NEW, "bills": OLD})
    watch = begun(client, {A})
    client.attempt()
    client.attempt()
    assert client.sent == [{B: 7}, {B: 7}]
    assert watch.remade == {A}


def test_topic_that_is_not_there_is_waited_for() -> None:
    """The others are stored meanwhile; the attempt counts as one that may be tried again."""
    client = Client({"bills": OLD})
    watch = begun(client, {A})
    for _ in range(2):
        with pytest.raises(errors.UnknownTopicOrPartitionError):
            client.attempt()
    assert watch.missing == {A}
    client.known = {"orders": NEW, "bills": OLD}
    client.attempt()
    assert client.sent == [{B: 7}] * 3
    assert watch.remade == {A}


def test_nothing_is_sent_while_no_broker_tells_the_topics() -> None:
    """That is no answer."""
    client = Client({"orders": NEW, "bills": OLD}, answers=False)
    begun(client, {A})
    with pytest.raises(errors.UnknownTopicOrPartitionError):
        client.attempt()
    assert client.sent == []


def test_topic_that_is_known_to_have_been_made_again_gets_nothing() -> None:
    """Not at the first attempt either."""
    client = Client({"orders": NEW, "bills": OLD})
    client._seen = client.known
    watch = begun(client, set())
    client.attempt()
    assert client.sent == [{B: 7}]
    assert watch.remade == {A}


def test_topic_that_left_the_subscription_is_sent() -> None:
    """Metadata are of what is subscribed to, so they do not have it."""
    client = Client({"bills": OLD})
    client._seen = client.known
    client._cluster._topics.discard("orders")
    begun(client, set())
    client.attempt()
    assert client.sent == [{A: 5, B: 7}]


def test_broker_without_identities_is_asked_again() -> None:
    """Before Kafka 2.8 a topic is its name."""
    client = Client({})
    watch = internals.CommitWatch()
    internals.watch_commits(client, watch)  # type: ignore[arg-type]  # enough of one
    watch.begin({})
    watch.missing.add(A)
    client.attempt()
    assert client.sent == [{A: 5, B: 7}]


class Subscription:
    """As much of a client's as a reset needs."""

    def __init__(self, policy: bool, **offsets: int | None) -> None:
        self.assignment = {
            TP(topic, 0): SimpleNamespace(
                position=None if offset is None else SimpleNamespace(offset=offset)
            )
            for topic, offset in offsets.items()
        }
        self.reset: list[TP] = []
        self.request_offset_reset = self.reset.append
        self.has_default_offset_reset_policy = lambda: policy


@pytest.mark.parametrize("position", [5, None], ids=["known", "still to come"])
def test_topic_that_was_made_again_is_read_from_where_the_policy_says(position: int | None) -> None:
    """The group may still have a position in the old one, and the client may be asking for it."""
    subscription = Subscription(True, orders=position, bills=7)
    consumer: Any = SimpleNamespace(
        _cluster=SimpleNamespace(topic_id={"orders": NEW, "bills": OLD}.get),
        _subscription=subscription,
    )
    known: dict[str, object] = {"orders": OLD}
    remade = internals.remade_topics(consumer, known)
    assert remade == {"orders"}
    assert internals.reset_positions(consumer, remade) == {A}
    assert subscription.reset == [A]
    assert internals.remade_topics(consumer, known) == set()


def test_without_a_policy_that_is_an_error() -> None:
    """As any position out of range."""
    consumer: Any = SimpleNamespace(_subscription=Subscription(False, orders=5))
    with pytest.raises(errors.OffsetOutOfRangeError):
        internals.reset_positions(consumer, {"orders"})
    consumer = SimpleNamespace(_subscription=Subscription(False, orders=None))
    assert internals.reset_positions(consumer, {"orders"}) == set()
