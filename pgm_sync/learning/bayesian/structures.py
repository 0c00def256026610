"""Correlation matrices whose inverse has the zeros of a graph, by free numbers; and the LKJ law on them.

The correlations rho_e of the edges determine the matrix R: of all completions the one with the largest determinant has
zeros of the inverse wherever there is no edge [Dempster 1972]. The prior on them is

    p(rho_E) ~ det(R(rho_E))^(concentration - 1)

with respect to Lebesgue measure on the edge correlations that can be completed. On a complete graph that is LKJ
[Lewandowski, Kurowicka, Joe 2009]; on a forest, where det R is the product of all 1 - rho_e^2, independent Beta
distributions stretched to (-1, 1); with concentration 1 it is uniform on every graph.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import networkx as nx
import torch
from torch import Tensor

from ...inference.ordering import eliminate_in


class Structure(Protocol):
    """Correlation matrices ``(..., K, K)`` of a graph on 0..K-1 in free coordinates ``(..., E)``, one per edge."""

    edges: list[tuple[int, int]]

    def evaluate(self, free: Tensor, scatter: Tensor, concentration: float) -> Evaluation:
        """What a density needs, for ``(..., K, K)`` scatter."""

    def precision(self, free: Tensor) -> Tensor:
        """``R^{-1}``, ``(..., K, K)``: exactly zero where there is no edge."""

    def edge_correlations(self, free: Tensor) -> Tensor:
        """``(..., E)``."""

    def coordinates(self, precision: Tensor) -> Tensor:
        """The free coordinates of a precision matrix of this graph, its scale ignored."""


class Evaluation(NamedTuple):
    """At free coordinates, ``(...)`` each."""

    log_prior: Tensor  # log density of the free coordinates, up to a constant
    log_det: Tensor  # of R
    trace: Tensor  # tr(R^{-1} scatter)


def structure_of(graph: nx.Graph) -> Structure:
    """For a graph on 0..K-1: closed forms on forests, a completed Cholesky factor elsewhere."""
    return Forest(graph) if nx.is_forest(graph) else Loopy(graph)


class Forest:
    """Free coordinates ``atanh(rho_e)``; everything in closed form (Eq. 2)."""

    def __init__(self, graph: nx.Graph):
        self.size = graph.number_of_nodes()
        self.edges = [(min(e), max(e)) for e in graph.edges]
        self._i, self._j = _columns(self.edges)

    def evaluate(self, free: Tensor, scatter: Tensor, concentration: float) -> Evaluation:
        diagonal, cross = scatter.diagonal(dim1=-2, dim2=-1), scatter[..., self._i, self._j]
        sides = diagonal[..., self._i] + diagonal[..., self._j]
        log_cosh, sinh, cosh = _log_cosh(free).sum(-1), free.sinh(), free.cosh()
        # rho / (1 - rho^2) = sinh cosh, rho^2 / (1 - rho^2) = sinh^2
        extra = (sinh * (sinh * sides - 2 * cosh * cross)).sum(-1)
        # (1 - rho^2)^(concentration - 1), and once more for d rho / d free
        return Evaluation(-2 * concentration * log_cosh, -2 * log_cosh, diagonal.sum(-1) + extra)

    def precision(self, free: Tensor) -> Tensor:
        out = torch.eye(self.size, dtype=free.dtype, device=free.device)
        out = out.expand(*free.shape[:-1], self.size, self.size).clone()
        cross, own = -free.sinh() * free.cosh(), free.sinh().square()
        out[..., self._i, self._j] = out[..., self._j, self._i] = cross
        for e, (i, j) in enumerate(self.edges):
            out[..., i, i] += own[..., e]
            out[..., j, j] += own[..., e]
        return out

    def edge_correlations(self, free: Tensor) -> Tensor:
        return free.tanh()

    def coordinates(self, precision: Tensor) -> Tensor:
        return _correlation(torch.linalg.inv(precision))[..., self._i, self._j].atanh()


class Loopy:
    """Any graph, by its completed Cholesky factor [Roverato 2002; Atay-Kayis, Massam 2005].

    With the nodes in an elimination order, ``R^{-1} = diag(s) U' U diag(s)`` for an upper triangular U with unit
    diagonal. Its entries on edges are free, ``U_ij = -sinh(free)``; those on fill edges are what makes the precision
    zero there, ``U_ij = -sum_{r<i} U_ri U_rj``; s are the standard deviations that ``(U' U)^{-1}`` has. So every choice
    of free numbers gives a positive definite matrix with the right zeros, and every such matrix has one choice.

    The volume element is ``|d rho_E / d U_E| ~ det I(R) prod_i s_i^(deg_i + 2)``, I(R) being the matrix of
    ``R_ik R_jl + R_il R_jk`` over edges and nodes (Isserlis), the derivative of covariances by precisions. Where there
    is no fill (chordal graphs) its determinant is a product over cliques and separators.
    """

    def __init__(self, graph: nx.Graph):
        self.size = graph.number_of_nodes()
        given = [(min(e), max(e)) for e in graph.edges]
        elimination = eliminate_in(self.size, given, "minimum fill")
        self._order = torch.tensor(elimination.order)
        place = {node: k for k, node in enumerate(elimination.order)}
        self.edges = given
        first, second = (
            [min(place[a], place[b]) for a, b in given],
            [max(place[a], place[b]) for a, b in given],
        )
        self._i, self._j = torch.tensor(first), torch.tensor(second)
        pairs = set(zip(first, second, strict=True))
        later = [sorted(place[u] for u in seen) for seen in elimination.later]
        fills = ((row, [c for c in columns if (row, c) not in pairs]) for row, columns in enumerate(later))
        self._fills = [(row, torch.tensor(columns)) for row, columns in fills if columns]
        self.chordal = not self._fills
        self._later = [torch.tensor(columns) for columns in later]
        degree = torch.zeros(self.size, dtype=torch.float64)
        for a, b in pairs:
            degree[a] += 1
            degree[b] += 1
        self._degree = degree
        every = torch.arange(self.size)
        rows, columns = torch.cat([self._i, every]), torch.cat([self._j, every])
        # Gathers as products with these: going back through an index costs ten times as much
        one = torch.eye(self.size, dtype=torch.float64)
        self._ends = one[rows], one[columns]
        self._place = torch.zeros(len(given), self.size**2, dtype=torch.float64)
        self._place[torch.arange(len(given)), self._i * self.size + self._j] = 1
        self._permute = one[self._order]
        self._zero = torch.ones(self.size, self.size, dtype=torch.bool)
        self._zero[rows, columns] = self._zero[columns, rows] = False
        self._back = torch.argsort(self._order)

    def _factor(self, free: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """U, its inverse, and log s, in elimination order."""
        eye = torch.eye(self.size, dtype=free.dtype)
        upper = eye - (free.sinh() @ self._place).unflatten(-1, (self.size, self.size))
        for row, columns in self._fills:
            if row:
                filled = -(upper[..., :row, row, None] * upper[..., :row, columns]).sum(-2)
                upper = upper.clone()  # backward needs what was read
                upper[..., row, columns] = filled
        inverse = torch.linalg.solve_triangular(upper, eye, upper=True, unitriangular=True)
        return upper, inverse, 0.5 * inverse.square().sum(-1).log()

    def evaluate(self, free: Tensor, scatter: Tensor, concentration: float) -> Evaluation:
        upper, inverse, log_s = self._factor(free)
        s = log_s.exp()
        root = inverse / s[..., None]
        weight = self._degree + 2 - 2 * (concentration - 1)
        volume = self._log_det_isserlis(root @ root.mT, log_s)
        log_prior = volume + (weight * log_s).sum(-1) + _log_cosh(free).sum(-1)
        whiten = (upper * s[..., None, :]) @ self._permute
        return Evaluation(log_prior, -2 * log_s.sum(-1), ((whiten @ scatter) * whiten).sum((-2, -1)))

    def _log_det_isserlis(self, correlation: Tensor, log_s: Tensor) -> Tensor:
        if not self.chordal:
            a, b = self._ends
            first, second = a @ correlation, b @ correlation
            matrix = (first @ a.T) * (second @ b.T) + (first @ b.T) * (second @ a.T)
            return _log_det(matrix)
        # det R_C^(|C|+1) over cliques, by separators: telescoped along the order, where the variance of a node given
        # its later neighbours N is 1, so that det R_{iN} = det R_N / s_i^2.
        count = torch.tensor([len(n) for n in self._later], dtype=log_s.dtype)
        total = (-2 * (count + 2) * log_s).sum(-1)
        for node, later in enumerate(self._later):
            if len(later) == self.size - 1 - node:  # all that are left: the products go on
                total = total - 2 * log_s[..., node + 1 :].sum(-1)
            elif len(later) > 1:
                total = total + _log_det(correlation[..., later[:, None], later])
        return total

    def precision(self, free: Tensor) -> Tensor:
        upper, _, log_s = self._factor(free)
        root = upper * log_s.exp()[..., None, :]
        ordered = (root.mT @ root).masked_fill(self._zero, 0.0)  # what rounding leaves
        return ordered[..., self._back[:, None], self._back]

    def edge_correlations(self, free: Tensor) -> Tensor:
        _, inverse, log_s = self._factor(free)
        root = inverse * (-log_s).exp()[..., None]
        return (root[..., self._i, :] * root[..., self._j, :]).sum(-1)

    def coordinates(self, precision: Tensor) -> Tensor:
        ordered = precision[..., self._order[:, None], self._order]
        upper = torch.linalg.cholesky(ordered).mT
        upper = upper / upper.diagonal(dim1=-2, dim2=-1)[..., None, :]
        return -torch.asinh(upper[..., self._i, self._j])


def _columns(edges: Sequence[tuple[int, int]]) -> tuple[Tensor, Tensor]:
    pairs = torch.tensor(edges, dtype=torch.long).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def _log_cosh(x: Tensor) -> Tensor:
    return x.abs() + torch.nn.functional.softplus(-2 * x.abs()) - math.log(2)


def _log_det(matrix: Tensor) -> Tensor:
    """Of positive definite matrices; -inf where rounding left none, so that a sampler turns back.

    With its gradient, the inverse, taken directly: several times cheaper than back through the factorisation.
    """
    factor, failed = torch.linalg.cholesky_ex(matrix.detach())
    failed = failed > 0
    factor = torch.where(failed[..., None, None], torch.eye(matrix.shape[-1], dtype=matrix.dtype), factor)
    value = 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    linear = (torch.cholesky_inverse(factor) * matrix).sum((-2, -1))
    return (value + linear - linear.detach()).masked_fill(failed, -math.inf)


def _correlation(covariance: Tensor) -> Tensor:
    scale = covariance.diagonal(dim1=-2, dim2=-1).rsqrt()
    return covariance * scale[..., :, None] * scale[..., None, :]
