"""What each factor of a graph is: learned, given by hand, structural or observed."""

from __future__ import annotations

import math
from typing import NamedTuple

from ..graph import FactorGraph
from ..graph.factor_graph import Name
from ..potentials import Evidence, JointGaussian
from ..potentials.base import StructuralPotential
from ..tables import Table
from .correlations import CorrelationTable
from .edges import by_edge, edge_name

KINDS = {
    "learned": "fitted to data",
    "given": "set by hand",
    "structural": "shared pixels, exact",
    "observed": "evidence about one end",
    "not fitted": "waits for ps.fit",
}


class FactorRow(NamedTuple):
    """One factor.

    >>> import pgm_sync as ps
    >>> ps.inspect(ps.chain_graph(2, 1, ps.Correlation(0.8))).factors[0].kind
    'given'
    """

    factor: Name  # its name
    ends: tuple[Name, ...]  # its scope
    kind: str  # a key of KINDS
    potential: str  # as it prints
    mode: str  # the mode that carries most information; "" without correlations
    rho: float  # its correlation; nan without
    mutual_information: float  # nats, all modes together; nan without


class FactorTable(Table[FactorRow]):
    """Rows of `factor_table`; prints as a table.

    >>> import pgm_sync as ps
    >>> [row.ends for row in ps.inspect(ps.chain_graph(3, 1, ps.Correlation(0.8))).factors]
    [(0, 1), (1, 2)]
    """

    head = ("factor", "ends", "kind", "potential", "leading mode", "rho", "nats")

    def cells(self, row: FactorRow) -> list[str]:
        """What a row shows."""
        known = not math.isnan(row.rho)
        numbers = [f"{row.rho:+.3f}", f"{row.mutual_information:.4f}"] if known else ["", ""]
        return [
            edge_name(row.factor),
            ", ".join(map(str, row.ends)),
            row.kind,
            row.potential,
            row.mode,
            *numbers,
        ]


def kind(graph: FactorGraph, factor: Name) -> str:
    """One of `KINDS`. Raises UnknownNameError."""
    potential = graph.potential(factor)
    if not potential.fitted:
        return "not fitted"
    if isinstance(potential, StructuralPotential):
        return "structural"
    if isinstance(potential, Evidence):
        return "observed"
    record = graph.graph.get("fit") or {}
    learned = isinstance(potential, JointGaussian) if record.get("method") != "elbo" else True
    return "learned" if record and learned else "given"


def factor_table(graph: FactorGraph, table: CorrelationTable) -> FactorTable:
    """Every factor of the `graph`, in order; `table` is ``ps.correlations(graph)``.

    >>> import pgm_sync as ps
    >>> graph = ps.chain_graph(2, 1, ps.Correlation(0.8))
    >>> factor_table(graph, ps.correlations(graph))[0].rho
    0.8
    """
    edges = by_edge(table)
    rows = []
    for factor in graph.factors:
        edge = edges.get(factor)
        leading = (
            ("", math.nan, math.nan)
            if edge is None
            else (edge.leading.mode, edge.leading.rho, edge.information)
        )
        ends, what = tuple(graph.scope(factor)), kind(graph, factor)
        rows.append(FactorRow(factor, ends, what, repr(graph.potential(factor)), *leading))
    return FactorTable(rows)
