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
    """``kill -9`` at random moments: each message is handled, replays were uncommitted."""
    count, partitions = 300_000, 4
    name, group = topic(partitions), f"killed-{next(_serial)}"
    produce_numbered(kafka_cluster.bootstrap, name, count, partitions)
    seed = random.randrange(1_000_000)
    chance = random.Random(seed)
    handled: Counter[tuple[int, int]] = Counter()
    replayed = 0
    for life in range(6):
        journal = tmp_path / f"journal-{life}"
        start = committed(kafka_cluster, group, name, partitions)
        # The promise: nothing is committed that no journal has.
        for partition, offset in enumerate(start):
            missing = [o for o in range(offset) if not handled[partition, o]]
            assert not missing, f"seed {seed}: {partition}@{offset} passes {missing[:5]}"
        with member(kafka_cluster.bootstrap, group, name, str(journal), "range", PAUSE) as process:
            if life < 5:
                wait_until(lambda journal=journal: len(journaled(journal)) > 0)
                time.sleep(chance.uniform(0.05, 0.6))
                process.send_signal(signal.SIGKILL)
                process.wait()
            else:

                def complete(journal: Path = journal) -> bool:
                    return len(handled | Counter(journaled(journal))) == count

                wait_until(complete)
                end(process, journal)
        now = journaled(journal)
        for partition, offset in now:
            assert offset >= start[partition], f"seed {seed}: replayed below the commit"
        replayed += sum(1 for place in now if handled[place])
        handled.update(now)
    assert len(handled) == count
    assert committed(kafka_cluster, group, name, partitions) == [count // partitions] * partitions
    print(f"seed {seed}: {count} messages, 5 kills, lost 0, replayed {replayed}")


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
