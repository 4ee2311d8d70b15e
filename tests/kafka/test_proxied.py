"""Nodes that send some of their clients through a proxy."""

from __future__ import annotations

from pathlib import Path

import pytest

from .cluster import Cluster
from .properties import Ports, server_properties

PORTS = {1: Ports(1, 2, 3, 4), 2: Ports(5, 6, 7, 8)}


def test_proxied_listener_is_advertised_at_the_proxy() -> None:
    """The one for nodes and other clients is not."""
    made = server_properties(2, PORTS, Path("data"), {}, 9999)
    assert made["listeners"].split(",")[-1] == "PROXIED://127.0.0.1:8"
    advertised = made["advertised.listeners"].split(",")
    assert advertised[0] == "PLAINTEXT://127.0.0.1:5"
    assert advertised[-1] == "PROXIED://127.0.0.1:9999"
    assert "PROXIED:PLAINTEXT" in made["listener.security.protocol.map"]
    assert "PROXIED" not in str(server_properties(2, PORTS, Path("data"), {}))


def test_each_node_needs_a_proxy() -> None:
    """Or some clients would be told an address that nobody serves."""
    with pytest.raises(ValueError, match=r"^3 nodes need a proxy each, not \{1: 5\}"):
        Cluster(3, proxies={1: 5})
    with pytest.raises(RuntimeError, match=r"^this cluster was started without proxies"):
        _ = Cluster(3).proxied_ports
