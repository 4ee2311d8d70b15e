"""What log records have beside their text: plain fields, the same names everywhere."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
import trio

from trio_consumer import TP, CommitFailedError, Consumer
from trio_consumer._runtime.logs import about
from trio_consumer.testing import MemoryBroker

from .support import GROUP, T0, T1, broker, consuming, run, take

ORDINARY = set(vars(logging.makeLogRecord({}))) | {"message"}


def fields(record: logging.LogRecord) -> dict[str, Any]:
    """What a record has beside what every record has."""
    return {name: value for name, value in vars(record).items() if name not in ORDINARY}


def told(caplog: pytest.LogCaptureFixture, logger: str) -> list[tuple[str, str, dict[str, Any]]]:
    """Level, text and fields of the records of one logger."""
    return [
        (record.levelname, record.getMessage(), fields(record))
        for record in caplog.records
        if record.name == f"trio_consumer.{logger}"
    ]


def member(consumer: Consumer) -> dict[str, Any]:
    """The fields that name the member."""
    now = consumer.group_metadata
    return {"group": now.group, "generation": now.generation, "member": now.member_id}


def test_rebalances_are_told_with_their_partitions(caplog: pytest.LogCaptureFixture) -> None:
    """At INFO, by whichever member in whichever generation."""
    caplog.set_level(logging.INFO, "trio_consumer.rebalance")

    async def main() -> None:
        it = broker(1, 2)
        async with consuming(it) as consumer, consumer.stream("t") as stream:
            await take(stream)
            first = member(consumer)
            it.rebalance(GROUP)
            await trio.sleep(10)
            assert consumer.statistics().rebalances == 2
            second = member(consumer)
        assert first["member"] == second["member"] != ""
        assigned, revoked, again = told(caplog, "rebalance")
        both = {"partitions": ["t[0]", "t[1]"]}
        assert assigned == (
            "INFO",
            f"assigned t[0], t[1] in generation {first['generation']}",
            first | both,
        )
        assert revoked[:2] == ("INFO", "revoked t[0], t[1]")
        assert revoked[2] == (first | both | {"generation": revoked[2]["generation"]})
        assert again[1] == f"assigned t[0], t[1] in generation {second['generation']}"
        assert again[2] == second | both

    run(main)


def test_lost_partition_is_told_with_topic_and_partition(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One has fields of its own."""

    async def main() -> None:
        it = broker(1)
        async with consuming(it) as consumer, consumer.stream("t") as stream:
            await take(stream)
            it.expire(consumer.group_metadata.member_id)
            await trio.sleep(10)

    run(main)
    [(level, text, found)] = told(caplog, "rebalance")
    assert level == "WARNING"
    assert text.startswith("lost t[0]: ")
    assert (found["group"], found["topic"], found["partition"]) == (GROUP, "t", 0)
    assert set(found) == {"group", "generation", "member", "topic", "partition"}


def test_commits_are_told_with_their_offsets(caplog: pytest.LogCaptureFixture) -> None:
    """At DEBUG, with the next offset of each partition."""
    caplog.set_level(logging.DEBUG, "trio_consumer.committer")

    async def main() -> None:
        async with (
            consuming(broker(2, 2), commit_interval=1000) as consumer,
            consumer.stream("t") as stream,
        ):
            await take(stream)
            await consumer.commit()
            who = member(consumer)
        offsets = {"t[0]": 2, "t[1]": 2}
        assert told(caplog, "committer") == [
            (
                "DEBUG",
                f"committed {offsets}",
                who | {"partitions": ["t[0]", "t[1]"], "offsets": offsets},
            )
        ]

    run(main)


async def revoke_late(it: MemoryBroker) -> None:
    """A drain that is given up."""
    async with consuming(it, drain_timeout=1) as consumer, consumer.stream("t") as stream:
        async for _ in stream:
            it.rebalance(GROUP)
            await trio.sleep(10)
            break


async def wait_in_vain(it: MemoryBroker) -> None:
    """A wait that is over."""
    async with (
        consuming(it) as consumer,
        consumer.stream("t", ack="manual") as stream,
    ):
        await take(stream, 2, ack=False)
        await consumer.wait_empty(7)
        consumer.close()


async def hang(it: MemoryBroker) -> None:
    """A message that makes no progress, for a while."""
    async with (
        consuming(it, commit_livelock_soft_timeout=10, drain_timeout=1) as consumer,
        consumer.stream("t") as stream,
    ):
        async for message in stream:
            if message.offset == 1:
                await trio.sleep(100)
                break


async def fail_to_commit(it: MemoryBroker) -> None:
    """An episode of failures."""
    async with (
        consuming(it, commit_interval=1, drain_timeout=1) as consumer,
        consumer.stream("t") as stream,
    ):
        it.fail_next_commits(2)
        await take(stream)
        await trio.sleep(20)


async def fail_at_the_end(it: MemoryBroker) -> None:
    """A block that fails, and the last commit too."""
    with pytest.raises(ValueError, match=r"^bad$"):
        async with consuming(it, commit_timeout=0.1) as consumer, consumer.stream("t") as stream:
            await take(stream)
            it.fail_next_commits(100)
            raise ValueError("bad")


CASES: dict[str, tuple[Callable[[MemoryBroker], Any], dict[str, set[str]]]] = {
    "revoke_late": (
        revoke_late,
        {"rebalance": {"topic", "partition", "offset", "count", "tasks"}},
    ),
    "wait_in_vain": (
        wait_in_vain,
        {"consumer": {"topic", "partition", "seconds", "count", "tasks"}},
    ),
    "hang": (
        hang,
        {
            "watchdog": {"topic", "partition", "symptom", "seconds", "offset", "committed"}
            | {"tasks", "livelock"},
        },
    ),
    "fail_to_commit": (
        fail_to_commit,
        {"committer": {"topic", "partition", "offsets", "error"}},
    ),
    "fail_at_the_end": (fail_at_the_end, {"consumer": {"error"}}),
}


@pytest.mark.parametrize("case", CASES)
def test_warnings_have_the_fields_of_the_table(case: str, caplog: pytest.LogCaptureFixture) -> None:
    """As docs/observing.md lists them; a formatter can write each of them as JSON."""
    program, expected = CASES[case]
    run(lambda: limited(program))
    warned = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert {record.name.removeprefix("trio_consumer.") for record in warned} == set(expected)
    for record in warned:
        found = fields(record)
        name = record.name.removeprefix("trio_consumer.")
        assert set(found) == {"group", "generation", "member"} | expected[name], name
        assert found["group"] == GROUP
        found.pop("livelock", None)  # an object, for who wants to look closer
        json.dumps(found)


async def limited(program: Callable[[MemoryBroker], Any]) -> None:
    """Run a program on a broker with four messages."""
    with trio.fail_after(1000):
        await program(broker(4))


def test_fields_are_there_as_far_as_they_are_known() -> None:
    """A client that is closed knows no member; that is no reason to fail."""

    class Closed:
        def group_metadata(self) -> Any:
            raise CommitFailedError("closed", offsets={})

    closed: Any = Closed()
    assert about(closed) == {}
    assert about(closed, [TP("t", 3)], offset=0) == {"topic": "t", "partition": 3, "offset": 0}
    assert about(closed, [T1, T0]) == {"partitions": ["t[0]", "t[1]"]}
