"""Belief propagation beside the truth."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from ...graph.factor_graph import Name
from ..exact import eliminate
from .run import Result


class NodeComparison(NamedTuple):
    """One node of a `Comparison`."""

    node: Name
    mean_error: float  # largest |mean - exact| over its elements, in exact standard deviations
    variance_ratio: float  # mean of variance / exact variance
    smallest: float  # of these ratios
    largest: float


class Comparison(Sequence[NodeComparison]):
    """Rows of `compare_with_exact`; prints as a table, in notebooks too."""

    def __init__(self, rows: Sequence[NodeComparison]):
        self.rows = list(rows)

    def __getitem__(self, index: Any) -> Any:
        return self.rows[index]

    def __len__(self) -> int:
        return len(self.rows)

    def to_dicts(self) -> list[dict[str, Any]]:
        """One dictionary per row, for pandas.DataFrame or JSON."""
        return [row._asdict() for row in self.rows]

    def _cells(self) -> list[list[str]]:
        head = ["node", "mean error / sd", "variance ratio", "from", "to"]
        return [head] + [
            [
                repr(r.node),
                f"{r.mean_error:.1e}",
                f"{r.variance_ratio:.4f}",
                f"{r.smallest:.4f}",
                f"{r.largest:.4f}",
            ]
            for r in self.rows
        ]

    def __str__(self) -> str:
        cells = self._cells()
        widths = [max(len(row[k]) for row in cells) for k in range(len(cells[0]))]
        return "\n".join(
            "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        head, *body = self._cells()
        rows = "".join("<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in row) + "</tr>" for row in body)
        return "<table><tr>" + "".join(f"<th>{html.escape(c)}</th>" for c in head) + f"</tr>{rows}</table>"


def compare_with_exact(result: Result) -> Comparison:
    """Means and variances of a run beside those of elimination, node by node. Raises ImproperGraphError."""
    net, sites = result.network, result.network.problem.plan.sites
    with torch.no_grad():
        exact = eliminate(net.problem)
        variance = exact.variance()
        error = (result.site_mean - exact.mean).abs() * variance.rsqrt()
        ratio = result.site_variance / variance
    rows = []
    for name in net.layout.names:
        e, r = sites.gather(error, name), sites.gather(ratio, name)
        rows.append(NodeComparison(name, e.max().item(), r.mean().item(), r.min().item(), r.max().item()))
    return Comparison(rows)
