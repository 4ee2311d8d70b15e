"""``trio-consumer lag``: what it makes of a cluster's answers, and how it ends."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys

import pytest
import trio
from trio.testing import MockClock

from trio_consumer import OffsetAndMetadata, TopicPartition

from .clusters import Asked
from .support import COMMAND, assert_one_line, call, invoke

LAG = ("lag", "--group", "billing")


def test_lag_shows_offsets_and_owners(billing: Asked) -> None:
    """Offset 0 is a commit; no commit is "-"; the static name is beside its member."""
    result = billing(*LAG)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "partition  committed  end  lag  client  host      member   static member  metadata",
        "orders[0]          0   25   25  bill    10.0.0.7  bill-1f  -",
        "orders[1]          -   17    -  bill    10.0.0.7  bill-1f  -",
        "orders[2]         40   40    0  bob     10.0.0.7  bob-1f   bob-1          by hand",
        "",
        "billing: Stable, 2 members; lag 25 over 2 partitions; 1 partition without a commit",
    ]


def test_lag_as_json(billing: Asked) -> None:
    """What is unknown is null, and the members are objects."""
    found = billing.json(*LAG)
    partitions = found.pop("partitions")
    assert found == {
        "group": "billing",
        "state": "Stable",
        "type": "classic",
        "isolation_level": "read_uncommitted",
        "members": 2,
        "lag": 25,
        "without_commit": 1,
    }
    assert partitions[1] == {
        "topic": "orders",
        "partition": 1,
        "committed": None,
        "first": 10,
        "end": 17,
        "lag": None,
        "metadata": "",
        "member": {
            "member_id": "bill-1f",
            "client_id": "bill",
            "host": "10.0.0.7",
            "instance_id": None,
        },
    }
    assert partitions[2]["member"]["instance_id"] == "bob-1"


def test_lag_of_a_topic_tells_of_all_its_partitions(billing: Asked) -> None:
    """Those too that nobody has."""
    found = billing.json(*LAG, "--topic", "orders")
    assert [each["partition"] for each in found["partitions"]] == [0, 1, 2, 3]
    assert found["partitions"][3]["member"] is None


def test_lag_of_a_group_without_members(billing: Asked) -> None:
    """Its commits are there."""
    result = billing("lag", "--group", "idle")
    assert "orders[0]          0   25   25  -       -     -" in result.stdout
    assert "idle: Empty, 0 members; lag 25" in result.stdout


def test_lag_counts_to_the_first_open_transaction_if_asked(billing: Asked) -> None:
    """The last stable offset is the end of who reads committed only."""
    billing.cluster.stable_ends[TopicPartition("orders", 0)] = 20
    assert billing.json(*LAG)["lag"] == 25
    found = billing.json(*LAG, "--isolation-level", "read_committed")
    assert (found["lag"], found["isolation_level"]) == (20, "read_committed")


def test_a_commit_past_the_end_is_no_lag(billing: Asked) -> None:
    """It is left over from a topic that was made again."""
    billing.cluster.stored[TopicPartition("orders", 2)] = OffsetAndMetadata(90)
    assert billing.json(*LAG)["partitions"][2]["lag"] == 0


def test_a_partition_without_a_leader_has_no_end(billing: Asked) -> None:
    """And a partition of a topic that is gone neither."""
    gone, orphan = TopicPartition("gone", 0), TopicPartition("orders", 0)
    billing.cluster.stored[gone] = OffsetAndMetadata(5)
    billing.cluster.leaderless.add(orphan)
    found = billing.json(*LAG)
    ends = {(each["topic"], each["partition"]): each["end"] for each in found["partitions"]}
    assert ends[gone] is None
    assert ends[orphan] is None
    assert found["lag"] == 0
    result = billing(*LAG, "--fail-above", "1000")
    assert result.exit_code == 3
    assert "the end of gone[0], orders[0] is unknown" in result.stderr


@pytest.mark.parametrize(("most", "exit_code"), [(31, 3), (32, 0)])
def test_fail_above_counts_all_of_a_partition_without_a_commit(
    billing: Asked, most: int, exit_code: int
) -> None:
    """25 behind a commit and 7 in orders[1]; the report comes all the same."""
    result = billing(*LAG, "--fail-above", str(most))
    assert result.exit_code == exit_code
    assert "lag 25 over 2 partitions" in result.stdout
    if exit_code:
        assert result.stderr.startswith("Error: the group 'billing' is 32 messages behind, more")


def test_texts_of_members_cannot_rule_the_terminal(billing: Asked) -> None:
    """Anybody may commit metadata, and name a client."""
    billing.cluster.stored[TopicPartition("orders", 2)] = OffsetAndMetadata(40, "\x1b[2Jo\nk")
    result = billing(*LAG)
    assert "\x1b" not in result.stdout
    assert " [2Jo k" in result.stdout


# -- what cannot be ------------------------------------------------------------------


def test_an_unknown_group_is_a_failure_with_a_proposal(billing: Asked) -> None:
    """In one line."""
    assert_one_line(
        billing("lag", "--group", "biling"),
        1,
        r"there is no group 'biling' on fake:9092, or it has expired \(did you mean 'billing'\?\);"
        " 'trio-consumer inspect' lists the groups",
    )


def test_a_group_of_another_kind_is_named(billing: Asked) -> None:
    """A share group has no committed offsets."""
    assert_one_line(billing("lag", "--group", "shared"), 1, ".* is of the type 'share'")


def test_an_unknown_topic_is_a_failure(billing: Asked) -> None:
    """Nothing is made by asking."""
    result = billing(*LAG, "--topic", "order")
    assert_one_line(result, 1, r"there is no topic 'order' .*did you mean 'orders'\?")


@pytest.mark.parametrize(
    ("url", "match"),
    [
        ("memory://x", "'memory://x' is a broker inside of one process"),
        ("confluent://bob:hush@h:1", ".*do not belong into the address"),
        ("foo://x", "unknown scheme 'foo'"),
        ("orders", "'orders' is not a URL: write"),
        ("kafka://", "'kafka://' names no address"),
        ("kafka://h:x", ".*the port of 'h:x' must be a number"),
    ],
)
def test_what_cannot_be_looked_into_is_refused(url: str, match: str) -> None:
    """With what to write instead, and without secrets."""
    result = invoke(*LAG, "--url", url)
    assert_one_line(result, 2, match)
    assert "hush" not in result.stderr


@pytest.mark.parametrize(
    ("more", "match"),
    [
        (["-o", "nothing=1"], "kafka-python has no option 'nothing'"),
        (["-o", "group_id=x"], "client option 'group_id' cannot be set"),
        (["-o", "plain"], "Invalid value for '-o'"),
        (["-o", "ssl_cafile=no.pem"], "client option 'ssl_cafile' is 'no.pem', which cannot be r"),
        (["--timeout", "0"], "Invalid value for '--timeout'"),
        (["--fail-above", "-1"], "Invalid value for '--fail-above'"),
        (["--group", ""], "Invalid value for '--group': a name must not be empty"),
        (["--topic", ""], "Invalid value for '--topic': a name must not be empty"),
    ],
)
def test_a_bad_option_is_refused(more: list[str], match: str) -> None:
    """Each with its name; before anybody is asked."""
    assert_one_line(invoke(*LAG, "--url", "kafka://127.0.0.1:1", *more), 2, match)


def test_address_and_options_may_stand_in_the_environment(
    billing: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A password there is not seen in the list of processes."""
    monkeypatch.setenv("TRIO_CONSUMER_URL", "kafka://fake:9092")
    monkeypatch.setenv(
        "TRIO_CONSUMER_OPTIONS", "sasl_mechanism=PLAIN sasl_plain_password='7' ssl_cafile=ca.pem"
    )
    assert invoke(*LAG).exit_code == 0
    assert billing.cluster.options == {
        "sasl_mechanism": "PLAIN",
        "sasl_plain_password": "7",
        "ssl_cafile": "ca.pem",
    }


