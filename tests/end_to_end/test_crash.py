"""Processes that are killed: nothing is lost, and the replays are those that were due."""

from __future__ import annotations

import itertools
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ..kafka.cluster import Cluster
from ..kafka.fixtures import TopicFactory
from ..kafka.produce import produce_numbered

pytestmark = pytest.mark.kafka

MEMBER = Path(__file__).with_name("member.py")
PATIENCE = 240.0
PAUSE = "0.001"
"""Seconds after each batch of 50: at full speed a member would be done before it is killed."""

_serial = itertools.count(1)


@contextmanager
def member(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A consuming process; killed at the end if it is still there."""
    process = subprocess.Popen([sys.executable, str(MEMBER), *arguments])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def end(process: subprocess.Popen[bytes], journal: Path) -> None:
    """Have a member leave in order; not before it listens to the signal."""
    wait_until(journal.exists)
    process.terminate()
    assert process.wait(60) == 0


def journaled(path: Path) -> list[tuple[int, int]]:
    """Complete lines of a journal: partition and offset, in the order of handling."""
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]
    return [(int(a), int(b)) for a, b in (line.split() for line in lines)]


def wait_until(condition: object, patience: float = PATIENCE) -> None:
    deadline = time.monotonic() + patience
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.1)


def committed(cluster: Cluster, group: str, topic: str, partitions: int) -> list[int]:
    offsets = cluster.group_offsets(group)
    return [offsets.get((topic, p), (0, ""))[0] for p in range(partitions)]


def test_killed_five_times_loses_nothing(
    kafka_cluster: Cluster, topic: TopicFactory, tmp_path: Path
) -> None:
    """``kill -9`` at random moments: both streams handle each message, replays were uncommitted."""
    count, partitions = 1_000_000, 4
    each = count // partitions
    name, group = topic(partitions), f"killed-{next(_serial)}"
    produce_numbered(kafka_cluster.bootstrap, name, count, partitions)
    seed = random.randrange(1_000_000)
    chance = random.Random(seed)
    handled = [[bytearray(each) for _ in range(partitions)] for _ in range(2)]
    replayed = uncommitted = 0
    for life in range(6):
        journals = [tmp_path / f"journal-{life}-{stream}" for stream in range(2)]
        start = committed(kafka_cluster, group, name, partitions)
        for marks in handled:
            for partition, offset in enumerate(start):
                # The promise: nothing is committed that a journal has not.
                missing = marks[partition].find(0, 0, offset)
                assert missing < 0, f"seed {seed}: {partition}@{offset} passes {missing}"
                uncommitted += marks[partition].count(1, offset)
        arguments = [kafka_cluster.bootstrap, group, name, str(journals[0]), "range", PAUSE]
        with member(*arguments, str(journals[1])) as process:
            if life < 5:
                wait_until(lambda journals=journals: all(journaled(each) for each in journals))
                time.sleep(chance.uniform(0.05, 0.6))
                process.send_signal(signal.SIGKILL)
                process.wait()
            else:
                wait_until(
                    lambda: committed(kafka_cluster, group, name, partitions) == [each] * partitions
                )
                end(process, journals[0])
        for marks, journal in zip(handled, journals, strict=True):
            for partition, offset in journaled(journal):
                assert offset >= start[partition], f"seed {seed}: replayed below the commit"
                replayed += marks[partition][offset]
                marks[partition][offset] = 1
    for marks in handled:
        assert [sum(row) for row in marks] == [each] * partitions, f"seed {seed}"
    assert replayed <= uncommitted, f"seed {seed}"
    print(
        f"seed {seed}: {count:,} messages to 2 streams, 5 kills, lost 0,"
        f" replayed {replayed} of at most {uncommitted}"
    )


@pytest.mark.parametrize("strategy", ["range", "cooperative-sticky"])
def test_members_that_come_and_go_lose_and_double_nothing(
    kafka_cluster: Cluster, topic: TopicFactory, tmp_path: Path, strategy: str
) -> None:
    """Clean joins and leaves of processes hand over exactly."""
    count, partitions, produced = 200_000, 6, 0
    name, group = topic(partitions), f"moving-{next(_serial)}"
    journals = [tmp_path / f"journal-{strategy}-{n}" for n in range(4)]

    def start(journal: Path) -> list[str]:
        # At full speed one would be done before the next has started.
        return [kafka_cluster.bootstrap, group, name, str(journal), strategy, "0.003"]

    def produce(share: int) -> None:
        nonlocal produced
        produce_numbered(kafka_cluster.bootstrap, name, share, partitions, start=produced)
        produced += share

    def has_members(number: int) -> bool:
        described = kafka_cluster.describe_group(group)
        return described["group_state"] == "Stable" and len(described["members"]) == number

    def everything() -> Counter[tuple[int, int]]:
        return Counter(place for journal in journals for place in journaled(journal))

    produce(count // 2)
    with member(*start(journals[0])) as first, member(*start(journals[1])) as second:
        wait_until(lambda: has_members(2))
        with member(*start(journals[2])) as third:
            produce(count // 4)
            time.sleep(1.0)
            end(first, journals[0])
            with member(*start(journals[3])) as fourth:
                wait_until(lambda: has_members(3))
                produce(count // 4)
                wait_until(lambda: len(everything()) == count)
                for number, process in enumerate((second, third, fourth), 1):
                    end(process, journals[number])
    handled = everything()
    doubled = {place: n for place, n in handled.items() if n > 1}
    assert not doubled
    ends = kafka_cluster.end_offsets(name)
    assert committed(kafka_cluster, group, name, partitions) == [ends[p] for p in range(partitions)]
    assert all(journaled(journal) for journal in journals), "one took no part"
    print(f"{strategy}: {count:,} messages, 4 joins and leaves, lost 0, doubled 0")
