"""All benchmarks one after the other, and at the end every bar in one table.

python -m benchmarks --folder docs/benchmarks
python -m benchmarks --quick --only ledger --only throughput
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from . import idle, latency, ledger, rebalance, scale, throughput
from .report import Report, common_options, publish

SOME = (
    throughput.BASELINE,
    throughput.AUTO,
    throughput.BATCHES,
    throughput.CONFLUENT,
    throughput.CONFLUENT_BATCHES,
    "aiokafka getmany",
    "aiokafka async for",
    "confluent-kafka consume, tuned",
)
"""Contenders of the benchmarks of large and compressed messages."""


def of_size(size: int, compression: str, part: float) -> Callable[[int, bool], Report]:
    """A throughput benchmark of large or compressed messages."""

    def measure(rounds: int, quick: bool) -> Report:
        messages = int((100_000 if quick else 1_000_000) * part)
        report = throughput.measure(messages, size, 4, compression, rounds, [*SOME])
        report.name = f"throughput-{size}-{compression}"
        report.bars = []  # the promises are about 100 bytes
        return report

    return measure


def plain(rounds: int, quick: bool) -> Report:
    """The throughput benchmark that the bars are about."""
    messages = 100_000 if quick else 1_000_000
    return throughput.measure(messages, 100, 4, "none", rounds, throughput.chosen(()))


ALL: dict[str, Callable[[int, bool], Report]] = {
    "ledger": ledger.measure,
    "throughput": plain,
    "throughput, lz4": of_size(100, "lz4", 1.0),
    "throughput, 1 kB zstd": of_size(1_000, "zstd", 0.3),
    "throughput, 10 kB": of_size(10_000, "none", 0.03),
    "scale": scale.measure,
    "latency": latency.measure,
    "rebalance": rebalance.measure,
    "idle": idle.measure,
}


@click.command()
@common_options
@click.option("--only", multiple=True, help="Benchmarks whose name contains this.")
def main(folder: Path | None, quick: bool, rounds: int, only: tuple[str, ...]) -> None:
    """Run the benchmarks and say which promised ratios were reached."""
    if quick:
        rounds = min(rounds, 2)
    reports = [
        measure(rounds, quick)
        for name, measure in ALL.items()
        if not only or any(part in name for part in only)
    ]
    publish(reports, folder)


if __name__ == "__main__":
    main()
