"""Nonsense on the command line: one line that tells what to mend, and no traceback."""

from __future__ import annotations

import pytest
from click.testing import CliRunner
from hypothesis import example, given
from hypothesis import strategies as st

from trio_consumer.cli import main
from trio_consumer.testing._command import main as simulate

from .support import fuzzed

# Of no kind that could work, for a run without an end would be one that works.
nonsense = st.sampled_from(["", " ", "nan", "NaN", "-1", "0", "-inf", "x", "\0", "1e999", "-0.0"])
nonsense |= st.text(max_size=5).filter(lambda text: not text.strip().lstrip("+").isdigit())
NUMBERS = ["--concurrency", "--max-messages", "--commit-interval", "--connect-timeout"]
RUN = ["run", "os.path:join", "--url", "memory://fuzz", "--group", "g", "--topic", "t"]


def check(command: object, arguments: list[str]) -> None:
    result = CliRunner().invoke(command, arguments)  # type: ignore[arg-type]
    assert result.exit_code in (1, 2), result.output
    assert isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    assert "unexpected" not in result.output
    assert "rror: " in result.output


@fuzzed(60)
@given(st.sampled_from(NUMBERS), nonsense)
@example("--commit-interval", "nan")
def test_run_numbers(option: str, value: str) -> None:
    """The handler is none either, so nothing can run."""
    check(main, [*RUN, option, value])


@fuzzed(60)
@given(
    nonsense | st.sampled_from(["a:b", "os:", ":x", "a.b.c:d", "os.path:x.y", "os:path", "a/b:c"])
)
def test_run_handlers(handler: str) -> None:
    """What is no async function of one message is told."""
    check(main, ["run", "--url", "memory://fuzz", "--group", "g", "--topic", "t", "--", handler])


@fuzzed(60)
@given(nonsense)
@example("=")
@example("a=" + "9" * 5000)
def test_run_options(pair: str) -> None:
    """Pairs of a name and a value."""
    check(main, [*RUN, "-o", pair])


@fuzzed(40)
@given(st.sampled_from(["--messages", "--partitions", "--seconds", "--connect-timeout"]), nonsense)
@example("--seconds", "nan")
@example("--connect-timeout", "nan")
def test_demo(option: str, value: str) -> None:
    """Numbers out of range, and NaN, which every range lets pass."""
    check(main, ["demo", option, value])


@fuzzed(60)
@given(
    st.sampled_from(["lag", "inspect"]),
    st.sampled_from(["--url", "--timeout", "-o"]),
    nonsense | st.sampled_from(["memory://x", "confluent://a b", "kafka://:1", "foo://h"]),
)
@example("lag", "--timeout", "nan")
def test_lag_and_inspect(command: str, option: str, value: str) -> None:
    """Nobody is asked: the address cannot be one either."""
    check(main, [command, "--group", "g", "--url", "kafka://h:port", option, value])


@pytest.mark.parametrize("value", ["nan", "inf", "-1", "0", "x", ""])
def test_simulation_minutes(value: str) -> None:
    """For so many minutes it would go on for ever."""
    check(simulate, ["--minutes", value])
