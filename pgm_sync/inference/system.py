"""The linear system of a graph: what its potentials and the evidence add to the joint precision and eta."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import DtypeError, ParameterError, ShapeError, UnfittedError, UnknownNameError
from ..gaussian import Gaussian, require_finite, require_symmetric
from ..graph.factor_graph import FactorGraph, Name
from ..graph.marginals import full_covariance, node_marginal
from ..maps import Identity, LinearMap, element_index
from ..potentials import Likelihood
from ..potentials.base import StructuralPotential
from ..potentials.evidence import log_scale
from .sites import Sites


class ElementTerm(NamedTuple):
    """An elementwise factor through index maps: one small matrix per matching elements."""

    sites: Tensor  # (ends, D)
    precision: Tensor  # (ends, ends, D)
    eta: Tensor  # (ends, D)
    log_scale: Tensor  # ()


class JointTerm(NamedTuple):
    """A factor over a set of sites."""

    sites: Tensor  # (P,), none twice
    precision: Tensor  # (*batch, P, P)
    eta: Tensor  # (*batch, P)
    log_scale: Tensor  # (*batch)


class Unary(NamedTuple):
    """What the evidence says about each site by itself."""

    precision: Tensor  # (*precision_batch, sites)
    eta: Tensor  # (*batch, sites)
    log_scale: Tensor  # (*batch)


def factor_terms(graph: FactorGraph, sites: Sites) -> tuple[list[ElementTerm], list[JointTerm]]:
    """The contributions of all factors with a density, float64.

    A hidden variable gets the marginal its factors state, once: Eq. 1 divides by the marginals of the
    trajectories only. Raises UnfittedError for a potential without parameters.
    """
    elements, joints = [], []
    for factor in graph.factors:
        potential = graph.potential(factor)
        if isinstance(potential, StructuralPotential):
            continue
        if not potential.fitted:
            raise UnfittedError(
                f"factor {factor!r} has a {type(potential).__name__} without parameters: "
                "call ps.fit(graph, data) first, or give it some",
                factor=factor,
            )
        maps, scope = graph.maps(factor), graph.scope(factor)
        information = potential.information([m.out_shape for m in maps])
        if potential.elementwise:
            ends, shape = len(scope), maps[0].out_shape
            precision = _expand(information.precision, (ends, ends), shape)
            eta = _expand(information.eta, (ends,), shape)
            scale = information.log_scale.double().expand(shape).sum()
            picked = [element_index(m) for m in maps]
            if all(p is not None for p in picked):
                own = [sites.index[name][p] for name, p in zip(scope, picked, strict=True)]
                elements.append(ElementTerm(torch.stack(own), precision, eta, scale))
                continue
            dense = torch.diag_embed(precision).permute(0, 2, 1, 3).reshape(ends * eta.shape[1], -1)
            joint = Gaussian(dense, eta.flatten(), scale)
        else:
            joint = Gaussian(
                information.precision.double(), information.eta.double(), information.log_scale.double()
            )
        joints.append(joint_term(joint, list(zip(scope, maps, strict=True)), sites))
    for name in graph.hidden:
        stated = node_marginal(graph, name)
        if stated is not None:
            prior = Gaussian.from_moments(stated.marginal.mean, full_covariance(stated.marginal))
            joints.append(joint_term(prior, [(name, stated.map)], sites))
    return elements, joints


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


def read_evidence(
    graph: FactorGraph, sites: Sites, evidence: Mapping[Name, Any] | None
) -> tuple[Unary, list[JointTerm], tuple[Name, ...]]:
    """Check the evidence and put it on the sites: per-element parts, matrix parts, and whose those are.

    Raises UnknownNameError, ShapeError, DtypeError, ParameterError (negative precision), NotFiniteError.
    """
    evidence = dict(evidence or {})
    dtype, device = common_dtype(evidence)
    precision = torch.zeros(sites.size, dtype=dtype, device=device)
    eta = torch.zeros(sites.size, dtype=dtype, device=device)
    scale = torch.zeros((), dtype=dtype, device=device)
    joints, names = [], []
    for name, value in evidence.items():
        if name not in graph:
            raise UnknownNameError(f"evidence for {name!r}, which is not in the graph", name=name)
        if graph.nodes[name].get("kind") == "factor":
            ends = _likelihood_ends(graph, name, value)
        else:
            ends = [(name, Identity(graph.shape(name)))]
        if isinstance(value, Gaussian):
            size = sum(m.out_size for _, m in ends)
            value = _checked_gaussian(value, name, size, dtype, device)
            joints.append(joint_term(value, ends, sites))
            names.append(name)
            continue
        shape = graph.shape(name)
        mean, strength = _checked_pair(value, name, shape, dtype, device)
        index = sites.index[name].to(device)
        strength = strength.expand(*strength.shape[: max(strength.ndim - len(shape), 0)], *shape)
        strength = strength.flatten(strength.ndim - len(shape)) if shape else strength[..., None]
        batch = torch.broadcast_shapes(mean.shape, shape)
        mean = mean.expand(batch)
        mean = mean.flatten(mean.ndim - len(shape)) if shape else mean[..., None]
        precision = _index_add(precision, index, strength)
        eta = _index_add(eta, index, strength * mean)
        scale = scale + log_scale(mean, strength).sum(-1)
    return Unary(precision, eta, scale), joints, tuple(names)


def common_dtype(evidence: Mapping[Name, Any]) -> tuple[torch.dtype, torch.device]:
    """The dtype and device all evidence agrees on; plain numbers agree with anything."""
    tensors = [
        (name, part)
        for name, value in evidence.items()
        for part in (value if isinstance(value, tuple) else (value,))
        if isinstance(part, Tensor)
    ]
    if not tensors:
        return torch.float64, torch.device("cpu")
    name, first = tensors[0]
    for other, tensor in tensors:
        if not tensor.is_floating_point():
            raise DtypeError(
                f"evidence for {other!r} has dtype {tensor.dtype}; use float32 or float64", name=other
            )
        if tensor.device != first.device or tensor.dtype != first.dtype:
            raise DtypeError(
                f"evidence for {other!r} is {tensor.dtype} on {tensor.device}, "
                f"for {name!r} {first.dtype} on {first.device}; bring them together",
                name=other,
            )
    return first.dtype, first.device


def _checked_pair(
    value: Any, name: Name, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    if not isinstance(value, tuple) or len(value) != 2:
        raise ParameterError(
            f"evidence for {name!r} is a {type(value).__name__}; give a pair (mean, precision) or a Gaussian",
            name=name,
        )
    parts = []
    for what, part in zip(("mean", "precision"), value, strict=True):
        tensor = torch.as_tensor(part, dtype=dtype, device=device)
        require_finite(tensor, f"evidence {what} for {name!r}")
        try:
            full = torch.broadcast_shapes(tensor.shape, shape)
        except RuntimeError:
            full = ()
        if tuple(full[len(full) - len(shape) :]) != shape:
            raise ShapeError(
                f"evidence {what} for {name!r} has shape {tuple(tensor.shape)}, which does not broadcast to "
                f"(*batch, {', '.join(map(str, shape))})",
                name=name,
                expected=shape,
                got=tuple(tensor.shape),
            )
        parts.append(tensor)
    if bool((parts[1] < 0).any()):
        raise ParameterError(
            f"evidence precision for {name!r} is negative ({parts[1].min().item():.4g})", name=name
        )
    return parts[0], parts[1]


def _checked_gaussian(
    value: Gaussian, name: Name, size: int, dtype: torch.dtype, device: torch.device
) -> Gaussian:
    if tuple(value.precision.shape[-2:]) != (size, size) or value.eta.shape[-1:] != (size,):
        raise ShapeError(
            f"evidence for {name!r} is over {tuple(value.precision.shape[-2:])} elements, it has {size}",
            name=name,
            expected=size,
        )
    require_symmetric(value.precision, f"evidence precision for {name!r}")
    require_finite(value.eta, f"evidence eta for {name!r}")
    return Gaussian(*(torch.as_tensor(part, dtype=dtype, device=device) for part in value))


def likelihood_sites(graph: FactorGraph, sites: Sites, name: Name) -> Tensor:
    """The sites that a matrix given as evidence for `name` (a node or a Likelihood factor) is about."""
    if graph.nodes[name]["kind"] != "factor":
        return sites.index[name]
    zero = torch.zeros(())
    size = sum(m.out_size for m in graph.maps(name))
    ends = list(zip(graph.scope(name), graph.maps(name), strict=True))
    return joint_term(Gaussian(zero.expand(size, size), zero.expand(size), zero), ends, sites).sites


def _likelihood_ends(graph: FactorGraph, name: Name, value: Any) -> list[tuple[Name, LinearMap]]:
    if not isinstance(graph.potential(name), Likelihood) or not isinstance(value, Gaussian):
        raise UnknownNameError(
            f"evidence for {name!r}, a factor with a {type(graph.potential(name)).__name__}; only trajectories, "
            "variables, and Likelihood factors (with a Gaussian) take evidence",
            name=name,
        )
    return list(zip(graph.scope(name), graph.maps(name), strict=True))


def _index_add(total: Tensor, index: Tensor, values: Tensor) -> Tensor:
    batch = torch.broadcast_shapes(total.shape[:-1], values.shape[:-1])
    values = values.expand(*batch, values.shape[-1])
    return total.expand(*batch, total.shape[-1]).index_add(-1, index, values)


def _expand(tensor: Tensor, lead: tuple[int, ...], shape: tuple[int, ...]) -> Tensor:
    """(*lead) or (*lead, *shape) to (*lead, D)."""
    if tensor.ndim == len(lead):
        tensor = tensor.reshape(*lead, *(1,) * len(shape))
    return tensor.double().expand(*lead, *shape).reshape(*lead, math.prod(shape))
