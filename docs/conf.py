"""How the documentation is built: ``nox -s docs``, from the root of the repository.

The pages are those that one reads in the repository, with the same links.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from sphinx.application import Sphinx

from trio_consumer import __version__

sys.path.insert(0, str(Path(__file__).parent))

project = "trio_consumer"
release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinxcontrib_trio",
    "sphinx_copybutton",
    "diagrams",
]
root_doc = "docs/index"
include_patterns = ["docs/**.md", "README.md", "DESIGN.md", "CHANGELOG.md", "CONTRIBUTING.md"]
# Blocks without a language are drawings and lists of files.
highlight_language = "text"

html_theme = "furo"
html_title = f"trio_consumer {release}"
html_short_title = "trio_consumer"
html_show_copyright = False
html_show_sphinx = False
html_copy_source = False
html_static_path = ["static"]
html_css_files = ["site.css"]
# Commands are copied without their prompt.
copybutton_prompt_text = r"\$ "
copybutton_prompt_is_regexp = True
copybutton_only_copy_prompt_lines = False

myst_heading_anchors = 3
myst_fence_as_directive = ["mermaid"]

autodoc_member_order = "bysource"
# What a class is made with is told by its docstring; most are made by the library alone.
autodoc_class_signature = "separated"
# A parameter a line, where they would not fit into one.
python_maximum_signature_line_length = 80
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_custom_sections = [("Raises on a clean exit", "params_style")]

# No build asks the network for other projects' lists of names.
nitpick_ignore_regex = [
    ("py:.*", r"(collections|contextlib|re|trio|anyio|opentelemetry)\..*"),
    # Types that a user gets and never names; what is split at a comma.
    ("py:class", r"trio_consumer\.(\w+\.)*(_\w+|memory)\.\w+.*"),
    ("py:class", r"AckMode|DecodeErrorHandler|Deserializers|TopicPattern"),
    ("py:class", r"Chunk|Committer|DeliveredBatch|Partitions|Mapping\[str"),
]


def keep_places(app: Sphinx, docname: str, source: list[str]) -> None:
    """Take out of the navigation the places that are kept (by a ``*``) for pages to come."""
    if docname == root_doc:
        folder = Path(__file__).parent

        def place(match: re.Match[str]) -> str:
            return match[0] if any(folder.glob(f"{match[1]}.md")) else ""

        source[0] = re.sub(r"^([a-z-]+\*)\n", place, source[0], flags=re.MULTILINE)


def show_code(
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """Show as code what is indented in the text of a docstring, as an editor does."""
    shown: list[str] = []
    in_text = True
    for line in lines:
        in_text = in_text and re.fullmatch(r"[A-Z][\w ]*:", line) is None
        before = [each for each in shown if each][-1:]
        starts = shown and not shown[-1] and line.startswith("    ") and before[0][:1] != " "
        if in_text and starts and not before[0].endswith("::"):
            shown += [".. code-block:: python", ""]
        shown.append(line)
    lines[:] = shown


def lead_to_front_page(app: Sphinx, failure: Exception | None) -> None:
    """Let the folder itself open the front page, which lies below docs/ as its source does."""
    if failure is None:
        page = f"{root_doc}.html"
        text = f'<!doctype html><meta http-equiv="refresh" content="0; url={page}">'
        text += f'<link rel="canonical" href="{page}"><a href="{page}">{project}</a>\n'
        Path(app.outdir, "index.html").write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", keep_places)
    # Before Napoleon, which takes the sections apart.
    app.connect("autodoc-process-docstring", show_code, priority=100)
    app.connect("build-finished", lead_to_front_page)
