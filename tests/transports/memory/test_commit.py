"""Commits of a session, and every way in which they fail."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import trio

from trio_consumer._errors import (
    AuthorizationError,
    CommitFailedError,
    FencedError,
    TransportError,
)
from trio_consumer._types import OffsetAndMetadata, TopicPartition
from trio_consumer.transports.memory import AcceptedCommit, CommitFault, Faults

from .support import COOPERATIVE, T0, T1, Recorder, at, broker, run, settings

TOPICS = frozenset({"t"})


def test_commit_is_stored_with_metadata() -> None:
    """The broker's history says who committed what, when."""

    async def main() -> None:
        b = broker(partitions=2, records=1)
        async with b.connect(settings(), Recorder()) as session:
            await session.subscribe(TOPICS)
            await trio.sleep(5)
            await session.commit({T0: at(1, "x" * 4096)})
            await session.commit({})
            assert await session.committed([T0]) == {T0: OffsetAndMetadata(1, "x" * 4096, -1)}
            [commit] = b.commit_history("g")
            assert (commit.time, commit.generation) == (5.0, 1)
            assert (commit.member_id, dict(commit.offsets)) == (
                session.member_id,
                {T0: at(1, "x" * 4096)},
            )

    run(main)


def test_commit_does_not_ask_for_ownership() -> None:
    """As in Kafka, a member may commit what another one owns."""

    async def main() -> None:
        b = broker(partitions=1)
        b.create_topic("u")
        async with b.connect(settings(), Recorder()) as session:
            await session.subscribe(TOPICS)
            await trio.sleep(5)
            await session.commit({TopicPartition("u", 0): at(4)})
            assert b.committed("g", TopicPartition("u", 0)) == at(4)

    run(main)


@pytest.mark.parametrize(
    ("fault", "message", "retriable", "stale", "applied", "seconds"),
    [
        (CommitFault.COORDINATOR_UNAVAILABLE, r"cannot commit t\[0\]=1 .*", True, False, False, 0),
        (CommitFault.TIMEOUT, r"cannot tell whether t\[0\]=1 .*", True, False, False, 5),
        (CommitFault.ANSWER_LOST, r"cannot tell whether t\[0\]=1 .*", True, False, True, 5),
        (CommitFault.UNKNOWN_MEMBER, r".*does not know this member.*", False, True, False, 0),
        (CommitFault.ILLEGAL_GENERATION, r".*in another generation.*", False, True, False, 0),
        (CommitFault.REBALANCE_IN_PROGRESS, r".*is rebalancing.*", False, True, False, 0),
        (CommitFault.METADATA_TOO_LARGE, r".*above 4096 bytes; shorten", False, False, False, 0),
    ],
)
def test_commit_fault_is_reported(
    fault: CommitFault, message: str, retriable: bool, stale: bool, applied: bool, seconds: float
) -> None:
    """Each way to fail has its flags, says what was tried, and is over afterwards."""

    async def main() -> None:
        b = broker(partitions=1)
        listener = Recorder()
        async with b.connect(settings(), listener) as session:
            await session.subscribe(TOPICS)
            await trio.sleep(5)
            b.fail_next_commits(2, fault.value)
            for _ in range(2):
                begin = trio.current_time()
                with pytest.raises(CommitFailedError, match=rf"^{message}") as caught:
                    await session.commit({T0: at(1)})
                error = caught.value
                assert (error.retriable, error.stale) == (retriable, stale)
                assert error.offsets == {T0: at(1)}
                assert trio.current_time() - begin == seconds
            assert b.committed("g", T0) == (at(1) if applied else None)
            await session.commit({T0: at(2)})
            assert b.committed("g", T0) == at(2)
            await trio.sleep(20)
            # An injected answer leaves the membership as it is.
            assert listener.names == ["assigned"]

    run(main)


@pytest.mark.parametrize(
    ("fault", "error"),
    [(CommitFault.UNAUTHORIZED, AuthorizationError), (CommitFault.FENCED, FencedError)],
)
def test_commit_fault_for_good_is_a_transport_error(
    fault: CommitFault, error: type[TransportError]
) -> None:
    """Authorization and fencing are no failed commits but the end."""

    async def main() -> None:
        b = broker(partitions=1)
        async with b.connect(settings(), Recorder()) as session:
            await session.subscribe(TOPICS)
            await trio.sleep(5)
            b.fail_next_commits(error=fault)
            with pytest.raises(error, match=r"^cannot commit t\[0\]=1 for the group 'g'") as caught:
                await session.commit({T0: at(1)})
            assert not caught.value.retriable
            assert b.committed("g", T0) is None

    run(main)


