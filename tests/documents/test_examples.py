"""Every example below docs/ runs, and prints what its page says."""

from __future__ import annotations

import ast
import itertools
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ..kafka.cluster import Cluster
from .blocks import KAFKA, ROOT, Block, blocks_of, pages

PLAYER = Path(__file__).with_name("player.py")
PATIENCE = 120
BLOCKS = [block for page in pages() for block in blocks_of(page)]

_serial = itertools.count(1)


def play(block: Block, source: str, folder: Path, *, virtual: bool) -> str:
    """Run a program in a folder; what it prints, and the last line of its error."""
    for before in blocks_of(block.page):
        if before.mark == "file" and before.line < block.line:
            (folder / before.argument).write_text(before.source, encoding="utf-8")
    (folder / "program.py").write_text(source, encoding="utf-8")
    command = [sys.executable, *([str(PLAYER)] if virtual else []), "program.py"]
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, encoding="utf-8", timeout=PATIENCE
        )
    except subprocess.TimeoutExpired as error:
        pytest.fail(f"{block} did not end: {error.stdout!r} {error.stderr!r}")
    if done.returncode == 0:
        return done.stdout
    assert block.printed, done.stderr
    return done.stdout + done.stderr.splitlines()[-1] + "\n"


@pytest.mark.parametrize("block", [each for each in BLOCKS if each.runs], ids=str)
def test_program_runs_as_its_page_says(block: Block, tmp_path: Path) -> None:
    """In a process of its own, on the memory broker."""
    printed = play(block, block.source, tmp_path, virtual=block.mark == "program")
    assert printed == (block.printed or "")


@pytest.mark.kafka
@pytest.mark.parametrize("page", sorted({each.page for each in BLOCKS if each.on_kafka}))
def test_programs_for_kafka_run_as_their_page_says(
    page: str, kafka_cluster: Cluster, tmp_path: Path
) -> None:
    """One after the other, with topics and groups that no other page has."""
    mine = f"-page{next(_serial)}"
    known: set[str] = set()
    for block in (each for each in blocks_of(page) if each.on_kafka):
        for name, _, count in (each.partition(":") for each in block.argument.split()):
            kafka_cluster.create_topic(name + mine, int(count or 1))
            known.add(name)
        source = block.source.replace(KAFKA, kafka_cluster.bootstrap)
        for name in known:
            source = source.replace(f'"{name}"', f'"{name}{mine}"')
        source = re.sub(r'(group(?:_id)?=|"group\.id": )"([\w-]+)"', rf'\1"\2{mine}"', source)
        printed = play(block, source, tmp_path, virtual=False).replace(mine, "")
        assert printed == (block.printed or ""), block


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_block_says_what_it_is(block: Block) -> None:
    """It compiles, and its comment is one of those that blocks.py explains."""
    compile(block.source, str(block), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    if block.mark == "tested by":
        test = (ROOT / block.argument).read_text(encoding="utf-8")
        assert Path(block.page).name in test
    else:
        marks = {"program", "kafka", "real clock", "file", "fragment"}
        assert block.mark in marks, block.mark
        assert block.runs or block.on_kafka or block.mark in {"file", "fragment"}
