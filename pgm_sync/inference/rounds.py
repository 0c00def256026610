"""Elimination of few copies of a large pattern: all pivots of a round at once.

The same functions as in `elimination`, over stacked tensors ``(positions or slots, *batch, G)``. A round is a set of
pivots that do not send to each other, so its depth, not the number of nodes, counts: about log2(n) rounds for a chain
under the "odd-even" order.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
from torch import Tensor

from .ordering import ScalarScheme


class Steps(NamedTuple):
    """The index arrays of a `Round` on a device."""

    pivots: Tensor
    column: Tensor
    of: Tensor
    to: Tensor
    first: Tensor
    second: Tensor
    target: Tensor
    left: Tensor
    right: Tensor
    between: Tensor


def on_device(scheme: ScalarScheme, device: torch.device) -> list[Steps]:
    """The rounds of a scheme with their indices on `device`."""

    def moved() -> list[Steps]:
        return [Steps(*(torch.from_numpy(part).to(device) for part in r)) for r in scheme.rounds]

    return scheme.kept("rounds", device, moved)


def factorise(scheme: ScalarScheme, steps: list[Steps], diagonal: Tensor, edges: Tensor) -> Tensor:
    """L D L' of every copy: ``(slots, *batch, G)``, pivots D on the diagonal slots, L on the others."""
    values = diagonal.new_zeros(scheme.slots, *diagonal.shape[1:])
    values = values.index_copy(0, torch.arange(scheme.n, device=values.device), diagonal)
    if len(scheme.edge_slots):
        slots = scheme.kept(
            "edge slots", values.device, lambda: torch.tensor(scheme.edge_slots, device=values.device)
        )
        values = values.index_copy(0, slots, edges.expand(len(slots), *values.shape[1:]))
    for step in steps:
        if not len(step.column):
            continue
        raw = values.index_select(0, step.column)
        scaled = raw / values.index_select(0, step.pivots).index_select(0, step.of)
        subtract_rows(values, step.target, scaled[step.first] * raw[step.second])
        values.index_copy_(0, step.column, scaled)
    return values


def solve(scheme: ScalarScheme, steps: list[Steps], factor: Tensor, right: Tensor) -> Tensor:
    """Solution of ``Lambda x = right`` for ``right (n, *batch, G)``."""
    x = right.clone(memory_format=torch.contiguous_format)
    for step in steps:
        if len(step.column):
            sent = factor[step.column] * x[step.pivots[step.of]]
            subtract_rows(x, step.to, sent)
    return _backward(steps, factor, (x / factor[: scheme.n]).contiguous())


def root(scheme: ScalarScheme, steps: list[Steps], factor: Tensor, white: Tensor) -> Tensor:
    """``L^{-T} D^{-1/2} white``: samples with covariance ``Lambda^{-1}``."""
    return _backward(steps, factor, (white * factor[: scheme.n].rsqrt()).contiguous())


def _backward(steps: list[Steps], factor: Tensor, x: Tensor) -> Tensor:
    for step in reversed(steps):
        if len(step.column):
            subtract_rows(x, step.pivots[step.of], factor[step.column] * x[step.to])
    return x


def selected_inverse(scheme: ScalarScheme, steps: list[Steps], factor: Tensor) -> Tensor:
    """Entries of the inverse on the filled pattern (Takahashi): ``(slots, *batch, G)``, variances on 0 .. n-1."""
    zero = functools.partial(torch.zeros_like, memory_format=torch.contiguous_format)
    inverse = zero(factor)
    for step in reversed(steps):
        variance = factor[step.pivots].reciprocal()
        if len(step.column):
            lower = factor[step.column]
            cross = subtract_rows(zero(lower), step.left, inverse[step.between] * lower[step.right])
            # not in place: the derivative of the reciprocal is read from its value
            variance = variance + subtract_rows(zero(variance), step.of, lower * cross)
            inverse.index_copy_(0, step.column, cross)
        inverse.index_copy_(0, step.pivots, variance)
    return inverse


def subtract_rows(total: Tensor, index: Tensor, parts: Tensor) -> Tensor:
    """``total[index[k]] -= parts[k]`` in place, for rows of any shape.

    torch adds rows of more than one number one call at a time, which costs more than the numbers of a narrow row; a
    list of single numbers it adds in one loop.
    """
    width = total[0].numel()
    if width > 32:
        return total.index_add_(0, index, parts, alpha=-1)
    if width > 1:
        index = (index[:, None] * width + torch.arange(width, device=index.device)).flatten()
    total.view(-1).index_add_(0, index, parts.reshape(-1), alpha=-1)
    return total
