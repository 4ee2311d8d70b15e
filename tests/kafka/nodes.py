"""The nodes of a cluster: started, killed, stopped, paused, and waited for.

The processes are children of a keeper process (`keeper.py`), so that they end with the test run,
however it ends. A node counts as ready only when it serves clients itself and sees all partitions
led and in sync: a port that accepts means nothing.
"""

from __future__ import annotations

import atexit
import base64
import enum
import signal
import time
import uuid
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from kafka.errors import KafkaError

from . import admin as _admin
from .install import install, java_command, tail
from .processes import Keeper
from .properties import HOST, Ports, Value, free_ports, server_properties, write_properties

if TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T")

_POLL = 0.05  # seconds between two looks at a node; arbitrary
_ATTEMPTS = 5  # starts with fresh ports; arbitrary: a single clash is rare already
# Without -UsePerfData a killed Java leaves a file in the system's temporary folder.
_OPTIONS = ("-XX:-UsePerfData", "-XX:+UseSerialGC")
# The shorter start is worth more than peak speed to a program that runs for a second.
_FORMAT_OPTIONS = (*_OPTIONS, "-Xmx256m", "-XX:TieredStopAtLevel=1")
_LOGGER = "-Dorg.slf4j.simpleLogger"
_SERVER_OPTIONS = (
    *_OPTIONS,
    f"{_LOGGER}.showDateTime=true",
    f"{_LOGGER}.dateTimeFormat=HH:mm:ss.SSS",
)


class ClusterError(RuntimeError):
    """A node did not start, or did not become ready; the message ends with its log."""


class NodeState(enum.Enum):
    """What was last asked of a node; a crash shows when the node is next waited for."""

    STOPPED = "stopped"
    RUNNING = "running"
    PAUSED = "paused"


class _PortTakenError(ClusterError):
    """Another process took a port between its choice and the node's start."""


@dataclass(slots=True)
class _Node:
    number: int
    ports: Ports
    folder: Path
    state: NodeState = NodeState.STOPPED
    pid: int = 0  # of the latest start
    log_start: int = 0  # where in the log the latest start begins, in bytes

    @property
    def name(self) -> str:
        return f"node-{self.number}"

    @property
    def log(self) -> Path:
        return self.folder / "server.log"

    @property
    def address(self) -> str:
        return f"{HOST}:{self.ports.client}"


