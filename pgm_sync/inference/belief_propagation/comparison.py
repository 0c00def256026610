"""Belief propagation beside the truth."""

from __future__ import annotations

from typing import NamedTuple

import torch

from ...graph.factor_graph import Name
from ...tables import Table
from ..exact import eliminate
from .run import Result


class NodeComparison(NamedTuple):
    """One node of a `Comparison`."""

    node: Name
    mean_error: float  # largest |mean - exact| over its elements, in exact standard deviations
    variance_ratio: float  # mean of variance / exact variance
    smallest: float  # of these ratios
    largest: float


class Comparison(Table[NodeComparison]):
    """Rows of `compare_with_exact`; prints as a table, in notebooks too."""

    head = ("node", "mean error / sd", "variance ratio", "from", "to")

    def cells(self, row: NodeComparison) -> list[str]:
        """What a row shows."""
        ratios = (row.variance_ratio, row.smallest, row.largest)
        return [repr(row.node), f"{row.mean_error:.1e}", *(f"{ratio:.4f}" for ratio in ratios)]


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
