"""What the potentials of a graph assume of one node by itself: the g_i of Eq. 1."""

from __future__ import annotations

from typing import NamedTuple

import torch

from ..errors import CovarianceError
from ..maps import LinearMap
from ..potentials import Marginal
from ..spec import same
from .factor_graph import FactorGraph, Name


class NodeMarginal(NamedTuple):
    """The Gaussian marginal of what `map` shows of a node."""

    map: LinearMap
    marginal: Marginal
    factor: Name  # the factor that states it


def node_marginal(graph: FactorGraph, name: Name) -> NodeMarginal | None:
    """The marginal that the factors around `name` state, or None if none does (Attraction, Evidence, ...).

    Raises CovarianceError if two factors that see the node alike state different ones, UnknownNameError.
    """
    graph.shape(name)
    found: NodeMarginal | None = None
    for factor in graph.adj[name]:
        potential = graph.potential(factor)
        position = graph.scope(factor).index(name)
        marginal = potential.marginals(graph.seen_shapes(factor))[position]
        if marginal is None:
            continue
        if found is None:
            found = NodeMarginal(graph.maps(factor)[position], marginal, factor)
        elif same(graph.maps(factor)[position], found.map):
            own = [Marginal(m.mean, full_covariance(m)) for m in (marginal, found.marginal)]
            for what, a, b in zip(("mean", "covariance"), *own, strict=True):
                gap = (a - b).abs().max().item()
                if gap > 1e-5 * max(b.abs().max().item(), 1.0):
                    raise CovarianceError(
                        f"factors {found.factor!r} and {factor!r} disagree about the {what} of {name!r} "
                        f"(by up to {gap:.3g}); on one node all potentials must state the same marginal",
                        name=name,
                        factors=(found.factor, factor),
                    )
    return found


def full_covariance(marginal: Marginal) -> torch.Tensor:
    """The covariance as a matrix."""
    covariance = marginal.covariance
    return torch.diag(covariance) if covariance.ndim == 1 else covariance
