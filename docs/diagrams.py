"""Draws the diagrams of the pages while they are built: SVG in the page, nothing from a network.

The pages have them as Mermaid's state diagrams, which the places where the repository is read
draw by themselves.  Here they are laid out by Graphviz, which pygraphviz brings along.
"""

from __future__ import annotations

import re
from typing import ClassVar

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

__all__ = ["Diagram", "setup", "to_dot", "to_svg"]

_ARROW = re.compile(r"(?P<start>\[\*\]|\w+) --> (?P<end>\w+)(?:: (?P<label>.+))?")
_HEAD = """digraph {
  graph [bgcolor="transparent", rankdir="TB", nodesep=0.5, ranksep=0.45]
  node [shape="box", style="rounded", fontname="Helvetica", fontsize=13, margin="0.2,0.1"]
  edge [fontname="Helvetica", fontsize=12, arrowsize=0.7]
  "[*]" [shape="point", width=0.13]"""


def to_dot(source: str) -> str:
    """Turn a state diagram of Mermaid into Graphviz' language.

    Raises:
        ValueError: It has something else than ``a --> b: label``.
    """
    kind, *lines = source.strip().splitlines()
    if kind != "stateDiagram-v2":
        raise ValueError(f"only state diagrams are drawn, not {kind!r}")
    result = [_HEAD]
    for line in lines:
        arrow = _ARROW.fullmatch(line.strip())
        if arrow is None:
            raise ValueError(f"a state diagram has lines 'a --> b: label', not {line.strip()!r}")
        label = f' [label=" {arrow["label"]} "]' if arrow["label"] else ""
        result.append(f'  "{arrow["start"]}" -> "{arrow["end"]}"{label}')
    return "\n".join([*result, "}"])


def to_svg(source: str) -> str:
    """Draw a state diagram of Mermaid, in the colours of the text around it."""
    from pygraphviz import AGraph

    drawn = AGraph(to_dot(source)).draw(format="svg", prog="dot").decode()
    svg = re.sub(r"<title>.*?</title>\n", "", drawn[drawn.index("<svg") :])
    svg = re.sub(r'"black"', '"currentColor"', svg).replace("<text ", '<text fill="currentColor" ')
    label = ", ".join(line.strip() for line in source.strip().splitlines()[1:])
    return svg.replace("<svg ", f'<svg role="img" aria-label="{label}" '.replace(">", "&gt;"), 1)


class Diagram(SphinxDirective):
    """What is between ```` ```mermaid ```` and its end."""

    has_content: ClassVar[bool] = True

    def run(self) -> list[nodes.Node]:
        """Called by Sphinx."""
        svg = to_svg("\n".join(self.content))
        return [nodes.raw("", f'<div class="diagram">{svg}</div>', format="html")]


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_directive("mermaid", Diagram)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
