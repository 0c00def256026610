"""A correlation table, one row per edge and mode, regrouped by edge."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ..graph.factor_graph import Name


class Edge(NamedTuple):
    """What a table says about one factor."""

    factor: Name
    rows: dict[str, Any]  # mode label -> row
    information: float  # mutual information of all its modes together, nats

    @property
    def leading(self) -> Any:
        """The row of the mode that carries most information."""
        return max(self.rows.values(), key=lambda row: row.mutual_information)


def widths(edges: Mapping[Name, Edge], most: float) -> dict[Name, float]:
    """A line width per factor, up to `most`, its square growing with the mutual information."""
    largest = max((e.information for e in edges.values()), default=0.0) or 1.0
    return {f: 1 + (most - 1) * math.sqrt(max(e.information, 0.0) / largest) for f, e in edges.items()}


def by_edge(table: Iterable[Any]) -> dict[Name, Edge]:
    """The rows of `table` by factor, in order of first appearance."""
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
    """Every mode label, in order of first appearance."""
    return list(dict.fromkeys(label for edge in edges for label in edge.rows))


def edge_name(factor: Name) -> str:
    """A factor's name as tables and figures show it."""
    return " – ".join(map(str, factor)) if isinstance(factor, tuple) else str(factor)
