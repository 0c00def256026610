"""Exact solutions of an inference problem: by elimination, or as one dense matrix."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..gaussian import Gaussian
from . import block, elimination
from .compile import Plan
from .diagnosis import component_of, improper
from .posterior import Solution
from .problem import Problem
from .structure import Structure


def eliminate(problem: Problem) -> tuple[Solution, int]:
    """Two-sweep elimination of every group and of the block system."""
    plan, structure, system = problem
    device = system.eta.device
    batch = system.eta.shape[:-1]
    mean = torch.zeros_like(system.eta)
    factors = []
    for group in structure.groups:
        sites = torch.from_numpy(group.sites).to(device)
        diagonal = _lead(system.diagonal[..., sites])
        edges = system.pairs[torch.from_numpy(group.pairs).to(device)]  # (edges, G)
        edges = edges.reshape(len(edges), *(1,) * (diagonal.ndim - 2), edges.shape[-1]).expand(
            -1, *diagonal.shape[1:]
        )
        factor = elimination.factorise(group.scheme, diagonal, edges)
        pivots = factor[: group.scheme.n]
        # What rounding leaves of a direction without any precision is as bad as a negative pivot.
        bad = ~(pivots > 16 * torch.finfo(pivots.dtype).eps * diagonal.abs())
        if bool(bad.any()):
            copy = int(bad.any(0).reshape(-1, bad.shape[-1]).any(0).nonzero()[0])
            raise improper(problem, group.sites[:, copy])
        factors.append(factor)
        solved = elimination.solve(group.scheme, _pad(factor, len(batch)), _lead(system.eta[..., sites]))
        mean = mean.index_copy(-1, sites.reshape(-1), _unlead(solved).reshape(*batch, -1))
    block_factor = None
    if structure.blocks.sites:
        own = structure.blocks.sites
        block_factor = block.factorise(
            structure.blocks.elimination,
            [len(s) for s in own],
            system.blocks,
            lambda v: improper(problem, component_of(structure, own[v][0])),
        )
        index = [torch.from_numpy(s).to(device) for s in own]
        parts = block.solve(block_factor, [system.eta[..., i] for i in index])
        mean = mean.index_copy(-1, torch.cat(index), torch.cat(parts, -1))
    lead = system.diagonal.shape[:-1]
    if block_factor is not None:
        lead = torch.broadcast_shapes(lead, *(b.shape[:-2] for b in system.blocks.values()))

    def log_determinant() -> Tensor:
        total = system.eta.new_zeros(lead)
        for group, factor in zip(structure.groups, factors, strict=True):
            total = total + factor[: group.scheme.n].log().sum((0, -1))
        return total if block_factor is None else total + block.log_determinant(block_factor)

    def variance() -> Tensor:
        out = system.eta.new_zeros(*lead, plan.sites.size)
        for group, factor in zip(structure.groups, factors, strict=True):
            sites = torch.from_numpy(group.sites).to(device)
            values = _unlead(elimination.selected_inverse(group.scheme, factor)[: group.scheme.n])
            out = out.index_copy(
                -1, sites.reshape(-1), values.reshape(*values.shape[:-2], -1).expand(*lead, -1)
            )
        if block_factor is not None:
            inverse = block.selected_inverse(block_factor)
            for b, own in enumerate(structure.blocks.sites):
                values = inverse[b, b].diagonal(dim1=-2, dim2=-1).expand(*lead, len(own))
                out = out.index_copy(-1, torch.from_numpy(own).to(device), values)
        return out.expand(*batch, plan.sites.size) if len(lead) < len(batch) else out

    def entries(rows: Tensor, columns: Tensor) -> Tensor:
        return _entries(plan, structure, factors, block_factor, lead, system.eta, rows, columns)

    widths = [g.scheme.width for g in structure.groups]
    widths += [
        sum(len(structure.blocks.sites[u]) for u in later) for later in structure.blocks.elimination.later
    ]
    return Solution(mean, log_determinant, variance, entries), max(widths, default=0)


def _entries(
    plan: Plan,
    structure: Structure,
    factors: list[Tensor],
    block_factor: block.BlockFactor | None,
    lead: torch.Size,
    like: Tensor,
    rows: Tensor,
    columns: Tensor,
) -> Tensor:
    """Entries (rows[k], columns[k]) of the inverse, ``(*lead, k)``, by solving for the rows' columns."""
    out = like.new_zeros(*lead, len(rows))
    i, j = rows.numpy(), columns.numpy()
    together = structure.component[i] == structure.component[j]
    for g, (group, factor) in enumerate(zip(structure.groups, factors, strict=True)):
        for p in np.unique(structure.position[i[together & (structure.group[i] == g)]]):
            chosen = np.flatnonzero(together & (structure.group[i] == g) & (structure.position[i] == p))
            unit = torch.zeros_like(factor[: group.scheme.n])
            unit[p] = 1
            solved = elimination.solve(group.scheme, factor, unit)  # (n, *lead, G)
            at = [
                torch.from_numpy(a[j[chosen]]).to(like.device) for a in (structure.position, structure.copy)
            ]
            values = solved.movedim(0, -2)[..., at[0], at[1]]
            out = out.index_copy(-1, torch.from_numpy(chosen).to(like.device), values.expand(*lead, -1))
    if block_factor is not None:
        in_block = together & (structure.group[i] < 0)
        for b in np.unique(structure.position[i[in_block]]):
            chosen = np.flatnonzero(in_block & (structure.position[i] == b))
            right = [
                torch.eye(s, dtype=like.dtype, device=like.device)
                if v == b
                else like.new_zeros(block_factor.sizes[b], s)
                for v, s in enumerate(block_factor.sizes)
            ]
            rank = len(next(iter(block_factor.lower.values())).shape) - 2
            right = [r.reshape(r.shape[0], *(1,) * rank, r.shape[1]) for r in right]
            columns_of = block.solve(block_factor, right)  # per block (s_b, *lead, s)
            where = structure.position[j[chosen]]
            for c in np.unique(where):
                pick = chosen[where == c]
                row = torch.from_numpy(structure.copy[i[pick]]).to(like.device)
                column = torch.from_numpy(structure.copy[j[pick]]).to(like.device)
                values = columns_of[c].movedim(0, -2)[..., row, column]
                out = out.index_copy(-1, torch.from_numpy(pick).to(like.device), values.expand(*lead, -1))
    return out


