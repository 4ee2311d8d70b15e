"""Bad input and trouble with the broker: a clear error or a recovery, never a hang."""

from __future__ import annotations

import gc
import itertools
import logging
import socket
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import trio
from confluent_kafka import Producer
from kafka import KafkaConsumer

from trio_consumer import (
    AuthenticationError,
    BrokerUnavailableError,
    ConfigurationError,
    CorruptRecordError,
    Message,
    Stream,
    open_consumer,
)
from trio_consumer.transports.kafka import poll_loop

from ..kafka.cluster import Cluster
from ..kafka.fixtures import TopicFactory
from ..kafka.produce import produce_numbered
from ..kafka.properties import PASSWORD, USER

pytestmark = pytest.mark.kafka

_serial = itertools.count(1)


def new_group() -> str:
    return f"trouble-{next(_serial)}"


async def take(stream: Stream, count: int) -> list[Message]:
    messages: list[Message] = []
    async for message in stream:
        messages.append(message)
        if len(messages) == count:
            message.ack()
            break
    return messages


@pytest.mark.parametrize("pause", [0.0, 0.5])
def test_poll_that_ends_in_the_middle_of_a_join(
    kafka_cluster: Cluster, topic: TopicFactory, monkeypatch: pytest.MonkeyPatch, pause: float
) -> None:
    """The join goes on, and the next poll takes up what came of it.

    A poll of a millisecond ends in it for sure; one of the usual length does
    when the machine is busy.
    """
    monkeypatch.setattr(poll_loop, "STEP", 0.001)
    topics = [topic(1) for _ in range(3)]
    for name in topics:
        produce_numbered(kafka_cluster.bootstrap, name, 10, 1)

    async def main() -> None:
        url = f"kafka://{kafka_cluster.bootstrap}"
        with trio.fail_after(60):
            async with open_consumer(url, group=new_group()) as consumer, AsyncExitStack() as stack:
                if pause:
                    # Each join ends while nobody polls: its result is not thrown away.
                    coordinator = consumer._session._client._coordinator  # type: ignore[attr-defined]
                    ensure = coordinator.ensure_active_group

                    def slowly(**kwargs: Any) -> Any:
                        joined = ensure(**kwargs)
                        time.sleep(pause)
                        return joined

                    coordinator.ensure_active_group = slowly
                for number, name in enumerate(topics, 1):
                    stream = await stack.enter_async_context(consumer.stream(name))
                    assert len(await take(stream, 10)) == 10
                    if pause:
                        assert consumer.generation == number
                await consumer.commit()

    trio.run(main)


def test_no_poll_blocks_while_everything_is_paused(
    kafka_cluster: Cluster, topic: TopicFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing interrupts a poll: a stream that has room again would wait for its end."""
    name = topic(2)
    produce_numbered(kafka_cluster.bootstrap, name, 4000, 2)
    poll, timeouts = KafkaConsumer.poll, []

    def watched(self: KafkaConsumer, timeout_ms: int, max_records: int) -> Any:
        if self.paused() and self.paused() == self.assignment():
            timeouts.append(timeout_ms)
        return poll(self, timeout_ms=timeout_ms, max_records=max_records)

    monkeypatch.setattr(KafkaConsumer, "poll", watched)

    async def main() -> None:
        url = f"kafka://{kafka_cluster.bootstrap}"
        options = {"max_poll_records": 50}
        with trio.fail_after(60):
            async with (
                open_consumer(
                    url, group=new_group(), max_buffered=100, client_options=options
                ) as consumer,
                consumer.stream(name) as stream,
            ):
                assert len(await take(stream, 4000)) == 4000

    trio.run(main)
    assert timeouts
    assert not any(timeouts)


def unconnected_sockets() -> int:
    """How many open sockets have no peer, garbage left out."""
    gc.collect()
    count = 0
    for each in gc.get_objects():
        if type(each) is socket.socket and each.fileno() >= 0:
            try:
                each.getpeername()
            except OSError:
                count += 1
    return count


def test_unreachable_broker_is_an_error_within_the_timeout() -> None:
    """Nobody listens: an error that names the address, after the stated time."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"

        async def main() -> None:
            with trio.fail_after(30):
                async with open_consumer(f"kafka://{address}", group="g", connect_timeout=1.0):
                    pytest.fail("there is no broker")

        with pytest.raises(BrokerUnavailableError, match=f"^no broker of {address} answered"):
            trio.run(main)


def test_connecting_can_be_cancelled(kafka_cluster: Cluster) -> None:
    """A connection attempt ends when it is cancelled, not when it times out."""

    async def main() -> None:
        with trio.fail_after(20), trio.move_on_after(0.5) as scope:
            async with open_consumer("kafka://127.0.0.1:1", group="g", connect_timeout=300.0):
                pytest.fail("there is no broker")
        assert scope.cancelled_caught

    trio.run(main)


def sasl(password: str) -> dict[str, Any]:
    return {
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "PLAIN",
        "sasl_plain_username": USER,
        "sasl_plain_password": password,
    }


def test_wrong_password_is_an_authentication_error(
    kafka_cluster: Cluster, topic: TopicFactory
) -> None:
    """The right password works, the wrong one is named as the reason."""
    name = topic()
    produce_numbered(kafka_cluster.bootstrap, name, 3, 1)
    url = f"kafka://{kafka_cluster.sasl_bootstrap}"

    async def main(password: str) -> int:
        async with (
            open_consumer(
                url, group=new_group(), connect_timeout=3.0, client_options=sasl(password)
            ) as consumer,
            consumer.stream(name) as stream,
        ):
            return len(await take(stream, 3))

    assert trio.run(main, PASSWORD) == 3
    with pytest.raises(AuthenticationError, match=r"refused the connection: .*[Aa]uthentication"):
        trio.run(main, "wrong")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"enable_auto_commit": True}, r"^client option 'enable_auto_commit' cannot be set: "),
        ({"value_deserializer": int}, r"^client option 'value_deserializer' cannot be set: "),
        (
            {"sesion_timeout_ms": 1},
            r"^kafka-python has no option 'sesion_timeout_ms'; did you mean",
        ),
        ({"partition_assignment_strategy": "best"}, r"^no partition_assignment_strategy 'best'"),
    ],
)
def test_option_that_breaks_the_guarantees_is_refused(options: dict[str, Any], words: str) -> None:
    """It is named, with the way to do it instead, before anything connects."""

    async def main() -> None:
        async with open_consumer("kafka://127.0.0.1:1", group="g", client_options=options):
            pytest.fail("accepted")

    with pytest.raises(ConfigurationError, match=words):
        trio.run(main)


