"""One inference problem: a compiled graph under one set of evidence, and the product with its joint precision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..graph.factor_graph import FactorGraph, Name
from . import block
from .compile import Plan, System, as_plan
from .evidence import Elements, read_evidence
from .structure import Structure


class Problem(NamedTuple):
    """``Lambda x = eta`` over the sites of a plan."""

    plan: Plan
    structure: Structure
    system: System


def pose(graph: FactorGraph | Plan, evidence: Mapping[Name, Any] | Elements | None = None) -> Problem:
    """The problem of a graph, or of its plan, under `evidence`; errors as in `infer`."""
    plan = as_plan(graph)
    unary, matrices, named = read_evidence(plan.graph, plan.sites, evidence, plan.dtype, plan.device)
    structure = plan.structure(named)
    return Problem(plan, structure, plan.assemble(unary, matrices, structure))


def product(problem: Problem, x: Tensor) -> Tensor:
    """``Lambda x`` for ``x (*batch, sites)``, without forming Lambda."""
    plan, structure, system = problem
    out = system.diagonal * x
    if len(plan.pairs):
        kept = structure.group[plan.pairs[:, 0]] >= 0
        index = torch.from_numpy(plan.pairs[kept]).to(x.device)
        values = system.pairs[..., torch.from_numpy(kept).to(x.device)]
        out = out.index_add(-1, index[:, 0], values * x[..., index[:, 1]])
        out = out.index_add(-1, index[:, 1], values * x[..., index[:, 0]])
    sites = [torch.from_numpy(s).to(x.device) for s in structure.blocks.sites]
    if sites:
        parts = [torch.zeros_like(out[..., s]) for s in sites]
        for (a, b), matrix in system.blocks.items():
            parts[a] = parts[a] + block.times(matrix, x[..., sites[b]])
            if a != b:
                parts[b] = parts[b] + block.times(matrix.mT, x[..., sites[a]])
        out = out.index_copy(-1, torch.cat(sites), torch.cat(parts, -1))
    return out


def residual(problem: Problem, x: Tensor) -> float:
    """``|Lambda x - eta| / |eta|`` over everything (0 for eta = 0)."""
    with torch.no_grad():
        norm = problem.system.eta.norm().item()
        return (product(problem, x) - problem.system.eta).norm().item() / norm if norm > 0 else 0.0
