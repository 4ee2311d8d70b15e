"""docs/faust.md and the table: complete, and every name in them exists."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

import trio

import trio_consumer
from comparison.observed import Outcome, right
from comparison.schedules import SCHEDULES
from trio_consumer.testing import MemoryBroker

from ..runtime.support import run

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "faust.md").read_text(encoding="utf-8")
TABLE = (DOCS / "faust-table.md").read_text(encoding="utf-8")

CONSUMER = [
    "logger",
    "consumer_stopped_errors",
    "flow_active",
    "transport",
    "app",
    "in_transaction",
    "scheduler",
    "commit_interval",
    "randomly_assigned_topics",
    "can_resume_flow",
    "suspend_flow",
    "not_waiting_next_records",
    "transactions",
    "on_init_dependencies",
    "on_restart",
    "on_buffer_full",
    "on_buffer_drop",
    "perform_seek",
    "seek_to_committed",
    "seek",
    "stop_flow",
    "resume_flow",
    "wait_for_stopped_flow",
    "pause_partitions",
    "resume_partitions",
    "on_partitions_revoked",
    "on_partitions_assigned",
    "getmany",
    "track_message",
    "ack",
    "wait_empty",
    "commit_and_end_transactions",
    "on_stop",
    "verify_all_partitions_active",
    "verify_event_path",
    "verify_recovery_event_path",
    "commit",
    "maybe_wait_for_commit_to_finish",
    "force_commit",
    "on_task_error",
    "close",
    "unacked",
    "log",
    "diag",
    "async_exit_stack",
    "exit_stack",
]
ARGUMENTS = [
    "callback",
    "on_partitions_revoked",
    "on_partitions_assigned",
    "commit_interval",
    "commit_livelock_soft_timeout",
    "loop",
]
FETCHER = ["logger", "app", "on_stop", "log", "diag", "async_exit_stack", "exit_stack"]


def rows(page: str) -> list[list[str]]:
    """The rows of all tables of a page, without their heads."""
    lines = [line for line in page.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines]


def mapped() -> dict[str, str]:
    """Faust's name and ours, of all tables that map."""
    return {row[0]: row[1] for row in rows(PAGE) if len(row) == 3 and row[0] != "Faust"}


def spans(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def resolve(name: str) -> Any:
    found: Any = trio_consumer
    for part in name.split("."):
        found = getattr(found, part)
    return found


def test_every_member_of_the_api_page_is_mapped() -> None:
    """Faust's ``faust.transport.consumer``, member by member."""
    names = {name for cell in mapped() for name in spans(cell)}
    wanted = {*CONSUMER, "Fetcher", *(f"Fetcher.{name}" for name in FETCHER)}
    wanted |= {"Consumer(transport, ...)", *(f"Consumer({name}=)" for name in ARGUMENTS)}
    assert wanted - names == set()


def test_every_name_given_as_ours_exists() -> None:
    """Members and parameters, in the tables and in what they say."""
    for faust, here in mapped().items():
        assert here == "none" or spans(here), faust
    pattern = r"`((?:Consumer|Stream|Message|Activity)\.\w+|open_consumer)(?:\((\w+)=\))?`"
    found = re.findall(pattern, PAGE)
    assert len(found) > 60
    for name, argument in found:
        member = resolve(name)
        if argument:
            assert argument in inspect.signature(member).parameters, f"{name}({argument}=)"


def test_same_name_where_faust_has_it() -> None:
    """A member that is ours keeps Faust's name."""
    for faust, here in mapped().items():
        (name, *_) = spans(faust)
        if name in CONSUMER and here != "none":
            assert here == f"`Consumer.{name}`"


def test_table_has_every_schedule() -> None:
    """As it is now, with what is right; this consumer is right in each."""
    cells = {row[0]: row for row in rows(TABLE)[1:]}
    expected = [f"**{schedule.name}**<br>{schedule.text}" for schedule in SCHEDULES]
    assert list(cells) == expected
    for schedule, name in zip(SCHEDULES, expected, strict=True):
        assert cells[name][1] == right(schedule)
        assert cells[name][3].startswith(f"{Outcome.RIGHT.value}: ")


def test_outcomes_are_explained() -> None:
    """Every word that the table uses."""
    explained = {name for row in rows(PAGE) if len(row) == 2 for name in row[0].split(", ")}
    used = {re.sub(r"\*\*(.*?)\*\*.*", r"\1", row[2]).split(":")[0] for row in rows(TABLE)[1:]}
    assert used <= explained
    unexplained = {Outcome.FAILS.value}
    assert {outcome.value for outcome in Outcome} - unexplained <= explained


def test_example_works() -> None:
    """It charges every order once and commits."""
    (source,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    broker = MemoryBroker()
    broker.create_topic("orders")
    broker.produce_many("orders", [json.dumps(n).encode() for n in range(50)])
    charged: list[int] = []

    async def charge(order: int) -> None:
        await trio.sleep(1)
        charged.append(order)

    program: dict[str, Any] = {"charge": charge}
    exec(compile(source, "docs/faust.md", "exec"), program)

    async def main() -> None:
        with trio.move_on_after(60):
            await program["main"](broker)

    run(main)
    assert sorted(charged) == list(range(50))
    stored = broker.committed("billing", trio_consumer.TP("orders", 0))
    assert stored is not None
    assert stored.offset == 50
