"""The joint Gaussian of a graph as one dense matrix: the reference that every plan is held against."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..gaussian import Gaussian
from ..graph.factor_graph import FactorGraph, Name
from ..graph.marginals import full_covariance, node_marginal
from ..maps import Shape
from ..potentials import Likelihood, Potential
from ..potentials.base import StructuralPotential, checked_information
from .evidence import Elements, read_evidence
from .sites import Sites, shared_sites


def dense_joint(
    graph: FactorGraph,
    evidence: Mapping[Name, Any] | Elements | None = None,
    sites: Sites | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | None = None,
) -> Gaussian:
    """The product of all potentials and evidence over all sites, ``Lambda = sum_f B_f' P_f B_f``, unnormalised.

    Every factor goes through the dense matrices of its maps: slow, short, and independent of the plans. Sites are
    ordered as in `shared_sites`; without Equality factors these are the elements of all nodes in insertion order.

    `graph`, `evidence` and what it raises as of `infer`; `dtype` and `device` bring the evidence there first.

    >>> from pgm_sync.graph import chain_graph
    >>> from pgm_sync.potentials import Attraction
    >>> joint = dense_joint(chain_graph(2, 1, Attraction(1.0)), {0: (3.0, 1.0), 1: (0.0, 1.0)})
    >>> joint.precision.tolist(), joint.mean.round(decimals=6).tolist()
    ([[2.0, -1.0], [-1.0, 2.0]], [2.0, 1.0])
    """
    sites = sites or shared_sites(graph)
    unary, matrices, _ = read_evidence(graph, sites, evidence, dtype, device)
    dtype, device = unary.eta.dtype, unary.eta.device
    precision = torch.diag_embed(unary.precision)
    eta, scale = unary.eta, unary.log_scale()
    for term in matrices:
        select = torch.eye(sites.size, dtype=dtype, device=device)[term.sites.to(device)]
        precision = precision + select.mT @ term.precision @ select
        eta = eta + term.eta @ select
        scale = scale + term.log_scale

    def see(name: Name, matrix: torch.Tensor) -> torch.Tensor:
        return matrix @ torch.eye(sites.size, dtype=torch.float64)[sites.index[name]]

    for factor in graph.factors:
        potential, maps, scope = graph.potential(factor), graph.maps(factor), graph.scope(factor)
        if isinstance(potential, StructuralPotential | Likelihood):
            continue
        matrix = torch.cat([see(name, m.dense()) for name, m in zip(scope, maps, strict=True)])
        own, own_eta, own_scale = dense_information(potential, factor, [m.out_shape for m in maps])
        precision = precision + (matrix.T @ own @ matrix).to(precision)
        eta = eta + (own_eta @ matrix).to(eta)
        scale = scale + own_scale.to(scale)
    for name in graph.hidden:
        stated = node_marginal(graph, name)
        if stated is not None:
            prior = Gaussian.from_moments(stated.marginal.mean, full_covariance(stated.marginal))
            matrix = see(name, stated.map.dense())
            precision = precision + (matrix.T @ prior.precision @ matrix).to(precision)
            eta = eta + (prior.eta @ matrix).to(eta)
            scale = scale + prior.log_scale.to(scale)
    return Gaussian(precision, eta, scale)


def dense_information(potential: Potential, factor: Name, shapes: Sequence[Shape]) -> Gaussian:
    """What a potential says of all that it sees, ends flattened and concatenated, as one matrix, unnormalised."""
    own, eta, scale = checked_information(potential, factor, shapes)
    if potential.elementwise:
        shape, n, size = shapes[0], len(shapes), math.prod(shapes[0])
        own = own.reshape(n, n, *(own.shape[2:] or (1,) * len(shape))).expand(n, n, *shape)
        own = torch.diag_embed(own.reshape(n, n, size)).transpose(1, 2).reshape(n * size, n * size)
        eta = eta.reshape(n, *(eta.shape[1:] or (1,) * len(shape))).expand(n, *shape).reshape(-1)
        scale = scale.expand(shape).sum()
    return Gaussian(own, eta, scale)
