"""``trio-consumer run`` over a broker in memory."""

from __future__ import annotations

import sys

import pytest
import trio

from trio_consumer.cli.loading import load_handler
from trio_consumer.cli.runner import Job, Runner
from trio_consumer.testing import MemoryBroker

from .support import App, assert_one_line, call, invoke


@pytest.mark.parametrize("concurrency", [1, 3, 50])
@pytest.mark.parametrize("count", [1, 9, 40])
def test_max_messages_is_exact(app: App, count: int, concurrency: int) -> None:
    """So many are handed out, finished and committed, and not one more."""
    result = app.run("fine", "--max-messages", str(count), "--concurrency", str(concurrency))
    assert result.exit_code == 0, result.output
    assert len(app.seen) == len(set(app.seen)) == count
    assert (app.committed(0) or 0) + (app.committed(1) or 0) == count
    assert f"{count} messages handed out" in result.stderr
    assert "0 of them unfinished" in result.stderr
    assert result.stdout == ""


def test_the_next_run_goes_on_where_the_last_one_ended(app: App) -> None:
    """Two runs in one group see each message once."""
    for _ in range(2):
        assert app.run("fine", "--max-messages", "20").exit_code == 0
    assert len(app.seen) == len(set(app.seen)) == 40


def test_quiet_prints_nothing(app: App) -> None:
    """Neither progress nor summary."""
    result = app.run("fine", "--max-messages", "3", "--quiet")
    assert (result.exit_code, result.output) == (0, "")


@pytest.mark.parametrize("handler", ["instance", "part", "Callable.__call__"])
def test_other_callables_are_handlers(app: App, handler: str) -> None:
    """Objects with an async call and partials are; a method without its object is not."""
    result = app.run(handler, "--max-messages", "3")
    if handler == "Callable.__call__":
        assert_one_line(result, 2, r".* cannot be called with one message: missing")
    else:
        assert result.exit_code == 0, result.output
        assert len(app.seen) == 3


def test_a_message_is_finished_by_hand_with_ack_manual(app: App) -> None:
    """What the handler does not acknowledge holds the commit back."""
    result = app.run("by_hand", "--ack", "manual", "--max-messages", "40")
    assert result.exit_code == 0, result.output
    assert len(app.seen) == 40
    assert (app.committed(0), app.committed(1)) == (5, 5)
    assert "2 of them unfinished" in result.stderr


def test_the_lag_is_that_of_the_group(app: App) -> None:
    """What was read and is not committed is behind, too, as other tools tell it."""
    handler = load_handler(f"{app.name}:told")  # and the broker is filled
    job = Job(handler, f"memory://{app.name}", "g", ("orders",), ack="manual", max_messages=40)
    runner = Runner(job)
    trio.run(runner.run)
    assert (runner.progress.in_hand, runner.progress.lag) == (40, 40)


@pytest.mark.parametrize("concurrency", ["1", "4"])
def test_a_handler_that_raises_ends_the_run(app: App, concurrency: str) -> None:
    """Its message stays unfinished, its traceback is shown, what is before is committed."""
    result = app.run("bad", "--concurrency", concurrency)
    assert result.exit_code == 1
    assert app.committed(0) == 7
    lines = result.stderr.splitlines()
    assert lines[-1] == (
        "Error: the handler failed at orders[0] offset 7 with ValueError: no amount in order 7;"
        " the message stays unfinished and comes again, what was finished is committed"
    )
    assert "Traceback (most recent call last):" in lines
    assert sum(line.lstrip().startswith('File "') for line in lines) == 1, "ours are left out"


def test_a_handler_that_exits_has_failed(app: App) -> None:
    """`sys.exit` in a handler leaves its message unfinished, too."""
    result = app.run("leaves")
    assert result.exit_code == 1
    assert "orders[0] offset 0 with SystemExit: 3" in result.stderr
    assert app.committed(0) is None


def test_traceback_shows_where_a_failure_comes_from(app: App) -> None:
    """On request, before the line."""
    result = app.run("fine", "--topic", "nothing", "--traceback")
    assert result.exit_code == 1
    assert "Traceback (most recent call last):" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("Error: cannot find the topic 'nothing'")


# -- what cannot work: one line, exit code 2 ---------------------------------------


@pytest.mark.parametrize(
    ("handler", "match"),
    [
        ("app", "'app' names no handler: write module:function"),
        ("app:", "'app:' names no handler"),
        (":handler", "':handler' names no handler"),
        ("app.py:handler", "'app.py' is a file, not a module"),
        ("some/app:handler", "'some/app' is a file, not a module"),
        ("no module:handler", "'no module' is no name of a module"),
        ("no_such_module:handler", "cannot import 'no_such_module': .*start in the directory"),
        ("json.nothing:handler", "cannot import 'json.nothing'"),
        ("json:nothing", "'json' has no 'nothing'; it has no async function"),
        ("json:dumps", "json:dumps is not an async function but a plain function"),
        ("json:JSONDecoder", "json:JSONDecoder is not an async function but a class"),
        ("json:decoder", "json:decoder is not an async function but module"),
    ],
)
def test_a_handler_that_is_none_is_refused(app: App, handler: str, match: str) -> None:
    """Each with what to write instead."""
    arguments = app.arguments("fine")
    arguments[1] = handler
    assert_one_line(invoke(*arguments), 2, match)


