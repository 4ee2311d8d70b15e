"""``python -m trio_consumer.testing``; a module of its own, so that other processes find it."""

from __future__ import annotations

from ._command import main

if __name__ == "__main__":
    main(prog_name="python -m trio_consumer.testing")
