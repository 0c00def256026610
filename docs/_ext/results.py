"""``.. result:: name`` shows ``results/name.txt``, or says how to make it where it has not been made.

Text is shown as it was printed; Markdown, which has a table with a ruled head, is rendered.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from docutils import nodes
from markdown_it import MarkdownIt
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


class Result(SphinxDirective):
    """The printed output of ``python benchmarks/name.py``."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        path = Path(self.env.srcdir) / "results" / f"{name}.txt"
        command = nodes.literal("", f"python benchmarks/{name}.py")
        if not path.exists():
            return [nodes.paragraph("", "Not recorded in this build. ", command, nodes.Text(" prints it."))]
        self.env.note_dependency(str(path))
        text = path.read_text(encoding="utf-8")
        block: nodes.Node = nodes.literal_block("", text, language="text")
        if "\n|---|" in text:
            block = nodes.raw("", f'<div class="result">{rendered(text)}</div>', format="html")
        return [nodes.paragraph("", "Printed by ", command, nodes.Text(":")), block]


def rendered(text: str) -> str:
    """Markdown as HTML; tables scroll inside themselves, and headings are none of the page's."""
    html: str = MarkdownIt("commonmark").enable("table").render(text)
    html = html.replace("<table>", '<div class="table-wrapper"><table class="docutils">')
    html = html.replace("</table>", "</table></div>")
    return html.replace("<h2>", '<p class="rubric">').replace("</h2>", "</p>")


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("result", Result)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
