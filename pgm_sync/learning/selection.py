"""Maximum likelihood of a Gaussian whose precision is zero where a graph has no edge (covariance selection)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import networkx as nx
import torch
from torch import Tensor

from ..errors import ConvergenceError
from ..gaussian import cholesky
from ..graph.factor_graph import Name


class Selection(NamedTuple):
    """The fitted precision and how it was found."""

    precision: Tensor  # (P, P)
    # Per sweep, the largest deviation of a clique's model covariance from the sample's, in correlation units; one
    # sweep on a chordal graph: closed form.
    trace: list[float]


def select_covariance(
    covariance: Tensor,  # (P, P) sample covariance, positive definite
    network: nx.Graph,
    blocks: Mapping[Name, Tensor],  # the rows of every node
    tolerance: float = 1e-8,
    most_sweeps: int = 500,
) -> Selection:
    """Lauritzen's maximum-likelihood estimate (Eq. 14): agree with `covariance` on every clique, zeros elsewhere.

    Chordal graphs: the closed form, sum of clique inverses minus separator inverses. Otherwise iterative
    proportional fitting over the maximal cliques, which raises the likelihood in every step and keeps the precision
    positive definite. Raises ConvergenceError (with the trace) and CovarianceError.
    """
    if nx.is_chordal(network):
        precision = _closed_form(covariance, network, blocks)
        return Selection(precision, [_gap(precision, covariance, _rows(nx.find_cliques(network), blocks))])
    cliques = _rows(nx.find_cliques(network), blocks)
    precision = torch.zeros_like(covariance)
    for rows in blocks.values():
        precision[rows[:, None], rows] = _inverse(covariance[rows[:, None], rows])
    targets = [_inverse(covariance[rows[:, None], rows]) for rows in cliques]
    trace: list[float] = []
    for _ in range(most_sweeps):
        for rows, target in zip(cliques, targets, strict=True):
            model = _inverse(precision)[rows[:, None], rows]
            precision[rows[:, None], rows] += target - _inverse(model)
        precision = (precision + precision.mT) / 2
        trace.append(_gap(precision, covariance, cliques))
        if trace[-1] < tolerance:
            return Selection(precision, trace)
    raise ConvergenceError(
        f"covariance selection on {network.number_of_nodes()} nodes still deviates by {trace[-1]:.2g} after "
        f"{most_sweeps} sweeps (tolerance {tolerance:g}); shrink more (shrinkage=0.1), or add edges",
        trace=trace,
    )


def _closed_form(covariance: Tensor, network: nx.Graph, blocks: Mapping[Name, Tensor]) -> Tensor:
    precision = torch.zeros_like(covariance)

    def add(nodes: Sequence[object], sign: float) -> None:
        if nodes:
            rows = torch.cat([blocks[n] for n in nodes])
            precision[rows[:, None], rows] += sign * _inverse(covariance[rows[:, None], rows])

    # A junction tree per connected component: its edges' intersections are the separators, with multiplicity.
    cliques = [frozenset(c) for c in nx.find_cliques(network)]
    tree = nx.Graph()
    tree.add_nodes_from(range(len(cliques)))
    for i, a in enumerate(cliques):
        for j in range(i + 1, len(cliques)):
            if a & cliques[j]:
                tree.add_edge(i, j, weight=len(a & cliques[j]))
    for clique in cliques:
        add(sorted(clique, key=list(blocks).index), 1.0)
    for i, j in nx.maximum_spanning_tree(tree).edges:
        add(sorted(cliques[i] & cliques[j], key=list(blocks).index), -1.0)
    return precision


def _gap(precision: Tensor, covariance: Tensor, cliques: Sequence[Tensor]) -> float:
    model = _inverse(precision)
    scale = covariance.diagonal().rsqrt()
    difference = (model - covariance) * scale[:, None] * scale
    return max(difference[rows[:, None], rows].abs().max().item() for rows in cliques)


def _rows(cliques: object, blocks: Mapping[Name, Tensor]) -> list[Tensor]:
    return [torch.cat([blocks[n] for n in clique]) for clique in cliques]  # type: ignore[attr-defined]


def _inverse(matrix: Tensor) -> Tensor:
    return torch.cholesky_inverse(cholesky(matrix, "a covariance of the fitted graph"))
