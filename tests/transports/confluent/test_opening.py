"""Opening without a broker, and what is known of the client beyond its manual."""

from __future__ import annotations

import socket

import pytest
import trio
from confluent_kafka import Consumer, KafkaError, KafkaException

from trio_consumer import (
    TP,
    AuthorizationError,
    BrokerUnavailableError,
    CommitFailedError,
    ConfigurationError,
    CorruptRecordError,
    FencedError,
    OffsetAndMetadata,
    OffsetOutOfRangeError,
    open_consumer,
)
from trio_consumer._types import GroupMetadata
from trio_consumer.transports.confluent import internals
from trio_consumer.transports.confluent.translate import (
    commit_error,
    fatal_error,
    record_error,
    transaction_error,
)


@pytest.fixture
def deaf() -> str:
    """An address where nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{sock.getsockname()[1]}"


def test_unreachable_broker_is_told_in_time(deaf: str) -> None:
    """Within the connect timeout, with the address."""

    async def main() -> None:
        began = trio.current_time()
        with pytest.raises(BrokerUnavailableError, match=rf"^no broker of {deaf} answered within"):
            async with open_consumer(f"confluent://{deaf}", group="g", connect_timeout=0.5):
                raise AssertionError("connected to nobody")
        assert trio.current_time() - began < 5

    trio.run(main)


def test_failed_attempts_are_told_once(deaf: str, caplog: pytest.LogCaptureFixture) -> None:
    """By the error at the end, with the reason, and not by a line of the log for each."""

    async def main() -> None:
        with pytest.raises(BrokerUnavailableError, match=r"Connection refused"):
            async with open_consumer(f"confluent://{deaf}", group="g", connect_timeout=0.5):
                raise AssertionError("connected to nobody")

    trio.run(main)
    assert not caplog.records


def test_cancelled_attempt_ends_at_once(deaf: str) -> None:
    """It does not wait for the connect timeout."""

    async def main() -> None:
        began = trio.current_time()
        with trio.move_on_after(0.3) as scope:
            async with open_consumer(f"confluent://{deaf}", group="g", connect_timeout=60):
                raise AssertionError("connected to nobody")
        assert scope.cancelled_caught
        assert trio.current_time() - began < 5

    trio.run(main)


def test_option_that_the_client_does_not_know_is_told(deaf: str) -> None:
    """In the client's words, as a mistake of the caller."""

    async def main() -> None:
        with pytest.raises(ConfigurationError, match=r"^confluent-kafka: .*no\.such\.option"):
            async with open_consumer(
                f"confluent://{deaf}", group="g", client_options={"no.such.option": 1}
            ):
                raise AssertionError("opened")

    trio.run(main)


def test_group_metadata_survive_the_client() -> None:
    """What we read of it, and what we write for its producer, is its own."""
    client = Consumer({"group.id": "gröup", "bootstrap.servers": "127.0.0.1:1"})
    try:
        internals.check(client)
        now = internals.group_metadata(client)
        assert (now.group, now.generation, now.group_instance_id) == ("gröup", -1, None)
    finally:
        client.close()


@pytest.mark.parametrize("instance", [None, "one"])
def test_group_metadata_are_read_as_they_were_written(instance: str | None) -> None:
    """With and without a static name."""
    metadata = GroupMetadata("group", 7, "member", instance)

    class Client:
        def consumer_group_metadata(self) -> bytes:
            return internals.serialized_metadata(metadata)

    client: object = Client()
    assert internals.group_metadata(client) == metadata  # type: ignore[arg-type]


TP0 = TP("t", 0)
WANTED = {TP0: OffsetAndMetadata(5)}


def exception(code: int, text: str = "x", **flags: bool) -> KafkaException:
    return KafkaException(KafkaError(code, text, **flags))


@pytest.mark.parametrize(
    ("code", "cooperative", "stale", "retriable"),
    [
        (KafkaError.UNKNOWN_MEMBER_ID, False, True, False),
        (KafkaError.ILLEGAL_GENERATION, False, True, False),
        (KafkaError.ILLEGAL_GENERATION, True, True, True),
        (KafkaError.REBALANCE_IN_PROGRESS, False, True, True),
        (KafkaError._TRANSPORT, False, False, True),
        (KafkaError.NOT_COORDINATOR, False, False, True),
        (KafkaError.OFFSET_METADATA_TOO_LARGE, False, False, False),
    ],
)
def test_refused_commit(code: int, cooperative: bool, stale: bool, retriable: bool) -> None:
    """Whether to try again, and whether the membership is the reason."""
    error = commit_error(exception(code), WANTED, cooperative=cooperative)
    assert isinstance(error, CommitFailedError)
    assert (error.stale, error.retriable, error.offsets) == (stale, retriable, WANTED)


def test_fenced_members_and_producers() -> None:
    """Also if the client only says that it is dead."""
    assert isinstance(commit_error(exception(KafkaError.FENCED_INSTANCE_ID), WANTED), FencedError)
    fenced = KafkaError(KafkaError.FENCED_INSTANCE_ID).str()
    assert isinstance(fatal_error(exception(KafkaError._FATAL, f"Fatal: {fenced}")), FencedError)
    error = transaction_error(exception(KafkaError._FENCED, fatal=True), "produce", {})
    assert isinstance(error, FencedError)


@pytest.mark.parametrize(
    ("code", "kind", "match"),
    [
        (
            KafkaError.INVALID_SESSION_TIMEOUT,
            ConfigurationError,
            r"choose one between its group\.mi",
        ),
        (KafkaError.INCONSISTENT_GROUP_PROTOCOL, ConfigurationError, r"give all of them the same"),
        (
            KafkaError.UNRELEASED_INSTANCE_ID,
            FencedError,
            r"still has a member with this group\.inst",
        ),
    ],
)
def test_refused_join_says_what_to_do(code: int, kind: type[Exception], match: str) -> None:
    """Also if the client only says that it is dead of an unreleased identity."""
    with pytest.raises(kind, match=rf"^cannot read: .*{match}"):
        raise fatal_error(exception(code))
    if kind is FencedError:
        text = f"Fatal: {KafkaError(code).str()}"
        with pytest.raises(kind, match=match):
            raise fatal_error(exception(KafkaError._FATAL, text))


def test_errors_in_place_of_records() -> None:
    """They name the partition and the offset."""
    error = record_error(KafkaError(KafkaError._BAD_MSG), TP0, 7)
    assert isinstance(error, CorruptRecordError)
    assert (error.tp, error.offset) == (TP0, 7)
    error = record_error(KafkaError(KafkaError._AUTO_OFFSET_RESET), TP0, 9)
    assert isinstance(error, OffsetOutOfRangeError)
    assert (error.tp, error.offset) == (TP0, 9)
    error = record_error(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED), TP0, -1001)
    assert isinstance(error, AuthorizationError)
