"""``lag`` and ``inspect`` on a real broker, and what its answers are turned into."""

from __future__ import annotations

import itertools
import json
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from confluent_kafka import Consumer, TopicPartition

from trio_consumer import TP, open_consumer
from trio_consumer.cli.kafka_cluster import _classic_group

from ..kafka.cluster import Cluster
from ..kafka.fixtures import TopicFactory
from ..kafka.produce import produce_numbered
from .support import assert_one_line, call, invoke

_serial = itertools.count(1)


def name() -> str:
    return f"looked-at-{next(_serial)}"


@contextmanager
def members(
    cluster: Cluster, group: str, topic: str, *options: dict[str, Any]
) -> Generator[list[Consumer], None, None]:
    """Members of confluent-kafka, each of which has partitions."""
    with ExitStack() as stack:
        consumers = []
        for more in options:
            settings = {
                "bootstrap.servers": cluster.bootstrap,
                "group.id": group,
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                **more,
            }
            consumer = Consumer(settings)
            stack.callback(consumer.close)
            consumer.subscribe([topic])
            consumers.append(consumer)
        for _ in range(600):
            for consumer in consumers:
                consumer.consume(100, 0.05)
            if all(len(consumer.assignment()) == 4 // len(consumers) for consumer in consumers):
                yield consumers
                return
        raise AssertionError("not every member was given partitions")


def commit(consumer: Consumer, offset: int, metadata: str) -> TP:
    """Commit in the first partition that it has."""
    at = min(consumer.assignment(), key=lambda tp: tp.partition)
    stored = TopicPartition(at.topic, at.partition, offset, metadata)
    consumer.commit(offsets=[stored], asynchronous=False)
    return TP(at.topic, at.partition)


def asked(cluster: Cluster, *arguments: str) -> Any:
    result = invoke(*arguments, "--url", f"kafka://{cluster.bootstrap}", "--json")
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    return json.loads(result.stdout)


@pytest.mark.kafka
@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_group_of_confluent_kafka(
    kafka_cluster: Cluster, topic: TopicFactory, protocol: str
) -> None:
    """Two members, one of them static, by the older and by the newer protocol."""
    orders, group = topic(4), name()
    produce_numbered(kafka_cluster.bootstrap, orders, 100, 4)
    static = {"group.instance.id": f"{group}-static", "client.id": "bob"}
    options = [{"client.id": "bill"}, static]
    with members(
        kafka_cluster, group, orders, *({"group.protocol": protocol, **each} for each in options)
    ) as (_, bob):
        committed = commit(bob, 7, "by hand")
        found = asked(kafka_cluster, "lag", "--group", group)
        shown = invoke("lag", "--group", group, "--url", f"kafka://{kafka_cluster.bootstrap}")
        inspected = asked(kafka_cluster, "inspect", "--group", group, "--topic", orders)
        listed = asked(kafka_cluster, "inspect")
    assert (found["state"], found["type"]) == ("Stable", protocol)
    assert (found["members"], found["lag"], found["without_commit"]) == (2, 18, 3)
    assert [each["end"] for each in found["partitions"]] == [25] * 4
    of = {TP(each["topic"], each["partition"]): each for each in found["partitions"]}
    assert of[committed]["committed"] == 7
    assert of[committed]["metadata"] == "by hand"
    owners = [each["member"]["client_id"] for each in found["partitions"]]
    assert sorted(owners) == ["bill", "bill", "bob", "bob"]
    assert of[committed]["member"]["instance_id"] == f"{group}-static"
    assert of[committed]["member"]["host"] == "127.0.0.1"
    assert f"{group}: Stable, 2 members; lag 18 over 1 partition; 3" in shown.stdout

    (described,) = inspected["groups"]
    assert described["assignor"]
    tps = [p for m in described["members"] for a in m["assignment"] for p in a["partitions"]]
    assert sorted(tps) == [0, 1, 2, 3]
    assert described["committed"] == [
        {"topic": orders, "partition": committed.partition, "offset": 7, "metadata": "by hand"}
    ]
    (looked,) = inspected["topics"]
    assert [(each["first"], each["end"]) for each in looked["partitions"]] == [(0, 25)] * 4
    assert looked["partitions"][0]["leader"] == inspected["brokers"][0]["id"]
    assert {each["group"]: each["type"] for each in listed["groups"]}[group] == protocol
    assert {each["topic"]: each["partition_count"] for each in listed["topics"]}[orders] == 4


@pytest.mark.kafka
def test_a_group_of_this_library(kafka_cluster: Cluster, topic: TopicFactory) -> None:
    """While it reads, and after it has left: the commits stay, and a script may watch them."""
    orders, group = topic(2), name()
    produce_numbered(kafka_cluster.bootstrap, orders, 20, 2)
    url = f"kafka://{kafka_cluster.bootstrap}"

    async def main() -> None:
        async with open_consumer(url, group=group) as consumer, consumer.stream(orders) as stream:
            seen = 0
            async for _ in stream:
                seen += 1
                if seen == 10:
                    await consumer.commit()
                    break
            found = await trio.to_thread.run_sync(asked, kafka_cluster, "lag", "--group", group)
            assert {each["member"]["client_id"] for each in found["partitions"]} == {
                "trio-consumer"
            }

    trio.run(main)
    found = asked(kafka_cluster, "lag", "--group", group, "--topic", orders)
    assert (found["state"], found["members"]) == ("Empty", 0)
    stored = sum(each["committed"] or 0 for each in found["partitions"])
    assert stored == 9, "the tenth was in hand when the loop was left"
    unread = sum(each["end"] - (each["committed"] or 0) for each in found["partitions"])
    watch = ("lag", "--group", group, "--topic", orders, "--url", url, "--fail-above")
    assert invoke(*watch, str(unread)).exit_code == 0
    assert invoke(*watch, str(unread - 1)).exit_code == 3


@pytest.mark.kafka
def test_read_committed_ends_at_an_open_transaction(
    kafka_cluster: Cluster, topic: TopicFactory
) -> None:
    """What is open is behind the last stable offset."""
    from confluent_kafka import Producer

    orders, group = topic(1), name()
    produce_numbered(kafka_cluster.bootstrap, orders, 5, 1)
    kafka_cluster.commit_for(group, orders, 0, 2)
    producer = Producer({"bootstrap.servers": kafka_cluster.bootstrap, "transactional.id": group})
    producer.init_transactions()
    producer.begin_transaction()
    producer.produce(orders, b"open")
    producer.flush()
    try:
        assert asked(kafka_cluster, "lag", "--group", group)["lag"] == 4
        stable = asked(kafka_cluster, "lag", "--group", group, "--isolation-level=read_committed")
        assert stable["lag"] == 3
    finally:
        producer.abort_transaction()


@pytest.mark.kafka
def test_what_is_not_there(kafka_cluster: Cluster) -> None:
    """A failure in one line; nothing is made by asking."""
    url = f"kafka://{kafka_cluster.bootstrap}"
    missing = name()
    for command in ("lag", "inspect"):
        result = invoke(command, "--group", missing, "--url", url)
        assert_one_line(result, 1, f"there is no group '{missing}' on 127.0.0.1")
    result = invoke("inspect", "--topic", missing, "--url", url)
    assert_one_line(result, 1, f"there is no topic '{missing}' on 127.0.0.1")
    assert missing not in {each["topic"] for each in asked(kafka_cluster, "inspect")["topics"]}


@pytest.mark.kafka
def test_a_listener_without_sasl_refuses_a_password(kafka_cluster: Cluster) -> None:
    """One line without the password, and at once: the client itself would try on."""
    result = call(
        *("lag", "--group", "g", "--url", f"kafka://{kafka_cluster.bootstrap}"),
        *("--timeout", "600"),
        *("-o", "security_protocol=SASL_PLAINTEXT", "-o", "sasl_mechanism=PLAIN"),
        *("-o", "sasl_plain_username=bob", "-o", "sasl_plain_password=hush"),
    )
    assert_one_line(result, 1, r"127.0.0.1:\d+ refused the connection: .*check security_protocol")
    assert "hush" not in result.stderr


def test_members_of_another_kind_have_no_partitions() -> None:
    """Workers of Connect join groups, too; what they are assigned is in a language of its own."""
    worker = SimpleNamespace(
        member_id="connect-1",
        client_id="connect",
        client_host="/10.0.0.9",
        group_instance_id=None,
        member_assignment=b"\x00\x01\x00\x00\x00\x06leader\xff\xff",
    )
    found = _classic_group(
        SimpleNamespace(
            group_id="connect",
            group_state="Stable",
            protocol_type="connect",
            protocol_data="sessioned",
            members=[worker],
        )
    )
    (member,) = found.members
    assert member.assignment == frozenset()
    assert member.host == "10.0.0.9"