@pytest.mark.parametrize(
    ("handler", "match"),
    [
        ("nothing", ".* has no 'nothing'; it has the async functions bad, by_hand"),
        ("plain", r"\S+:plain is not an async function but a plain function; define it with"),
        ("generator", r"\S+:generator is an async generator, it has a 'yield'"),
        ("two", r"\S+:two\(message, more\) cannot be called with one message: missing"),
    ],
)
def test_a_function_that_cannot_handle_is_refused(app: App, handler: str, match: str) -> None:
    """Before anything is consumed."""
    assert_one_line(app.run(handler), 2, match)
    assert app.committed(0) is None


@pytest.mark.parametrize(
    ("source", "match"),
    [
        ("import nothing_of_the_kind", "it is there, but imports 'nothing_of_the_kind'"),
        ("async def f(:", "SyntaxError: .*line 1"),
        ("1 / 0", r"ZeroDivisionError: division by zero \(.*broken.*\.py, line 1\)"),
        ("raise SystemExit('no')", "SystemExit: no"),
        ("from json import nothing", "ImportError: cannot import name 'nothing'"),
    ],
)
def test_a_module_that_does_not_import_says_why(app: App, source: str, match: str) -> None:
    """The reason and the place, in one line."""
    name = f"broken_{app.name}"
    (app.directory / f"{name}.py").write_text(source)
    sys.modules.pop(name, None)
    arguments = app.arguments("fine")
    arguments[1] = f"{name}:f"
    assert_one_line(invoke(*arguments), 2, f"cannot import '{name}': .*{match}")


@pytest.mark.parametrize(
    ("more", "match"),
    [
        (["-o", "enable_auto_commit=true"], "the client option 'enable_auto_commit' is refused"),
        (["-o", "value_deserializer=x"], "the client option 'value_deserializer' is refused"),
        (["-o", "no_such=1"], "the memory transport does not know the client option 'no_such'"),
        (["-o", "max_poll_records=many"], "max_poll_records is a whole number above 0; not 'many'"),
        (["-o", "plain"], "Invalid value for '-o'.*: number 1 is not name=value"),
        (["-o", "a=1", "-o", "a=2"], "Invalid value for '-o'.*: a is given twice"),
        (["--concurrency", "0"], "Invalid value for '--concurrency'"),
        (["--max-messages", "0"], "Invalid value for '--max-messages'"),
        (["--commit-interval", "0"], "Invalid value for '--commit-interval'"),
        (["--ack", "never"], "Invalid value for '--ack'"),
        (["--group", ""], "Invalid value for '--group': a name must not be empty"),
        (["--topic", ""], "Invalid value for '--topic': a name must not be empty"),
        (["--url", "orders"], "'orders' is not a URL: write"),
        (["--url", "foo://orders"], "unknown scheme 'foo'"),
        (["--url", "memory://"], "'memory://' names no address"),
        (["--unknown"], r"No such option.*--unknown.* \(see 'trio-consumer run --help'\)"),
    ],
)
def test_a_bad_option_is_refused(app: App, more: list[str], match: str) -> None:
    """Each with its name."""
    assert_one_line(app.run("fine", *more), 2, match)
    assert app.committed(0) is None


def test_missing_options_are_asked_for() -> None:
    """The first one that is missing, and where to read on."""
    assert_one_line(invoke("run"), 2, r"Missing argument .* \(see 'trio-consumer run --help'\)")
    assert_one_line(invoke("run", "a:b"), 2, "Missing option '--url'")


# -- what fails while running: one line, exit code 1 ----------------------------------


def test_an_unknown_topic_is_a_failure(app: App) -> None:
    """The library's own words."""
    assert_one_line(app.run("fine", "--topic", "nothing"), 1, "cannot find the topic 'nothing'")


def test_a_broker_that_is_down_is_a_failure(app: App) -> None:
    """Within the connect timeout."""
    assert app.run("fine", "--max-messages", "1").exit_code == 0
    MemoryBroker.named(app.name).down()
    assert_one_line(app.run("fine", "--connect-timeout", "0.2"), 1, ".*0.2")


@pytest.mark.parametrize("scheme", ["kafka", "confluent"])
def test_an_unreachable_kafka_is_a_failure(app: App, scheme: str) -> None:
    """No broker listens there; what the client logs of each attempt is left out."""
    more = ["--url", f"{scheme}://127.0.0.1:1", "--connect-timeout", "0.5"]
    result = call(*app.arguments("fine", *more), directory=app.directory)
    assert_one_line(result, 1, r"no broker of 127.0.0.1:1 answered within 0.5 s")


@pytest.mark.kafka
def test_run_on_kafka(app: App, kafka_cluster: object) -> None:
    """The same on a real broker: exactly so many are committed."""
    cluster: object = kafka_cluster
    topic, group = f"{app.name}-topic", f"{app.name}-group"
    from ..kafka.produce import produce_numbered

    cluster.create_topic(topic, 2)  # type: ignore[attr-defined]  # no protocol for it
    bootstrap = cluster.bootstrap  # type: ignore[attr-defined]  # see above
    produce_numbered(bootstrap, topic, 100, 2)
    arguments = ["run", f"{app.name}:fine", "--url", f"kafka://{bootstrap}", "--group", group]
    result = invoke(*arguments, "--topic", topic, "--concurrency", "5", "--max-messages", "60")
    assert result.exit_code == 0, result.output
    assert len(app.seen) == len(set(app.seen)) == 60
    offsets = cluster.group_offsets(group)  # type: ignore[attr-defined]  # see above
    assert sum(offset for offset, _ in offsets.values()) == 60
    assert_one_line(
        invoke(*arguments, "--topic", f"{topic}-nothing"), 1, "cannot subscribe to '.*-nothing'"
    )
