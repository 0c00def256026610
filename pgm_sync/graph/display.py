"""Factor graphs as text for a terminal and as HTML for a notebook."""

from __future__ import annotations

import html as _html
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .factor_graph import FactorGraph

MOST_ROWS = 40


def _rows(graph: FactorGraph) -> list[tuple[str, str, str]]:
    rows = [(graph.nodes[v]["kind"], repr(v), "x".join(map(str, graph.shape(v)))) for v in graph.variables]
    for factor in graph.factors:
        ends = ", ".join(
            repr(end) if m is None else f"{type(m).__name__}({end!r})"
            for end, m in zip(graph.scope(factor), graph.nodes[factor]["maps"], strict=True)
        )
        potential = graph.potential(factor)
        shown = repr(potential) if potential.fitted else f"{type(potential).__name__}, not fitted"
        rows.append(("factor", repr(factor), f"{ends}: {shown}"))
    if len(rows) > MOST_ROWS:
        rows = [*rows[:MOST_ROWS], ("...", f"{len(rows) - MOST_ROWS} more", "")]
    return rows


def text(graph: FactorGraph) -> str:
    """A line for the graph and one for every node."""
    rows = _rows(graph)
    width = max((len(name) for _, name, _ in rows), default=0)
    return "\n".join([repr(graph), *(f"  {kind:<10} {name:<{width}}  {what}" for kind, name, what in rows)])


def html(graph: FactorGraph) -> str:
    """The same as a table."""
    body = "".join(
        "<tr>" + "".join(f"<td>{_html.escape(cell)}</td>" for cell in row) + "</tr>" for row in _rows(graph)
    )
    head = "<tr><th>kind</th><th>name</th><th>shape, or what it joins</th></tr>"
    return f"<b>{_html.escape(repr(graph))}</b><table>{head}{body}</table>"