def solve_dense(problem: Problem, joint: Gaussian) -> Solution:
    """The whole system as one matrix."""
    structure = problem.structure
    lower, info = torch.linalg.cholesky_ex(joint.precision)
    diagonal = lower.diagonal(dim1=-2, dim2=-1)
    bound = 16 * torch.finfo(diagonal.dtype).eps * joint.precision.diagonal(dim1=-2, dim2=-1)
    if bool((info > 0).any()) or not bool((diagonal.square() > bound).all()):
        weak = (~(diagonal.square() > bound)).reshape(-1, diagonal.shape[-1]).any(0).nonzero()
        bad = int(info.max()) - 1 if bool((info > 0).any()) else int(weak[0])
        raise improper(problem, component_of(structure, bad))
    covariance = torch.cholesky_inverse(lower)
    mean = torch.cholesky_solve(joint.eta.unsqueeze(-1), lower.expand(*joint.eta.shape, -1)).squeeze(-1)
    return Solution(
        mean,
        lambda: 2 * diagonal.log().sum(-1),
        lambda: covariance.diagonal(dim1=-2, dim2=-1),
        lambda rows, columns: covariance[..., rows.to(covariance.device), columns.to(covariance.device)],
    )


def _lead(values: Tensor) -> Tensor:
    """(*batch, n, G) to (n, *batch, G)."""
    return values.movedim(-2, 0)


def _unlead(values: Tensor) -> Tensor:
    return values.movedim(0, -2)


def _pad(factor: Tensor, batch_ndim: int) -> Tensor:
    """(slots, *lead, G) with room for `batch_ndim` batch dimensions."""
    missing = batch_ndim - (factor.ndim - 2)
    return factor.reshape(factor.shape[0], *(1,) * missing, *factor.shape[1:]) if missing > 0 else factor
