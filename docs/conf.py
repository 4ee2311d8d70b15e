"""How the documentation is built: ``nox -s docs``, from the root of the repository.

The pages are those that one reads in the repository, with the same links; the first one is
the README.
"""

from __future__ import annotations

import re
from pathlib import Path

from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx

from trio_consumer import __version__

ROOT = Path(__file__).parents[1]

project = "trio_consumer"
release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinxcontrib_trio",
]
root_doc = "docs/index"
include_patterns = ["docs/*.md", "DESIGN.md", "CHANGELOG.md", "CONTRIBUTING.md"]
html_theme = "alabaster"
html_show_copyright = False

myst_heading_anchors = 3

autodoc_member_order = "bysource"
# What a class is made with is told by its docstring; most are made by the library alone.
autodoc_class_signature = "separated"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_custom_sections = [("Raises on a clean exit", "params_style")]

# No build asks the network for other projects' lists of names.
nitpick_ignore_regex = [
    ("py:.*", r"(collections|contextlib|re|trio|anyio)\..*"),
    # Types that a user gets and never names; what is split at a comma.
    ("py:class", r"trio_consumer\.(\w+\.)*(_\w+|memory)\.\w+.*"),
    ("py:class", r"AckMode|DecodeErrorHandler|Deserializers|TopicPattern"),
    ("py:class", r"Chunk|Committer|DeliveredBatch|Partitions|Mapping\[str"),
]


def readme_first(app: Sphinx, docname: str, source: list[str]) -> None:
    """Put the README before the table of contents, with its links seen from docs/."""
    if docname == root_doc:
        readme = (ROOT / "README.md").read_text(encoding="utf-8")
        source[0] = re.sub(r"\]\((?!\w+:|#)", "](../", readme) + source[0]


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", readme_first)
    # Where the repository is read, diagrams are drawn; here they are text.
    app.add_lexer("mermaid", TextLexer)
