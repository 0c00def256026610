"""The coupled part of a graph in the features that its potentials see (Eq. 13)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import CovarianceError, UnsupportedError
from ..graph.factor_graph import FactorGraph, Name
from ..graph.marginals import full_covariance
from ..maps import FeatureMap, Features, Identity, LinearMap, element_index
from ..potentials import Marginal
from ..potentials.base import StructuralPotential


class Reduction(NamedTuple):
    """A graph over features, made by `reduce`: the engine never sees what no potential couples.

    >>> import pgm_sync as ps
    >>> graph = ps.chain_graph(2, (1, 8, 8), features=lambda shape: ps.DCT(shape, modes=4))
    >>> reduction = reduce(graph)
    >>> reduction.graph.shape(0), reduction.features[0].in_shape
    ((1, 4), (1, 8, 8))
    """

    graph: FactorGraph  # coupled trajectories in their features, and hidden variables
    features: dict[Name, LinearMap]  # per coupled trajectory


def reduce(graph: FactorGraph) -> Reduction:
    """Express every coupled trajectory of `graph` in the features its factors see (Eq. 13).

    The whole content where one sees elements. Features keep white noise white (orthonormal rows), so the reduced graph
    is again a graph of trajectories.

    >>> import pgm_sync as ps
    >>> graph = ps.FactorGraph()
    >>> for name in ("left", "right", "alone"):
    ...     graph.add_trajectory(name, shape=(1, 8, 8))
    >>> graph.add_factor("tone", ["left", "right"], ps.Correlation(0.8), maps=[ps.ChannelMeans((1, 8, 8))] * 2)
    >>> reduce(graph).graph
    FactorGraph(2 trajectories, 1 factor)
    """
    density = [f for f in graph.factors if not isinstance(graph.potential(f), StructuralPotential)]
    seen: dict[Name, list[LinearMap]] = {}
    for factor in density:
        for name, m in zip(graph.scope(factor), graph.maps(factor), strict=True):
            seen.setdefault(name, []).append(m)
    reduced = FactorGraph()
    features: dict[Name, LinearMap] = {}
    for name in graph.variables:
        if name not in seen:
            continue
        if name in graph.hidden:
            reduced.add_variable(name, graph.shape(name))
            continue
        features[name] = common_features(seen[name])
        reduced.add_trajectory(name, features[name].out_shape)
    for factor in density:
        maps = [
            express(m, features[name]) if name in features else m
            for name, m in zip(graph.scope(factor), graph.maps(factor), strict=True)
        ]
        reduced.add_factor(factor, graph.scope(factor), graph.potential(factor), maps)
    return Reduction(reduced, features)


def common_features(maps: list[LinearMap]) -> LinearMap:
    """The smallest orthonormal features that contain all of `maps`."""
    if not all(isinstance(m, FeatureMap) for m in maps):
        return Identity(maps[0].in_shape)
    first = maps[0]
    if all(same_rows(first, m) for m in maps[1:]):  # type: ignore[arg-type]
        return first
    rows = torch.cat([m.rows for m in maps])  # type: ignore[attr-defined]
    return Features.orthonormalise(rows.reshape(len(rows), *first.in_shape))


def same_rows(a: FeatureMap, b: FeatureMap) -> bool:
    """Whether two feature maps are the same matrix."""
    return a is b or (a.out_shape == b.out_shape and torch.equal(a.rows, b.rows))


def express(map: LinearMap, features: LinearMap) -> LinearMap | None:
    """`map` as a map of the features: ``map == express(map, features) @ features``."""
    if isinstance(features, Identity):
        return None if isinstance(map, Identity) else map
    if isinstance(map, FeatureMap) and same_rows(map, features):  # type: ignore[arg-type]
        return None
    return Features((map.dense() @ features.dense().T).reshape(map.out_size, *features.out_shape))


class OwnPrior(NamedTuple):
    """The marginal g_i of one node in information form, as far as its factors state it."""

    precision: Tensor  # (D,) of independent elements, or (D, D): Sigma_ii^{-1}
    known: bool  # whether any factor states it
    eta: Tensor  # (D,): Sigma_ii^{-1} mu_i


def own_prior(graph: FactorGraph, name: Name) -> OwnPrior:
    """g_i of a node of a reduced graph, its precision zero on elements that no copula potential sees.

    Raises CovarianceError where two factors state different marginals, UnsupportedError where they see
    overlapping but different features of the node.
    """
    size = torch.Size(graph.shape(name)).numel()
    stated: list[tuple[Name, LinearMap, Marginal]] = []
    for factor in graph.adj[name]:
        position = graph.scope(factor).index(name)
        marginal = graph.potential(factor).marginals(graph.seen_shapes(factor))[position]
        if marginal is not None:
            stated.append((factor, graph.maps(factor)[position], marginal))
    if all(own.covariance.ndim == 1 and element_index(m) is not None for _, m, own in stated):
        precision, eta = torch.zeros(2, size, dtype=torch.float64)
        for factor, m, marginal in stated:
            index, own = element_index(m), 1 / marginal.covariance
            known = precision[index]
            _require_agreement(name, factor, own[known > 0], known[known > 0])
            precision[index], eta[index] = own.double(), (own * marginal.mean).double()
        return OwnPrior(precision, bool(stated), eta)
    total, eta = torch.zeros(size, size, dtype=torch.float64), torch.zeros(size, dtype=torch.float64)
    kept: list[tuple[Name, Tensor, Tensor]] = []
    for factor, m, marginal in stated:
        own = torch.linalg.inv(full_covariance(marginal))
        rows = m.dense()
        repeated = False
        for other, other_rows, other_own in kept:
            if rows.shape == other_rows.shape and torch.allclose(rows, other_rows, atol=1e-9):
                _require_agreement(name, factor, own, other_own)
                repeated = True
            elif (rows @ other_rows.T).abs().max() > 1e-9:
                raise UnsupportedError(
                    f"factors {other!r} and {factor!r} see different but overlapping features of {name!r}, so its own "
                    "marginal is not determined; give them one common feature map",
                    name=name,
                    factors=(other, factor),
                )
        if not repeated:
            kept.append((factor, rows, own))
            total, eta = total + rows.T @ own @ rows, eta + rows.T @ own @ marginal.mean
    return OwnPrior(total, True, eta)


def _require_agreement(name: Name, factor: Name, own: Tensor, other: Tensor) -> None:
    if own.numel() == 0:
        return
    gap = (own - other).abs().max().item()
    if gap > 1e-5 * max(other.abs().max().item(), own.abs().max().item()):
        raise CovarianceError(
            f"factor {factor!r} states another marginal of {name!r} than the other factors around it (precisions "
            f"differ by up to {gap:.3g}); on one node all potentials must agree: set `variance` alike, or ps.fit them",
            name=name,
            factor=factor,
        )
