"""Equations with fixed numbers, and links wherever prose or a docstring says "Eq. 5".

The code cites equations by number, so the numbers are part of the source and not counted by Sphinx. A
citation of a number that no page defines is an unresolved reference: an error in a build with -W.
"""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.directives.patches import MathDirective
from sphinx.transforms import SphinxTransform

NUMBER = r"\d+(?:'(?!s\b))?"  # 5' is an equation, "Eq. 10's" is not
CITATION = re.compile(rf"Eq\.\s+({NUMBER}(?:(?:-|,\s|\sand\s|,\sand\s){NUMBER}(?![\w.]))*)")
VERBATIM = (nodes.literal, nodes.literal_block, nodes.doctest_block, nodes.math, nodes.math_block,
            nodes.reference, nodes.comment, nodes.raw, nodes.title, pending_xref)  # fmt: skip


def label(number: str) -> str:
    return "eq-" + number.replace("'", "-prime")


class Equation(MathDirective):
    """``.. equation:: 5'`` followed by the formula."""

    required_arguments = 1
    optional_arguments = 0

    def run(self) -> list[nodes.Node]:
        number = self.arguments.pop()
        target = nodes.target("", "", ids=[label(number)], names=[label(number)])
        self.state.document.note_explicit_target(target, target)
        block = super().run()
        for node in block:
            if isinstance(node, nodes.math_block):
                # The HTML writer puts the number beside the formula, and its permalink on the first id.
                node["number"] = number
                node["ids"].append(label(number) + "-formula")
        return [target, *block]


class LinkCitations(SphinxTransform):
    default_priority = 500

    def apply(self, **kwargs: Any) -> None:
        for text in list(self.document.findall(nodes.Text)):
            parent = text.parent
            if isinstance(parent, VERBATIM) or any(isinstance(a, VERBATIM) for a in _ancestors(parent)):
                continue
            pieces = CITATION.split(text.astext())
            if len(pieces) == 1:
                continue
            new: list[nodes.Node] = []
            for k, piece in enumerate(pieces):
                new += self._links(piece) if k % 2 else [nodes.Text(piece)]
            parent.replace(text, [n for n in new if n.astext()])

    def _links(self, numbers: str) -> list[nodes.Node]:
        """ "5, 5' and 6" as three links with the words between them."""
        first, *rest = re.split(rf"({NUMBER})", numbers)[1:]
        out: list[nodes.Node] = [self._link(first, f"Eq. {first}")]
        for between, number in zip(rest[::2], rest[1::2], strict=False):
            out += [nodes.Text(between), self._link(number, number)]
        return out

    def _link(self, number: str, shown: str) -> pending_xref:
        link = pending_xref(
            "",
            nodes.inline("", shown, classes=["std", "std-ref"]),
            refdomain="std",
            reftype="ref",
            reftarget=label(number),
            refexplicit=True,
            refwarn=True,
            refdoc=self.env.docname,
        )
        return link


def _ancestors(node: nodes.Node) -> list[nodes.Node]:
    chain = []
    while node.parent is not None:
        node = node.parent
        chain.append(node)
    return chain


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("equation", Equation)
    app.add_transform(LinkCitations)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
