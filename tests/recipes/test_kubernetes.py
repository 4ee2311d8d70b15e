"""The program of the page about Kubernetes: probes, SIGTERM, a rolling restart."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio
import yaml

from trio_consumer import Message

from ..kafka.cluster import Cluster
from ..kafka.produce import produce_numbered
from .support import ROOT, Address, run_until

unix = pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGTERM to send")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


async def ask(port: int, path: str) -> tuple[int, str]:
    """Status and body of a GET."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: pod\r\n\r\n".encode())
        answer = b"".join([part async for part in stream])
    head, _, body = answer.decode().partition("\r\n\r\n")
    return int(head.split()[1]), body


@dataclass
class Running:
    """The program in this process, with handlers that wait until they are let go."""

    address: Address
    port: int
    handlers: trio.Event
    in_hand: list[int]


@pytest.fixture
def running(address: Address, monkeypatch: pytest.MonkeyPatch) -> Running:
    """Six messages, and a handler that does not return before it is told to."""
    from examples import kubernetes

    address.broker.create_topic("orders")
    address.broker.produce_many("orders", [b"%d" % n for n in range(6)])
    it = Running(address, free_port(), trio.Event(), [])

    async def charge(message: Message) -> None:
        it.in_hand.append(message.offset)
        await it.handlers.wait()

    monkeypatch.setattr(kubernetes, "URL", address.url)
    monkeypatch.setattr(kubernetes, "HEALTH_PORT", it.port)
    monkeypatch.setattr(kubernetes, "charge", charge)
    return it


@unix
def test_signal_lets_handlers_finish_and_commits(running: Running) -> None:
    """Four are in hand; they are finished and committed, nobody gets the others."""
    from examples.kubernetes import Pod

    pod = Pod()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pod.run)
            while len(running.in_hand) < 4:
                await trio.sleep(0.01)
            assert await ask(running.port, "/ready") == (200, "")
            signal.raise_signal(signal.SIGTERM)
            while not pod.stopping:
                await trio.sleep(0.01)
            assert (await ask(running.port, "/ready"))[0] == 503
            assert (await ask(running.port, "/live"))[0] == 200
            running.handlers.set()

    run_until(main, done=lambda: running.address.committed("billing", "orders") == 4, virtual=False)
    assert running.in_hand == [0, 1, 2, 3]


@unix
def test_handlers_are_cancelled_when_the_grace_is_over(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What they had stays unfinished; the program ends all the same."""
    from examples import kubernetes

    monkeypatch.setattr(kubernetes, "GRACE", 0.2)
    ended: list[bool] = []

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(kubernetes.Pod().run)
            while len(running.in_hand) < 4:
                await trio.sleep(0.01)
            signal.raise_signal(signal.SIGTERM)
        ended.append(True)

    run_until(main, done=lambda: bool(ended), virtual=False)
    assert running.address.committed("billing", "orders") in (None, 0)


@unix
def test_signal_while_connecting_ends_at_once(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody answers yet."""
    from examples import kubernetes

    ended: list[bool] = []
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(kubernetes, "URL", f"kafka://127.0.0.1:{silent.getsockname()[1]}")

        async def main() -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(kubernetes.Pod().run)
                connection, _ = await trio.to_thread.run_sync(silent.accept)
                with connection:
                    assert (await ask(running.port, "/ready"))[0] == 503
                    signal.raise_signal(signal.SIGTERM)
            ended.append(True)

        run_until(main, done=lambda: bool(ended), virtual=False)


@unix
def test_liveness_fails_when_a_handler_hangs(running: Running) -> None:
    """After two minutes, with the message and the task; it is well again afterwards."""
    from examples.kubernetes import Pod

    pod = Pod()
    seen: list[list[str]] = []

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pod.run)
            await trio.sleep(60)
            seen.append(pod.stuck())
            await trio.sleep(120)
            seen.append(pod.stuck())
            running.handlers.set()
            await trio.sleep(10)
            seen.append(pod.stuck())
            nursery.cancel_scope.cancel()

    run_until(main, done=lambda: len(seen) == 3)
    before, during, after = seen
    assert before == after == []
    (line,) = during
    assert re.match(r"orders\[0\]: its oldest unfinished message is not finished, for", line)


