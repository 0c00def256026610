"""Maximum likelihood of a Gaussian whose precision is zero where a graph has no edge (covariance selection)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import networkx as nx
import torch
from torch import Tensor

from ..errors import ConvergenceError, CovarianceError
from ..gaussian import cholesky


class Selection(NamedTuple):
    """The fitted precision of `select_covariance`, how it was found, and what certifies it.

    >>> import torch, networkx as nx
    >>> sample = torch.tensor([[1.0, 0.6], [0.6, 1.0]]).double()
    >>> found = select_covariance(sample, nx.path_graph(2), {0: torch.tensor([0]), 1: torch.tensor([1])})
    >>> len(found.trace), found.duality_gap < 1e-9  # one clique: closed form
    (1, True)
    """

    precision: Tensor  # (P, P)
    # Per sweep, the largest deviation of a clique's model covariance from the sample's, in correlation units; one
    # sweep on a chordal graph: closed form.
    trace: list[float]  # by sweep
    duality_gap: float  # nats per sample: no Gaussian with these zeros has a higher likelihood than by this
    smallest_eigenvalue: float  # of the precision, in correlation units; positive, by a Cholesky factorisation too

    @property
    def certificate(self) -> dict[str, float]:
        """What is recorded of a fit."""
        return {
            "selection_deviation": self.trace[-1],
            "selection_duality_gap": self.duality_gap,
            "selection_smallest_eigenvalue": self.smallest_eigenvalue,
        }


def select_covariance(
    covariance: Tensor,  # (P, P) sample covariance, positive definite
    network: nx.Graph,
    blocks: Mapping[Any, Tensor],  # the rows of every node
    tolerance: float = 1e-8,
    most_sweeps: int = 500,
) -> Selection:
    """Lauritzen's maximum-likelihood estimate (Eq. 14): agree with `covariance` on every clique, zeros elsewhere.

    Chordal graphs: the closed form, sum of clique inverses minus separator inverses. Otherwise iterative
    proportional fitting over the maximal cliques, which raises the likelihood in every step and keeps the precision
    positive definite. An update costs P^2 times the clique's size: the model covariance follows it in low rank, and
    is inverted afresh once per sweep.

    The result is certified: positive definite by its Cholesky factorisation, the maximum up to `duality_gap`.

    Raises ConvergenceError (with the trace) and CovarianceError.

    `network` joins the nodes, `blocks` names their rows. The sweeps end when every clique agrees to `tolerance`, in
    correlation units, or raise after `most_sweeps`.

    Ends of a chain get the correlation that goes through its middle, 0.8 * 0.5, whatever the sample has:

    >>> import torch, networkx as nx
    >>> sample = torch.tensor([[1.0, 0.8, 0.1], [0.8, 1.0, 0.5], [0.1, 0.5, 1.0]]).double()
    >>> found = select_covariance(sample, nx.path_graph(3), {k: torch.tensor([k]) for k in range(3)})
    >>> torch.linalg.inv(found.precision).round(decimals=4)
    tensor([[1.0000, 0.8000, 0.4000],
            [0.8000, 1.0000, 0.5000],
            [0.4000, 0.5000, 1.0000]], dtype=torch.float64)
    """
    scale = covariance.diagonal().rsqrt()
    if not bool(torch.isfinite(scale).all()):
        raise CovarianceError(
            f"feature {int((~torch.isfinite(scale)).nonzero()[0])} of {len(scale)} has no variance in the data; "
            "leave it out, or shrink (shrinkage=0.1)"
        )
    sample = covariance * scale[:, None] * scale
    cliques = _rows(nx.find_cliques(network), blocks)
    if nx.is_chordal(network):
        found = _closed_form(covariance, network, blocks)
        precision = found / scale[:, None] / scale
        trace = [_gap(_inverse(precision), sample, cliques)]
    else:
        precision, trace = _proportional_fitting(sample, cliques, blocks, tolerance, most_sweeps)
        if trace[-1] >= tolerance:
            raise ConvergenceError(
                f"covariance selection on {network.number_of_nodes()} nodes still deviates by {trace[-1]:.2g} after "
                f"{most_sweeps} sweeps (tolerance {tolerance:g}); shrink more (shrinkage=0.1), or add edges",
                trace=trace,
            )
        found = precision * scale[:, None] * scale
    return Selection(
        found,
        trace,
        _duality_gap(precision, sample, cliques),
        float(torch.linalg.eigvalsh(precision)[0]),
    )


def _proportional_fitting(
    sample: Tensor,
    cliques: Sequence[Tensor],
    blocks: Mapping[Any, Tensor],
    tolerance: float,
    most_sweeps: int,
) -> tuple[Tensor, list[float]]:
    """From independent nodes, make the marginal of one clique after the other right until all are."""
    precision = torch.zeros_like(sample)
    for rows in blocks.values():
        precision[rows[:, None], rows] = _inverse(sample[rows[:, None], rows])
    wanted = [(rows, sample[rows[:, None], rows]) for rows in cliques]
    targets = [_inverse(marginal) for _, marginal in wanted]
    trace: list[float] = []
    model = _inverse(precision)
    for _ in range(most_sweeps):
        for (rows, marginal), target in zip(wanted, targets, strict=True):
            present = model[rows[:, None], rows]
            inverse = _inverse(present)
            precision[rows[:, None], rows] += target - inverse
            # the clique gets its new marginal, the others keep their regressions on it
            gain = model[:, rows] @ inverse
            model = model + gain @ (marginal - present) @ gain.mT
        precision = (precision + precision.mT) / 2
        model = _inverse(precision)
        trace.append(_gap(model, sample, cliques))
        if trace[-1] < tolerance:
            break
    return precision, trace


def _duality_gap(precision: Tensor, sample: Tensor, cliques: Sequence[Tensor]) -> float:
    """How far, in nats per sample, the likelihood is below its maximum at most.

    The dual problem maximises log det W over W that agree with the sample on all cliques; the model covariance with
    these blocks put right is such a W. Infinite where that is not positive definite: nothing is certified then.
    """
    dual = _inverse(precision)
    for rows in cliques:
        dual[rows[:, None], rows] = sample[rows[:, None], rows]
    factor, info = torch.linalg.cholesky_ex(dual)
    if int(info) > 0:
        return math.inf
    log_determinants = torch.logdet(precision) + 2 * factor.diagonal().log().sum()
    return max(0.0, 0.5 * ((dual * precision).sum() - len(dual) - log_determinants).item())


def _closed_form(covariance: Tensor, network: nx.Graph, blocks: Mapping[Any, Tensor]) -> Tensor:
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


def _gap(model: Tensor, sample: Tensor, cliques: Sequence[Tensor]) -> float:
    difference = model - sample
    return max(difference[rows[:, None], rows].abs().max().item() for rows in cliques)


def _rows(cliques: Any, blocks: Mapping[Any, Tensor]) -> list[Tensor]:
    return [torch.cat([blocks[n] for n in clique]) for clique in cliques]


def _inverse(matrix: Tensor) -> Tensor:
    return torch.cholesky_inverse(cholesky(matrix, "a covariance of the fitted graph"))
