"""One inference problem: a compiled graph under one set of evidence, and the product with its joint precision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from ..graph.factor_graph import FactorGraph, Name
from . import block
from .compile import Plan, System, as_plan
from .evidence import Elements, read_evidence
from .rounds import subtract_rows
from .structure import ElementGroup, Structure

MANY = 2000  # edges of a pattern, from which one call per edge takes too long


class Coupling(Protocol):
    """A part of Lambda that is not kept as a matrix."""

    def __call__(self, x: Tensor) -> Tensor:
        """Its product with ``x (*batch, sites)``."""

    def entries(self, rows: np.ndarray, columns: np.ndarray) -> Tensor:
        """Its entries (rows[k], columns[k])."""


class Problem(NamedTuple):
    """``Lambda x = eta`` over the sites of a plan."""

    plan: Plan
    structure: Structure
    system: System
    coupling: Coupling | None = None  # what Lambda has beyond `system`


def pose(graph: FactorGraph | Plan, evidence: Mapping[Name, Any] | Elements | None = None) -> Problem:
    """The problem of a graph, or of its plan, under `evidence`; errors as in `infer`."""
    plan = as_plan(graph)
    unary, matrices, named = read_evidence(plan.graph, plan.sites, evidence, plan.dtype, plan.device)
    structure = plan.structure(named)
    return Problem(plan, structure, plan.assemble(unary, matrices, structure))


def product(problem: Problem, x: Tensor) -> Tensor:
    """``Lambda x`` for ``x (*batch, sites)``, without forming Lambda."""
    structure, system = problem.structure, problem.system
    if problem.coupling is not None:
        return product(problem._replace(coupling=None), x) + problem.coupling(x)
    batch = torch.broadcast_shapes(x.shape[:-1], system.diagonal.shape[:-1])
    x = x.expand(*batch, x.shape[-1])
    parts = [part for group in structure.groups for part in _group_product(group, system, x)]
    sites = [torch.from_numpy(s).to(x.device) for s in structure.blocks.sites]
    if sites:
        own = [torch.zeros_like(x[..., s]) for s in sites]
        for (a, b), matrix in system.blocks.items():
            own[a] = own[a] + block.times(matrix, x[..., sites[b]])
            if a != b:
                own[b] = own[b] + block.times(matrix.mT, x[..., sites[a]])
        parts += own
    batch = torch.broadcast_shapes(*(part.shape[:-1] for part in parts))
    return structure.join([part.expand(*batch, part.shape[-1]) for part in parts])


def _group_product(group: ElementGroup, system: System, x: Tensor) -> list[Tensor]:
    edges = group.scheme.edges
    if len(edges) > MANY:  # few copies of a large pattern: all edges in one call
        rows = group.site_rows.stacked(x).movedim(-2, 0)
        diagonal = group.site_rows.stacked(system.diagonal).movedim(-2, 0)
        coupling = group.pair_rows.stacked(system.pairs)
        coupling = coupling.reshape(len(edges), *(1,) * (rows.ndim - 2), -1)
        first, second = group.scheme.kept(
            "ends", x.device, lambda: torch.from_numpy(group.scheme.ends).to(x.device)
        )
        out = (
            diagonal.reshape(len(diagonal), *(1,) * (rows.ndim - diagonal.ndim), *diagonal.shape[1:]) * rows
        ).contiguous()
        subtract_rows(out, first, -coupling * rows[second])
        subtract_rows(out, second, -coupling * rows[first])
        return [out.movedim(0, -2).flatten(-2)]
    lanes = group.site_rows.lanes(x)
    out_lanes = [d * lane for d, lane in zip(group.site_rows.lanes(system.diagonal), lanes, strict=True)]
    for (a, b), coupling in zip(edges, group.coupling_lanes(system.pairs), strict=True):
        out_lanes[a] = torch.addcmul(out_lanes[a], coupling, lanes[b])
        out_lanes[b] = torch.addcmul(out_lanes[b], coupling, lanes[a])
    return out_lanes


def residual(problem: Problem, x: Tensor) -> float:
    """``|Lambda x - eta| / |eta|`` over everything (0 for eta = 0)."""
    with torch.no_grad():
        norm = problem.system.eta.norm().item()
        return (product(problem, x) - problem.system.eta).norm().item() / norm if norm > 0 else 0.0
