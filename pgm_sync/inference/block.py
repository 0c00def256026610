"""Block elimination: the same two sweeps with a dense matrix in the place of every number.

A system is a dictionary of blocks: ``(a, b)`` with a <= b holds ``(*batch, size_a, size_b)``; blocks that are not in
it are zero.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .ordering import Elimination
from .pivots import weak_rows

Blocks = dict[tuple[int, int], Tensor]


class BlockFactor(NamedTuple):
    """Per eliminated block: the Cholesky factor of its pivot, and ``W = L^{-1} Lambda_{v,later}``."""

    elimination: Elimination
    lower: dict[int, Tensor]  # (*batch, s, s)
    cross: dict[int, Tensor]  # (*batch, s, sum of the later sizes)
    sizes: list[int]
    failed: int | None  # the first block whose pivot is not positive definite; nothing after it is valid


def factorise(
    elimination: Elimination,
    sizes: list[int],
    system: Blocks,
    units: float,
) -> BlockFactor:
    """Collect: eliminate block after block, up to a pivot that is not positive definite.

    `units` of rounding may add up, see `weak`.
    """
    blocks = dict(system)
    lower: dict[int, Tensor] = {}
    cross: dict[int, Tensor] = {}
    for v, later in zip(elimination.order, elimination.later, strict=True):
        pivot = blocks[v, v]
        factor, info = torch.linalg.cholesky_ex(pivot)
        if bool(weak_rows(factor, info, system[v, v].diagonal(dim1=-2, dim2=-1), units).any()):
            return BlockFactor(elimination, lower, cross, sizes, v)
        lower[v] = factor
        if not later:
            continue
        row = torch.cat([_get(blocks, v, u, sizes, pivot) for u in later], -1)
        cross[v] = torch.linalg.solve_triangular(factor, row, upper=False)
        edges = [0]
        for u in later:
            edges.append(edges[-1] + sizes[u])
        for i, a in enumerate(later):
            left = cross[v][..., edges[i] : edges[i + 1]]
            for j in range(i, len(later)):
                b = later[j]
                update = left.mT @ cross[v][..., edges[j] : edges[j + 1]]
                key, update = ((a, b), update) if a <= b else ((b, a), update.mT)
                blocks[key] = blocks[key] - update if key in blocks else -update
    return BlockFactor(elimination, lower, cross, sizes, None)


def solve(factor: BlockFactor, right: list[Tensor]) -> list[Tensor]:
    """Solution of ``Lambda x = right``, one ``(*batch, size)`` per block."""
    x = list(right)
    for v, later in zip(factor.elimination.order, factor.elimination.later, strict=True):
        x[v] = _triangular(factor.lower[v], x[v])
        if later:
            messages = times(factor.cross[v].mT, x[v]).split([factor.sizes[u] for u in later], -1)
            for u, message in zip(later, messages, strict=True):
                x[u] = x[u] - message
    return root(factor, x)


def root(factor: BlockFactor, white: list[Tensor]) -> list[Tensor]:
    """``L^{-T} white``, one ``(*batch, size)`` per block: samples with covariance ``Lambda^{-1}``."""
    x = list(white)
    backward = zip(reversed(factor.elimination.order), reversed(factor.elimination.later), strict=True)
    for v, later in backward:
        if later:
            x[v] = x[v] - times(factor.cross[v], torch.cat(_same_batch([x[u] for u in later]), -1))
        x[v] = _triangular(factor.lower[v].mT, x[v], upper=True)
    return x


def selected_inverse(factor: BlockFactor) -> Blocks:
    """Blocks of the inverse on the pattern: the covariances that the distribute sweep passes on."""
    inverse: Blocks = {}
    backward = zip(reversed(factor.elimination.order), reversed(factor.elimination.later), strict=True)
    for v, later in backward:
        root = torch.linalg.solve_triangular(
            factor.lower[v],
            torch.eye(factor.sizes[v], dtype=factor.lower[v].dtype, device=factor.lower[v].device).expand_as(
                factor.lower[v]
            ),
            upper=False,
        )
        own = root.mT @ root
        if later:
            known = torch.cat(
                [torch.cat([_get(inverse, a, b, factor.sizes, own) for b in later], -1) for a in later], -2
            )
            gain = root.mT @ factor.cross[v]  # Lambda_vv^{-1} Lambda_v,later
            cross = -gain @ known
            own = own - cross @ gain.mT
            for u, part in zip(later, cross.split([factor.sizes[u] for u in later], -1), strict=True):
                inverse[min(u, v), max(u, v)] = part if v <= u else part.mT
        inverse[v, v] = own
    return inverse


def log_determinant(factor: BlockFactor) -> Tensor:
    """log |Lambda|, ``(*batch)``."""
    return sum(2 * lower.diagonal(dim1=-2, dim2=-1).log().sum(-1) for lower in factor.lower.values())  # type: ignore[return-value]


def _get(blocks: Blocks, a: int, b: int, sizes: list[int], like: Tensor) -> Tensor:
    block = blocks.get((min(a, b), max(a, b)))
    if block is None:
        return like.new_zeros(*like.shape[:-2], sizes[a], sizes[b])
    block = block if a <= b else block.mT
    return block.expand(*like.shape[:-2], *block.shape[-2:])


def _same_batch(parts: list[Tensor]) -> list[Tensor]:
    batch = torch.broadcast_shapes(*(p.shape[:-1] for p in parts))
    return [p.expand(*batch, p.shape[-1]) for p in parts]


def times(matrix: Tensor, vectors: Tensor) -> Tensor:
    """``matrix @ v`` for ``(*batch, n)`` vectors; one GEMM where the matrix has no batch."""
    if matrix.ndim == 2:
        return vectors @ matrix.mT
    return (matrix @ vectors.unsqueeze(-1)).squeeze(-1)


def _triangular(matrix: Tensor, vectors: Tensor, upper: bool = False) -> Tensor:
    """``matrix^{-1} v`` for ``(*batch, n)`` vectors."""
    if matrix.ndim == 2:
        flat = vectors.reshape(-1, vectors.shape[-1])
        return torch.linalg.solve_triangular(matrix, flat.mT, upper=upper).mT.reshape(vectors.shape)
    batch = torch.broadcast_shapes(matrix.shape[:-2], vectors.shape[:-1])
    vectors = vectors.expand(*batch, vectors.shape[-1]).unsqueeze(-1)
    return torch.linalg.solve_triangular(matrix, vectors, upper=upper).squeeze(-1)
