"""A scheduler of the user's own, and one that leaves something out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from trio_consumer import TP, ConfigurationError, RoundRobin, Slice

from .support import add_topic, broker, committed, consuming, run, take


class UrgentFirst:
    """One topic before all others."""

    def __init__(self, topic: str) -> None:
        self.topic = topic

    def slices(self, sizes: Mapping[TP, int]) -> Iterator[Slice]:
        """Whole partitions, the urgent ones first."""
        for tp in sorted(sizes, key=lambda tp: (tp.topic != self.topic, tp)):
            if sizes[tp]:
                yield Slice(tp, 0, sizes[tp])


def test_scheduler_of_the_user_decides_the_order() -> None:
    """Out of one poll the urgent topic comes first, and nothing is lost."""

    async def main() -> None:
        it = broker(5, 2)
        add_topic(it, "urgent", 3)
        async with (
            consuming(it, scheduler=UrgentFirst("urgent")) as consumer,
            consumer.stream("t", "urgent") as stream,
        ):
            got = await take(stream)
            assert [m.topic for m in got] == ["urgent"] * 3 + ["t"] * 10
        assert committed(it, TP("urgent", 0)) == 3

    run(main)


class Faulty:
    """Gives these slices of each partition."""

    def __init__(self, *given: tuple[int, int]) -> None:
        self.given = given

    def slices(self, sizes: Mapping[TP, int]) -> Iterator[Slice]:
        """Whatever it was told."""
        for tp in sizes:
            for start, stop in self.given:
                yield Slice(tp, start, stop)


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ([(2, 5)], "gave records 2 to 5 of t[0] after 0 of 5"),
        ([(0, 3)], "left out records of {'t[0]': 2}"),
        ([(0, 2), (3, 5)], "gave records 3 to 5 of t[0] after 2 of 5"),
        ([(0, 3), (2, 5)], "gave records 2 to 5 of t[0] after 3 of 5"),
        ([(0, 6)], "gave records 0 to 6 of t[0] after 0 of 5"),
        ([(0, 0), (0, 5)], "gave records 0 to 0 of t[0] after 0 of 5"),
        ([(3, 5), (0, 3)], "gave records 3 to 5 of t[0] after 0 of 5"),
    ],
)
def test_scheduler_that_leaves_records_out_stops_the_consumer(
    given: list[tuple[int, int]], what: str
) -> None:
    """Else they would never come, and be committed past; the error says which."""

    async def main() -> None:
        it = broker(5)
        scheduler = Faulty(*given)
        with pytest.raises(ConfigurationError) as caught:
            async with consuming(it, scheduler=scheduler) as consumer, consumer.stream("t") as s:
                await take(s)
        assert str(caught.value) == (
            f"the scheduler {scheduler!r} {what}: it has to cover each record once,"
            " in ascending order"
        )
        assert (committed(it) or 0) <= 3

    run(main)


def test_slices_of_two_partitions_take_turns() -> None:
    """A slice is what the scheduler said, also in the middle of a poll."""

    async def main() -> None:
        it = broker(3, 2)
        async with (
            consuming(it, scheduler=RoundRobin(1)) as consumer,
            consumer.stream("t") as stream,
        ):
            got = await take(stream)
            assert [(m.partition, m.offset) for m in got] == [
                (partition, offset) for offset in range(3) for partition in range(2)
            ]

    run(main)
