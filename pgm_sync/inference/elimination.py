"""Per-element elimination: many small systems of one pattern, solved together, every operation D-wide.

Plain functions over arrays whose first dimension is the node or slot of a `ScalarScheme` and whose last is the
copy of the pattern (one per element). This is two-sweep message passing on the clique tree: the forward sweep of
`factorise` and `solve` collects, the backward sweep of `solve` and `selected_inverse` distributes.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .ordering import ScalarScheme


def factorise(scheme: ScalarScheme, diagonal: Tensor, off_diagonal: Tensor) -> Tensor:
    """L D L' of every copy: ``(slots, *batch, G)``, pivots D on the diagonal slots, L on the others.

    `diagonal` is ``(n, *batch, G)``, `off_diagonal` ``(edges, *batch, G)``. Pivots are not checked here:
    a copy that is not positive definite has one that is not positive.
    """
    values = diagonal.new_zeros(scheme.slots, *diagonal.shape[1:])
    values = values.index_copy(0, torch.arange(scheme.n, device=values.device), diagonal)
    if len(scheme.edge_slots):
        values = values.index_copy(0, _on(scheme.edge_slots, values), off_diagonal)
    for node, neighbours, column, rows, columns, pairs in scheme.pivots:
        if not len(neighbours):
            continue
        raw = values.index_select(0, _on(column, values))
        scaled = raw / values[node].clone()
        update = scaled.index_select(0, _on(rows, values)) * raw.index_select(0, _on(columns, values))
        values.index_add_(0, _on(pairs, values), update, alpha=-1)
        values.index_copy_(0, _on(column, values), scaled)
    return values


def solve(scheme: ScalarScheme, factor: Tensor, right: Tensor) -> Tensor:
    """Solution of ``Lambda x = right`` for ``right (n, *batch, G)``."""
    x = right.clone()
    for node, neighbours, column, *_ in scheme.pivots:
        if len(neighbours):
            lower = factor.index_select(0, _on(column, x))
            x.index_add_(0, _on(neighbours, x), lower * x[node].clone(), alpha=-1)
    x = x / factor[: scheme.n]
    for node, neighbours, column, *_ in reversed(scheme.pivots):
        if len(neighbours):
            lower = factor.index_select(0, _on(column, x))
            message = (lower * x.index_select(0, _on(neighbours, x))).sum(0)
            x.index_add_(0, torch.tensor([node], device=x.device), message[None], alpha=-1)
    return x


def selected_inverse(scheme: ScalarScheme, factor: Tensor) -> Tensor:
    """Entries of the inverse on the pattern (Takahashi): ``(slots, *batch, G)``, variances on the diagonal slots."""
    inverse = torch.zeros_like(factor)
    for (node, neighbours, column, *_), block in zip(
        reversed(scheme.pivots), reversed(scheme.full_slots), strict=True
    ):
        variance = 1 / factor[node]
        if len(neighbours):
            k = len(neighbours)
            lower = factor.index_select(0, _on(column, factor))
            known = inverse.index_select(0, _on(block.reshape(-1), factor)).reshape(k, k, *factor.shape[1:])
            cross = -(known * lower[:, None]).sum(0)
            variance = variance - (lower * cross).sum(0)
            inverse.index_copy_(0, _on(column, factor), cross)
        inverse.index_copy_(0, torch.tensor([node], device=factor.device), variance[None])
    return inverse


def _on(index: np.ndarray, like: Tensor) -> Tensor:
    return torch.from_numpy(index).to(like.device)