def test_manifest_of_the_page_fits_the_program() -> None:
    """It leaves time for handlers and the last commit; what it names is there."""
    from examples import kubernetes

    text = (ROOT / "docs" / "kubernetes.md").read_text("utf-8")
    manifest = yaml.safe_load(text.partition("```yaml\n")[2].partition("```")[0])
    pod = manifest["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] >= kubernetes.GRACE + 5 + 5
    (container,) = pod["containers"]
    assert container["command"][-1] == kubernetes.__name__
    assert container["ports"][0]["containerPort"] == kubernetes.HEALTH_PORT
    source = Path(kubernetes.__file__).read_text("utf-8")
    for variable in container["env"]:
        assert f'"{variable["name"]}"' in source
    for probe in ("readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["path"] in source


# -- on a real Kafka --------------------------------------------------------------


class Process:
    """A pod: the program as a process, and what it has printed."""

    def __init__(self, cluster: Cluster, name: str, out: Path) -> None:
        self.port = free_port()
        self.out = out
        environment = {
            "KAFKA_URL": f"kafka://{cluster.bootstrap}",
            "POD_NAME": name,
            "HEALTH_PORT": str(self.port),
        }
        with out.open("a") as file:
            self.process = subprocess.Popen(
                [sys.executable, ROOT / "examples" / "kubernetes.py"],
                env={**os.environ, **environment},
                stdout=file,
            )

    def printed(self, word: str) -> list[list[str]]:
        """What follows a word, for each whole line that begins with it."""
        lines = self.out.read_text().split("\n")[:-1]
        return [line.split()[1:] for line in lines if line.split()[0] == word]

    def is_ready(self) -> bool:
        """What its probe says."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/ready", timeout=5):
                return True
        except OSError:  # an HTTPError is one
            return False

    def terminate(self) -> int:
        """As the kubelet does."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)


@contextmanager
def pod(cluster: Cluster, name: str, out: Path) -> Iterator[Process]:
    it = Process(cluster, name, out)
    try:
        yield it
    finally:
        it.process.kill()
        it.process.wait()


def wait_for(condition: Callable[[], bool], what: str, timeout: float = 60) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


@unix
@pytest.mark.kafka
def test_rolling_restart_replays_nothing_and_moves_nothing(
    kafka_cluster: Cluster, tmp_path: Path
) -> None:
    """Each pod comes back under its name: same partitions, no rebalance, each message once."""
    kafka_cluster.create_topic("orders", 4)
    try:
        with ExitStack() as pods:

            def start(name: str, out: str) -> Process:
                each = pods.enter_context(pod(kafka_cluster, name, tmp_path / out))
                wait_for(each.is_ready, f"{out} is ready")
                return each

            def share(each: Process) -> set[str]:
                return {name for line in each.printed("assigned") for name in line}

            first = start("billing-0", "first")
            second = start("billing-1", "second")
            # In the next generation, after the first one has given up two partitions.
            wait_for(lambda: len(share(second)) == 2, "the second one has its share")
            produce_numbered(kafka_cluster.bootstrap, "orders", 400, 4)
            wait_for(lambda: len(second.printed("charged")) > 40, "the second one works")
            assigned = first.printed("assigned")
            assert second.terminate() == 0
            done = Counter((int(p), int(o)) for p, o in second.printed("charged"))
            for (_, partition), (offset, _) in kafka_cluster.group_offsets("billing").items():
                if f"orders[{partition}]" in share(second):
                    assert done == done | Counter((partition, o) for o in range(offset))
                    assert (partition, offset) not in done
            again = start("billing-1", "again")
            everybody = (first, second, again)
            wait_for(
                lambda: sum(len(each.printed("charged")) for each in everybody) >= 400,
                "everything is done",
            )
            assert share(again) == share(second)
            assert first.printed("assigned") == assigned
            assert again.terminate() == first.terminate() == 0
            charged = Counter(tuple(at) for each in everybody for at in each.printed("charged"))
            assert set(charged.values()) == {1}
            assert len(charged) == 400
        stored = kafka_cluster.group_offsets("billing")
        assert [stored["orders", n][0] for n in range(4)] == [100] * 4
    finally:
        kafka_cluster.delete_topic("orders")
