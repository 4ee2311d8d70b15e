"""``trio-consumer demo``."""

from __future__ import annotations

import io
import json
from functools import partial

import pytest
import trio
from rich.console import Console
from trio.testing import MockClock

from trio_consumer.cli.brokers import MemoryDemoBroker
from trio_consumer.cli.demo import Demonstration, Plan
from trio_consumer.cli.journal import Verdict
from trio_consumer.cli.view import View

from .support import assert_one_line, call, invoke


def play(plan: Plan, *, live: bool = False) -> tuple[Verdict, str]:
    """The demonstration under a virtual clock; the verdict and what it printed."""
    out = io.StringIO()
    view = View(Console(file=out, width=120, force_terminal=live), live=live)
    demonstration = Demonstration(plan, MemoryDemoBroker(plan.seed), view)
    verdict = trio.run(demonstration.play, clock=MockClock(autojump_threshold=0))
    view.verdict(verdict)
    return verdict, out.getvalue()


@pytest.mark.parametrize("seed", range(12))
def test_demo_passes_its_own_check(seed: int) -> None:
    """Nothing is lost, whatever the order in which messages finish."""
    verdict, output = play(Plan(messages=240, partitions=1 + seed % 4, seed=seed))
    assert verdict.complaints == []
    assert "PASSED" in output
    assert verdict.looks > 20


@pytest.mark.parametrize(("messages", "delay"), [(1, 4.5), (2, 4.5), (4, 4.5), (600, 0.03)])
def test_demo_takes_as_long_as_it_is_told(messages: int, delay: float) -> None:
    """A worker without a message makes the others no faster."""
    assert Plan(messages=messages, seconds=4.5).mean_delay == pytest.approx(delay)


@pytest.mark.parametrize(("messages", "partitions"), [(1, 1), (1, 3), (2, 64), (30, 1), (3000, 2)])
def test_demo_passes_with_few_and_many_messages(messages: int, partitions: int) -> None:
    """Empty partitions and single messages are no trouble."""
    verdict, _ = play(Plan(messages=messages, partitions=partitions))
    assert verdict.complaints == []


def test_demo_redraws_a_table_on_a_terminal() -> None:
    """The table holds what the help promises."""
    verdict, output = play(Plan(messages=120), live=True)
    assert verdict.complaints == []
    for column in ("end", "position", "unfinished", "oldest", "committed"):
        assert column in output
    assert "\x1b[" in output


def test_demo_without_a_terminal_prints_plain_lines() -> None:
    """No control codes in a pipe, and the progress in lines."""
    done = call("demo", "--messages", "120", "--seconds", "1", "--seed", "3")
    assert done.exit_code == 0, done.output
    assert done.stderr == ""
    assert "\x1b" not in done.stdout
    assert "\r" not in done.stdout
    assert "processed charge" in done.stdout
    assert "PASSED" in done.stdout


def test_demo_exits_with_1_if_the_check_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker that says it stored one offset less is found out."""
    honest = MemoryDemoBroker.committed

    async def committed(self: MemoryDemoBroker, group: str) -> dict[int, int]:
        found = await honest(self, group)
        return {partition: offset - 1 for partition, offset in found.items()}

    monkeypatch.setattr(MemoryDemoBroker, "committed", committed)
    # The second run waits for messages that do not come, until the plan's limit.
    virtual = MockClock(autojump_threshold=0)
    monkeypatch.setattr(trio, "run", partial(trio.run, clock=virtual))
    result = invoke("demo", "--messages", "40", "--seconds", "0.1")
    assert "FAILED" in result.stdout
    assert_one_line(result, 1, "the check failed: .* report this")
    result = invoke("demo", "--messages", "40", "--seconds", "0.1", "--json")
    assert_one_line(result, 1, "the check failed: .* report this")
    found = json.loads(result.stdout)
    assert found["passed"] is False
    assert found["complaints"]


def test_demo_prints_its_verdict_as_json() -> None:
    """One document and nothing else."""
    done = call("demo", "--json", "--messages", "60", "--seconds", "0.2", "--partitions", "2")
    assert (done.exit_code, done.stderr) == (0, ""), done.output
    found = json.loads(done.stdout)
    assert (found["passed"], found["complaints"], found["too_high"]) == (True, [], 0)
    assert found["messages"] == 60
    assert [(each["stream"], each["processed"]) for each in found["streams"]] == [
        ("charge", 60),
        ("audit", 60),
    ]
    assert sum(each["end"] for each in found["partitions"]) == 60
    assert all(each["end"] == each["committed"] for each in found["partitions"])


@pytest.mark.parametrize("address", ["nowhere.invalid", "127.0.0.1:1", "kafka://127.0.0.1:1"])
def test_demo_on_an_unreachable_broker_says_so(address: str) -> None:
    """One line that names the connect timeout."""
    result = call("demo", "--kafka", address, "--connect-timeout", "0.5")
    assert_one_line(result, 1, r"no broker of \S+ answered within 0.5 s: check the address")


@pytest.mark.parametrize("address", ["", ":9092", "host:port", "host:1:2", "a:1,"])
def test_demo_refuses_what_is_no_address(address: str) -> None:
    """Before anything is tried."""
    assert_one_line(invoke("demo", "--kafka", address), 2, ".* is no address of a broker: write")


@pytest.mark.parametrize("option", ["--messages", "--partitions", "--seconds"])
def test_demo_refuses_a_zero(option: str) -> None:
    """Nothing to demonstrate."""
    assert_one_line(invoke("demo", option, "0"), 2, f"Invalid value for '{option}': .*demo --help")


@pytest.mark.kafka
def test_demo_passes_on_kafka(kafka_cluster: object) -> None:
    """The same on a real broker; it leaves nothing there."""
    bootstrap = kafka_cluster.bootstrap  # type: ignore[attr-defined]  # no protocol for it
    done = call("demo", "--kafka", bootstrap)
    assert done.exit_code == 0, done.output
    assert done.stderr == ""
    assert "PASSED" in done.stdout
