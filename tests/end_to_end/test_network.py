"""A network that stalls and cuts connections between a consumer and its broker."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from random import Random
from typing import Any

import pytest
import trio

from trio_consumer import CommitFailedError, Consumer, open_consumer

from ..kafka.cluster import Cluster
from ..kafka.produce import produce_numbered
from ..kafka.properties import PASSWORD, USER
from .proxy import Proxy

pytestmark = [
    pytest.mark.kafka,
    # kafka-python leaves sockets of failed connections to the garbage collector.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]

_serial = itertools.count(1)


@pytest.fixture(scope="module")
def remote() -> Iterator[tuple[Cluster, int]]:
    """A cluster whose second listener is told to clients under the port of a proxy."""
    # The port is bound by each test's proxy anew; one number, so that the broker knows it.
    first = Proxy()
    port = first.port
    first.close()
    advertised = f"PLAINTEXT://127.0.0.1:{{client}},SASL://127.0.0.1:{port}"
    with Cluster(nodes=1, properties={"advertised.listeners": advertised}) as cluster:
        yield cluster, port


def consuming(port: int, group: str, **options: Any) -> AbstractAsyncContextManager[Consumer]:
    client = {
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "PLAIN",
        "sasl_plain_username": USER,
        "sasl_plain_password": PASSWORD,
        "heartbeat_interval_ms": 300,
        "session_timeout_ms": 6000,
        "request_timeout_ms": 4000,
        "reconnect_backoff_max_ms": 200,
        "max_poll_records": 50,
    }
    return open_consumer(f"kafka://127.0.0.1:{port}", group=group, client_options=client, **options)


def test_cut_and_stalled_connections_cost_no_message(remote: tuple[Cluster, int]) -> None:
    """The client connects again and reads on: everything once, in order, all committed."""
    cluster, port = remote
    topic, group = f"network-{next(_serial)}", f"network-{next(_serial)}"
    cluster.create_topic(topic, 2)
    produce_numbered(cluster.bootstrap, topic, 3000, 2)
    seed = Random().randrange(1_000_000)
    print(f"seed {seed}")
    chance = Random(seed)

    async def main() -> None:
        proxy = Proxy(port)
        proxy.target = int(cluster.sasl_bootstrap.rpartition(":")[2])
        seen: Counter[tuple[int, int]] = Counter()
        order: dict[int, list[int]] = {0: [], 1: []}
        with trio.fail_after(100):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(proxy.run)
                async with (
                    consuming(port, group, commit_interval=0.2) as consumer,
                    consumer.stream(topic, max_buffered=100) as stream,
                ):
                    due = 100
                    async for message in stream:
                        seen[message.partition, message.offset] += 1
                        order[message.partition].append(message.offset)
                        if len(seen) >= due:
                            due += chance.randrange(150, 400)
                            if chance.random() < 0.3:
                                proxy.stall()
                                await trio.sleep(chance.uniform(0.5, 1.5))
                                proxy.flow()
                            else:
                                proxy.cut()
                        if len(seen) == 3000:
                            message.ack()
                            break
                    assert consumer.statistics().rebalances == 1
                assert proxy.connections > 8
                nursery.cancel_scope.cancel()
        assert set(seen.values()) == {1}, f"seed {seed}"
        assert order == {0: list(range(1500)), 1: list(range(1500))}, f"seed {seed}"

    trio.run(main)
    stored = {partition: at[0] for (_, partition), at in cluster.group_offsets(group).items()}
    assert stored == {0: 1500, 1: 1500}, f"seed {seed}"


def test_last_commit_to_a_coordinator_that_says_nothing_ends(
    remote: tuple[Cluster, int],
) -> None:
    """The end of the consumer is bounded and an error; nothing is lost by it."""
    cluster, port = remote
    topic, group = f"network-{next(_serial)}", f"network-{next(_serial)}"
    cluster.create_topic(topic)
    produce_numbered(cluster.bootstrap, topic, 20, 1)

    async def read(count: int) -> list[int]:
        url = f"kafka://{cluster.bootstrap}"
        async with open_consumer(url, group=group) as consumer, consumer.stream(topic) as stream:
            offsets = []
            async for message in stream:
                offsets.append(message.offset)
                if len(offsets) == count:
                    message.ack()
                    break
        return offsets

    async def main() -> None:
        proxy = Proxy(port)
        proxy.target = int(cluster.sasl_bootstrap.rpartition(":")[2])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(proxy.run)
            with (
                trio.fail_after(60),
                pytest.raises(CommitFailedError, match=r"was not confirmed") as caught,
            ):
                async with (
                    consuming(port, group, commit_interval=1000.0, commit_timeout=1.0) as consumer,
                    consumer.stream(topic) as stream,
                ):
                    async for message in stream:
                        if message.offset == 19:
                            message.ack()
                            break
                    proxy.stall()
            assert caught.value.retriable
            nursery.cancel_scope.cancel()
        assert cluster.group_offsets(group) == {}
        with trio.fail_after(60):
            assert await read(20) == list(range(20))

    trio.run(main)
    assert cluster.group_offsets(group)[topic, 0][0] == 20
