"""``.. result:: name`` shows ``results/name.txt``, or says how to make it where it has not been made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from docutils import nodes
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
        block = nodes.literal_block("", path.read_text(encoding="utf-8"), language="text")
        return [nodes.paragraph("", "Printed by ", command, nodes.Text(":")), block]


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("result", Result)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
