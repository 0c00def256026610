"""Block elimination in rounds: blocks of one size that do not meet go at once, in batched matrix operations.

As `rounds` is to `elimination`: a chain of n vector nodes takes about log2(n) rounds under the "odd-even" order.
Tensors are ``(blocks or slots, *batch, s, s)``; the slot of a pair holds the block in the order of its numbers.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .ordering import ScalarScheme
from .pivots import weak_rows


class Steps(NamedTuple):
    """The index arrays of a `Round` on a device, and which entries are stored the other way round."""

    pivots: Tensor  # (p,)
    column: Tensor  # (E,) slots
    of: Tensor  # (E,) which of the pivots
    to: Tensor  # (E,) the later neighbour
    flip: Tensor  # (E,) whether the slot holds (neighbour, pivot)
    first: Tensor  # (U,) entry, of the lower neighbour
    second: Tensor  # (U,) entry, of the higher neighbour
    target: Tensor  # (U,) slot that the two update
    left: Tensor  # (F,) entry
    right: Tensor  # (F,) entry
    between: Tensor  # (F,) slot of the two entries' neighbours
    turn: Tensor  # (F,) whether the slot holds (left, right), not (right, left)


class BlockRoundFactor(NamedTuple):
    """Per block the Cholesky factor of its pivot; per round ``W = L^{-1} Lambda_{v,later}`` of its entries."""

    lower: Tensor  # (n, *batch, s, s)
    cross: list[Tensor]  # (E, *batch, s, s)
    failed: Tensor  # (n,), whether a pivot is not positive definite


def on_device(scheme: ScalarScheme, device: torch.device) -> list[Steps]:
    """The rounds of a scheme for blocks, with their indices on `device`."""
    return scheme.kept("block rounds", device, lambda: _steps(scheme, device))


def _steps(scheme: ScalarScheme, device: torch.device) -> list[Steps]:
    found = []
    for r in scheme.rounds:
        to_first, to_second = r.to[r.first], r.to[r.second]
        swap = to_first > to_second
        first, second = r.first.copy(), r.second.copy()
        first[swap], second[swap] = r.second[swap], r.first[swap]
        parts = (
            r.pivots, r.column, r.of, r.to, r.pivots[r.of] > r.to, first, second, r.target, r.left, r.right,
            r.between, r.to[r.right] > r.to[r.left],
        )  # fmt: skip
        found.append(Steps(*(torch.from_numpy(part).to(device) for part in parts)))
    return found


def factorise(scheme: ScalarScheme, steps: list[Steps], values: Tensor, units: float) -> BlockRoundFactor:
    """Eliminate round after round; `values` are the slots of the precision, 0 where there is fill.

    `units` of rounding may add up, see `weak`.
    """
    values = values.clone()
    n = scheme.n
    lower: list[Tensor] = []
    order, failed, crosses = [], [], []
    scale = values[:n].detach().diagonal(dim1=-2, dim2=-1)
    for step in steps:
        root, info = torch.linalg.cholesky_ex(values.index_select(0, step.pivots))
        bad = weak_rows(root, info, scale[step.pivots], units).reshape(len(step.pivots), -1).any(1)
        lower.append(root)
        order.append(step.pivots)
        failed.append(bad)
        cross = _turned(values.index_select(0, step.column), step.flip)
        if len(step.column):
            cross = torch.linalg.solve_triangular(root.index_select(0, step.of), cross, upper=False)
            update = cross[step.first].mT @ cross[step.second]
            values = values.index_add(0, step.target, update, alpha=-1)
        crosses.append(cross)
    back = torch.cat(order).argsort()
    return BlockRoundFactor(torch.cat(lower)[back], crosses, torch.cat(failed)[back])


def solve(steps: list[Steps], factor: BlockRoundFactor, right: Tensor) -> Tensor:
    """Solution of ``Lambda x = right`` for ``right (n, *batch, s)``."""
    x = _spread(factor, right)
    for step, cross in zip(steps, factor.cross, strict=True):
        own = _solve(factor.lower[step.pivots], x[step.pivots])
        x = x.index_copy(0, step.pivots, own)
        if len(step.column):
            x = x.index_add(0, step.to, _times(cross.mT, own[step.of]), alpha=-1)
    return root(steps, factor, x)


def root(steps: list[Steps], factor: BlockRoundFactor, white: Tensor) -> Tensor:
    """``L^{-T} white``: samples with covariance ``Lambda^{-1}``."""
    x = _spread(factor, white)
    for step, cross in reversed(list(zip(steps, factor.cross, strict=True))):
        own = x[step.pivots]
        if len(step.column):
            own = own.index_add(0, step.of, _times(cross, x[step.to]), alpha=-1)
        x = x.index_copy(0, step.pivots, _solve(factor.lower[step.pivots].mT, own, upper=True))
    return x


def selected_inverse(scheme: ScalarScheme, steps: list[Steps], factor: BlockRoundFactor) -> Tensor:
    """Blocks of the inverse on the filled pattern: ``(slots, *batch, s, s)``."""
    like = factor.lower
    inverse = like.new_zeros(scheme.slots, *like.shape[1:])
    eye = torch.eye(like.shape[-1], dtype=like.dtype, device=like.device)
    for step, cross in reversed(list(zip(steps, factor.cross, strict=True))):
        lower = like[step.pivots]
        half = torch.linalg.solve_triangular(lower, eye.expand_as(lower), upper=False)
        own = half.mT @ half
        if len(step.column):
            gain = half.mT[step.of] @ cross  # Lambda_vv^{-1} Lambda_v,later
            known = _turned(inverse[step.between], step.turn)  # (right, left)
            covariance = torch.zeros_like(cross).index_add(0, step.left, gain[step.right] @ known, alpha=-1)
            own = own.index_add(0, step.of, covariance @ gain.mT, alpha=-1)
            inverse = inverse.index_copy(0, step.column, _turned(covariance, step.flip))
        inverse = inverse.index_copy(0, step.pivots, own)
    return inverse


def _spread(factor: BlockRoundFactor, vectors: Tensor) -> Tensor:
    """``(n, *batch, s)`` for a batch that is at least the factor's."""
    batch = torch.broadcast_shapes(factor.lower.shape[1:-2], vectors.shape[1:-1])
    missing = len(batch) - (vectors.ndim - 2)
    vectors = vectors.reshape(len(vectors), *(1,) * missing, *vectors.shape[1:])
    return vectors.expand(len(vectors), *batch, vectors.shape[-1])


def _turned(blocks: Tensor, flip: Tensor) -> Tensor:
    """The blocks, transposed where `flip` says so."""
    return torch.where(flip.reshape(-1, *(1,) * (blocks.ndim - 1)), blocks.mT, blocks)


def _times(matrix: Tensor, vectors: Tensor) -> Tensor:
    missing = vectors.ndim + 1 - matrix.ndim
    matrix = matrix.reshape(len(matrix), *(1,) * missing, *matrix.shape[1:])
    return (matrix @ vectors.unsqueeze(-1)).squeeze(-1)


def _solve(matrix: Tensor, vectors: Tensor, upper: bool = False) -> Tensor:
    missing = vectors.ndim + 1 - matrix.ndim
    matrix = matrix.reshape(len(matrix), *(1,) * missing, *matrix.shape[1:])
    batch = torch.broadcast_shapes(matrix.shape[:-2], vectors.shape[:-1])
    vectors = vectors.expand(*batch, vectors.shape[-1]).unsqueeze(-1)
    return torch.linalg.solve_triangular(matrix, vectors, upper=upper).squeeze(-1)
