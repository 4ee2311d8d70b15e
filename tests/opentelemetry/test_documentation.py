"""docs/observing.md: its programs run, and its tables have what there is."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import trio

from trio_consumer import Symptom, open_consumer
from trio_consumer.opentelemetry import instrument
from trio_consumer.testing import MemoryBroker

from ..runtime.support import run
from .support import Telemetry

PAGE = (Path(__file__).parents[2] / "docs" / "observing.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    """The blocks of a language, as the page shows them."""
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def test_what_holds_back_is_shown_as_it_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """Three tasks, one of which hangs: the lines of the page, but for their numbers."""

    async def main() -> None:
        it = MemoryBroker()
        it.create_topic("orders")
        it.produce_many("orders", [b"%d" % n for n in range(1000)])

        async def charge() -> None:
            async for message in orders:
                if message.offset == 17:
                    await trio.sleep_forever()
                await trio.sleep(0.1)

        async with (
            open_consumer(it, group="billing") as consumer,
            consumer.stream("orders") as orders,
            trio.open_nursery() as nursery,
        ):
            for n in (1, 2, 3):
                nursery.start_soon(charge, name=f"charge-{n}")
            await trio.sleep(12.4)
            names: dict[str, Any] = {"consumer": consumer}
            exec(compile(blocks("python")[0], "observing.md", "exec"), names)
            nursery.cancel_scope.cancel()

    run(main)
    shown, printed = (
        re.sub(r"\d+(\.\d)?", "#", text) for text in (blocks("text")[0], capsys.readouterr().out)
    )
    assert shown == printed


PRELUDE = """
import atexit, json
import opentelemetry.sdk.metrics.export as metric_export
import opentelemetry.sdk.trace.export as span_export
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
import trio_consumer._runtime.opening as opening
from trio_consumer.testing import MemoryBroker

broker = MemoryBroker()
broker.create_topic("orders")
HEADER = ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
for n in range(3):
    broker.produce("orders", b"%d" % n, headers=[HEADER])
opening.resolve = lambda url: broker

spans = InMemorySpanExporter()
names = set()

class Kept(MetricExporter):
    def export(self, metrics_data, *args, **kwargs):
        for resource in metrics_data.resource_metrics:
            for scope in resource.scope_metrics:
                names.update(metric.name for metric in scope.metrics)
        return MetricExportResult.SUCCESS
    def force_flush(self, *args, **kwargs):
        return True
    def shutdown(self, *args, **kwargs):
        pass

span_export.ConsoleSpanExporter = lambda: spans
metric_export.ConsoleMetricExporter = Kept

class Enough(Exception):
    pass

async def charge(order):
    if order == b"2":
        metrics.get_meter_provider().force_flush()
        raise Enough
"""
EPILOGUE = """
except Enough:
    pass
trace.get_tracer_provider().shutdown()
metrics.get_meter_provider().shutdown()
print(json.dumps({
    "spans": [[s.name, s.status.status_code.name, f"{s.context.trace_id:032x}"]
              for s in spans.get_finished_spans()],
    "metrics": sorted(names),
    "committed": broker.committed("billing", ("orders", 0)).offset,
}))
"""


def test_set_up_of_the_page_traces_and_measures(tmp_path: Path) -> None:
    """With global providers, in a process of its own: they can be set once only."""
    program = tmp_path / "program.py"
    setup, start, _ = blocks("python")[1].rpartition("set_up()\n")
    assert start
    body = textwrap.indent(start + "trio.run(main)\n", "    ")
    program.write_text(f"{PRELUDE}\n{setup}\ntry:\n{body}{EPILOGUE}", "utf-8")
    done = subprocess.run(
        [sys.executable, str(program)], check=False, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    assert told["spans"][:3] == [
        ["process orders", "UNSET", trace_id],
        ["process orders", "UNSET", trace_id],
        ["process orders", "ERROR", trace_id],
    ]
    assert [name for name, _, _ in told["spans"][3:]] == ["commit orders"]
    assert told["committed"] == 2
    assert set(told["metrics"]) == table_of_metrics() - {"trio_consumer.commit.age"}


def table_of_metrics() -> set[str]:
    """The names in the table of metrics."""
    return set(re.findall(r"^\| `([a-z_.]+)` \| (?:gauge|counter|histogram) \|", PAGE, re.M))


def test_table_of_metrics_is_what_is_measured(telemetry: Telemetry) -> None:
    """Kind and unit of each."""
    rows = re.findall(r"^\| `([a-z_.]+)` \| (gauge|counter|histogram) \| `(\S+)` \|", PAGE, re.M)

    async def main() -> None:
        it = MemoryBroker()
        it.create_topic("orders")
        it.produce("orders", b"")
        async with (
            open_consumer(it, group="billing") as consumer,
            instrument(consumer, **telemetry.providers),
            consumer.stream("orders") as orders,
        ):
            async for message in orders:
                message.ack()
                break
            await consumer.commit()
            data = telemetry.reader.get_metrics_data()
            assert data is not None
            found = {
                (metric.name, metric.unit)
                for metric in data.resource_metrics[0].scope_metrics[0].metrics
            }
        own = {(name, unit) for name, _, unit in rows if name.startswith("trio_consumer.")}
        assert {each for each in found if each[0].startswith("trio_consumer.")} == own

    run(main)


def test_table_of_loggers_is_what_logs() -> None:
    """Each logger of the package stands in the table, and no other."""
    sources = (Path(sys.modules["trio_consumer"].__file__ or "").parent).rglob("*.py")
    found = {
        name
        for source in sources
        for name in re.findall(r'getLogger\("(trio_consumer\.[\w.]+)"\)', source.read_text("utf-8"))
    }
    assert set(re.findall(r"^\| `(trio_consumer\.[\w.]+)` \| [A-Zl]", PAGE, re.M)) == found


def test_symptom_that_is_named_exists() -> None:
    """The page names one of them."""
    [name] = re.findall(r'`"([A-Z_]+)"` and the like', PAGE)
    assert name in Symptom.__members__
