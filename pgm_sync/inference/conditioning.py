"""Conditioning on exact observations: their sites leave the system, which keeps its layout."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import BatchError, GraphStructureError, ParameterError, ShapeError
from ..gaussian import Gaussian, require_finite
from ..graph.factor_graph import Name
from .evidence import as_numbers
from .posterior import Solution
from .problem import Problem, product


def observed_sites(problem: Problem, observed: Mapping[Name, Any]) -> tuple[Tensor, Tensor]:
    """Which sites are known ``(sites,)``, and their values ``(*batch, sites)``, 0 at the others.

    Raises UnknownNameError, ShapeError, BatchError, NotFiniteError, ParameterError (nothing observed, everything, or
    no numbers), GraphStructureError where Equality factors make two observations one number and they differ.
    """
    plan, eta = problem.plan, problem.system.eta
    known = torch.zeros(plan.sites.size, dtype=torch.bool, device=eta.device)
    values = torch.zeros(plan.sites.size, dtype=eta.dtype, device=eta.device)
    if not isinstance(observed, Mapping):
        raise ParameterError(
            f"observed is a {type(observed).__name__}; give a mapping {{name: values}}", observed=observed
        )
    for name, given in observed.items():
        shape = plan.graph.shape(name)
        value, chosen = _read(given, name, shape, eta)
        batch = value.shape[: max(value.ndim - len(shape), 0)]
        try:
            value = value.expand((*batch, *shape)).reshape(*batch, -1)
        except RuntimeError:
            raise ShapeError(
                f"observed {name!r} has shape {tuple(value.shape)}, which does not broadcast to "
                f"(*batch, {', '.join(map(str, shape))})",
                name=name,
                expected=shape,
            ) from None
        try:
            torch.broadcast_shapes(eta.shape[:-1], values.shape[:-1], batch)
        except RuntimeError:
            others = {tuple(eta.shape[:-1]), tuple(values.shape[:-1])} - {()}
            raise BatchError(
                f"observed {name!r} has batch {tuple(batch)}, which does not broadcast with that of the evidence and "
                f"other observations, {', '.join(map(str, sorted(others)))}",
                name=name,
            ) from None
        chosen = chosen.flatten().to(eta.device)
        value = value[..., chosen]
        require_finite(value, f"observed {name!r}")
        sites = plan.sites.index[name].to(eta.device)[chosen]
        lead = torch.broadcast_shapes(values.shape[:-1], batch)
        values = values.expand(*lead, values.shape[-1])
        before = known[sites]
        if bool((values[..., sites][..., before] != value[..., before]).any()):
            raise GraphStructureError(
                f"observed {name!r} differs from another observation of elements that an Equality factor makes one",
                name=name,
            )
        values = values.index_copy(-1, sites, value.expand(*lead, len(sites)))
        known[sites] = True
    if not bool(known.any()) or bool(known.all()):
        which = "nothing" if not bool(known.any()) else "every element"
        raise ParameterError(
            f"observed holds {which}; give values for some of the elements", observed=list(observed)
        )
    return known, values


def _read(given: Any, name: Name, shape: tuple[int, ...], like: Tensor) -> tuple[Tensor, Tensor]:
    """Values as they were given, and the mask of what is known ``(*shape)``."""
    if isinstance(given, tuple) and len(given) != 2:
        raise ParameterError(
            f"observed {name!r} is a tuple of {len(given)}; give values, or a pair (values, mask)", name=name
        )
    value, mask = given if isinstance(given, tuple) else (given, None)
    value = as_numbers(value, "observed", name, like.dtype, like.device)
    chosen = torch.ones(shape, dtype=torch.bool) if mask is None else torch.as_tensor(mask)
    if chosen.dtype != torch.bool or tuple(chosen.shape) != shape:
        raise ShapeError(
            f"observed {name!r}: the mask is {chosen.dtype} of shape {tuple(chosen.shape)}; give torch.bool of "
            f"shape {shape}",
            name=name,
            expected=shape,
        )
    return value, chosen


def clamp(problem: Problem, known: Tensor, values: Tensor) -> Problem:
    """The problem of the other sites, given the `known` ones.

    ``Lambda_FF x_F = eta_F - Lambda_FO v``; the observed sites stay in place, uncoupled, with unit precision and mean
    v. The log scale is such that the integral is that of the original density over the other sites, at v.
    """
    plan, structure, system, _ = problem
    free = ~known
    couplings = product(problem, values)
    eta = torch.where(known, values, system.eta - couplings)
    diagonal = torch.where(known, 1.0, system.diagonal)
    pairs = system.pairs
    if len(plan.pairs):
        ends = torch.from_numpy(plan.pairs).to(known.device)
        pairs = torch.where(known[ends].any(1), 0.0, pairs)
    sites = [torch.from_numpy(s).to(known.device) for s in structure.blocks.sites]
    blocks = {}
    for (a, b), matrix in system.blocks.items():
        kept = torch.where(free[sites[a]][:, None] & free[sites[b]], matrix, 0.0)
        blocks[a, b] = kept + torch.diag(known[sites[a]].to(matrix)) if a == b else kept
    scale = system.log_scale

    def log_scale() -> Tensor:
        return scale() + ((system.eta - 0.5 * couplings) * values).sum(-1) + _correction(known, values)

    clamped = system._replace(
        diagonal=diagonal, pairs=pairs, blocks=blocks, eta=eta, log_scale=log_scale, unary=diagonal
    )
    return problem._replace(system=clamped)


def _correction(known: Tensor, values: Tensor) -> Tensor:
    """Takes away what the integral over a site with unit precision and mean v adds."""
    return -0.5 * (values.square().sum(-1) + known.sum().to(values) * math.log(2 * math.pi))


def clamp_dense(joint: Gaussian, known: Tensor, values: Tensor) -> Gaussian:
    """The same for a dense joint: the conditional of the other sites by the rows and columns of the matrix."""
    free = ~known
    precision, eta, scale = joint
    kept = torch.where(free[:, None] & free, precision, 0.0) + torch.diag(known.to(precision))
    pulled = (precision @ values.unsqueeze(-1)).squeeze(-1)
    scale = scale + ((eta - 0.5 * pulled) * values).sum(-1) + _correction(known, values)
    return Gaussian(kept, torch.where(known, values, eta - pulled), scale)


def restore(solution: Solution, known: Tensor) -> Solution:
    """The solution of a clamped problem with what it says about the observed sites: no variance, no covariance."""
    free = ~known

    def entries(rows: Tensor, columns: Tensor) -> Tensor:
        values = solution.entries(rows, columns)
        kept = (free.cpu()[rows] & free.cpu()[columns]).to(values.device)
        return torch.where(kept, values, 0.0)

    return solution._replace(
        variance=lambda: torch.where(known, 0.0, solution.variance()),
        entries=entries,
        solve=lambda right: solution.solve(torch.where(known, 0.0, right)),
        root=lambda white: solution.root(torch.where(known, 0.0, white)),
        plan=f"{solution.plan}; {int(known.sum())} sites observed",
        state=None,
        free=free,
    )
