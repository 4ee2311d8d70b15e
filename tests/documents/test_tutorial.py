"""The last step of the tutorial, on the command line."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from ..kafka.cluster import Cluster
from ..kafka.fixtures import TopicFactory
from ..kafka.produce import produce_numbered
from .blocks import KAFKA, ROOT, blocks_of

PAGE = "docs/tutorial.md"


@pytest.mark.kafka
def test_command_of_the_tutorial_calls_the_function(
    kafka_cluster: Cluster, topic: TopicFactory, tmp_path: Path
) -> None:
    """With the file that the page shows; what it ends by is left to Ctrl-C there."""
    (file,) = (block for block in blocks_of(PAGE) if block.mark == "file")
    (tmp_path / file.argument).write_text(file.source, encoding="utf-8")
    name = topic(2)
    produce_numbered(kafka_cluster.bootstrap, name, 10, 2)
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    (command,) = re.findall(r"^\$ trio-consumer (run .*)$", text, re.MULTILINE)
    arguments = shlex.split(command.replace(KAFKA, kafka_cluster.bootstrap))
    arguments[arguments.index("orders")] = name
    done = subprocess.run(
        [sys.executable, "-m", "trio_consumer", *arguments, "--max-messages", "10"],
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"^served ", done.stdout, re.MULTILINE)) == 10