class Nodes:
    """A context manager that runs a cluster; entering returns when every node is ready.

    All calls block. From Trio make them in a worker thread; calls on different nodes may overlap.

    Args:
        nodes: how many, numbered from 1.
        heap: the most memory for each node's objects, as Java writes it.
        properties: server properties that win over the test-suited ones of `properties.py`.
        timeout: seconds that a start, or anything else that is waited for, may take.
        proxies: for each node the port of a proxy on loopback through which some clients come;
            see `proxied_ports`.

    Raises:
        KafkaUnavailable: on entering, Java, Maven or Kafka's jars cannot be had.
        ClusterError: on entering, a node did not become ready.
    """

    def __init__(
        self,
        nodes: int = 1,
        *,
        heap: str = "768m",
        properties: Mapping[str, Value] | None = None,
        timeout: float = 120.0,
        proxies: Mapping[int, int] | None = None,
    ) -> None:
        if nodes < 1:
            raise ValueError(f"a cluster needs at least one node, not {nodes}")
        if proxies is not None and set(proxies) != set(range(1, nodes + 1)):
            raise ValueError(f"{nodes} nodes need a proxy each, not {dict(proxies)}")
        self._size = nodes
        self._heap = heap
        self._properties = dict(properties or {})
        self._timeout = timeout
        self._proxies = dict(proxies or {})
        self._libs = Path()
        self._keeper: Keeper | None = None
        self._nodes: dict[int, _Node] = {}

    def __repr__(self) -> str:
        states = ", ".join(f"{n.number} {n.state.value}" for n in self._nodes.values())
        return f"<{type(self).__name__} {self.bootstrap or 'not started'} ({states or self._size})>"

    # --- its life ---------------------------------------------------------------------------

    def __enter__(self) -> Self:
        if self._keeper is not None:
            raise RuntimeError("this cluster is started already; make another one")
        self._libs = install()
        atexit.register(self.close)
        for attempt in range(_ATTEMPTS):
            self._keeper = Keeper()
            try:
                self._start_all()
            except BaseException as error:
                self.close()
                if isinstance(error, _PortTakenError) and attempt < _ATTEMPTS - 1:
                    continue
                raise
            return self
        raise AssertionError("unreachable")

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kill all nodes and remove their folders. Repeatable."""
        keeper, self._keeper = self._keeper, None
        for node in self._nodes.values():
            node.state = NodeState.STOPPED
        if keeper is not None:
            keeper.close()
            atexit.unregister(self.close)

    @property
    def folder(self) -> Path:
        """The temporary folder with the nodes' properties, logs and data."""
        return self._kept.folder

    @property
    def nodes(self) -> dict[int, NodeState]:
        """The nodes' states by their numbers."""
        return {node.number: node.state for node in self._nodes.values()}

    @property
    def bootstrap(self) -> str:
        """The addresses of all nodes, running or not: "127.0.0.1:p1,127.0.0.1:p2"."""
        return ",".join(node.address for node in self._nodes.values())

    @property
    def sasl_bootstrap(self) -> str:
        """The addresses at which a client has to log in, see `properties.USER`."""
        return ",".join(f"{HOST}:{node.ports.sasl}" for node in self._nodes.values())

    @property
    def proxied_ports(self) -> dict[int, int]:
        """Where the proxy of each node has to pass connections on to."""
        if not self._proxies:
            raise RuntimeError("this cluster was started without proxies")
        return {node.number: node.ports.proxied for node in self._nodes.values()}

    def pid(self, node: int) -> int:
        """Return the process id of a node that is not stopped."""
        return self._expect(node, "tell the pid of", {NodeState.RUNNING, NodeState.PAUSED}).pid

    # --- single nodes -----------------------------------------------------------------------

    def kill(self, node: int) -> None:
        """End a node by SIGKILL, as a crash would; return when it has ended."""
        target = self._expect(node, "kill", {NodeState.RUNNING, NodeState.PAUSED})
        self._kept.send_signal(target.name, signal.SIGKILL)
        self._kept.wait(target.name, self._timeout)
        target.state = NodeState.STOPPED

    def stop(self, node: int) -> None:
        """End a node by SIGTERM: it hands over its partitions first. Return when it has ended.

        Raises:
            TimeoutError: it did not end. A node that can reach no majority of controllers to
                hand over to takes long to give up: `kill` it.
        """
        target = self._expect(node, "stop", {NodeState.RUNNING})
        self._kept.send_signal(target.name, signal.SIGTERM)
        self._kept.wait(target.name, self._timeout)
        target.state = NodeState.STOPPED

    def start(self, node: int, *, wait: bool = True) -> None:
        """Start a stopped node again with its old ports and data.

        Args:
            node: its number.
            wait: return only when it is ready, else at once. After `kill` that takes up to
                `broker.session.timeout.ms`: the controller has to give up its predecessor first.

        Raises:
            ClusterError: it did not become ready.
        """
        self._launch(self._expect(node, "start", {NodeState.STOPPED}))
        if wait:
            self.wait_ready(node)

    def restart(self, node: int) -> None:
        """Stop a node by SIGTERM, start it again and wait until it is ready."""
        self.stop(node)
        self.start(node)

    def pause(self, node: int) -> None:
        """Stop a node's clock by SIGSTOP: it keeps its connections and says nothing.

        Returns when all its threads stand still.
        """
        target = self._expect(node, "pause", {NodeState.RUNNING})
        self._kept.send_signal(target.name, signal.SIGSTOP)
        target.state = NodeState.PAUSED

    def resume(self, node: int) -> None:
        """Let a paused node go on, by SIGCONT; see `wait_ready` for when it is itself again."""
        target = self._expect(node, "resume", {NodeState.PAUSED})
        self._kept.send_signal(target.name, signal.SIGCONT)
        target.state = NodeState.RUNNING

    def wait_ready(self, node: int | None = None) -> None:
        """Wait until nodes serve: in the cluster, all partitions led, running copies in sync.

        Args:
            node: which one; all that run if None.

        Raises:
            ClusterError: a node has ended, or was not ready in time; with the end of its log.
        """
        deadline = time.monotonic() + self._timeout
        running = self._running()
        targets = running if node is None else [self._expect(node, "await", {NodeState.RUNNING})]
        for target in targets:
            self._await_answer(target, deadline)
        complaint = "its view of the cluster could not be read"
        while True:
            try:
                with self.admin() as admin:
                    complaint = self._await_health(admin, targets, running, deadline)
            except (KafkaError, OSError) as error:
                complaint = repr(error)
            if not complaint:
                return
            for target in targets:
                self._check_alive(target)
            if time.monotonic() > deadline:
                raise self._error(targets[0], f"was not ready in {self._timeout:g} s: {complaint}")
            time.sleep(_POLL)

    def log_tail(self, node: int, lines: int = 40) -> str:
        """Return the end of a node's log, from its latest start on."""
        found = self._nodes[node]
        try:
            with found.log.open("rb") as file:
                file.seek(found.log_start)
                return tail(file.read().decode(errors="replace"), lines)
        except FileNotFoundError:
            return "(no log yet)"

    def admin(self, **options: Any) -> Any:
        """Return a new `kafka.KafkaAdminClient` for the running nodes, to be closed by you."""
        addresses = ",".join(node.address for node in self._running())
        return _admin.open_admin(addresses or self.bootstrap, **options)

    # --- inside -----------------------------------------------------------------------------

    @property
    def _kept(self) -> Keeper:
        if self._keeper is None:
            raise RuntimeError("this cluster does not run: use it inside its `with` block")
        return self._keeper

    def _running(self) -> list[_Node]:
        return [node for node in self._nodes.values() if node.state is NodeState.RUNNING]

    def _expect(self, node: int, verb: str, states: Collection[NodeState]) -> _Node:
        if node not in self._nodes:
            raise ValueError(f"cannot {verb} node {node}: the nodes are {sorted(self._nodes)}")
        found = self._nodes[node]
        if found.state not in states:
            raise RuntimeError(f"cannot {verb} node {node}: it is {found.state.value}")
        return found

    def _start_all(self) -> None:
        ports = free_ports(self._size)
        folder = self._kept.folder
        self._nodes = {i: _Node(i, ports[i], folder / f"node-{i}") for i in ports}
        # Kafka's own form of a UUID: base64 for URLs, without the padding.  A leading dash,
        # which one in 64 would have, is read as an option by its tools.
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        cluster = cluster.replace("-", "_")
        for node in self._nodes.values():
            node.folder.mkdir()
            data = node.folder / "data"
            proxy = self._proxies.get(node.number)
            settings = server_properties(node.number, ports, data, self._properties, proxy)
            write_properties(node.folder / "node.properties", settings)
            arguments = ("format", "-t", cluster, "-c", str(node.folder / "node.properties"))
            self._kept.start(
                f"format-{node.number}",
                java_command(
                    "kafka.tools.StorageTool", *arguments, options=_FORMAT_OPTIONS, libs=self._libs
                ),
                node.log,
            )
        for node in self._nodes.values():
            if self._kept.wait(f"format-{node.number}", self._timeout):
                raise self._error(node, "could not be given its storage")
        for node in self._nodes.values():
            self._launch(node)
        self.wait_ready()
        self._ask(_admin.create_internal_topics)
        self.wait_ready()

    def _launch(self, node: _Node) -> None:
        # Native libraries are unpacked there, and a killed node would leave them.
        temporary = f"-Djava.io.tmpdir={node.folder}"
        options = (*_SERVER_OPTIONS, f"-Xmx{self._heap}", temporary)
        node.log_start = node.log.stat().st_size
        command = java_command(
            "kafka.Kafka", str(node.folder / "node.properties"), options=options, libs=self._libs
        )
        node.pid = self._kept.start(node.name, command, node.log)
        node.state = NodeState.RUNNING

    def _await_answer(self, node: _Node, deadline: float) -> None:
        while not _admin.answers(HOST, node.ports.client, timeout=1.0):
            self._check_alive(node)
            if time.monotonic() > deadline:
                raise self._error(node, f"did not answer in {self._timeout:g} s")
            time.sleep(_POLL)

    def _await_health(
        self, admin: Any, targets: list[_Node], running: list[_Node], deadline: float
    ) -> str:
        """Wait until the targets see all targets and no sick partition; else say what is amiss."""
        up = {node.number for node in running}
        for node in targets:
            while True:
                view = _admin.metadata(admin, node.number)
                missing = {n.number for n in targets} - {b["node_id"] for b in view["brokers"]}
                sick = _admin.sick_partitions(view, up)
                if not missing and not sick:
                    break
                if time.monotonic() > deadline or self._kept.status(node.name) is not None:
                    return f"node {node.number} misses nodes {sorted(missing)}, partitions {sick}"
                time.sleep(_POLL)
        return ""

    def _ask(self, question: Callable[[Any], T]) -> T:
        """Ask through an admin client, again while the cluster is finding itself."""

        def through_fresh_client() -> T:
            with self.admin() as admin:
                return _admin.insist(lambda: question(admin), 2.0)

        return _admin.insist(through_fresh_client, self._timeout)

    def _check_alive(self, node: _Node) -> None:
        status = self._kept.status(node.name)
        if status is None:
            return
        node.state = NodeState.STOPPED
        log = self.log_tail(node.number, 400)
        clash = "Address already in use" in log or "BindException" in log
        kind = _PortTakenError if clash else ClusterError
        raise self._error(node, f"ended by itself (status {status})", kind)

    def _error(
        self, node: _Node, what: str, kind: type[ClusterError] = ClusterError
    ) -> ClusterError:
        log = self.log_tail(node.number)
        return kind(f"Kafka node {node.number} {what}. The end of its log:\n{log}")
