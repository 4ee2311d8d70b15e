"""Gauges and counters of a consumer, from whichever thread they are collected."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import Any

import pytest
import trio
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    MetricExporter,
    MetricExportResult,
    MetricsData,
    PeriodicExportingMetricReader,
)

from trio_consumer import TP
from trio_consumer.opentelemetry import _instruments as instruments
from trio_consumer.opentelemetry import instrument, process_span

from ..runtime.support import GROUP, broker, consuming, run, take
from .support import Telemetry, points

PARTITION = {
    "messaging.system": "kafka",
    "messaging.consumer.group.name": GROUP,
    "messaging.destination.name": "t",
    "messaging.destination.partition.id": "0",
}
CONSUMER = {"messaging.system": "kafka", "messaging.consumer.group.name": GROUP}


def values(collected: dict[str, list[Any]]) -> dict[str, Any]:
    """What the consumer's own metrics say, where there is one point each."""
    return {
        name.removeprefix("trio_consumer."): found[0].value
        for name, found in collected.items()
        if name.startswith("trio_consumer.") and len(found) == 1
    }


def test_gauges_say_what_statistics_say(telemetry: Telemetry) -> None:
    """Each number of a partition, at the moment when it is asked for."""

    async def main() -> None:
        async with (
            consuming(broker(10), commit_interval=1000) as consumer,
            instrument(consumer, **telemetry.providers),
            consumer.stream("t", ack="manual") as stream,
        ):
            messages = await take(stream, 3, ack=False)
            messages[0].ack()
            await consumer.commit()
            messages[2].ack()
            await trio.sleep(20)
            consumer.pause_partitions([TP("t", 0)])
            collected = telemetry.collect()
            told = values(collected)
            partition = consumer.statistics().partitions[TP("t", 0)]
            assert partition.oldest is not None
            assert told.pop("partition.oldest_unfinished.age") == partition.oldest.seconds >= 20
            assert told.pop("commit.age") == consumer.statistics().seconds_since_commit
            assert told == {
                "partition.position": 10,
                "partition.lag": 0,
                "partition.commit_lag": 9,
                "partition.unfinished": 8,
                "partition.replay": 9,
                "partition.paused": 1,
                "partitions": 1,
                "commits": 1,
                "commit.failures": 0,
                "rebalances": 1,
            }
            assert dict(collected["trio_consumer.partition.lag"][0].attributes) == PARTITION
            assert dict(collected["trio_consumer.commits"][0].attributes) == CONSUMER

    run(main)


def test_units_are_told(telemetry: Telemetry) -> None:
    """Each metric has one, and a description."""

    async def main() -> None:
        async with (
            consuming(broker(1)) as consumer,
            instrument(consumer, **telemetry.providers),
            consumer.stream("t") as stream,
        ):
            [message] = await take(stream, 1)
            with process_span(message):
                await trio.sleep(3)
            await consumer.commit()
            data = telemetry.reader.get_metrics_data()
            assert data is not None
            [scope] = data.resource_metrics[0].scope_metrics
            assert scope.scope.name == "trio_consumer"
            units = {metric.name: metric.unit for metric in scope.metrics}
            assert units["messaging.process.duration"] == "s"
            assert units["messaging.client.operation.duration"] == "s"
            assert units["messaging.client.consumed.messages"] == "{message}"
            assert all(units.values())
            assert all(metric.description for metric in scope.metrics)
            [bounds] = {
                point.explicit_bounds
                for metric in scope.metrics
                for point in metric.data.data_points
                if metric.name.endswith(".duration")
            }
            assert bounds == instruments.DURATIONS

    run(main)


def test_counters_go_on_until_the_end_and_stay(telemetry: Telemetry) -> None:
    """The last commit counts; a second consumer of the group adds to the first; gauges are gone."""

    async def consume(it: Any, client_id: str) -> None:
        async with consuming(it, commit_interval=1000) as consumer:
            async with (
                instrument(consumer, client_id=client_id, **telemetry.providers),
                consumer.stream("t") as stream,
            ):
                await take(stream, 5)
            # It has not ended, so it is not forgotten yet.
            telemetry.collect()

    async def main() -> None:
        it = broker(10)
        await consume(it, "")
        told = values(telemetry.collect())
        assert told == {"commits": 1, "commit.failures": 0, "rebalances": 1}
        await consume(it, "")
        it.produce("t", b"more", partition=0)
        await consume(it, "b")
        by_client = {
            point.attributes.get("messaging.client.id"): point.value
            for point in telemetry.collect()["trio_consumer.commits"]
        }
        assert by_client == {None: 2, "b": 1}

    run(main)
    # Nothing holds on to those that have ended.
    [mine] = [i for p, i in instruments_by_provider() if p is telemetry.meter_provider]
    telemetry.collect()
    assert mine._watched == []


