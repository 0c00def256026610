"""What is left of the correlation along an edge once all other nodes are known."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import UnsupportedError
from ..graph.factor_graph import FactorGraph, Name
from ..maps import Identity
from ..tables import Table
from .coupling import Pair, pairs_of
from .edges import edge_name
from .surrogate import Surrogate


class PartialCorrelation(NamedTuple):
    """One mode between two ends of a factor, under the joint model.

    >>> import pgm_sync as ps
    >>> row = ps.partial_correlations(ps.chain_graph(2, 1, ps.Correlation(0.8)))[0]
    >>> round(row.rho, 3), round(row.partial, 3)  # of two nodes, there is no other
    (0.8, 0.8)
    """

    factor: Name  # of the graph
    first: Name  # one end
    second: Name  # the other
    mode: str  # as the maps label it
    rho: float  # correlation
    partial: float  # correlation given all other nodes
    mutual_information: float  # nats, -log(1 - partial^2) / 2: what this edge alone brings (Eq. 3)


class PartialCorrelationTable(Table[PartialCorrelation]):
    """Rows of `partial_correlations`; prints as a table.

    >>> import pgm_sync as ps
    >>> ps.partial_correlations(ps.chain_graph(3, 1, ps.Correlation(0.8)))
    factor  ends   mode  rho     partial  nats
    0 – 1   0 - 1  0     +0.800  +0.625   0.2473
    1 – 2   1 - 2  0     +0.800  +0.625   0.2473
    """

    head = ("factor", "ends", "mode", "rho", "partial", "nats")

    def cells(self, row: PartialCorrelation) -> list[str]:
        """What a row shows."""
        ends = f"{row.first!r} - {row.second!r}"
        numbers = (f"{row.rho:+.3f}", f"{row.partial:+.3f}", f"{row.mutual_information:.4f}")
        return [edge_name(row.factor), ends, row.mode, *numbers]


def partial_correlations(graph: FactorGraph) -> PartialCorrelationTable:
    """Correlation of matching modes between the ends of a `graph`'s factors, before and after others are known.

    Read from the joint prior g: given the others, two nodes have the inverse of their block of ``Sigma^{-1}`` as
    covariance. The partial correlation is 0 exactly where an edge is superfluous, however large the correlation that
    runs along other paths. Factors whose ends see different numbers of modes are left out.

    >>> import pgm_sync as ps
    >>> row = ps.partial_correlations(ps.chain_graph(3, 1, ps.Correlation(0.8)))[0]
    >>> round(row.rho, 3), round(row.partial, 3)
    (0.8, 0.625)

    Raises ImproperGraphError where the joint cannot be normalised, ParameterError where no potential states a marginal,
    UnsupportedError for large contents that factors see otherwise than whole, element by element.
    """
    model = Surrogate(graph)
    pairs = [pair for pair in pairs_of(model) if pair.maps[0].out_size == pair.maps[1].out_size]
    values = _from_matrix if model.is_small else _from_engine
    rows = []
    for pair, (labels, rho, partial) in zip(pairs, values(model, pairs), strict=True):
        for mode, r, p in zip(labels, rho, partial, strict=True):
            information = -0.5 * math.log1p(-(p**2))
            rows.append(PartialCorrelation(pair.factor, pair.first, pair.second, mode, r, p, information))
    return PartialCorrelationTable(rows)


Values = tuple[list[str], list[float], list[float]]  # labels, correlations, partial ones


def _from_matrix(model: Surrogate, pairs: list[Pair]) -> list[Values]:
    if not pairs:
        return []
    prior, precision = model.posterior(0.0), model.joint_precision(0.0)
    out = []
    for pair in pairs:
        places = [model.place(name) for name in (pair.first, pair.second)]
        index = torch.cat([torch.arange(p.start, p.stop) for p in places])
        known = torch.linalg.inv(precision[index[:, None], index])
        n = places[0].stop - places[0].start
        clean = prior(pair.first, pair.first), prior(pair.first, pair.second), prior(pair.second, pair.second)
        rest = known[:n, :n], known[:n, n:], known[n:, n:]
        out.append((pair.labels, _matching(pair, *clean), _matching(pair, *rest)))
    return out


def _matching(pair: Pair, first: Tensor, cross: Tensor, second: Tensor) -> list[float]:
    """Correlations of matching modes, from covariances of the ends."""
    a, b = (m.dense() for m in pair.maps)
    own, other = ((m @ c @ m.T).diagonal() for m, c in ((a, first), (b, second)))
    return ((a @ cross @ b.T).diagonal() * (own * other).rsqrt()).tolist()


def _from_engine(model: Surrogate, pairs: list[Pair]) -> list[Values]:
    """The mean over matching elements, which must be independent of others of their node."""
    posterior = model.inferred(0.0)
    out = []
    for pair in pairs:
        elementwise = model.graph.potential(pair.factor).elementwise
        if not elementwise or not all(isinstance(m, Identity) for m in pair.maps):
            raise UnsupportedError(
                f"factor {pair.factor!r}: the graph couples more numbers than fit one matrix, and this factor does not "
                "see whole contents element by element; ask posterior.partial_correlation of ps.infer",
                factor=pair.factor,
            )
        rho, partial = (
            read(pair.first, pair.second).mean().item()
            for read in (posterior.correlation, posterior.partial_correlation)
        )
        out.append((["every element"], [rho], [partial]))
    return out
