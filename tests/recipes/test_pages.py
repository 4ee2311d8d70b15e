"""The pages show the examples as they are, so what is tested is what is read."""

from __future__ import annotations

import textwrap

import pytest

from .support import ROOT, blocks

# Page, the examples that it shows, and a word of each block that is not out of one: a test
# of its own runs it.
PAGES = [
    (
        "docs/deserializing.md",
        ["json_deserializers.py", "schema_registry.py"],
        ["ProtobufDeserializer"],
    ),
    ("docs/dead-letters.md", ["dead_letters.py", "dead_letters_exactly_once.py"], []),
    ("docs/kubernetes.md", ["kubernetes.py"], []),
    ("docs/security.md", ["secured.py"], []),
]


@pytest.mark.parametrize(("page", "examples", "others"), PAGES, ids=[page for page, _, _ in PAGES])
def test_page_shows_the_examples_as_they_are(
    page: str, examples: list[str], others: list[str]
) -> None:
    """Each block of Python stands in an example; each example is named and shown."""
    sources = {name: (ROOT / "examples" / name).read_text("utf-8") for name in examples}
    shown: set[str] = set()
    for block in blocks(page):
        # What stands deeper in an example is moved to the margin of the page.
        depths = [textwrap.indent(block, " " * depth) for depth in (0, 4, 8, 12)]
        places = [name for name, source in sources.items() if any(d in source for d in depths)]
        shown.update(places)
        assert places or any(word in block for word in others), block
    assert shown == set(examples)
    text = (ROOT / page).read_text("utf-8")
    for name in examples:
        assert f"examples/{name}" in text, name