def test_compacted_topic_is_committed_to_its_end(
    kafka_cluster: Cluster, topic: TopicFactory
) -> None:
    """Compaction leaves holes; what remains is delivered and the commit reaches the end."""
    config = {
        "cleanup.policy": "compact",
        "segment.ms": 200,
        "min.cleanable.dirty.ratio": 0.01,
        "max.compaction.lag.ms": 200,
    }
    name = topic(config=config)
    producer = Producer({"bootstrap.servers": kafka_cluster.bootstrap, "linger.ms": 0})

    def produce(rounds: int) -> None:
        for number in range(rounds):
            producer.produce(name, b"%d" % number, key=b"%d" % (number % 7))
        producer.flush(30)

    async def read() -> list[int]:
        end = kafka_cluster.end_offsets(name)[0]
        group = new_group()
        async with (
            open_consumer(f"kafka://{kafka_cluster.bootstrap}", group=group) as consumer,
            consumer.stream(name) as stream,
        ):
            offsets = []
            with trio.fail_after(30):
                async for message in stream:
                    offsets.append(message.offset)
                    if message.offset == end - 1:
                        message.ack()
                        break
        assert kafka_cluster.group_offsets(group)[name, 0][0] == end
        return offsets

    deadline = time.monotonic() + 60
    while True:
        produce(200)
        time.sleep(1.0)
        produce(1)  # rolls the segment, so that the one before can be cleaned
        offsets = trio.run(read)
        if len(offsets) <= offsets[-1]:
            break
        assert time.monotonic() < deadline, "Kafka did not compact"


def test_corrupt_record_is_an_error_that_names_it(
    kafka_cluster: Cluster, topic: TopicFactory
) -> None:
    """A wrong CRC ends the consumer at that record; what came before is committed."""
    name = topic()
    for start in range(3):
        produce_numbered(kafka_cluster.bootstrap, name, 1, 1, start=start)
    (log,) = Path(kafka_cluster.folder).rglob(f"{name}-0/*.log")
    data = bytearray(log.read_bytes())
    # The value of the second record: its number, then the padding.
    place = data.index(b"1" + b" " * 99)
    with log.open("r+b") as file:
        file.seek(place + 50)
        file.write(b"X")
    group = new_group()
    seen: list[int] = []

    async def main() -> None:
        async with (
            open_consumer(f"kafka://{kafka_cluster.bootstrap}", group=group) as consumer,
            consumer.stream(name) as stream,
        ):
            with trio.fail_after(30):
                async for message in stream:
                    seen.append(message.offset)

    with pytest.raises(CorruptRecordError) as caught:
        trio.run(main)
    assert (caught.value.tp, caught.value.offset) == ((name, 0), 1)
    assert seen == [0]
    assert kafka_cluster.group_offsets(group)[name, 0][0] == 1


def test_broker_that_dies_and_comes_back_is_survived(caplog: pytest.LogCaptureFixture) -> None:
    """The consumer waits through an outage, goes on where it was and keeps no dead sockets."""
    # pytest keeps each record with the error that it names, and so the socket.
    caplog.set_level(logging.CRITICAL, "kafka")
    caplog.set_level(logging.CRITICAL, "trio_consumer")
    with Cluster(nodes=1) as cluster:
        cluster.create_topic("t", 2)
        produce_numbered(cluster.bootstrap, "t", 1000, 2)
        group = new_group()

        async def main() -> None:
            seen: set[tuple[int, int]] = set()
            async with (
                open_consumer(
                    f"kafka://{cluster.bootstrap}", group=group, commit_interval=0.2
                ) as consumer,
                consumer.stream("t") as stream,
            ):
                with trio.fail_after(120):
                    async for message in stream:
                        seen.add((message.partition, message.offset))
                        if len(seen) == 1000:
                            break
                    await trio.to_thread.run_sync(cluster.kill, 1)
                    await trio.sleep(3)
                    await trio.to_thread.run_sync(cluster.start, 1)
                    await trio.to_thread.run_sync(
                        lambda: produce_numbered(cluster.bootstrap, "t", 1000, 2, start=1000)
                    )
                    async for message in stream:
                        seen.add((message.partition, message.offset))
                        if len(seen) == 2000:
                            message.ack()
                            break
                    assert unconnected_sockets() <= 2

        trio.run(main)
        # A break left the thousandth message of the first half unfinished.
        offsets = [offset for offset, _ in cluster.group_offsets(group).values()]
        assert len(offsets) == 2
        assert all(499 <= offset <= 1000 for offset in offsets)
