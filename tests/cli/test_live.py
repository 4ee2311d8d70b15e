"""``run --live``: the picture of a snapshot, and the command that shows it."""

from __future__ import annotations

import io
import json
import re
from typing import Any

import pytest
from rich.console import Console

from trio_consumer import (
    TP,
    ConsumerStatistics,
    OldestUnfinished,
    PartitionStatistics,
    StreamStatistics,
    Whereabouts,
)
from trio_consumer.cli.live import Lines, _duration, line, picture, worst_first
from trio_consumer.cli.runner import Progress

from .support import App, assert_one_line


def oldest(
    offset: int, seconds: float, *tasks: str, whereabouts: Whereabouts = Whereabouts.HAND
) -> OldestUnfinished:
    return OldestUnfinished(offset, seconds, whereabouts, ("<Stream>",), tasks)


def partition(**what: Any) -> PartitionStatistics:
    settings: dict[str, Any] = {
        "position": 40,
        "start": 0,
        "committed": 17,
        "committable": None,
        "high_watermark": 100,
        "unfinished": 0,
        "oldest": None,
        "replay": 23,
        "pause_reasons": (),
        "state": "open",
        **what,
    }
    held = settings["oldest"]
    settings["oldest_unfinished"] = None if held is None else held.offset
    return PartitionStatistics(**settings)


def progress(partitions: dict[TP, PartitionStatistics], **what: Any) -> Progress:
    settings: dict[str, Any] = {
        "group": "billing",
        "generation": 3,
        "rebalances": 1,
        "commits": 12,
        "commit_failures": 2,
        "commit_error": None,
        "seconds_since_commit": 1.25,
        "activities": frozenset(),
        "partitions": partitions,
        "streams": (StreamStatistics(frozenset({"orders"}), "auto", 7, True),),
        **what,
    }
    return Progress(5, 4, 1, 3, 9, {}, 16.4, 61.0, ConsumerStatistics(**settings))


def screen(of: Progress, width: int = 120, height: int = 30) -> list[str]:
    """What stands on a terminal of this size."""
    console = Console(file=io.StringIO(), width=width, height=height, color_system=None)
    with console.capture() as captured:
        console.print(picture(of, "billing", width=width, height=height))
    return [text.rstrip() for text in captured.get().splitlines()]


MIXED = {
    TP("orders", 0): partition(high_watermark=None, committed=None, position=None, replay=0),
    TP("orders", 1): partition(high_watermark=5000, pause_reasons=("user", "flow")),
    TP("orders", 2): partition(unfinished=2, oldest=oldest(17, 12.44, "worker-2")),
    TP("orders", 3): partition(
        unfinished=1, oldest=oldest(0, 99.0, whereabouts=Whereabouts.BUFFER), state="revoking"
    ),
}


def test_picture_shows_what_holds_each_commit_back() -> None:
    """The oldest first; 0 is an offset, "-" is none; a partition that goes says so."""
    assert screen(progress(MIXED)) == [
        "billing   4 messages   16/s   3 unfinished   lag 5149   after a crash 69 again",
        "",
        "partition  committed  position   end   lag  unfinished  oldest    age  held by        "
        "paused      replay",
        "orders[3]         17        40   100    83           1       0  1m39s  in the buffer  "
        "revoking        23",
        "orders[2]         17        40   100    83           2      17  12.4s  worker-2       "
        "-               23",
        "orders[1]         17        40  5000  4983           0       -      -  -              "
        "user, flow      23",
        "orders[0]          -         -     -     -           0       -      -  -              "
        "-                0",
        "",
        "orders[3]: offset 0 unfinished for 99.0 s, in the buffer; 23 come again after a crash now",
        "orders[2]: offset 17 unfinished for 12.4 s, in hand of worker-2; 23 come again after a"
        " crash now",
        "12 commits, the last 1.2s ago, 2 failed; 1 rebalance",
        "stream orders (auto): 7 buffered, full",
    ]


@pytest.mark.parametrize("count", [1, 11, 12, 13, 500])
@pytest.mark.parametrize(("width", "height"), [(200, 24), (80, 24), (40, 24), (80, 18)])
def test_picture_fits_the_terminal(count: int, width: int, height: int) -> None:
    """What has no room is summed, so that nothing goes missing from the sums."""
    many = {
        TP("orders", n): partition(unfinished=1, oldest=oldest(n, 1.0 + n, f"worker-{n}"))
        for n in range(count)
    }
    shown = screen(progress(many), width, height)
    assert len(shown) < height
    assert max(map(len, shown)) <= width
    if width < 80:
        return  # the words are cut
    rows = [text for text in shown if re.match(r"orders\[\d+\]  ", text)]
    (more,) = [text for text in shown if re.match(r"\d+ more  ", text)] or ["0 more"]
    assert len(rows) + int(more.split()[0]) == count
    assert rows[0].startswith(f"orders[{count - 1}]  ")
    if not more.startswith("0"):
        hidden = count - len(rows)
        figures = {int(text) for text in more.split() if text.isdecimal()}
        assert figures >= {83 * hidden, hidden, 23 * hidden}