def test_confluent_means_the_same_brokers(billing: Asked) -> None:
    """What secures the connection is translated, the rest has no meaning here."""
    options = {
        "security.protocol": "sasl_ssl",
        "sasl.mechanism": "PLAIN",
        "sasl.username": "bob",
        "sasl.password": "hush",
        "ssl.ca.location": "ca.pem",
        "session.timeout.ms": "9000",
    }
    pairs = [part for option in options.items() for part in ("-o", "=".join(option))]
    url = ("--url", "confluent://fake:9092")
    assert invoke(*LAG, *url, *pairs).exit_code == 0
    assert billing.cluster.options == {
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "PLAIN",
        "sasl_plain_username": "bob",
        "sasl_plain_password": "hush",
        "ssl_cafile": "ca.pem",
    }
    result = invoke(*LAG, *url, "-o", "ssl.keystore.location=x")
    assert_one_line(result, 2, ".* no counterpart of 'ssl.keystore.location': write kafka://")


# -- time ---------------------------------------------------------------------------


def test_a_cluster_that_does_not_answer_is_given_up(
    billing: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At --timeout, with what the client said last."""
    billing.cluster.stuck = True
    billing.cluster.trouble = "cannot list the brokers: NodeNotReadyError"
    run = trio.run
    monkeypatch.setattr(trio, "run", lambda main: run(main, clock=MockClock(autojump_threshold=0)))
    assert_one_line(
        billing("inspect", "--timeout", "30"),
        1,
        r"fake:9092 did not answer everything within 30 s \(cannot list the brokers:"
        r" NodeNotReadyError\); check that each broker can be reached",
    )


def test_a_broker_that_is_not_there_is_a_failure() -> None:
    """One line with the remedy; the client's own log is left out."""
    result = call(*LAG, "--url", "kafka://127.0.0.1:1", "--timeout", "0.5")
    assert_one_line(
        result, 1, r"no broker of 127.0.0.1:1 answered within 0.5 s \(.*\); check the address"
    )


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGINT to send")
def test_ctrl_c_ends_at_once() -> None:
    """While a broker takes its time; 130 as from every program."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(30)
        url = f"kafka://127.0.0.1:{server.getsockname()[1]}"
        command = [*COMMAND, *LAG, "--url", url, "--timeout", "600"]
        # A shell lets its background jobs ignore the signal, and all that they start.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        finally:
            signal.signal(signal.SIGINT, before)
        with process:
            try:
                server.accept()[0].close()
                process.send_signal(signal.SIGINT)
                _, err = process.communicate(timeout=20)
            finally:
                process.kill()
    assert process.returncode == 130, err
    assert err == "Error: interrupted\n"
