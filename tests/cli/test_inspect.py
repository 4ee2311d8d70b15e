"""``trio-consumer inspect``: lists, groups and topics."""

from __future__ import annotations

from trio_consumer import TopicPartition

from .clusters import Asked
from .support import assert_one_line


def test_inspect_lists_brokers_groups_and_topics(billing: Asked) -> None:
    """Not what a broker keeps for itself."""
    result = billing("inspect")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "broker  address",
        "1       10.0.0.1:9092",
        "",
        "group    state   type     protocol",
        "billing  Stable  classic  consumer",
        "shared   Stable  share    share",
        "",
        "topic   partitions",
        "orders           4",
    ]


def test_inspect_lists_as_json(billing: Asked) -> None:
    """What is told only of a named group or topic is null."""
    assert billing.json("inspect") == {
        "brokers": [{"id": 1, "host": "10.0.0.1", "port": 9092}],
        "groups": [
            {
                "group": name,
                "state": "Stable",
                "type": kind,
                "protocol_type": protocol,
                "assignor": None,
                "members": None,
                "committed": None,
            }
            for name, kind, protocol in (
                ("billing", "classic", "consumer"),
                ("shared", "share", "share"),
            )
        ],
        "topics": [{"topic": "orders", "partition_count": 4, "partitions": None}],
    }


def test_inspect_shows_a_group_and_a_topic(billing: Asked) -> None:
    """Members with their partitions, commits, and ends; a partition without a leader has none."""
    billing.cluster.leaderless.add(TopicPartition("orders", 3))
    result = billing("inspect", "--group", "billing", "--topic", "orders")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "group billing: Stable, type classic, assigned by range",
        "client  host      member   static member  partitions",
        "bill    10.0.0.7  bill-1f  -              orders[0,1]",
        "bob     10.0.0.7  bob-1f   bob-1          orders[2]",
        "",
        "partition  committed  metadata",
        "orders[0]          0",
        "orders[2]         40  by hand",
        "",
        "topic orders: 4 partitions",
        "partition  leader  first  end  replicas  in sync",
        "orders[0]       1      0   25  1,2       1",
        "orders[1]       1     10   17  1,2       1",
        "orders[2]       1      0   40  1,2       1",
        "orders[3]       -      -    -  1,2       1",
        "",
    ]


def test_inspect_a_group_and_a_topic_as_json(billing: Asked) -> None:
    """In the shape that the documentation gives."""
    found = billing.json("inspect", "--group", "billing", "--topic", "orders")
    (group,) = found["groups"]
    assert group["assignor"] == "range"
    assert group["members"][1] == {
        "member_id": "bob-1f",
        "client_id": "bob",
        "host": "10.0.0.7",
        "instance_id": "bob-1",
        "assignment": [{"topic": "orders", "partitions": [2]}],
    }
    assert group["committed"][1] == {
        "topic": "orders",
        "partition": 2,
        "offset": 40,
        "metadata": "by hand",
    }
    (topic,) = found["topics"]
    assert topic["partitions"][1] == {
        "partition": 1,
        "leader": 1,
        "replicas": [1, 2],
        "in_sync": [1],
        "first": 10,
        "end": 17,
    }


def test_inspect_an_empty_group(billing: Asked) -> None:
    """It has no members, and may have committed nothing."""
    billing.cluster.stored.clear()
    result = billing("inspect", "--group", "idle")
    assert result.stdout.splitlines() == [
        "group idle: Empty, type classic",
        "no members",
        "",
        "nothing committed",
        "",
    ]


def test_inspect_an_empty_cluster(billing: Asked) -> None:
    """Words instead of empty tables."""
    billing.cluster.listed.clear()
    billing.cluster.ends.clear()
    assert billing("inspect").stdout.splitlines()[-3:] == ["no groups", "", "no topics"]


def test_inspect_refuses_unknown_names(billing: Asked) -> None:
    """In one line."""
    assert_one_line(billing("inspect", "--group", "nothing"), 1, "there is no group 'nothing'")
    assert_one_line(billing("inspect", "--topic", "nothing"), 1, "there is no topic 'nothing'")
