"""Belief propagation beside the truth."""

from __future__ import annotations

from typing import NamedTuple

import torch

from ...graph.factor_graph import Name
from ...tables import Table
from ..exact import eliminate
from .run import Result


class NodeComparison(NamedTuple):
    """One node of a `Comparison`.

    Variances of belief propagation on a loop are too small (DESIGN section 7), its means are exact:

    >>> import pgm_sync as ps
    >>> from pgm_sync.inference.belief_propagation import network, run
    >>> ring = ps.ring_graph(4, 1, ps.Attraction(1.0))
    >>> row = compare_with_exact(run(network(ring, {k: (float(k), 0.5) for k in range(4)})))[0]
    >>> row.mean_error < 1e-5, round(row.variance_ratio, 3)
    (True, 0.882)
    """

    node: Name
    mean_error: float  # largest |mean - exact| over its elements, in exact standard deviations
    variance_ratio: float  # mean of variance / exact variance
    smallest: float  # of these ratios
    largest: float  # of them


class Comparison(Table[NodeComparison]):
    """Rows of `compare_with_exact`; prints as a table, in notebooks too.

    >>> import pgm_sync as ps
    >>> from pgm_sync.inference.belief_propagation import network, run
    >>> net = network(ps.chain_graph(2, 1, ps.Attraction(1.0)), {0: (3.0, 1.0), 1: (0.0, 1.0)})
    >>> len(compare_with_exact(run(net)))
    2
    """

    head = ("node", "mean error / sd", "variance ratio", "from", "to")

    def cells(self, row: NodeComparison) -> list[str]:
        """What a row shows."""
        ratios = (row.variance_ratio, row.smallest, row.largest)
        return [repr(row.node), f"{row.mean_error:.1e}", *(f"{ratio:.4f}" for ratio in ratios)]


def compare_with_exact(result: Result) -> Comparison:
    """Means and variances of a run's `result` beside those of elimination, node by node.

    Variances on a loop are too small (DESIGN section 7), means are exact:

    >>> import pgm_sync as ps
    >>> from pgm_sync.inference.belief_propagation import network, run
    >>> ring = ps.ring_graph(3, 1, ps.Attraction(1.0))
    >>> compare_with_exact(run(network(ring, {k: (0.0, 1.0) for k in range(3)})))
    node  mean error / sd  variance ratio  from    to
    0     0.0e+00          0.8944          0.8944  0.8944
    1     0.0e+00          0.8944          0.8944  0.8944
    2     0.0e+00          0.8944          0.8944  0.8944

    Raises ImproperGraphError.
    """
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
