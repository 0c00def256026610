"""Factor graphs as text: a line for every node. Notebooks show the same lines (`inspection.notebook`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .factor_graph import FactorGraph

MOST_ROWS = 40


def rows(graph: FactorGraph) -> list[tuple[str, str, str]]:
    """Kind, name, and shape or what it joins, of every node; of the first `MOST_ROWS`, and how many more."""
    found = [(graph.nodes[v]["kind"], repr(v), "x".join(map(str, graph.shape(v)))) for v in graph.variables]
    for factor in graph.factors:
        ends = ", ".join(
            repr(end) if m is None else f"{type(m).__name__}({end!r})"
            for end, m in zip(graph.scope(factor), graph.nodes[factor]["maps"], strict=True)
        )
        potential = graph.potential(factor)
        shown = repr(potential) if potential.fitted else f"{type(potential).__name__}, not fitted"
        found.append(("factor", repr(factor), f"{ends}: {shown}"))
    if len(found) > MOST_ROWS:
        found = [*found[:MOST_ROWS], ("...", f"{len(found) - MOST_ROWS} more", "")]
    return found


def text(graph: FactorGraph) -> str:
    """A line for the graph and one for every node."""
    lines = rows(graph)
    width = max((len(name) for _, name, _ in lines), default=0)
    return "\n".join([repr(graph), *(f"  {kind:<10} {name:<{width}}  {what}" for kind, name, what in lines)])
