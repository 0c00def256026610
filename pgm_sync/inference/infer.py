"""The front door of the engine: a graph and evidence in, the exact posterior out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import ImproperGraphError, ParameterError, UnsupportedError
from ..gaussian import Gaussian
from ..graph.factor_graph import FactorGraph, Name
from . import block, elimination
from .compile import Plan, System, as_plan
from .dense import dense_joint
from .posterior import Info, Posterior, Solution
from .structure import Structure
from .system import read_evidence

METHODS = ("auto", "exact", "dense")
LARGEST_DENSE = (
    20_000  # elements of a component that a diagnosis still looks at as a matrix, or a dense solve takes
)


def infer(
    graph: FactorGraph | Plan, evidence: Mapping[Name, Any] | None = None, method: str = "auto"
) -> Posterior:
    """The posterior of all nodes under the potentials of `graph` and Gaussian `evidence`.

    `evidence` is ``{name: (mean, precision)}``: the unary Gaussian N(mean, 1/precision), both broadcastable to
    ``(*batch, *shape)``; or ``{name: Gaussian}`` over the flattened elements of a node, or over the scope of a
    `Likelihood` factor. dtype and device of the evidence decide those of the result (float64 without any).
    `graph` may be a plan from `compile`, which saves the analysis when only evidence changes.

    method: "auto" and "exact" eliminate: elements that only elementwise factors through index maps couple are
    grouped by pattern and eliminated together, nodes under matrix potentials block by block; "dense" solves the whole
    system as one matrix (a reference). Means, variances and covariances are exact.

    >>> from pgm_sync.graph import chain_graph
    >>> from pgm_sync.potentials import Correlation
    >>> posterior = infer(chain_graph(3, 1, Correlation(0.8)), {0: (1.0, 4.0), 1: (0.0, 1.0), 2: (0.0, 1.0)})
    >>> posterior.mean[2].round(decimals=3)
    tensor([0.6400], dtype=torch.float64)

    Raises ImproperGraphError (naming the nodes and the direction without precision), and on evidence that does not
    fit: UnknownNameError, ShapeError, DtypeError, ParameterError, NotFiniteError; StalePlanError; UnfittedError;
    UnsupportedError.
    """
    if method not in METHODS:
        if method in ("cg", "gbp"):
            raise UnsupportedError(
                f"method={method!r} does not exist yet; 'exact' computes the same means and variances"
            )
        raise ParameterError(f"method={method!r} is not one of {', '.join(METHODS)}", method=method)
    plan = as_plan(graph)
    unary, matrices, named = read_evidence(plan.graph, plan.sites, evidence)
    structure = plan.structure(named)
    system = plan.assemble(unary, matrices, structure)
    if method == "dense":
        joint = dense_joint(plan.graph, evidence, plan.sites)
        solution = _solve_dense(plan, structure, system, joint)
        reason, width = "asked for", plan.sites.size
    else:
        solution, width = _eliminate(plan, structure, system)
        reason = _reason(structure)

    def info() -> Info:
        return Info(
            method="dense" if method == "dense" else "exact",
            reason=reason,
            components=int(structure.component.max()) + 1,
            groups=len(structure.groups),
            blocks=len(structure.blocks.sites),
            width=width,
            residual=_residual(plan, structure, system, solution.mean.detach()),
            variances_exact=True,
        )

    return Posterior(plan.graph, plan.sites, solution, system.eta, system.log_scale, info)


def _reason(structure: Structure) -> str:
    parts = []
    if structure.groups:
        parts.append("elementwise factors through index maps: one elimination per pattern")
    if structure.blocks.sites:
        parts.append("matrix potentials or evidence: block elimination")
    return "; ".join(parts)


def _eliminate(plan: Plan, structure: Structure, system: System) -> tuple[Solution, int]:
    """Two-sweep elimination of every group and of the block system."""
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
            raise _improper(plan, structure, system, group.sites[:, copy])
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
            lambda v: _improper(plan, structure, system, _component_of(structure, own[v][0])),
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


def _solve_dense(plan: Plan, structure: Structure, system: System, joint: Gaussian) -> Solution:
    lower, info = torch.linalg.cholesky_ex(joint.precision)
    diagonal = lower.diagonal(dim1=-2, dim2=-1)
    bound = 16 * torch.finfo(diagonal.dtype).eps * joint.precision.diagonal(dim1=-2, dim2=-1)
    if bool((info > 0).any()) or not bool((diagonal.square() > bound).all()):
        weak = (~(diagonal.square() > bound)).reshape(-1, diagonal.shape[-1]).any(0).nonzero()
        bad = int(info.max()) - 1 if bool((info > 0).any()) else int(weak[0])
        raise _improper(plan, structure, system, _component_of(structure, bad))
    covariance = torch.cholesky_inverse(lower)
    mean = torch.cholesky_solve(joint.eta.unsqueeze(-1), lower.expand(*joint.eta.shape, -1)).squeeze(-1)
    return Solution(
        mean,
        lambda: 2 * diagonal.log().sum(-1),
        lambda: covariance.diagonal(dim1=-2, dim2=-1),
        lambda rows, columns: covariance[..., rows.to(covariance.device), columns.to(covariance.device)],
    )


def _residual(plan: Plan, structure: Structure, system: System, mean: Tensor) -> float:
    """|Lambda mean - eta| / |eta| of the whole system (0 for eta = 0)."""
    with torch.no_grad():
        product = system.diagonal * mean
        if len(plan.pairs):
            kept = structure.group[plan.pairs[:, 0]] >= 0
            index = torch.from_numpy(plan.pairs[kept]).to(mean.device)
            values = system.pairs[torch.from_numpy(kept).to(mean.device)]
            product = product.index_add(-1, index[:, 0], values * mean[..., index[:, 1]])
            product = product.index_add(-1, index[:, 1], values * mean[..., index[:, 0]])
        sites = [torch.from_numpy(s).to(mean.device) for s in structure.blocks.sites]
        if sites:
            parts = [torch.zeros_like(mean[..., s]) for s in sites]
            for (a, b), matrix in system.blocks.items():
                parts[a] = parts[a] + block._times(matrix, mean[..., sites[b]])
                if a != b:
                    parts[b] = parts[b] + block._times(matrix.mT, mean[..., sites[a]])
            product = product.index_copy(-1, torch.cat(sites), torch.cat(parts, -1))
        norm = system.eta.norm().item()
        return (product - system.eta).norm().item() / norm if norm > 0 else 0.0


def _component_of(structure: Structure, site: int) -> np.ndarray:
    return np.flatnonzero(structure.component == structure.component[site])


def _improper(plan: Plan, structure: Structure, system: System, sites: np.ndarray) -> ImproperGraphError:
    """Describe a component whose precision is not positive definite: its nodes, the direction, and a cure."""
    names = [n for n in plan.graph.variables if np.isin(plan.sites.index[n].numpy(), sites).any()]
    listed = ", ".join(map(repr, names[:8])) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    if len(sites) > LARGEST_DENSE:
        return ImproperGraphError(
            f"the joint density is improper on the component of {listed} ({len(sites)} elements)", nodes=names
        )
    matrix = _dense_component(plan, structure, system, sites)
    values, vectors = torch.linalg.eigh(matrix)
    worst = int(values[..., 0].reshape(-1).argmin())
    low = values[..., 0].reshape(-1)[worst].item()
    direction = vectors[..., :, 0].reshape(-1, len(sites))[worst]
    share = {}
    for name in names:
        own = np.isin(sites, plan.sites.index[name].numpy())
        share[name] = direction[torch.from_numpy(own)].norm().item()
    leading = sorted(share, key=lambda n: -share[n])[:4]
    shown = ", ".join(f"{n!r} ({share[n]:.2f})" for n in leading)
    scale = matrix.diagonal(dim1=-2, dim2=-1).abs().max().item()
    if low > -1e-6 * max(scale, 1e-300):
        cause = (
            "nothing fixes a direction of it; give one of these nodes evidence, or a prior: "
            f"graph.add_factor('prior', [{leading[0]!r}], Evidence(0.0, precision=1.0))"
        )
    else:
        cause = (
            "its potentials are too strong together; weaken them (smaller |rho|), fit them jointly with ps.fit, or add "
            f"a precision of more than {-low:.3g} to these nodes"
        )
    return ImproperGraphError(
        f"the joint density is improper on the component of {listed}: along a direction that is mostly {shown} the "
        f"precision is {low:.3g}: {cause}",
        nodes=names,
        smallest_eigenvalue=low,
        direction=direction,
    )


def _dense_component(plan: Plan, structure: Structure, system: System, sites: np.ndarray) -> Tensor:
    """The precision of one component, ``(*batch, n, n)``, float64 on the CPU."""
    place = np.full(plan.sites.size, -1, dtype=np.int64)
    place[sites] = np.arange(len(sites))
    if structure.group[sites[0]] >= 0:
        matrix = torch.diag_embed(system.diagonal[..., torch.from_numpy(sites).to(system.diagonal.device)])
        matrix = matrix.detach().double().cpu()
        for k in np.flatnonzero(place[plan.pairs[:, 0]] >= 0) if len(plan.pairs) else ():
            a, b = place[plan.pairs[k]]
            matrix[..., a, b] += system.pairs[k].item()
            matrix[..., b, a] += system.pairs[k].item()
        return matrix
    batch = next(iter(system.blocks.values())).shape[:-2]
    matrix = torch.zeros(*batch, len(sites), len(sites), dtype=torch.float64)
    for (a, b), values in system.blocks.items():
        rows, columns = place[structure.blocks.sites[a]], place[structure.blocks.sites[b]]
        if rows[0] < 0 or columns[0] < 0:
            continue
        values = values.detach().double().cpu()
        matrix[..., torch.from_numpy(rows)[:, None], torch.from_numpy(columns)] = values
        matrix[..., torch.from_numpy(columns)[:, None], torch.from_numpy(rows)] = values.mT
    return matrix


def _lead(values: Tensor) -> Tensor:
    """(*batch, n, G) to (n, *batch, G)."""
    return values.movedim(-2, 0)


def _unlead(values: Tensor) -> Tensor:
    return values.movedim(0, -2)


def _pad(factor: Tensor, batch_ndim: int) -> Tensor:
    """(slots, *lead, G) with room for `batch_ndim` batch dimensions."""
    missing = batch_ndim - (factor.ndim - 2)
    return factor.reshape(factor.shape[0], *(1,) * missing, *factor.shape[1:]) if missing > 0 else factor
