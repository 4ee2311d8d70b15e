"""The program between a test run and its Kafka nodes; started by `processes.Keeper`.

It owns the nodes' processes and the folder with their data, and obeys one JSON request a line on
standard input. When that pipe closes, for whatever reason, it kills the processes and removes the
folder. So a test run that is itself killed by SIGKILL leaves nothing behind, which neither
`atexit` nor a `finally` could promise.

Why not only PR_SET_PDEATHSIG in the test run: that signal is sent when the *thread* that forked
ends, so a cluster started from a worker thread would die with the thread, and `preexec_fn` is not
safe with threads. This program has a single thread, so it uses PR_SET_PDEATHSIG for the nodes: it
covers the one case left over, that the keeper itself is killed (on Linux).

Only the standard library is used: it runs as `python -I -S`. As the nodes are its children and
unreaped until it looks, a signal can never hit a stranger that has got the same process id.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from typing import Any

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>

Children = dict[str, "subprocess.Popen[bytes]"]


def _start(children: Children, name: str, command: list[str], log: str) -> int:
    """Start a child in a process group of its own, its output appended to `log`."""
    if name in children and children[name].poll() is None:
        raise ValueError(f"{name} runs already")
    prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None
    keeper = os.getpid()

    def die_with_keeper() -> None:
        if prctl is not None:
            prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != keeper:  # it died before the call above
                os._exit(1)

    with open(log, "ab") as output:
        children[name] = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            preexec_fn=die_with_keeper,
            start_new_session=True,
        )
    return children[name].pid


def _signal(children: Children, name: str, number: int) -> bool:
    """Send a signal to a child's whole group (`java` may be a script); False if it has ended.

    Returns after SIGSTOP only when the child stands still.
    """
    child = children[name]
    if child.poll() is not None:
        return False
    os.killpg(child.pid, number)
    if number == signal.SIGSTOP and hasattr(os, "waitid"):
        # The call above returns while the threads still run, on a busy machine for long enough
        # to answer a client. WNOWAIT leaves an exit, should it come first, to be reaped by poll().
        os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    return True


def _obey(children: Children, request: dict[str, Any]) -> Any:
    name = request["name"]
    if request["do"] == "start":
        return _start(children, name, request["command"], request["log"])
    if request["do"] == "signal":
        return _signal(children, name, request["number"])
    if request["do"] == "status":
        return children[name].poll()
    raise ValueError(f"unknown request {request['do']!r}")


def main(folder: str) -> None:
    """Obey requests until standard input ends, then kill the children and remove `folder`."""
    children: Children = {}
    # As an exception SIGTERM ends the program through the same `finally`.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        for line in sys.stdin:
            try:
                answer = {"value": _obey(children, json.loads(line))}
            except (OSError, ValueError, LookupError) as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
            with suppress(BrokenPipeError):  # the next read finds the other pipe closed as well
                print(json.dumps(answer), flush=True)
    finally:
        for name, child in children.items():
            _signal(children, name, signal.SIGKILL)
            child.wait()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1])
