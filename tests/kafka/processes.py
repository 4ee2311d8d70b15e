"""The test run's end of `keeper.py`: start, signal and watch processes that cannot outlive it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

_POLL = 0.02  # seconds between two looks at a process; arbitrary


class Keeper:
    """A keeper process with a temporary folder of its own.

    The keeper lives until `close()`, or until this process has ended in any way. A fork of this
    process that does not exec shares the pipe and so prolongs its life.

    Attributes:
        folder: the temporary folder; removed at the end.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="trio-consumer-kafka-"))
        self._owner = os.getpid()
        self._lock = threading.Lock()  # one request at a time; tests call in from threads
        try:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-I", "-S"),
                    *(str(Path(__file__).with_name("keeper.py")), str(self.folder)),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                cwd=self.folder,  # where a dying Java writes its report
                # Ctrl-C in a terminal goes to us alone; the order of the end is ours to choose.
                start_new_session=True,
            )
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise

    def start(self, name: str, command: Sequence[str], log: Path) -> int:
        """Start a process, its output appended to `log`; return its process id."""
        request = {"do": "start", "name": name, "command": list(command), "log": str(log)}
        pid: int = self._ask(request)
        return pid

    def send_signal(self, name: str, number: signal.Signals) -> bool:
        """Send a signal; return False if the process had ended before."""
        sent: bool = self._ask({"do": "signal", "name": name, "number": int(number)})
        return sent

    def status(self, name: str) -> int | None:
        """Return None while the process runs, then its exit status (-9 after SIGKILL)."""
        status: int | None = self._ask({"do": "status", "name": name})
        return status

    def wait(self, name: str, timeout: float) -> int:
        """Wait until a process has ended; return its exit status.

        Raises:
            TimeoutError: it still runs after `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while (status := self.status(name)) is None:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{name} was still running after {timeout:g} s")
            time.sleep(_POLL)
        return status

    def close(self) -> None:
        """Kill all processes, wait for their end and remove the folder. Repeatable."""
        if os.getpid() != self._owner:
            return  # an atexit handler in a fork; the processes are not ours to end
        try:
            with self._lock:
                self._end_process()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _end_process(self) -> None:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(BrokenPipeError):  # it has ended before us, a request unread
            process.stdin.close()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()

    def _ask(self, request: dict[str, Any]) -> Any:
        with self._lock:
            stdin, stdout = self._process.stdin, self._process.stdout
            assert stdin is not None
            assert stdout is not None
            try:
                stdin.write(json.dumps(request).encode() + b"\n")
                stdin.flush()
                line = stdout.readline()
            except BrokenPipeError:
                line = b""
        if not line:
            raise RuntimeError(
                f"The keeper of {self.folder} has ended (exit status {self._process.poll()}) and "
                "its nodes with it; it takes SIGTERM or SIGKILL from outside to do that."
            )
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(f"{request['do']} {request['name']}: {answer['error']}")
        return answer["value"]