def test_picture_drops_columns_before_it_cuts_figures() -> None:
    """On 80 columns the end goes, which the lag tells; what holds a commit stays."""
    shown = screen(progress(MIXED), 80)
    assert shown[2].split() == [
        *("partition", "committed", "lag", "unfinished", "age", "held", "by", "paused", "replay")
    ]
    assert shown[4].split() == [*("orders[2]", "17", "83", "2", "12.4s", "worker-2", "-", "23")]
    assert "…" not in "".join(shown[2:7])
    assert "…" not in "".join(screen(progress(MIXED), 40)[2:7])


def test_worst_first_by_age_then_lag_then_name() -> None:
    """Whoever is free comes behind, whatever its lag."""
    assert [tp.partition for tp, _ in worst_first(MIXED.items())] == [3, 2, 1, 0]


def test_a_failed_commit_is_told_first() -> None:
    """Below the table, and in the line for a log."""
    found = progress(MIXED, commit_error="the broker is away")
    assert "the last commit failed: the broker is away" in screen(found)
    assert line(found) == (
        "1m01s: 4 messages, 16/s, 3 unfinished, lag 5149, 69 again after a crash, 12 commits,"
        " 2 failed; the last commit failed: the broker is away"
    )


def test_names_of_tasks_cannot_rule_the_terminal() -> None:
    """They are the program's, but may be made of what a message says."""
    rude = {TP("orders", 0): partition(unfinished=1, oldest=oldest(1, 1.0, "\x1b[2Jbob"))}
    assert "\x1b" not in "".join(screen(progress(rude))) + line(progress(rude))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0s"), (59.94, "59.9s"), (60, "1m00s"), (3661, "1h01m"), (90_000, "25h00m")],
)
def test_durations_are_short(seconds: float, text: str) -> None:
    """Two figures at most."""
    assert _duration(seconds) == text


# -- the command ------------------------------------------------------------------------


def test_live_without_a_terminal_is_a_line_now_and_then(app: App) -> None:
    """For a log; the summary comes as ever."""
    result = app.run("fine", "--max-messages", "40", "--live")
    assert result.exit_code == 0, result.output
    first, *_, last = result.stderr.splitlines()
    assert re.match(r"0.0s: 0 messages, 0/s, 0 unfinished, lag (-|0), 0 again after a", first)
    assert last == "committed: orders[0] 20, orders[1] 20"
    assert "\x1b" not in result.output


def test_lines_come_every_five_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """However often the runner looks."""
    out = io.StringIO()
    lines = Lines(Console(file=out, width=300))
    for now in range(110):
        monkeypatch.setattr("trio.current_time", lambda now=now: now / 10)
        lines.show(progress(MIXED))
    assert len(out.getvalue().splitlines()) == 3


def test_live_on_a_terminal_redraws_a_table(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers have names there; what it prints is there at the end."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "140")
    result = app.run("short", "--max-messages", "3", "--live", "--concurrency", "2")
    assert result.exit_code == 0, result.output
    assert "held by" in result.stderr
    assert re.search(r"worker-[12]", result.stderr)
    assert "\x1b[" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("other", ["--json", "--quiet"])
def test_live_goes_not_with_silence(app: App, other: str) -> None:
    """One of them."""
    assert_one_line(app.run("fine", "--live", other), 2, "--live shows what --quiet and --json")


def test_summary_as_json(app: App) -> None:
    """The one line on stderr; stdout is the handler's."""
    result = app.run("told", "--max-messages", "7", "--json")
    assert result.exit_code == 0, result.output
    assert len(result.stdout.splitlines()) == 7
    (text,) = result.stderr.splitlines()
    found = json.loads(text)
    assert found.pop("seconds") >= 0
    committed = found.pop("committed")
    assert sum(each["offset"] for each in committed) == 7
    assert {each["topic"] for each in committed} == {"orders"}
    assert found == {
        "handed_out": 7,
        "returned": 7,
        "unfinished": 0,
        "stopped_by": None,
        "cancelled": False,
        "committed_all": True,
        "failures": [],
    }


def test_summary_of_a_failure_as_json(app: App) -> None:
    """It comes before the traceback and the line that says what to do."""
    result = app.run("bad", "--json")
    assert result.exit_code == 1
    first, *_, last = result.stderr.splitlines()
    assert json.loads(first)["failures"] == [
        {
            "topic": "orders",
            "partition": 0,
            "offset": 7,
            "error": "ValueError: no amount\nin order 7",
        }
    ]
    assert last.startswith("Error: the handler failed at orders[0] offset 7")
