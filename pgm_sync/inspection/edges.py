"""A correlation table, one row per edge and mode, regrouped by edge."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ..graph.factor_graph import Name


class Edge(NamedTuple):
    """What a table says about one factor; made by `by_edge`.

    >>> import pgm_sync as ps
    >>> (edge,) = by_edge(ps.correlations(ps.chain_graph(2, (1,), ps.Correlation(0.8)))).values()
    >>> edge.factor, edge.leading.rho
    ((0, 1), 0.8)
    """

    factor: Name  # of the graph
    rows: dict[str, Any]  # mode label -> row
    information: float  # mutual information of all its modes together, nats

    @property
    def leading(self) -> Any:
        """The row of the mode that carries most information."""
        return max(self.rows.values(), key=lambda row: row.mutual_information)


def widths(edges: Mapping[Name, Edge], most: float) -> dict[Name, float]:
    """A line width per factor of `edges`, up to `most`, its square growing with the mutual information.

    >>> edges = {name: Edge(name, {}, information) for name, information in {"a": 0.0, "b": 1.0}.items()}
    >>> widths(edges, most=5.0)
    {'a': 1.0, 'b': 5.0}
    """
    largest = max((e.information for e in edges.values()), default=0.0) or 1.0
    return {f: 1 + (most - 1) * math.sqrt(max(e.information, 0.0) / largest) for f, e in edges.items()}


def by_edge(table: Iterable[Any]) -> dict[Name, Edge]:
    """The rows of `table` by factor, in order of first appearance.

    >>> import pgm_sync as ps
    >>> list(by_edge(ps.correlations(ps.chain_graph(3, (1,), ps.Correlation(0.8)))))
    [(0, 1), (1, 2)]
    """
    rows: dict[Name, dict[str, Any]] = {}
    for row in table:
        modes = rows.setdefault(row.factor, {})
        # a potential over three ends or more has a row per pair of them; each keeps its place
        label = row.mode if row.mode not in modes else f"{row.mode} {row.first}-{row.second}"
        modes[label] = row
    together = getattr(table, "mutual_information", {})  # with the cross terms between modes
    return {
        factor: Edge(factor, modes, together.get(factor, sum(r.mutual_information for r in modes.values())))
        for factor, modes in rows.items()
    }


def modes(edges: Iterable[Edge]) -> list[str]:
    """Every mode label of `edges`, in order of first appearance.

    >>> modes([Edge("a", {"mode 0": ..., "mode 1": ...}, 0.5), Edge("b", {"mode 1": ..., "mode 2": ...}, 0.5)])
    ['mode 0', 'mode 1', 'mode 2']
    """
    return list(dict.fromkeys(label for edge in edges for label in edge.rows))


def edge_name(factor: Name) -> str:
    """A `factor`'s name as tables and figures show it.

    >>> edge_name(("left", "right"))
    'left – right'
    """
    return " – ".join(map(str, factor)) if isinstance(factor, tuple) else str(factor)
