"""The harness itself: what it promises to the tests that use it, held against a real Kafka."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import TopicAlreadyExistsError, UnknownTopicOrPartitionError
from kafka.structs import OffsetAndMetadata

from . import admin, fixtures, nodes, properties
from .cluster import Cluster
from .nodes import ClusterError, NodeState
from .produce import number_of, produce_numbered
from .properties import HOST, Ports

ROOT = Path(__file__).parents[2]


def processes_of(folder: Path) -> list[str]:
    """Return the command lines of processes that name a cluster's folder."""
    listed = subprocess.run(
        ["ps", "-ww", "-eo", "args"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    return [line for line in listed if str(folder) in line]


def eventually(condition: Callable[[], bool], timeout: float = 20.0) -> bool:
    """Whether a condition comes true within `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def gone(folder: Path) -> bool:
    """Whether neither a process nor a file is left of a cluster."""
    return not processes_of(folder) and not folder.exists()


def read_all(bootstrap: str, name: str, count: int) -> dict[int, dict[int, bytes]]:
    """Read `count` records; return partition to offset to value."""
    found: dict[int, dict[int, bytes]] = {}
    consumer: Any = KafkaConsumer(name, bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    try:
        deadline = time.monotonic() + 30
        while sum(map(len, found.values())) < count and time.monotonic() < deadline:
            for where, records in consumer.poll(200, max_records=5000).items():
                found.setdefault(where.partition, {}).update((r.offset, r.value) for r in records)
    finally:
        consumer.close()
    return found


@contextmanager
def by_hand(*options: str) -> Iterator[tuple[subprocess.Popen[str], str, Path]]:
    """Run `python -m tests.kafka`; yield it, its bootstrap address and the cluster's folder."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.kafka", *options],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None
            bootstrap = process.stdout.readline().strip()
            assert bootstrap
            # The keeper is the only child; its last argument is the folder.
            ps = ["ps", "-ww", "-eo", "ppid=,args="]
            listed = subprocess.run(ps, capture_output=True, text=True, check=True).stdout
            (keeper,) = (
                line for line in listed.splitlines() if line.split()[0] == str(process.pid)
            )
            yield process, bootstrap, Path(keeper.split()[-1])
        finally:
            process.kill()


@pytest.mark.kafka
def test_cluster_leaves_nothing_behind() -> None:
    """After the block its processes and its folder are gone, and its ports are free."""
    with Cluster() as cluster:
        folder, pid = cluster.folder, cluster.pid(1)
        host, port = cluster.bootstrap.split(":")
        assert processes_of(folder)
        assert cluster.nodes == {1: NodeState.RUNNING}
        assert "Kafka Server started" in cluster.log_tail(1, 1000)
        assert repr(cluster) == f"<Cluster {cluster.bootstrap} (1 running)>"
    assert gone(folder)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert not admin.answers(host, int(port), 1.0)
    with pytest.raises(RuntimeError, match=r"^this cluster does not run: use it inside"):
        cluster.folder  # noqa: B018
    cluster.close()


@pytest.mark.kafka
def test_cluster_ends_on_an_exception() -> None:
    """A failing test takes its cluster with it."""
    folders = []

    def failing_test() -> None:
        with Cluster() as cluster:
            folders.append(cluster.folder)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing_test()
    assert gone(*folders)


@pytest.mark.kafka
@pytest.mark.parametrize(
    "settings", [{"process.roles": "nonsense"}, {"num.io.threads": 0}, {"log.dirs": "/dev/null"}]
)
def test_start_that_fails_shows_the_log_and_leaves_nothing(
    settings: dict[str, properties.Value], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Kafka complains of is in the error; what had been started is gone."""
    folders = []
    start_all = Cluster._start_all

    def spy(self: Cluster) -> None:
        folders.append(self.folder)
        start_all(self)

    monkeypatch.setattr(Cluster, "_start_all", spy)
    complaint = f"(?s)^Kafka node 1 .* The end of its log:\n.*{next(iter(settings.values()))}"
    with pytest.raises(ClusterError, match=complaint), Cluster(properties=settings):
        pass
    (folder,) = folders
    assert gone(folder)


@pytest.mark.kafka
def test_start_on_a_taken_port_tries_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that is lost between its choice and its use costs another attempt, no more."""
    choose = properties.free_ports
    choices: list[dict[int, Ports]] = []

    with socket.create_server((HOST, 0)) as taken:

        def first_taken(count: int) -> dict[int, Ports]:
            ports = choose(count)
            if not choices:
                ports[1] = replace(ports[1], client=taken.getsockname()[1])
            choices.append(ports)
            return ports

        monkeypatch.setattr(nodes, "free_ports", first_taken)
        with Cluster() as cluster:
            assert len(choices) == 2
            assert cluster.bootstrap == f"{HOST}:{choices[1][1].client}"


@pytest.mark.kafka
@pytest.mark.parametrize("end", ["end of input", signal.SIGTERM, signal.SIGINT])
def test_by_hand_ends_when_told(end: str | signal.Signals) -> None:
    """`python -m tests.kafka` creates its topics, and ends cleanly each way."""
    with by_hand("--topic", "orders:3") as (process, bootstrap, folder):
        with admin.open_admin(bootstrap) as client:
            assert admin.end_offsets(client, "orders") == {0: 0, 1: 0, 2: 0}
        if isinstance(end, signal.Signals):
            process.send_signal(end)
        else:
            assert process.stdin is not None
            process.stdin.close()
        assert process.wait(timeout=30) == 0
        assert gone(folder)


@pytest.mark.kafka
def test_parent_killed_leaves_nothing_behind() -> None:
    """SIGKILL of the test run, which no handler can see, still ends the node."""
    with by_hand() as (process, _, folder):
        assert processes_of(folder)
        process.kill()
        assert eventually(lambda: gone(folder))


@pytest.mark.kafka
def test_thread_that_started_a_cluster_may_end() -> None:
    """The nodes belong to the process, not to the thread that happened to start them."""
    cluster = Cluster()
    with ExitStack() as stack:
        thread = threading.Thread(target=lambda: stack.enter_context(cluster))
        thread.start()
        thread.join()
        host, port = cluster.bootstrap.split(":")
        time.sleep(0.5)  # for a signal at the thread's end to arrive
        assert admin.answers(host, int(port), 5.0)


@pytest.mark.kafka
@pytest.mark.skipif(sys.platform != "linux", reason="rests on PR_SET_PDEATHSIG")
def test_keeper_killed_leaves_no_process() -> None:
    """Not even the end of the process in between leaves a node running."""
    with Cluster() as cluster:
        folder = cluster.folder
        cluster._kept._process.kill()
        assert eventually(lambda: not processes_of(folder))
        with pytest.raises(RuntimeError, match=r"^The keeper of .* has ended"):
            cluster.kill(1)
    assert gone(folder)


@pytest.mark.kafka
def test_kill_and_start_keep_port_and_data() -> None:
    """A node comes back after SIGKILL and after SIGTERM with what was stored."""
    with Cluster() as cluster:
        bootstrap = cluster.bootstrap
        cluster.create_topic("t", 2)
        produce_numbered(bootstrap, "t", 1000, 2)
        cluster.kill(1)
        assert cluster.nodes == {1: NodeState.STOPPED}
        with pytest.raises(RuntimeError, match=r"^cannot kill node 1: it is stopped$"):
            cluster.kill(1)
        cluster.start(1)
        produce_numbered(bootstrap, "t", 1000, 2, start=1000)
        cluster.restart(1)
        assert cluster.bootstrap == bootstrap
        assert cluster.end_offsets("t") == {0: 1000, 1: 1000}


@pytest.mark.kafka
def test_pause_silences_a_node_until_resume(kafka_cluster: Cluster) -> None:
    """A paused node accepts and says nothing; a resumed one serves again."""
    host, port = kafka_cluster.bootstrap.split(":")
    assert admin.answers(host, int(port), 5.0)
    kafka_cluster.pause(1)
    try:
        assert kafka_cluster.nodes == {1: NodeState.PAUSED}
        assert not admin.answers(host, int(port), 0.5)
        with pytest.raises(RuntimeError, match=r"^cannot stop node 1: it is paused$"):
            kafka_cluster.stop(1)
    finally:
        kafka_cluster.resume(1)
    kafka_cluster.wait_ready()
    assert admin.answers(host, int(port), 5.0)


@pytest.mark.kafka
def test_three_nodes_survive_each_kill(
    kafka_cluster_3: Cluster, topic: fixtures.TopicFactory
) -> None:
    """With three copies, any one node may go: its records stay, and more are taken."""
    name = topic(3, cluster=kafka_cluster_3)
    written = 0
    for node in kafka_cluster_3.nodes:
        kafka_cluster_3.kill(node)
        produce_numbered(kafka_cluster_3.bootstrap, name, 300, 3, start=written)
        written += 300
        assert kafka_cluster_3.end_offsets(name) == dict.fromkeys(range(3), written // 3)
        kafka_cluster_3.start(node)
    found = read_all(kafka_cluster_3.bootstrap, name, written)
    numbers = {p: [number_of(v) for _, v in sorted(found[p].items())] for p in found}
    assert numbers == {p: list(range(p, written, 3)) for p in range(3)}


@pytest.mark.kafka
def test_topics_come_grow_and_go(kafka_cluster: Cluster, topic: fixtures.TopicFactory) -> None:
    """Each change to a topic is seen by the next question, and mistakes are reported."""
    name = topic(2)
    with pytest.raises(TopicAlreadyExistsError):
        kafka_cluster.create_topic(name)
    kafka_cluster.create_partitions(name, 5)
    assert kafka_cluster.end_offsets(name) == dict.fromkeys(range(5), 0)
    kafka_cluster.delete_topic(name)
    with pytest.raises(UnknownTopicOrPartitionError):
        kafka_cluster.end_offsets(name)
    with pytest.raises(UnknownTopicOrPartitionError):
        kafka_cluster.delete_topic(name)


@pytest.mark.kafka
def test_group_offsets_are_what_was_committed(
    kafka_cluster: Cluster, topic: fixtures.TopicFactory
) -> None:
    """The helpers show a group's offsets with their metadata, and the group itself."""
    name = topic(2)
    assert kafka_cluster.group_offsets(name) == {}
    consumer: Any = KafkaConsumer(bootstrap_servers=kafka_cluster.bootstrap, group_id=name)
    try:
        consumer.assign([TopicPartition(name, 0), TopicPartition(name, 1)])
        consumer.commit({TopicPartition(name, 1): OffsetAndMetadata(0, "note", -1)})
    finally:
        consumer.close()
    assert kafka_cluster.group_offsets(name) == {(name, 1): (0, "note")}
    assert kafka_cluster.describe_group(name)["group_state"] == "Empty"


@pytest.mark.kafka
def test_produce_numbered_puts_each_index_in_its_place(
    kafka_cluster: Cluster, topic: fixtures.TopicFactory
) -> None:
    """Offset k of partition p holds index k * partitions + p, also across two calls."""
    name = topic(3)
    produce_numbered(kafka_cluster.bootstrap, name, 1000, 3, size=20)
    produce_numbered(kafka_cluster.bootstrap, name, 7, 3, size=20, start=1000)
    found = read_all(kafka_cluster.bootstrap, name, 1007)
    assert {p: len(found[p]) for p in sorted(found)} == {0: 336, 1: 336, 2: 335}
    for partition, values in found.items():
        for offset, value in values.items():
            assert len(value) == 20
            assert number_of(value) == offset * 3 + partition


@pytest.mark.kafka
def test_produce_numbered_reports_refusals(kafka_cluster: Cluster) -> None:
    """Neither an unknown topic nor a value too small for its index passes in silence."""
    with pytest.raises(RuntimeError, match=r"messages for absent were not stored: "):
        produce_numbered(kafka_cluster.bootstrap, "absent", 10, 1, timeout=60)
    with pytest.raises(ValueError, match=r"^index 1000 does not fit into 3 bytes$"):
        produce_numbered(kafka_cluster.bootstrap, "absent", 1001, 1, size=3)


@pytest.mark.kafka
def test_compaction_acts_within_seconds(
    kafka_cluster: Cluster, topic: fixtures.TopicFactory
) -> None:
    """A compacted topic with short segments soon has holes in its offsets."""
    from confluent_kafka import Producer

    name = topic(
        config={"cleanup.policy": "compact", "segment.ms": 100, "min.cleanable.dirty.ratio": 0.01}
    )
    producer = Producer({"bootstrap.servers": kafka_cluster.bootstrap})
    end = 0

    def holes() -> bool:
        nonlocal end
        producer.produce(name, b"value", key=b"same")
        assert producer.flush(10) == 0
        end += 1
        time.sleep(0.15)  # a segment is rolled by the first record after its time
        return len(read_all_until(end)) < end

    def read_all_until(end: int) -> list[int]:
        offsets: list[int] = []
        consumer: Any = KafkaConsumer(bootstrap_servers=kafka_cluster.bootstrap)
        try:
            consumer.assign([TopicPartition(name, 0)])
            consumer.seek(TopicPartition(name, 0), 0)
            while not offsets or offsets[-1] < end - 1:
                for records in consumer.poll(200).values():
                    offsets += [record.offset for record in records]
        finally:
            consumer.close()
        return offsets

    assert eventually(holes, 30)
