"""Elimination of many small systems of one pattern together: every operation as wide as there are copies.

Plain functions over *lanes*: a list with one tensor ``(*batch, G)`` per position or slot of a `ScalarScheme`, G the
copies of the pattern (one per element). This is two-sweep message passing on the clique tree: the forward sweep of
`factorise` and `solve` collects, the backward sweep of `solve` and `selected_inverse` distributes. There is no
data-dependent control flow, so that the functions trace (torch.compile, CUDA graphs).

Where few copies of a large pattern are solved, `rounds` does the same with all independent pivots at once.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .ordering import ScalarScheme

Lanes = list[Tensor]


class Factor(NamedTuple):
    """L D L' of every copy; L as the gains -L that the sweeps multiply by: what x_u says of the mean of x_v."""

    pivots: Lanes  # per position: D
    inverses: Lanes  # per position: 1 / D
    gains: dict[int, Tensor]  # per slot off the diagonal: -L


def factorise(scheme: ScalarScheme, diagonal: Lanes, edges: Lanes) -> Factor:
    """L D L' from the diagonal (one lane per position) and the entries of ``scheme.edges`` (one lane each).

    Pivots are not checked here: a copy that is not positive definite has one that is not positive.
    """
    values = _Accumulated(diagonal)
    values.lanes.update(zip(scheme.edge_slots, edges, strict=True))
    inverses: Lanes = [diagonal[0]] * scheme.n
    gains = {}
    for node, _, column, pairs in scheme.pivots:
        inverses[node] = inverse = values.lanes[node].reciprocal()
        raw = [values.lanes[slot] for slot in column]
        minus = -inverse if raw else inverse
        for i, slot in enumerate(column):
            gains[slot] = gain = raw[i] * minus
            for j in range(i + 1):
                values.add(pairs[i][j], gain, raw[j])
    return Factor([values.lanes[node] for node in range(scheme.n)], inverses, gains)


def solve(scheme: ScalarScheme, factor: Factor, right: Lanes) -> Lanes:
    """Solution of ``Lambda x = right``, one lane per position."""
    x = _Accumulated(right)
    for node, later, column, _ in scheme.pivots:
        for u, slot in zip(later, column, strict=True):
            x.add(u, factor.gains[slot], x.lanes[node])
    for node in range(scheme.n):
        x.lanes[node] = x.lanes[node] * factor.inverses[node]
        x.owned.add(node)
    _backward(scheme, factor, x)
    return [x.lanes[node] for node in range(scheme.n)]


def root(scheme: ScalarScheme, factor: Factor, white: Lanes) -> Lanes:
    """``L^{-T} D^{-1/2} white``: samples with covariance ``Lambda^{-1}``."""
    x = _Accumulated([z * inverse.sqrt() for z, inverse in zip(white, factor.inverses, strict=True)])
    x.owned.update(range(scheme.n))
    _backward(scheme, factor, x)
    return [x.lanes[node] for node in range(scheme.n)]


def _backward(scheme: ScalarScheme, factor: Factor, x: _Accumulated) -> None:
    for node, later, column, _ in reversed(scheme.pivots):
        for u, slot in zip(later, column, strict=True):
            x.add(node, factor.gains[slot], x.lanes[u])


def selected_inverse(scheme: ScalarScheme, factor: Factor) -> dict[int, Tensor]:
    """Entries of the inverse on the filled pattern by slot (Takahashi): variances on the slots 0 .. n-1."""
    inverse: dict[int, Tensor] = {}
    for node, later, column, pairs in reversed(scheme.pivots):
        variance = factor.inverses[node]
        for i in range(len(later)):
            cross = inverse[pairs[i][0]] * factor.gains[column[0]]
            for j in range(1, len(later)):
                cross = _add(cross, inverse[pairs[i][j]], factor.gains[column[j]], owned=True)
            inverse[column[i]] = cross
            variance = _add(variance, cross, factor.gains[column[i]], owned=i > 0)
        inverse[node] = variance
    return inverse


class _Accumulated:
    """Lanes that products are added to: a copy at the first time, in place from then on."""

    def __init__(self, lanes: Lanes):
        self.lanes: dict[int, Tensor] = dict(enumerate(lanes))
        self.owned: set[int] = set()

    def add(self, slot: int, a: Tensor, b: Tensor) -> None:
        if slot in self.lanes:
            self.lanes[slot] = _add(self.lanes[slot], a, b, slot in self.owned)
        else:  # fill
            self.lanes[slot] = a * b
        self.owned.add(slot)


def _add(total: Tensor, a: Tensor, b: Tensor, owned: bool) -> Tensor:
    if owned and not (total.requires_grad or a.requires_grad or b.requires_grad):
        return total.addcmul_(a, b)
    return torch.addcmul(total, a, b)
