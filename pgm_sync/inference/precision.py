"""Entries of the joint precision of a problem, as numbers: some of them, or all that are not zero."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.sparse import coo_array, csc_array
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import ArpackNoConvergence, eigsh
from torch import Tensor

from .problem import Problem


def precision_batch(problem: Problem) -> torch.Size:
    """The batch of the precision, which may be shorter than the batch of eta."""
    system = problem.system
    blocks = [b.shape[:-2] for b in system.blocks.values()]
    return torch.broadcast_shapes(system.diagonal.shape[:-1], system.pairs.shape[:-1], *blocks)


def precision_entries(problem: Problem, rows: np.ndarray, columns: np.ndarray) -> Tensor:
    """Entries (rows[k], columns[k]) of Lambda, ``(*precision batch, k)``; zeros where nothing couples."""
    plan, structure, system, _ = problem
    lead, device = precision_batch(problem), system.eta.device
    out = system.eta.new_zeros(*lead, len(rows))

    def put(where: np.ndarray, values: Tensor) -> Tensor:
        return out.index_copy(-1, torch.from_numpy(where).to(device), values.expand(*lead, len(where)))

    elementwise = structure.group[rows] >= 0
    same = np.flatnonzero(elementwise & (rows == columns))
    if len(same):
        out = put(same, system.diagonal[..., torch.from_numpy(rows[same]).to(device)])
    if len(plan.pairs):
        keys = plan.pairs[:, 0] * plan.sites.size + plan.pairs[:, 1]
        order = np.argsort(keys, kind="stable")
        wanted = np.minimum(rows, columns) * plan.sites.size + np.maximum(rows, columns)
        at = order[np.minimum(np.searchsorted(keys, wanted, sorter=order), len(keys) - 1)]
        hit = np.flatnonzero(elementwise & (keys[at] == wanted))
        if len(hit):
            out = put(hit, system.pairs[..., torch.from_numpy(at[hit]).to(device)])
    inside = np.flatnonzero(~elementwise & (structure.group[columns] < 0))
    if len(inside):
        ends = np.stack([rows[inside], columns[inside]])
        label, place = structure.position[ends], structure.copy[ends]
        flip = label[0] > label[1]
        label[:, flip], place[:, flip] = label[::-1, flip], place[::-1, flip]
        code = label[0] * len(structure.blocks.sites) + label[1]
        order = np.argsort(code, kind="stable")
        for chosen in np.split(order, np.flatnonzero(np.diff(code[order])) + 1):
            block = system.blocks.get((int(label[0, chosen[0]]), int(label[1, chosen[0]])))
            if block is not None:
                i, j = (torch.from_numpy(place[k, chosen]).to(device) for k in (0, 1))
                out = put(inside[chosen], block[..., i, j])
    return out if problem.coupling is None else out + problem.coupling.entries(rows, columns)


def precision_block(problem: Problem, sites: np.ndarray) -> Tensor:
    """Lambda over a few sites, ``(*precision batch, n, n)``."""
    n = len(sites)
    entries = precision_entries(problem, np.repeat(sites, n), np.tile(sites, n))
    return entries.reshape(*entries.shape[:-1], n, n)


class Coordinates(NamedTuple):
    """Lambda as a list: the diagonal, and every coupled pair of sites once. B problems, the batch made flat."""

    sites: np.ndarray  # (n,), the sites it is over
    diagonal: np.ndarray  # (B, n), float64
    ends: np.ndarray  # (m, 2), positions in `sites`
    values: np.ndarray  # (B, m), float64; no pair is zero in all of the batch

    def matrix(self, k: int) -> coo_array:
        """Problem k of the batch as a sparse matrix."""
        n, (i, j) = len(self.sites), self.ends.T
        diagonal = np.arange(n)
        rows, columns = np.concatenate([diagonal, i, j]), np.concatenate([diagonal, j, i])
        data = np.concatenate([self.diagonal[k], self.values[k], self.values[k]])
        return coo_array((data, (rows, columns)), shape=(n, n))

    def components(self) -> np.ndarray:
        """Labels ``(n,)`` of the parts that are not coupled to each other."""
        n, (i, j) = len(self.sites), self.ends.T
        adjacency = coo_array((np.ones(len(self.ends), dtype=np.int8), (i, j)), shape=(n, n))
        return connected_components(adjacency, directed=False)[1]

    def of(self, chosen: np.ndarray) -> Coordinates:
        """The rows and columns of some positions."""
        place = np.full(len(self.sites), -1, dtype=np.int64)
        place[chosen] = np.arange(len(chosen))
        ends = place[self.ends]
        kept = (ends >= 0).all(1)
        return Coordinates(self.sites[chosen], self.diagonal[:, chosen], ends[kept], self.values[:, kept])


def coordinates(problem: Problem) -> Coordinates:
    """All of Lambda, in float64 on the CPU."""
    plan, structure, system, _ = problem
    lead = precision_batch(problem)

    def flat(values: Tensor) -> np.ndarray:
        return (
            values.detach().double().cpu().expand(*lead, values.shape[-1]).reshape(lead.numel(), -1).numpy()
        )

    diagonal = flat(system.diagonal).copy()
    pairs, kept = plan.pairs, np.zeros(0, dtype=np.int64)
    if len(pairs):
        kept = np.flatnonzero(structure.group[pairs[:, 0]] >= 0)
    ends, values = [pairs[kept]], [flat(system.pairs)[:, kept]]
    for (a, b), block in system.blocks.items():
        rows, columns = structure.blocks.sites[a], structure.blocks.sites[b]
        if a == b:
            diagonal[:, rows] = flat(block.diagonal(dim1=-2, dim2=-1))
            i, j = np.triu_indices(len(rows), 1)
        else:
            i, j = (k.reshape(-1) for k in np.indices((len(rows), len(columns))))
        ends.append(np.stack([rows[i], columns[j]], 1))
        values.append(flat(block[..., torch.from_numpy(i), torch.from_numpy(j)]))
    ends_, values_ = np.concatenate(ends), np.concatenate(values, 1)
    coupled = (values_ != 0).any(0)
    return Coordinates(np.arange(plan.sites.size), diagonal, ends_[coupled], values_[:, coupled])


DENSE_UP_TO = 400  # rows, up to which eigenvalues come from LAPACK
NARROW = 6  # entries per row, up to which a sparse factor is cheap, as on chains and grids
PATIENCE = {True: 30, False: 1000}  # restarts of the plain Lanczos iteration before it takes over, narrow or not


def lowest(matrix: Any, tolerance: float = 0) -> tuple[float, np.ndarray]:
    """Smallest eigenvalue and unit eigenvector of a symmetric scipy matrix; by Lanczos iteration if it is large.

    `tolerance` is that of the vector (0: all digits); the value is its quotient ``v' matrix v``.

    The plain iteration is short where the spectrum has a gap, as random graphs have. Long chains and grids have none:
    there it goes on with ``(matrix - shift)^{-1}``, whose shift lies below all of Gershgorin's discs.
    """
    n = matrix.shape[0]
    if n <= DENSE_UP_TO:
        values, vectors = np.linalg.eigh(matrix.toarray())
        return float(values[0]), vectors[:, 0]
    matrix = csc_array(matrix)
    start = np.random.default_rng(0).standard_normal(n)
    try:
        patience = PATIENCE[matrix.nnz <= NARROW * n]
        _, vectors = eigsh(matrix, k=1, which="SA", v0=start, tol=tolerance, maxiter=patience)
    except ArpackNoConvergence:
        diagonal = matrix.diagonal()
        reach = abs(matrix).sum(0) - abs(diagonal)
        low, high = (diagonal - reach).min(), (diagonal + reach).max()
        shift = low - 1e-7 * max(high - low, abs(low), np.finfo(np.float64).tiny)
        _, vectors = eigsh(matrix, k=1, sigma=shift, which="LM", v0=start, tol=tolerance)
    return float(vectors[:, 0] @ (matrix @ vectors[:, 0])), vectors[:, 0]
