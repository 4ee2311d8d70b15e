"""What the documents say is there: examples run, links lead somewhere, names exist."""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path
from typing import Any

import pytest
import trio

import trio_consumer
import trio_consumer.anyio
from trio_consumer import TP, Message
from trio_consumer.testing import MemoryBroker
from trio_consumer.transports import resolve

from .runtime.support import run

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
TEXTS = {page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8") for page in PAGES}


class DoneError(Exception):
    """Everything has come."""


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> MemoryBroker:
    """Ten orders, behind whatever URL an example names."""
    it = MemoryBroker()
    it.create_topic("orders")
    it.create_topic("invoices")
    it.produce_many("orders", [json.dumps(n).encode() for n in range(10)])

    def found(transport: Any) -> Any:
        return it if str(transport).startswith("kafka://") else resolve(transport)

    monkeypatch.setattr("trio_consumer._runtime.opening.resolve", found)
    return it


def examples(page: str) -> list[str]:
    """The blocks of Python of a page, as it shows them."""
    return re.findall(r"^```python\n(.*?)^```", TEXTS[page], re.DOTALL | re.MULTILINE)


def committed(broker: MemoryBroker) -> int | None:
    stored = broker.committed("billing", TP("orders", 0))
    return None if stored is None else stored.offset


def run_block(source: str, names: dict[str, Any]) -> None:
    """A block that stands inside of an async function."""
    body = textwrap.indent(re.sub(r"^(from|import) .*\n", "", source, flags=re.MULTILINE), "    ")
    exec(compile(f"async def main():\n{body}", "example", "exec"), names)

    async def main() -> None:
        with trio.fail_after(600):
            await names["main"]()

    run(main)


def test_program_of_the_readme_charges_and_commits(broker: MemoryBroker) -> None:
    """As it stands there; the tenth message, whose charge fails, stays unfinished."""
    charged: list[int] = []

    async def charge(order: int) -> None:
        await trio.sleep(1)
        if order == 9:
            raise DoneError
        charged.append(order)

    program, start, _ = examples("README.md")[0].rpartition("trio.run(main)")
    assert start
    names: dict[str, Any] = {"charge": charge}
    exec(compile(program, "README.md", "exec"), names)
    with pytest.raises(DoneError):
        run(names["main"])
    assert charged == list(range(9))
    assert committed(broker) == 9


def test_transaction_of_the_readme_sends_and_commits(broker: MemoryBroker) -> None:
    """Each order but the last has one invoice, and the offsets are committed."""
    made: list[bytes | None] = []

    def invoice(message: Message) -> bytes | None:
        if len(made) == 10:
            raise DoneError
        made.append(message.value)
        return message.value

    names = {"open_consumer": trio_consumer.open_consumer, "invoice": invoice}
    broker.produce("orders", b"the last one, whose transaction fails")
    with pytest.raises(DoneError):
        run_block(examples("README.md")[1].replace("batches(500)", "batches(10)"), names)
    sent = broker.records(TP("invoices", 0), committed_only=True)
    assert [record.value for record in sent] == made
    assert committed(broker) == 10


def test_example_of_the_anyio_page_runs_on_trio(broker: MemoryBroker) -> None:
    """It is the same program under another import."""
    charged: list[bytes] = []

    async def charge(order: bytes) -> None:
        if len(charged) == 9:
            raise DoneError
        charged.append(order)

    (source,) = examples("docs/anyio.md")
    assert source.startswith("from trio_consumer.anyio import open_consumer\n")
    names = {"open_consumer": trio_consumer.anyio.open_consumer, "charge": charge}
    with pytest.raises(DoneError):
        run_block(source, names)
    assert committed(broker) == 9


def test_no_example_is_left_out() -> None:
    """Those of the README are above; pages below docs/ say themselves what is to be done."""
    counts = {page: len(examples(page)) for page in TEXTS if not page.startswith("docs/")}
    assert {page: count for page, count in counts.items() if count} == {"README.md": 2}


@pytest.mark.parametrize("page", TEXTS)
def test_links_lead_somewhere(page: str) -> None:
    """Files that exist, and headings that they have."""
    text = re.sub(r"^```.*?^```", "", TEXTS[page], flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        found = (ROOT / page).parent / name if name else ROOT / page
        assert found.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", found.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}
            assert anchor in slugs, target


def names_of(folder: str, pattern: str) -> set[str]:
    """Each file below a folder by every end of its path."""
    names: set[str] = set()
    for path in (ROOT / folder).rglob(pattern):
        parts = path.relative_to(ROOT).parts
        names |= {"/".join(parts[start:]) for start in range(len(parts))}
    return names


@pytest.mark.parametrize("page", TEXTS)
def test_files_that_are_named_exist(page: str) -> None:
    """Modules and tests, named by the end of their path."""
    known = {path.name for path in ROOT.glob("*.py")}
    for folder in ROOT.iterdir():
        if folder.is_dir() and not folder.name.startswith("."):
            known |= names_of(folder.name, "*.py")
    for name in re.findall(r"`([\w/*]+\.py)`", TEXTS[page]):
        if name in ("app.py", "program.py"):  # the user's
            continue
        pattern = re.compile(re.escape(name).replace(r"\*", r"\w*"))
        assert any(pattern.fullmatch(each) for each in known), name
    for name in re.findall(r"`(test_\w+)`", TEXTS[page]):
        texts = (path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
        assert any(f"def {name}(" in text for text in texts), name


@pytest.mark.parametrize("page", TEXTS)
def test_commands_that_are_named_exist(page: str) -> None:
    """Sessions of nox, modules to run, and subcommands."""
    sessions = re.findall(r"^def (\w+)\(session", (ROOT / "noxfile.py").read_text("utf-8"), re.M)
    for name in re.findall(r"nox -s ([a-z]+)", TEXTS[page]):
        assert name in sessions, name
    for name in re.findall(r"python -m ([a-z]\w*(?:\.\w+)*)", TEXTS[page]):
        path = ROOT / name.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), name