def test_commit_of_large_metadata_is_refused() -> None:
    """The coordinator's own limit: that partition is refused, the other stored."""

    async def main() -> None:
        b = broker(partitions=2)
        async with b.connect(settings(), Recorder()) as session:
            await session.subscribe(TOPICS)
            await trio.sleep(5)
            with pytest.raises(CommitFailedError, match=r"^cannot commit .* above 4096 bytes") as c:
                await session.commit({T0: at(1, "x" * 4097), T1: at(1)})
            assert (c.value.retriable, c.value.stale) == (False, False)
            assert (b.committed("g", T0), b.committed("g", T1)) == (None, at(1))

    run(main)


def test_commit_in_an_outage_times_out() -> None:
    """After commit_timeout it is retriable, and it is not sent later."""

    async def main() -> None:
        b = broker(partitions=1)
        async with b.connect(settings(commit_timeout=2.0), Recorder()) as session:
            await session.subscribe(TOPICS)
            await trio.sleep(5)
            b.down()
            with pytest.raises(CommitFailedError, match=r"^cannot tell .* within 2.0 s") as caught:
                await session.commit({T0: at(1)})
            assert caught.value.retriable
            assert trio.current_time() == 7
            b.up()
            await trio.sleep(5)
            assert b.commit_history("g") == []
            await session.commit({T0: at(1)})

    run(main)


def test_commit_with_answers_paused_is_applied() -> None:
    """The request arrives, the answer does not, and the session stays alive."""

    async def main() -> None:
        b = broker(partitions=1)
        listener = Recorder()
        async with b.connect(settings(), listener) as session:
            await session.subscribe(TOPICS)
            await trio.sleep(5)
            b.pause_answers()
            with pytest.raises(CommitFailedError, match=r"^cannot tell whether t\[0\]=1 was"):
                await session.commit({T0: at(1)})
            assert b.committed("g", T0) == at(1)
            b.resume_answers()
            await session.commit({T0: at(2)})
            assert listener.names == ["assigned"]

    run(main)


@pytest.mark.parametrize(("moment", "applied"), [(0.5, False), (1.5, True)])
def test_commit_cancelled_leaves_nothing_in_flight(moment: float, applied: bool) -> None:
    """Before it arrives nothing happens, afterwards only the answer is lost."""

    async def main() -> None:
        b = broker(partitions=1, latency=2.0)
        async with b.connect(settings(), Recorder()) as session:
            await session.subscribe(TOPICS)
            await trio.sleep(20)
            with trio.move_on_after(moment) as scope:
                await session.commit({T0: at(1)})
            assert scope.cancelled_caught
            stored = b.committed("g", T0)
            assert stored == (at(1) if applied else None)
            await trio.sleep(20)
            assert b.committed("g", T0) == stored

    run(main)


def test_commit_to_a_deleted_topic_leaves_it_out(caplog: pytest.LogCaptureFixture) -> None:
    """The client waits for metadata until its time is up; the rest is stored."""

    async def main() -> None:
        b = broker(partitions=1)
        b.create_topic("u")
        u = TopicPartition("u", 0)
        async with b.connect(settings(), Recorder()) as session:
            await session.subscribe(TOPICS)
            await trio.sleep(5)
            b.delete_topic("u")
            await session.commit({u: at(1), T0: at(1)})
            assert trio.current_time() == 10
            assert caplog.messages == [
                "u[0]=1 not committed for the group 'g': the broker has no such partition, its"
                " topic was deleted"
            ]
            assert (b.committed("g", u), b.committed("g", T0)) == (None, at(1))

    run(main)


def test_commit_without_membership_is_stale() -> None:
    """A session that has not joined has nothing to commit."""

    async def main() -> None:
        b = broker(partitions=1)
        async with b.connect(settings(), Recorder()) as session:
            with pytest.raises(
                CommitFailedError, match=r"^cannot commit .*: this session is out of the group; "
            ) as caught:
                await session.commit({T0: at(1)})
            assert (caught.value.stale, caught.value.retriable) == (True, False)

    run(main)


def test_commit_while_joining_may_be_tried_again() -> None:
    """A cooperative member keeps its partitions while it joins: retriable, and stale until then."""

    async def main() -> None:
        b = broker(partitions=1, latency=1.0)
        async with b.connect(settings(client=COOPERATIVE), Recorder()) as session:
            await session.subscribe(TOPICS)
            await trio.sleep(10)
            b.rebalance("g")

            async def commit_on() -> None:
                while True:
                    await trio.sleep(0.1)
                    await session.commit({T0: at(1)})

            with pytest.raises(
                CommitFailedError, match=r"^cannot commit for the group 'g': the member .* joining"
            ) as caught:
                await commit_on()
            assert (caught.value.retriable, caught.value.stale) == (True, True)
            await trio.sleep(10)
            await session.commit({T0: at(2)})

    run(main)


