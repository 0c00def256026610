"""What the factors of a graph add to the joint precision and eta, site by site or as matrices over sites."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import UnfittedError, UnsupportedError
from ..gaussian import Gaussian
from ..graph.factor_graph import FactorGraph, Name
from ..graph.marginals import full_covariance, node_marginal
from ..maps import LinearMap, element_index, is_sparse, sparse_entries
from ..potentials import Information, Potential
from ..potentials.base import StructuralPotential, checked_information
from .sites import Sites

LARGEST_MATRIX = 8192  # sites of a term through features: 0.5 GB


class ElementTerm(NamedTuple):
    """An elementwise factor through maps with few entries per row, as numbers to add up."""

    sites: Tensor  # (e,), with repetitions
    diagonal: Tensor  # (e,), what it adds to the precision of each
    eta: Tensor  # (e,)
    pairs: Tensor  # (m, 2), two different sites each, with repetitions
    coupling: Tensor  # (m,), what it adds to the precision between them
    log_scale: Tensor  # ()


class JointTerm(NamedTuple):
    """A factor over a set of sites."""

    sites: Tensor  # (P,), none twice
    precision: Tensor  # (*batch, P, P)
    eta: Tensor  # (*batch, P)
    log_scale: Tensor  # (*batch)


def seen_as(maps: Sequence[LinearMap], potential: Potential) -> str:
    """How a factor acts: "structural" (no density), "index" or "sparse" (element by element), or "joint" (a matrix)."""
    if isinstance(potential, StructuralPotential):
        return "structural"
    if not potential.elementwise:
        return "joint"
    if all(element_index(m) is not None for m in maps):
        return "index"
    return "sparse" if all(is_sparse(m) for m in maps) else "joint"


def element_terms(graph: FactorGraph, sites: Sites) -> list[ElementTerm]:
    """The contributions of all elementwise factors through index and sparse maps, float64.

    Raises UnfittedError for a potential without parameters, of whatever kind; as `checked_information` for one
    whose information is wrong.
    """
    elements = []
    known: dict[tuple, Information] = {}  # many factors of a large graph share one potential
    alike: dict[tuple, list[list[Tensor]]] = {}  # and see whole nodes or the same elements of them
    for factor in graph.factors:
        potential, maps, scope = graph.potential(factor), graph.maps(factor), graph.scope(factor)
        kind = seen_as(maps, potential)
        if kind != "structural" and not potential.fitted:
            raise UnfittedError(
                f"factor {factor!r} has a {type(potential).__name__} without parameters: "
                "call ps.fit(graph, data) first, or give it some",
                factor=factor,
            )
        if kind not in ("index", "sparse"):
            continue
        shapes = tuple(m.out_shape for m in maps)
        key = (id(potential), shapes)
        if key not in known:
            known[key] = checked_information(potential, factor, shapes)
        if kind == "index":
            own = [sites.index[name][element_index(m)] for name, m in zip(scope, maps, strict=True)]
            alike.setdefault(key, []).append(own)
            continue
        ends = []
        for name, m in zip(scope, maps, strict=True):
            rows, columns, values = sparse_entries(m)
            ends.append((rows, sites.index[name][columns], values))
        elements.append(_sparse_term(*_expanded(known[key], shapes[0]), ends))
    for key, listed in alike.items():
        precision, eta, scale = _expanded(known[key], key[1][0])
        together = [torch.stack([own[k] for own in listed]) for k in range(len(listed[0]))]
        elements.append(_index_term(precision, eta, len(listed) * scale, together))
    return elements


def joint_terms(graph: FactorGraph, sites: Sites) -> list[JointTerm]:
    """The contributions of all other factors, as matrices over sites, float64.

    A hidden variable gets the marginal its factors state, once: Eq. 1 divides by the marginals of the
    trajectories only. Raises UnsupportedError for features of nodes too large to be looked at as a matrix; as
    `checked_information`.
    """
    joints = []
    for factor in graph.factors:
        potential, maps, scope = graph.potential(factor), graph.maps(factor), graph.scope(factor)
        if seen_as(maps, potential) != "joint":
            continue
        size = sum(m.in_size for m in maps)
        if size > LARGEST_MATRIX and not all(element_index(m) is not None for m in maps):
            raise UnsupportedError(
                f"factor {factor!r} sees features of {size} elements, a matrix too large; features of large nodes are "
                "solved by method='exact' with evidence (mean, precision) on them and no elementwise coupling of the "
                "same nodes",
                factor=factor,
            )
        shapes = [m.out_shape for m in maps]
        information = checked_information(potential, factor, shapes)
        if potential.elementwise:
            precision, eta, scale = _expanded(information, shapes[0])
            dense = torch.diag_embed(precision).permute(0, 2, 1, 3).reshape(eta.numel(), -1)
            joint = Gaussian(dense, eta.flatten(), scale)
        else:
            joint = Gaussian(*information)
        joints.append(joint_term(joint, list(zip(scope, maps, strict=True)), sites))
    for name in graph.hidden:
        stated = node_marginal(graph, name)
        if stated is not None:
            prior = Gaussian.from_moments(stated.marginal.mean, full_covariance(stated.marginal))
            joints.append(joint_term(prior, [(name, stated.map)], sites))
    return joints


def joint_term(gaussian: Gaussian, ends: list[tuple[Name, LinearMap]], sites: Sites) -> JointTerm:
    """A Gaussian over what the maps show of its ends, as one over sites."""
    precision, eta = gaussian.precision, gaussian.eta
    if all(element_index(m) is not None for _, m in ends):
        where = [sites.index[name][element_index(m)] for name, m in ends]
    else:
        where = [sites.index[name] for name, _ in ends]
        # (P, elements of all ends)
        stacked = torch.block_diag(*(m.dense(dtype=eta.dtype, device=eta.device) for _, m in ends))
        precision = stacked.T @ precision @ stacked
        eta = (eta.unsqueeze(-2) @ stacked).squeeze(-2)
    flat = torch.cat(where)
    unique, position = torch.unique(flat, return_inverse=True)
    if len(unique) < len(flat):  # ends that share sites
        position = position.to(eta.device)
        rows = precision.new_zeros(*precision.shape[:-2], len(unique), len(flat)).index_add(
            -2, position, precision
        )
        precision = rows.new_zeros(*rows.shape[:-2], len(unique), len(unique)).index_add(-1, position, rows)
        eta = eta.new_zeros(*eta.shape[:-1], len(unique)).index_add(-1, position, eta)
        flat = unique
    return JointTerm(flat, precision, eta, gaussian.log_scale)


def _expanded(information: Information, shape: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Elementwise information for D elements: precision (n, n, D), eta (n, D), and the sum of log_scale."""
    n = information.eta.shape[0]
    return (
        _expand(information.precision, (n, n), shape),
        _expand(information.eta, (n,), shape),
        information.log_scale.expand(shape).sum(),
    )


