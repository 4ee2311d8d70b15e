"""What a node is told: its ports, and server properties that suit tests."""

from __future__ import annotations

import random
import socket
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

HOST = "127.0.0.1"

# Below the range from which systems take the source ports of outgoing connections (Linux from
# 32768, others from 49152). Binding to port 0 would pick from that very range, and then, while a
# node is down between kill() and start(), a client that keeps trying to reach it may be given its
# port: on loopback it can even connect to itself, and the node never gets the port back.
_PORTS = range(20000, 32000)

Value = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports of one node, all on loopback."""

    client: int
    controller: int
    sasl: int
    proxied: int


USER, PASSWORD = "alice", "alice-secret"
"""Who may log in at the SASL listener (mechanism PLAIN, no TLS)."""


def free_ports(nodes: int) -> dict[int, Ports]:
    """Choose unused ports for nodes 1 to `nodes`.

    Another process may take one before Kafka does: the caller tries again then.
    """
    found: list[int] = []
    with ExitStack() as held:  # hold all until the last is found, so that they differ
        while len(found) < 4 * nodes:
            port = random.choice(_PORTS)
            probe = held.enter_context(socket.socket())
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            found.append(port)
    return {i + 1: Ports(*found[4 * i : 4 * i + 4]) for i in range(nodes)}


def server_properties(
    node: int,
    ports: Mapping[int, Ports],
    data: Path,
    extra: Mapping[str, Value],
    proxy: int | None = None,
) -> dict[str, str]:
    """Return the properties of one combined broker and controller.

    Args:
        node: its number, from 1.
        ports: of all nodes.
        data: the node's folder for logs.
        extra: what the caller wants otherwise; wins over everything here. `{client}` and
            `{sasl}` in a text stand for the node's own ports.
        proxy: a port on loopback whose listener passes connections on to the node's port
            `proxied`. Clients that come that way are told to come that way; the nodes among
            themselves, and clients of the other ports, are not.
    """
    copies = min(3, len(ports))
    in_sync = max(1, copies - 1)  # one of three nodes may fail
    own = ports[node]
    properties: dict[str, Value] = {
        "node.id": node,
        "process.roles": "broker,controller",
        "controller.quorum.voters": ",".join(
            f"{i}@{HOST}:{p.controller}" for i, p in sorted(ports.items())
        ),
        "listeners": f"PLAINTEXT://{HOST}:{own.client},CONTROLLER://{HOST}:{own.controller}"
        f",SASL://{HOST}:{own.sasl}",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{own.client},SASL://{HOST}:{own.sasl}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT"
        ",SASL:SASL_PLAINTEXT",
        "sasl.enabled.mechanisms": "PLAIN",
        "listener.name.sasl.plain.sasl.jaas.config": (
            "org.apache.kafka.common.security.plain.PlainLoginModule required"
            f' user_{USER}="{PASSWORD}";'
        ),
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "log.dirs": str(data),
        # Topics and copies.
        "auto.create.topics.enable": False,
        "num.partitions": 1,
        "default.replication.factor": copies,
        "min.insync.replicas": in_sync,
        "unclean.leader.election.enable": False,
        "offsets.topic.num.partitions": 4,  # 50 by default: slows the start
        "offsets.topic.replication.factor": copies,
        "transaction.state.log.num.partitions": 4,
        "transaction.state.log.replication.factor": copies,
        "transaction.state.log.min.isr": in_sync,
        "share.coordinator.state.topic.num.partitions": 1,
        "share.coordinator.state.topic.replication.factor": copies,
        "share.coordinator.state.topic.min.isr": in_sync,
        # Groups and transactions: no waiting for members, short sessions allowed.
        "group.initial.rebalance.delay.ms": 0,
        "group.min.session.timeout.ms": 1000,
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": 500,
        # A killed node counts as dead after this; its restart waits for it, too.
        "broker.session.timeout.ms": 3000,
        "broker.heartbeat.interval.ms": 500,
        # Compaction and retention act at once when a topic's settings ask for them.
        "log.cleaner.backoff.ms": 200,
        "log.cleaner.min.cleanable.ratio": 0.01,
        "log.cleaner.delete.retention.ms": 100,
        "log.cleaner.threads": 1,
        "log.cleaner.dedupe.buffer.size": 4 * 1024 * 1024,  # 128 MiB by default
        "log.retention.check.interval.ms": 1000,
        "log.initial.task.delay.ms": 500,
        "log.segment.delete.delay.ms": 500,
        # Few threads: many nodes share few cores.
        "num.network.threads": 2,
        "num.io.threads": 4,
        "num.replica.fetchers": 1,
        "num.recovery.threads.per.data.dir": 1,
        "background.threads": 2,
        "group.coordinator.threads": 1,
    }
    if proxy is not None:
        properties["listeners"] = f"{properties['listeners']},PROXIED://{HOST}:{own.proxied}"
        properties["advertised.listeners"] = (
            f"{properties['advertised.listeners']},PROXIED://{HOST}:{proxy}"
        )
        properties["listener.security.protocol.map"] = (
            f"{properties['listener.security.protocol.map']},PROXIED:PLAINTEXT"
        )
    for key, value in extra.items():
        if isinstance(value, str):
            value = value.replace("{client}", str(own.client)).replace("{sasl}", str(own.sasl))
        properties[key] = value
    return {key: text(value) for key, value in properties.items()}


def write_properties(path: Path, properties: Mapping[str, str]) -> None:
    """Write a Java properties file: Latin-1, and backslashes are its escapes."""
    lines = (f"{key}={value}".replace("\\", "\\\\") for key, value in properties.items())
    path.write_text("\n".join(lines) + "\n", encoding="latin-1")


def text(value: Value) -> str:
    """Return a setting's value as Kafka writes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