def test_random_faults_repeat_under_a_seed() -> None:
    """The same seed gives the same failures, another seed others."""

    def outcomes(seed: int) -> list[str]:
        result: list[str] = []

        async def main() -> None:
            b = broker(partitions=1, seed=seed)
            b.faults = Faults(commit_failure_rate=0.3, answer_lost_rate=0.2, latency=(0.0, 0.1))
            async with b.connect(settings(), Recorder()) as session:
                await session.subscribe(TOPICS)
                await trio.sleep(5)
                for n in range(40):
                    try:
                        await session.commit({T0: at(n)})
                        result.append("done")
                    except CommitFailedError as error:
                        result.append(f"{error} {b.committed('g', T0) == at(n)}")

        run(main)
        return result

    first = outcomes(1)
    assert 10 < first.count("done") < 35
    assert any(each.endswith("True") for each in first)
    assert first == outcomes(1)
    assert first != outcomes(2)


def test_commit_lost_on_its_way_is_sent_again() -> None:
    """An outage that ends within commit_timeout costs only time."""

    async def main() -> None:
        b = broker(partitions=1, latency=1.0)
        async with b.connect(settings(), Recorder()) as session, trio.open_nursery() as nursery:
            await session.subscribe(TOPICS)
            await trio.sleep(20)
            begin = trio.current_time()

            async def outage() -> None:
                await trio.sleep(0.2)
                b.down()
                await trio.sleep(2)
                b.up()

            nursery.start_soon(outage)
            await session.commit({T0: at(1)})
            assert trio.current_time() - begin == pytest.approx(3.2)
            assert len(b.commit_history("g")) == 1

    run(main)


def test_commit_latency_delays_commits_only() -> None:
    """A commit takes as long as it says beyond other requests, before it arrives."""

    async def main() -> None:
        b = broker(partitions=1, faults=Faults(latency=1.0, commit_latency=2.0))
        async with b.connect(settings(), Recorder()) as session:
            await session.subscribe(TOPICS)
            await trio.sleep(10)
            began = trio.current_time()
            await session.committed([T0])
            assert trio.current_time() - began == pytest.approx(1.0)
            began = trio.current_time()
            await session.commit({T0: at(1)})
            assert trio.current_time() - began == pytest.approx(3.0)
            [commit] = b.commit_history("g")
            assert commit.time == pytest.approx(began + 2.5)
            b.forget_commit_history("g")
            assert b.commit_history("g") == []
            assert b.committed("g", T0) == at(1)

    run(main)


def test_session_is_frozen_by_its_client_id_before_it_is_a_member() -> None:
    """Its join waits for the thaw."""

    async def main() -> None:
        b = broker(partitions=1)
        async with b.connect(settings(client={"client_id": "early"}), Recorder()) as session:
            b.freeze("early")
            with trio.move_on_after(1) as scope:
                await session.subscribe(TOPICS)
            assert scope.cancelled_caught
            assert b.members("g") == {}
            b.thaw("early")
            await session.subscribe(TOPICS)
            await trio.sleep(1)
            assert list(b.members("g")) == [session.member_id]

    run(main)


def test_observer_is_told_what_the_coordinator_does() -> None:
    """In the step in which it does it, and in its order."""
    told: list[tuple[object, ...]] = []

    class Observer:
        def rebalancing(self, group: str) -> None:
            told.append(("rebalancing", group))

        def assigned(
            self,
            group: str,
            generation: int,
            assignment: Mapping[str, frozenset[TopicPartition]],
        ) -> None:
            told.append(("assigned", group, generation, *assignment.values()))

        def committed(self, group: str, commit: AcceptedCommit) -> None:
            told.append(("committed", group, commit.generation, dict(commit.offsets)))

    async def main() -> None:
        b = broker(partitions=1, observer=Observer())
        async with b.connect(settings(), Recorder()) as session:
            await session.subscribe(TOPICS)
            await trio.sleep(5)
            await session.commit({T0: at(1)})
        assert told == [
            ("rebalancing", "g"),
            ("assigned", "g", 1, frozenset({T0})),
            ("committed", "g", 1, {T0: at(1)}),
            ("rebalancing", "g"),
        ]

    run(main)