def instruments_by_provider() -> list[tuple[Any, Any]]:
    from trio_consumer.opentelemetry import _telemetry

    return list(_telemetry._instruments.items())


def test_processing_is_measured(telemetry: Telemetry) -> None:
    """One measurement and one message counted for each span, by partition."""

    async def main() -> None:
        async with (
            consuming(broker(2, 2)) as consumer,
            instrument(consumer, **telemetry.providers),
            consumer.stream("t") as stream,
        ):
            for message in await take(stream, 4):
                with process_span(message):
                    pass

    run(main)
    collected = telemetry.collect()
    durations = collected["messaging.process.duration"]
    consumed = collected["messaging.client.consumed.messages"]
    expected = {**PARTITION, "messaging.operation.name": "process"}
    for n in ("0", "1"):
        attributes = {**expected, "messaging.destination.partition.id": n}
        [duration] = [p for p in durations if dict(p.attributes) == attributes]
        [count] = [p for p in consumed if dict(p.attributes) == attributes]
        assert duration.count == count.value == 2
        assert 0 <= duration.sum < 1


# -- from other threads, so on the real clock ------------------------------------------


class Kept(MetricExporter):
    """An exporter that tells what it got, and from which thread."""

    def __init__(self) -> None:
        super().__init__()
        self.got: list[dict[str, list[Any]]] = []
        self.threads: set[int] = set()

    def export(self, metrics_data: MetricsData, *args: Any, **kwargs: Any) -> MetricExportResult:
        self.threads.add(threading.get_ident())
        self.got.append(points(metrics_data))
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return True

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        pass


def test_thread_of_an_exporter_gets_a_snapshot() -> None:
    """That of the SDK's own reader, while the consumer goes on."""
    exporter = Kept()
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=20)
    provider = MeterProvider([reader], shutdown_on_exit=False)
    asked: list[int] = []

    async def main() -> None:
        async with (
            consuming(broker(10)) as consumer,
            instrument(consumer, meter_provider=provider),
            consumer.stream("t", ack="manual") as stream,
        ):
            statistics = consumer.statistics

            def noted() -> Any:
                asked.append(threading.get_ident())
                return statistics()

            consumer.statistics = noted  # type: ignore[method-assign]
            await take(stream, 4, wait=30)
            with trio.fail_after(30):
                while not any(values(got).get("partition.unfinished") == 6 for got in exporter.got):
                    await trio.sleep(0.01)
            provider.force_flush()  # in the thread of the loop, which cannot wait for itself
        await trio.to_thread.run_sync(provider.shutdown)

    trio.run(main)
    assert exporter.threads - {threading.get_ident()}
    assert set(asked) == {threading.get_ident()}
    assert values(exporter.got[-1])["commits"] == 1


def test_blocked_event_loop_has_no_gauges_and_stops_no_exporter(
    telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once it goes on there are some again; the counters are there all the time."""
    monkeypatch.setattr(instruments, "PATIENCE", 0.05)

    async def main() -> None:
        async with (
            consuming(broker(10)) as consumer,
            instrument(consumer, **telemetry.providers),
            consumer.stream("t") as stream,
        ):
            await take(stream, 1, wait=30)
            got: list[dict[str, Any]] = []
            thread = threading.Thread(target=lambda: got.append(values(telemetry.collect())))
            thread.start()
            thread.join(30)
            assert got == [{"commits": 0, "commit.failures": 0, "rebalances": 1}]
            with trio.fail_after(30):
                while "partition.lag" not in got[-1]:
                    got.append(values(await trio.to_thread.run_sync(telemetry.collect)))

    trio.run(main)
    # The run has ended, and whoever asks gets an answer all the same.
    assert "partition.lag" not in values(telemetry.collect())


# -- what it costs those who do not use it -----------------------------------------------


def test_without_the_extra_the_import_names_it() -> None:
    """The remedy is in the error."""
    code = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "try:\n    import trio_consumer.opentelemetry\n"
        "except ImportError as exc:\n    print(exc)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == (
        "trio_consumer.opentelemetry needs OpenTelemetry's API:"
        " pip install 'trio-consumer[opentelemetry]'\n"
    )
