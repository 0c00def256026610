"""Exact solutions of an inference problem: by elimination, or as one dense matrix."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..gaussian import Gaussian
from .diagnosis import component_of, improper
from .pivots import close, first_bad, lost, rounding, weak_rows
from .plans import Solver, block_solver, group_solver
from .posterior import Solution
from .precision import precision_entries
from .problem import Problem
from .structure import Structure


def eliminate(problem: Problem, start: Solution | None = None) -> Solution:
    """Every group and the block system, each by the plan that is estimated fastest.

    The factors of `start`, an earlier solution under the same plan, are used again where the precision is the same.

    Raises ImproperGraphError naming the nodes of the first component without a positive definite precision.
    """
    structure, system = problem.structure, problem.system
    solvers = None if start is None else _same_factors(problem, start.state)
    reused = solvers is not None
    if solvers is None:
        solvers = _factorise(problem)
    lead = system.diagonal.shape[:-1]
    if structure.blocks.sites:
        lead = torch.broadcast_shapes(lead, *(b.shape[:-2] for b in system.blocks.values()))

    known = solvers

    def solve(right: Tensor) -> Tensor:
        return _join(structure, [solver.solve(right) for solver in known])

    def root(white: Tensor) -> Tensor:
        return _join(structure, [solver.root(white) for solver in known])

    def log_determinant() -> Tensor:
        return system.eta.new_zeros(lead) + sum(solver.log_determinant() for solver in known)

    def variance() -> Tensor:
        every = _join(structure, [solver.variance() for solver in known])
        return every.expand(*lead, problem.plan.sites.size)

    def entries(rows: Tensor, columns: Tensor) -> Tensor:
        return _entries(problem, known, lead, rows, columns)

    return Solution(
        solve(system.eta),
        log_determinant,
        variance,
        entries,
        solve,
        root,
        plan="; ".join(dict.fromkeys(solver.name for solver in known))
        + ("; factors reused" if reused else ""),
        width=max(solver.width for solver in known),
        exact=True,
        cost=sum(solver.cost for solver in known),
        state=(problem, known),
    )


def _join(structure: Structure, parts: list[list[Tensor]]) -> Tensor:
    """``(*batch, sites)`` from the parts of all solvers."""
    flat = [part for listed in parts for part in listed]
    batch = torch.broadcast_shapes(*(part.shape[:-1] for part in flat))
    return structure.join([part.expand(*batch, part.shape[-1]) for part in flat])


def _factorise(problem: Problem) -> list[Solver]:
    structure = problem.structure
    solvers: list[Solver] = []
    for group in structure.groups:
        solver = group_solver(group, problem)
        copy = solver.failed()
        if copy is not None:
            raise improper(problem, group.sites[:, copy])
        solvers.append(solver)
    own = structure.blocks.sites
    if own:
        blocks = block_solver(problem)
        bad = blocks.failed()
        if bad is not None:
            raise improper(problem, component_of(structure, own[bad][0]))
        solvers.append(blocks)
    if any(solver.close for solver in solvers):
        with torch.no_grad():
            site = _lost(problem, solvers)
        if site is not None:
            raise improper(problem, component_of(structure, site))
    return solvers


def _lost(problem: Problem, solvers: list[Solver]) -> int | None:
    structure, every = problem.structure, np.arange(problem.plan.sites.size)
    diagonal = precision_entries(problem._replace(coupling=None), every, every)
    left = _join(structure, [solver.left() for solver in solvers]).expand(diagonal.shape)
    component = torch.from_numpy(structure.component).to(left.device, torch.int64)
    return lost(
        left,
        diagonal,
        lambda white: _join(structure, [solver.root(white) for solver in solvers]),
        component,
        max(solver.width for solver in solvers),
    )


def _same_factors(problem: Problem, state: Any) -> list[Solver] | None:
    """The factors of an earlier solution, if this problem has the same plan and the same precision."""
    earlier, solvers = state or (None, None)
    if earlier is None or earlier.structure is not problem.structure:
        return None
    now, then = problem.system, earlier.system
    parts = [(now.diagonal, then.diagonal), (now.pairs, then.pairs)]
    parts += [(block, then.blocks[key]) for key, block in now.blocks.items()]
    same = all(a is b or (a.dtype == b.dtype and torch.equal(a, b)) for a, b in parts)
    return solvers if same and not any(a.requires_grad or b.requires_grad for a, b in parts) else None


def _entries(
    problem: Problem,
    solvers: list[Solver],
    lead: torch.Size,
    rows: Tensor,
    columns: Tensor,
) -> Tensor:
    """Entries (rows[k], columns[k]) of the inverse, ``(*lead, k)``, one pair of positions at a time."""
    structure, like = problem.structure, problem.system.eta
    out = like.new_zeros(*lead, len(rows))
    i, j = rows.numpy(), columns.numpy()
    together = np.flatnonzero(structure.component[i] == structure.component[j])
    if not len(together):
        return out
    i, j = i[together], j[together]
    keys = np.stack([structure.group[i], structure.position[i], structure.position[j]], 1)
    which, label, counts = np.unique(keys, axis=0, return_inverse=True, return_counts=True)
    alike = np.split(np.argsort(label.reshape(-1), kind="stable"), np.cumsum(counts)[:-1])
    for (g, p, q), chosen in zip(which.tolist(), alike, strict=True):
        block = solvers[g].covariance(p, q)  # g = -1: the blocks come last
        at = [torch.from_numpy(structure.copy[k[chosen]]).to(like.device) for k in (i, j)]
        values = block[..., at[0]] if g >= 0 else block[..., at[0], at[1]]
        where = torch.from_numpy(together[chosen]).to(like.device)
        out = out.index_copy(-1, where, values.expand(*lead, len(chosen)))
    return out


def solve_dense(problem: Problem, joint: Gaussian) -> Solution:
    """The whole system as one matrix."""
    structure = problem.structure
    lower, info = torch.linalg.cholesky_ex(joint.precision)
    diagonal = lower.diagonal(dim1=-2, dim2=-1)
    units = rounding(4 * structure.largest_component, 0)  # in any order, so that no width is known
    site = first_bad(weak_rows(lower, info, joint.precision.diagonal(dim1=-2, dim2=-1), units))
    def root(white: Tensor) -> Tensor:
        return torch.linalg.solve_triangular(lower.mT, white.unsqueeze(-1), upper=True).squeeze(-1)

    own = joint.precision.diagonal(dim1=-2, dim2=-1).detach()
    left = (diagonal.square() / own).detach()
    if site is None and close(left):
        component = torch.from_numpy(structure.component).to(left.device, torch.int64)
        with torch.no_grad():
            site = lost(left, own, root, component)
    if site is not None:
        raise improper(problem, component_of(structure, site))
    covariance = torch.cholesky_inverse(lower)

    def solve(right: Tensor) -> Tensor:
        batch = torch.broadcast_shapes(right.shape[:-1], lower.shape[:-2])
        right = right.expand(*batch, right.shape[-1]).unsqueeze(-1)
        return torch.cholesky_solve(right, lower.expand(*batch, *lower.shape[-2:])).squeeze(-1)

    return Solution(
        solve(joint.eta),
        lambda: 2 * diagonal.log().sum(-1),
        lambda: covariance.diagonal(dim1=-2, dim2=-1),
        lambda rows, columns: covariance[..., rows.to(covariance.device), columns.to(covariance.device)],
        solve,
        root,
        plan="one dense matrix",
        width=len(structure.component),
        exact=True,
        cost=len(structure.component) ** 3 / 3 * lower.shape[:-2].numel(),
    )
