"""Preconditioned conjugate gradients: means of graphs whose elimination would be too large.

Never forms a factor: one product with the joint precision per iteration. Saad, Iterative Methods for Sparse Linear
Systems, 2003, algorithm 9.1; probing for variances as in Tang and Saad, 2012.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.sparse import coo_array, csr_array, eye_array
from torch import Tensor
from tqdm.auto import tqdm

from ..errors import ConvergenceError, ImproperGraphError, UnsupportedError
from .block import times
from .posterior import Solution
from .problem import Problem, product

UNIT_SOLVES = 256  # up to so many sites, variances come from one solve each
DISTANCE = 4  # sites nearer than this get different colours in probing


class Operator:
    """``Lambda @ x`` and a preconditioner over columns ``(sites, batch)``, without gradients."""

    def __init__(self, problem: Problem):
        system, structure = problem.system, problem.structure
        self.device, self.dtype = system.eta.device, system.eta.dtype
        self.size = problem.plan.sites.size
        self.batch = system.eta.shape[:-1]
        self._diagonal = self.columns(system.diagonal.detach())
        pairs, values = problem.plan.pairs, system.pairs.detach()
        kept = torch.from_numpy(structure.group[pairs[:, 0]] >= 0).to(self.device)
        ends = torch.from_numpy(pairs).to(self.device)[kept].T
        both = torch.cat([ends, ends.flip(0)], 1)
        self.couplings = torch.sparse_coo_tensor(
            both, values[kept].repeat(2), (self.size, self.size), check_invariants=False
        ).coalesce()
        with warnings.catch_warnings():
            # torch calls its CSR format beta; products with COO take six times as long
            warnings.simplefilter("ignore", UserWarning)
            self._rows = self.couplings.to_sparse_csr()
        self._sites = [torch.from_numpy(s).to(self.device) for s in structure.blocks.sites]
        self._blocks = {key: block.detach() for key, block in system.blocks.items()}
        self._roots = []
        for b, sites in enumerate(self._sites):
            self._diagonal[sites] = 0  # the blocks hold it
            root, info = torch.linalg.cholesky_ex(self._blocks[b, b])
            if bool((info > 0).any()):
                raise _indefinite(problem, sites)
            self._roots.append(root)
        weak = ~(self._diagonal > 0)
        if self._sites:
            weak[torch.cat(self._sites)] = False
        if bool(weak.any()):
            raise _indefinite(problem, weak.any(1).nonzero()[:, 0])
        self._inverse = torch.where(self._diagonal > 0, self._diagonal, 1.0).reciprocal()

    def columns(self, values: Tensor) -> Tensor:
        """``(*batch, sites)`` with the batch of eta or a shorter one, as ``(sites, batch or 1)``."""
        if values.ndim == 1:
            return values[:, None].clone()
        return values.expand(*self.batch, values.shape[-1]).reshape(-1, values.shape[-1]).T.contiguous()

    def rows(self, columns: Tensor) -> Tensor:
        """Back to ``(*batch, sites)``."""
        return columns.T.reshape(*self.batch, self.size)

    def __call__(self, x: Tensor) -> Tensor:
        out = self._diagonal * x
        out += self._rows @ x
        for (a, b), block in self._blocks.items():
            out.index_add_(0, self._sites[a], self._apply(times, block, x[self._sites[b]]))
            if a != b:
                out.index_add_(0, self._sites[b], self._apply(times, block.mT, x[self._sites[a]]))
        return out

    def precondition(self, r: Tensor) -> Tensor:
        """Jacobi on the elements, the diagonal blocks on vector nodes."""
        out = self._inverse * r
        for sites, root in zip(self._sites, self._roots, strict=True):
            out[sites] = self._apply(_cholesky_solve, root, r[sites])
        return out

    def _apply(self, call: Callable[[Tensor, Tensor], Tensor], matrix: Tensor, part: Tensor) -> Tensor:
        """A function of a matrix and vectors ``(*batch, s)`` on columns ``(s, batch)``."""
        if matrix.ndim == 2:
            return call(matrix, part.T).T
        out = call(matrix, part.T.reshape(*self.batch, len(part)))
        return out.reshape(-1, out.shape[-1]).T


def _cholesky_solve(root: Tensor, vectors: Tensor) -> Tensor:
    root = root.expand(*vectors.shape[:-1], *root.shape[-2:])
    return torch.cholesky_solve(vectors.unsqueeze(-1), root).squeeze(-1)


def conjugate_gradient(
    problem: Problem,
    start: Tensor | None = None,
    tolerance: float | None = None,
    max_iterations: int = 2000,
    progress: bool = False,
) -> Solution:
    """Means by preconditioned conjugate gradients to ``|Lambda mean - eta| <= tolerance |eta|`` for every problem.

    `start` are the means to begin with. `tolerance` is 1e-10 in float64 and 1e-5 in float32 unless given. Variances
    of more than `UNIT_SOLVES` sites are estimated by probing; covariances come from one solve each. The gradient is
    that of the exact solution (implicit differentiation, one more solve).

    Raises ConvergenceError (with `trace`, and `mean` as far as it got), ImproperGraphError where a direction without
    positive precision comes up.
    """
    system = problem.system
    if tolerance is None:
        tolerance = 1e-10 if system.eta.dtype == torch.float64 else 1e-5
    with torch.no_grad():
        operator = Operator(problem)
        trace: list[float] = []

        def columns(right: Tensor, guess: Tensor | None = None, record: list[float] | None = None) -> Tensor:
            return _iterate(problem, operator, right, guess, tolerance, max_iterations, progress, record)

        guess = None if start is None else operator.columns(start.to(system.eta).expand_as(system.eta))
        right = operator.columns(system.eta)
        found = operator.rows(columns(right, guess, trace))
        nothing = ~right.any(0)
        if bool(nothing.any()):  # solved without a product, which says nothing about the precision
            probe = torch.randn(operator.size, generator=torch.Generator().manual_seed(0)).to(right)
            columns(probe[:, None] * nothing)
    batched = operator._diagonal.shape[1] > 1 or any(b.ndim > 2 for b in system.blocks.values())

    def solve(right: Tensor) -> Tensor:
        with torch.no_grad():
            return operator.rows(columns(operator.columns(right.expand_as(system.eta))))

    mean = found
    if torch.is_grad_enabled() and _needs_gradient(problem):
        # The residual is zero, its derivative is not: d mean = Lambda^{-1} (d eta - d Lambda mean).
        mean = found + _Implicit.apply(system.eta - product(problem, found), solve)

    def unit_columns(sites: Tensor) -> Tensor:
        """Columns of the inverse, ``(sites, *precision batch, k)``."""
        with torch.no_grad():
            unit = torch.zeros(operator.size, len(sites), dtype=operator.dtype, device=operator.device)
            unit[sites.to(operator.device), torch.arange(len(sites), device=operator.device)] = 1
            if not batched:
                return columns(unit)
            lead = operator.batch
            each = [columns(unit[:, k : k + 1].expand(-1, lead.numel())) for k in range(len(sites))]
            return torch.stack(each, -1).reshape(operator.size, *lead, len(sites))

    def entries(rows: Tensor, others: Tensor) -> Tensor:
        needed, where = torch.unique(rows, return_inverse=True)
        parts = [unit_columns(chunk) for chunk in needed.split(64)]
        together = torch.cat(parts, -1)
        others, where = others.to(together.device), where.to(together.device)
        return together[others, ..., where].movedim(0, -1)

    def variance() -> Tensor:
        if operator.size <= UNIT_SOLVES:
            every = torch.arange(operator.size)
            return entries(every, every)
        return _probe(operator, columns, batched)

    def unsupported(*_: Any) -> Tensor:
        raise UnsupportedError(
            "conjugate gradients give means and covariances, no log evidence and no samples; use method='exact'",
            method="cg",
        )

    nonzero = operator.couplings.values().numel() + operator.size
    return Solution(
        mean,
        unsupported,
        variance,
        entries,
        solve,
        unsupported,
        plan=f"conjugate gradients, {len(trace) - 1} iterations; variances "
        + ("by one solve each" if operator.size <= UNIT_SOLVES else f"by probing at distance {DISTANCE}"),
        width=0,
        exact=operator.size <= UNIT_SOLVES,
        cost=float(nonzero * len(trace) * operator.batch.numel()),
        trace=tuple(trace),
    )


def _iterate(
    problem: Problem,
    operator: Operator,
    right: Tensor,
    guess: Tensor | None,
    tolerance: float,
    max_iterations: int,
    progress: bool,
    record: list[float] | None,
) -> Tensor:
    """Conjugate gradients on columns, each with its own step lengths; a column that has converged stays."""
    x = torch.zeros_like(right) if guess is None else guess.clone()
    r = right - operator(x) if guess is not None else right.clone()
    norm = right.norm(dim=0)
    target = tolerance * norm
    z = operator.precondition(r)
    p, rho = z.clone(), (r * z).sum(0)
    trace = [] if record is None else record
    bar = tqdm(disable=not progress, desc="conjugate gradients", total=max_iterations)
    for iteration in itertools.count():
        left = r.norm(dim=0)
        trace.append((left / norm.clamp_min(torch.finfo(norm.dtype).tiny)).max().item())
        active = left > target
        if not bool(active.any()):
            break
        if iteration == max_iterations:
            raise ConvergenceError(
                f"conjugate gradients: residual {trace[-1]:.2g} after {iteration} iterations, above the tolerance "
                f"{tolerance:.2g}; raise max_iterations or tolerance, pass start=, or use method='exact'",
                trace=tuple(trace),
                mean=operator.rows(x) if x.shape[1] == operator.batch.numel() else None,
            )
        applied = operator(p)
        curvature = (p * applied).sum(0)
        bad = active & ~(curvature > 0)
        if bool(bad.any()):
            direction = p[:, int(bad.nonzero()[0])]
            raise _indefinite(problem, direction.abs().topk(min(4, len(direction))).indices, direction)
        alpha = torch.where(active, rho / curvature, 0.0)
        x += alpha * p
        r -= alpha * applied
        if iteration % 50 == 49:  # what rounding has added
            r = right - operator(x)
        z = operator.precondition(r)
        following = (r * z).sum(0)
        beta = torch.where(active & (rho > 0), following / rho, 0.0)
        p, rho = z + beta * p, following
        bar.update()
    bar.close()
    return x


def _indefinite(problem: Problem, sites: Tensor, direction: Tensor | None = None) -> ImproperGraphError:
    graph, index = problem.plan.graph, problem.plan.sites.index
    wanted = sites.cpu().numpy()
    names = [name for name in graph.variables if np.isin(wanted, index[name].numpy()).any()]
    return ImproperGraphError(
        "conjugate gradients met a direction without positive precision, mostly on "
        f"{', '.join(map(repr, names[:4]))}: the joint density is improper; weaken the potentials there or give these "
        "nodes evidence (method='exact' tells more)",
        nodes=names,
        direction=direction,
    )


class _Implicit(torch.autograd.Function):
    """``Lambda^{-1} r`` for an r that is zero: forwards nothing, backwards one solve."""

    @staticmethod
    def forward(ctx: Any, residual: Tensor, solve: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.solve = solve
        return torch.zeros_like(residual)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.solve(gradient), None


def _needs_gradient(problem: Problem) -> bool:
    system = problem.system
    tensors = (system.eta, system.diagonal, system.pairs, *system.blocks.values())
    return any(tensor.requires_grad for tensor in tensors)


def _probe(operator: Operator, columns: Callable[..., Tensor], batched: bool) -> Tensor:
    """Diagonal of the inverse from one solve per colour, with random signs: sites of one colour are far apart."""
    colours = torch.from_numpy(colouring(_pattern(operator), DISTANCE)).to(operator.device)
    generator = torch.Generator().manual_seed(0)
    signs = torch.randint(0, 2, (operator.size,), generator=generator).to(operator.device) * 2 - 1
    lead = operator.batch.numel() if batched else 1
    out = torch.zeros(operator.size, lead, dtype=operator.dtype, device=operator.device)
    for colour in range(int(colours.max()) + 1):
        own = colours == colour
        probe = torch.where(own, signs, 0).to(operator.dtype)[:, None].expand(-1, lead)
        out[own] = (columns(probe) * probe)[own]
    return operator.rows(out) if batched else out[:, 0]


def _pattern(operator: Operator) -> csr_array:
    i, j = operator.couplings.indices().cpu().numpy()
    shape = (operator.size, operator.size)
    pattern = coo_array((np.ones(len(i), dtype=np.int8), (i, j)), shape=shape).tocsr()
    for a, b in operator._blocks:
        rows, others = (operator._sites[k].cpu().numpy() for k in (a, b))
        i, j = (k.reshape(-1) for k in np.meshgrid(rows, others, indexing="ij"))
        pattern = pattern + coo_array((np.ones(len(i), dtype=np.int8), (i, j)), shape=shape).tocsr()
    return pattern


def colouring(pattern: csr_array, distance: int) -> np.ndarray:
    """Colours such that sites with a path of less than `distance` edges between them differ; greedy, in order."""
    step = (pattern + pattern.T + eye_array(pattern.shape[0], dtype=np.int8, format="csr")) > 0
    near = step
    for _ in range(distance - 2):
        near = (near.astype(np.int32) @ step.astype(np.int32)) > 0
    near = near.tocsr()
    colours = np.full(pattern.shape[0], -1, dtype=np.int64)
    for site in range(len(colours)):
        taken = set(colours[near.indices[near.indptr[site] : near.indptr[site + 1]]].tolist())
        colours[site] = next(c for c in itertools.count() if c not in taken)
    return colours