def _expand(tensor: Tensor, lead: tuple[int, ...], shape: tuple[int, ...]) -> Tensor:
    """(*lead) or (*lead, *shape) to (*lead, D)."""
    if tensor.ndim == len(lead):
        tensor = tensor.reshape(*lead, *(1,) * len(shape))
    return tensor.expand(*lead, *shape).reshape(*lead, math.prod(shape))


def _index_term(precision: Tensor, eta: Tensor, log_scale: Tensor, ends: list[Tensor]) -> ElementTerm:
    """F factors of one potential over elements ``ends[k] (F, D)``, from precision (n, n, D) and eta (n, D)."""
    factors = len(ends[0])
    where = [own.flatten() for own in ends]
    every = [precision[k, k].repeat(factors) for k in range(len(ends))]
    etas = [part.repeat(factors) for part in eta]
    pairs, couplings = [torch.zeros(0, 2, dtype=torch.int64)], [precision.new_zeros(0)]
    for a, b in itertools.combinations(range(len(ends)), 2):
        both = torch.stack([where[a], where[b]], 1)
        value = precision[a, b].repeat(factors)
        apart = both[:, 0] != both[:, 1]
        if not bool(
            apart.all()
        ):  # two ends that show one site: the cross term is one of the site with itself
            where.append(both[~apart, 0])
            every.append(2 * value[~apart])
            etas.append(torch.zeros_like(every[-1]))
            both, value = both[apart], value[apart]
        pairs.append(both)
        couplings.append(value)
    sums = (torch.cat(where), torch.cat(every), torch.cat(etas))
    return ElementTerm(*sums, torch.cat(pairs), torch.cat(couplings), log_scale)


def _sparse_term(
    precision: Tensor, eta: Tensor, log_scale: Tensor, ends: list[tuple[Tensor, Tensor, Tensor]]
) -> ElementTerm:
    """``sum_ab B_a' diag(P_ab) B_b`` entry by entry, for ends given as rows, sites and values of B."""
    row, site, value = (torch.cat(part) for part in zip(*ends, strict=True))
    end = torch.cat([torch.full_like(rows, k) for k, (rows, _, _) in enumerate(ends)])
    order = torch.argsort(row, stable=True)
    row, site, value, end = row[order], site[order], value[order], end[order]
    # every two entries i <= j of one row
    counts = torch.bincount(row, minlength=eta.shape[1])
    last = counts.cumsum(0)[row]
    repeats = last - torch.arange(len(row))
    first = torch.arange(len(row)).repeat_interleave(repeats)
    second = first + torch.arange(len(first)) - (repeats.cumsum(0) - repeats)[first]
    products = precision[end[first], end[second], row[first]] * value[first] * value[second]
    own = first == second
    twice = (site[first] == site[second]) & ~own
    apart = site[first] != site[second]
    where = torch.cat([site, site[first[twice]]])
    diagonal = torch.cat([products[own], 2 * products[twice]])
    linear = torch.cat([value * eta[end, row], diagonal.new_zeros(int(twice.sum()))])
    pairs = torch.stack([site[first[apart]], site[second[apart]]], 1)
    return ElementTerm(where, diagonal, linear, pairs, products[apart], log_scale)
