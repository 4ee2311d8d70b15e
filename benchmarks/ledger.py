"""What does the account of a message cost?  No broker, one thread, CPU time.

Nanoseconds an acknowledgement: in order, at random among the 100,000 that are in
hand, and with one offset that stays unfinished; from 10^5 to 10^7 offsets.  Then
one commit scan over many partitions, and the bytes that an outstanding offset
takes.

    python -m benchmarks.ledger
"""

from __future__ import annotations

import gc
import random
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import click

from trio_consumer import TopicPartition
from trio_consumer._core.delivered_batch import FIRST_STREAM_BIT, DeliveredBatch
from trio_consumer._core.ledger import Ledger

from .report import Bar, Chart, Report, common_options, publish, spread

TP = TopicPartition("t", 0)
BATCH = 2000
"""Records delivered together: as many as one poll has."""

WINDOW = 100_000
"""Records in hand at once."""

INDEXES = list(range(BATCH))
"""The same integer objects for every batch: theirs is not the memory to be measured."""

Acks = list[tuple[DeliveredBatch, int]]


def delivered(count: int, ledger: Ledger | None = None) -> tuple[Ledger, Acks]:
    """A ledger with so many records in hand, and what finishes each of them."""
    ledger = ledger or Ledger(TP)
    start = ledger.position or 0
    acks: Acks = []
    for first in range(start, start + count, BATCH):
        batch = ledger.deliver(range(first, min(first + BATCH, start + count)), FIRST_STREAM_BIT)
        acks += [(batch, index) for index in INDEXES[: len(batch)]]
    return ledger, acks


def nanoseconds_an_ack(count: int, order: Callable[[Acks], Acks]) -> float:
    """CPU time of finishing so many records, a window of them at a time."""
    ledger, spent = Ledger(TP), 0
    for _ in range(0, count, WINDOW):
        _, acks = delivered(min(WINDOW, count), ledger)
        chosen = order(acks)
        began = time.process_time_ns()
        for batch, index in chosen:
            batch.finish(index, FIRST_STREAM_BIT)
        spent += time.process_time_ns() - began
    return spent / count


def in_order(acks: Acks) -> Acks:
    """As a single task finishes them."""
    return acks


def shuffled(acks: Acks) -> Acks:
    """As many tasks may finish them."""
    places = list(range(len(acks)))
    random.Random(1).shuffle(places)
    # New pairs, so that the memory of the old ones is not what is measured.
    return [(acks[place][0], acks[place][1]) for place in places]


class OneStuck:
    """All but the very first one, which holds the commit back."""

    def __init__(self) -> None:
        self._began = False

    def __call__(self, acks: Acks) -> Acks:
        if self._began:
            return acks
        self._began = True
        return acks[1:]


def loop_alone(count: int) -> float:
    """The loop of the measurement, calling a method that does nothing."""

    class Nothing:
        def finish(self, index: int, bit: int) -> bool:
            return True

    nothing = Nothing()
    pairs = [(nothing, index) for index in range(WINDOW)]
    spent = 0
    for _ in range(0, count, WINDOW):
        began = time.process_time_ns()
        for batch, index in pairs:
            batch.finish(index, FIRST_STREAM_BIT)
        spent += time.process_time_ns() - began
    return spent / count


def scan_milliseconds(partitions: int, outstanding: int) -> float:
    """CPU time of asking every ledger what may be committed, with acknowledgements spread."""
    ledgers = []
    for _ in range(partitions):
        ledger, acks = delivered(outstanding // partitions)
        # All but the last of each: the scan has to go through what is finished.
        for batch, index in acks[:-1]:
            batch.finish(index, FIRST_STREAM_BIT)
        delivered(1, ledger)
        ledgers.append(ledger)
    full = [delivered(outstanding // partitions)[0] for _ in range(partitions)]
    best = min(_scan(ledgers) for _ in range(5)), min(_scan(full) for _ in range(5))
    return max(best)


def _scan(ledgers: list[Ledger]) -> float:
    began = time.process_time_ns()
    for ledger in ledgers:
        ledger.snapshot()
    return (time.process_time_ns() - began) / 1e6


def bytes_an_offset(count: int) -> float:
    """Memory that so many offsets in hand take, a poll of records at a time."""
    gc.collect()
    tracemalloc.start()
    ledger = Ledger(TP)
    for first in range(0, count, BATCH):
        ledger.deliver(range(first, first + BATCH), FIRST_STREAM_BIT)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return size / count


ORDERS: dict[str, Callable[[], Callable[[Acks], Acks]]] = {
    "in order": lambda: in_order,
    "at random over 100,000": lambda: shuffled,
    "one stuck": OneStuck,
}


def measure(rounds: int, quick: bool) -> Report:
    """Everything above, as a report."""
    sizes = (100_000,) if quick else (100_000, 1_000_000, 10_000_000)
    runs: dict[str, list[float]] = {}
    gc.disable()
    try:
        for _ in range(rounds):
            runs.setdefault("the loop alone", []).append(loop_alone(WINDOW * 5))
            for name, order in ORDERS.items():
                for size in sizes:
                    label = f"ack {name}, {size:,} offsets"
                    runs.setdefault(label, []).append(nanoseconds_an_ack(size, order()))
    finally:
        gc.enable()
    figures = {label: spread(values) for label, values in runs.items()}
    scan = scan_milliseconds(1000, 1_000_000)
    size = bytes_an_offset(1_000_000)
    rows = [
        [label, f"{middle:.0f} ns", f"{low:.0f} .. {high:.0f}"]
        for label, (middle, low, high) in figures.items()
    ]
    rows.append(["commit scan of 1,000 partitions, 10^6 outstanding", f"{scan:.2f} ms", ""])
    rows.append(["memory an outstanding offset", f"{size:.2f} bytes", ""])
    acks = {label: values[0] for label, values in figures.items() if label.startswith("ack")}
    flat = max(
        acks[f"ack {name}, {sizes[-1]:,} offsets"] / acks[f"ack {name}, {sizes[0]:,} offsets"]
        for name in ORDERS
    )
    chart = Chart(
        "ns an acknowledgement",
        list(figures),
        [f[0] for f in figures.values()],
        [f[1] for f in figures.values()],
        [f[2] for f in figures.values()],
    )
    bars = [
        Bar("ack in the ledger, any order", max(acks.values()), 150, 70, at_most=True, unit="ns"),
        Bar(f"ack with {sizes[-1]:,} / with {sizes[0]:,} offsets", flat, 1.3, 1.1, at_most=True),
        Bar("commit scan, 1,000 partitions, 10^6", scan, 1.0, 0.3, at_most=True, unit="ms"),
        Bar("memory an outstanding offset", size, 2.0, 1.2, at_most=True, unit="bytes"),
    ]
    columns = ["what", "median", "lowest .. highest"]
    return Report("ledger", f"ledger, {rounds} rounds", columns, rows, chart, bars, runs)


@click.command()
@common_options
def main(folder: Path | None, quick: bool, rounds: int) -> None:
    """Measure what keeping account costs, without a broker."""
    publish([measure(rounds, quick)], folder)


if __name__ == "__main__":
    main()
