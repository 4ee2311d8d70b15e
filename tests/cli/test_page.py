"""What docs/command-line.md shows is what the commands print."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from trio_consumer.cli import main
from trio_consumer.cli.live import line
from trio_consumer.testing import MemoryBroker

from .clusters import Asked
from .support import Called, invoke
from .test_live import MIXED, progress, screen

PAGE = (Path(__file__).parents[2] / "docs" / "command-line.md").read_text(encoding="utf-8")
CONSOLE = re.findall(r"^```console\n\$ trio-consumer (.*)\n((?:.*\n)*?)```", PAGE, re.MULTILINE)
TEXTS = re.findall(r"^```text\n((?:.*\n)*?)```", PAGE, re.MULTILINE)


def of(command: str) -> list[tuple[str, str]]:
    return [(line, shown) for line, shown in CONSOLE if line.startswith(command)]


def fields(heading: str) -> set[str]:
    """Everything in code marks between a heading and the next of its level."""
    section = re.search(
        rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", PAGE, re.DOTALL | re.MULTILINE
    )
    assert section is not None
    return set(re.findall(r"`(\w+)`", section[1]))


def keys(document: Any) -> set[str]:
    """Names of fields, at any depth."""
    if isinstance(document, dict):
        return set(document).union(*map(keys, document.values()))
    return set().union(*map(keys, document)) if isinstance(document, list) else set()


def same_figures_aside(text: str) -> str:
    """What is the same in each run, and on each machine."""
    return re.sub(r"\s+", " ", re.sub(r"[\d.,]+", "0", text)).strip()


@pytest.mark.parametrize(("command", "shown"), of("lag") + of("inspect"))
def test_page_shows_what_lag_and_inspect_print(billing: Asked, command: str, shown: str) -> None:
    """To the letter, of a cluster with two groups."""
    result: Called = invoke(*shlex.split(command))
    assert shown == result.output


def test_page_shows_what_the_demo_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its check, but for the figures that are drawn."""
    monkeypatch.setenv("COLUMNS", "120")
    ((command, _),) = of("demo")
    printed = [same_figures_aside(text) for text in invoke(*command.split()).stdout.splitlines()]
    for text in TEXTS[0].splitlines():
        assert same_figures_aside(text) in printed


def test_page_shows_what_run_prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the program that stands there."""
    broker = MemoryBroker()
    broker.create_topic("orders")
    broker.produce_many("orders", [b"%d" % number for number in range(5)])
    monkeypatch.setattr("trio_consumer._runtime.opening.resolve", lambda url: broker)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (source,) = re.findall(r"^```python\n((?:.*\n)*?)```", PAGE, re.MULTILINE)
    (tmp_path / "page_app.py").write_text(source)
    ((command, _),) = of("run")
    result = invoke(*command.replace("app:", "page_app:").split())
    assert result.exit_code == 0, result.output
    assert same_figures_aside(result.output) == same_figures_aside(TEXTS[1])


def test_page_shows_what_live_shows() -> None:
    """The table, and the line for a log."""
    shown = progress(MIXED)
    assert TEXTS[2].splitlines() == screen(shown, 120)
    assert TEXTS[3].splitlines() == [line(shown)]


def test_page_names_each_command_and_exit_code() -> None:
    """And the help the same codes."""
    for command in main.commands:
        assert f"\n## `{command}`\n" in PAGE
    codes = re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)
    assert codes == ["0", "1", "2", "3", "130", "143"]
    for code in codes:
        assert re.search(rf"\b{code}\b", invoke("--help").stdout.partition("Exit codes")[2])


def test_page_names_each_field_of_json(billing: Asked) -> None:
    """So that nobody has to guess."""
    lag = billing.json("lag", "--group", "billing")
    assert keys(lag) <= fields("`lag`")
    described = billing.json("inspect", "--group", "billing", "--topic", "orders")
    assert keys(described) <= fields("`inspect`")
    demo = json.loads(invoke("demo", "--json", "--messages", "20", "--seconds", "0.05").stdout)
    assert keys(demo) <= fields("`demo`")
