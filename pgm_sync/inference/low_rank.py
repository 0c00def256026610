"""Features of large nodes: the precision is diagonal plus low rank, and the engine solves for the features.

With ``Lambda = D + Q' P Q``, Q the features that factors see (orthonormal rows, one block per node) and D what is
known of every element by itself, ``z = Q x`` has the joint precision ``S^{-1} + P``, ``S = Q D^{-1} Q'``: a graph
of small vector nodes with S as evidence. The content follows from its features by ``x = m + G' (z - Q m)`` with m the
mean under D alone and the gain ``G = S^{-1} Q D^{-1}`` (Woodbury).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..gaussian import Gaussian
from ..graph.factor_graph import FactorGraph, Name
from ..maps import LinearMap, Shape, element_index
from ..maps.features import FeatureMap
from .block import times
from .compile import Plan, compile
from .evidence import Elements
from .exact import eliminate
from .posterior import Solution
from .precision import precision_entries
from .problem import Problem, pose, product
from .terms import seen_as

SMALLEST = 256  # elements of a node from which its features are solved for by themselves
RATIO = 4  # times as many elements as features


@dataclass(frozen=True, eq=False, repr=False)
class Matrix(FeatureMap):
    """Features given by their matrix ``(out_size, in_size)``, whose rows need not be orthonormal."""

    in_shape: Shape
    to_shape: Shape
    matrix: Tensor
    orthonormal = False

    @property
    def out_shape(self) -> Shape:
        return self.to_shape

    @cached_property
    def rows(self) -> Tensor:
        return self.matrix


class LowRank(NamedTuple):
    """A graph in two parts: all elements without the factors through features, and those factors over features."""

    elements: Plan
    features: Plan
    bases: dict[Name, Tensor]  # per node with features, orthonormal rows (k, D), float64


def low_rank(plan: Plan) -> LowRank | None:
    """`split`, once per plan."""
    if "low rank" not in plan.memory:
        plan.memory["low rank"] = split(plan)
    return plan.memory["low rank"]


def split(plan: Plan) -> LowRank | None:
    """The two parts of a graph, or None where its factors do not allow it or nodes are small.

    A node takes part if all that couples it with others goes through few features of it, and so do these others.
    """
    graph = plan.graph
    seen_in_part = (m is not None for _, data in graph.nodes(data=True) for m in data.get("maps", ()))
    if not any(seen_in_part):  # a look at the graph's own data, quick for very many factors
        return None
    coupled: dict[Name, list[Name]] = {}  # the factors through features around every node
    for factor in graph.factors:
        potential, maps, scope = graph.potential(factor), graph.maps(factor), graph.scope(factor)
        kind = seen_as(maps, potential)
        if kind == "joint" and not any(element_index(m) is not None for m in maps):
            for name in scope:
                coupled.setdefault(name, []).append(factor)
    bases = {}
    for name, factors in coupled.items():
        size = int(np.prod(graph.shape(name)))
        seen = [m for f in factors for m in _maps_on(graph, f, name)]
        if size < SMALLEST or RATIO * sum(m.out_size for m in seen) > size or name in graph.hidden:
            continue
        rows = torch.cat([m.dense() for m in {id(m): m for m in seen}.values()])
        bases[name] = _row_space(rows)
    chosen = {f for factors in coupled.values() for f in factors}
    for name in bases:
        for factor in graph.adj[name]:
            maps, scope = graph.maps(factor), graph.scope(factor)
            alone = len(scope) == 1 and seen_as(maps, graph.potential(factor)) == "index"
            if not alone and (factor not in chosen or not set(scope) <= set(bases)):
                return None
    touching = {f for name in bases for f in graph.adj[name] if f in chosen}
    if not touching:
        return None
    elements = graph.copy()
    elements.remove_nodes_from(touching)
    features = FactorGraph()
    for name, basis in bases.items():
        features.add_trajectory(name, len(basis))
    for factor in graph.factors:
        if factor not in touching:
            continue
        scope = graph.scope(factor)
        maps = [
            Matrix((len(bases[n]),), m.out_shape, m.apply(bases[n].reshape(-1, *m.in_shape)).flatten(1).mT)
            for n, m in zip(scope, graph.maps(factor), strict=True)
        ]
        features.add_factor(factor, scope, graph.potential(factor), maps)
    first, second = (compile(part, plan.device, plan.dtype) for part in (elements, features))
    return LowRank(first, second, bases)


def _maps_on(graph: FactorGraph, factor: Name, name: Name) -> list[LinearMap]:
    return [m for end, m in zip(graph.scope(factor), graph.maps(factor), strict=True) if end == name]


def _row_space(rows: Tensor) -> Tensor:
    """Orthonormal rows that span the given ones, which may be dependent."""
    _, values, vectors = torch.linalg.svd(rows, full_matrices=False)
    return vectors[values > 1e-10 * values.max()].contiguous()


def applies(low: LowRank, evidence: Mapping[Name, Any] | Elements | None) -> bool:
    """Whether the evidence is per element on all nodes with features."""
    if evidence is None or isinstance(evidence, Elements):
        return True
    return not any(
        isinstance(value, Gaussian) and (name in low.bases or name not in low.elements.graph)
        for name, value in evidence.items()
    )


def solve_by_features(
    plan: Plan, low: LowRank, evidence: Mapping[Name, Any] | Elements | None
) -> tuple[Problem, Solution]:
    """The exact solution of a graph with features of large nodes, and the problem it is of (without its matrices).

    Raises ImproperGraphError.
    """
    base = pose(low.elements, evidence)
    first = eliminate(base)
    sites = plan.sites
    variance = first.variance()
    like = variance
    nodes = [
        _Node(sites.index[n].to(like.device), basis.to(like), variance) for n, basis in low.bases.items()
    ]
    zero = like.new_zeros(())
    posed = pose(
        low.features,
        {n: Gaussian(node.precision, times(node.precision, node.see(first.mean)), zero)
         for n, node in zip(low.bases, nodes, strict=True)},
    )  # fmt: skip
    second = eliminate(posed)
    where = [low.features.sites.index[n].to(like.device) for n in low.bases]

    def lift(content: Tensor, features: Tensor) -> Tensor:
        """Content under D alone, corrected to given features."""
        batch = torch.broadcast_shapes(content.shape[:-1], features.shape[:-1])
        content = content.expand(*batch, content.shape[-1])
        for node, own in zip(nodes, where, strict=True):
            moved = times(node.gain.mT, features[..., own] - node.see(content))
            content = content.index_add(-1, node.sites, moved.expand(*batch, len(node.sites)))
        return content

    def put(parts: list[Tensor]) -> Tensor:
        batch = torch.broadcast_shapes(*(part.shape[:-1] for part in parts))
        out = like.new_zeros(*batch, low.features.sites.size)
        for own, part in zip(where, parts, strict=True):
            out = out.index_copy(-1, own, part.expand(*batch, len(own)))
        return out

    def solve(right: Tensor) -> Tensor:
        alone = first.solve(right)
        return lift(alone, second.solve(put([times(n.precision, n.see(alone)) for n in nodes])))

    def root(white: Tensor) -> Tensor:
        # the part of the noise inside the features' span is exchanged for a sample of the features
        alone = first.root(white)
        features = [
            torch.linalg.solve_triangular(n.root, n.see(alone).unsqueeze(-1), upper=False) for n in nodes
        ]
        return lift(alone, second.root(put([f.squeeze(-1) for f in features])))

    def log_determinant() -> Tensor:
        own = sum(2 * n.root.diagonal(dim1=-2, dim2=-1).log().sum(-1) for n in nodes)
        return first.log_determinant() + second.log_determinant() + own

    coupling = Coupling(plan, low, posed, nodes)

    def variances() -> Tensor:
        every = np.arange(sites.size)
        return variance + coupling.covariances(every, every, second)

    def entries(rows: Tensor, columns: Tensor) -> Tensor:
        return first.entries(rows, columns) + coupling.covariances(rows.numpy(), columns.numpy(), second)

    added = posed.system.eta - put([times(n.precision, n.see(first.mean)) for n in nodes])
    eta = base.system.eta
    batch = torch.broadcast_shapes(eta.shape[:-1], added.shape[:-1])
    eta = eta.expand(*batch, eta.shape[-1])
    for node, own in zip(nodes, where, strict=True):
        eta = eta.index_add(-1, node.sites, times(node.basis.mT, added[..., own]).expand(*batch, -1))
    system = base.system._replace(
        eta=eta, log_scale=lambda: base.system.log_scale() + posed.system.log_scale()
    )
    solution = Solution(
        lift(first.mean, second.mean),
        log_determinant,
        variances,
        entries,
        solve,
        root,
        plan=f"{first.plan}; {sum(len(b) for b in low.bases.values())} features of {len(nodes)} nodes: {second.plan}",
        width=max(first.width, second.width),
        exact=True,
        cost=first.cost + second.cost + sum(float(b.numel() * len(b)) for b in low.bases.values()),
    )
    return Problem(plan, base.structure, system, coupling), solution


class _Node:
    """What features of one node need, from the variance 1 / D of its elements."""

    def __init__(self, sites: Tensor, basis: Tensor, variance: Tensor):
        self.sites, self.basis = sites, basis
        seen = basis * variance[..., sites].unsqueeze(-2)  # Q D^{-1}
        self.spread = seen @ basis.mT  # S
        self.root = torch.linalg.cholesky(self.spread)
        self.precision = torch.cholesky_inverse(self.root)
        self.gain = self.precision @ seen  # G

    def see(self, content: Tensor) -> Tensor:
        """``Q x`` of this node, ``(*batch, k)``."""
        return content.index_select(-1, self.sites) @ self.basis.mT


class Coupling:
    """``Q' P Q``, what the factors through features add to the joint precision."""

    def __init__(self, plan: Plan, low: LowRank, posed: Problem, nodes: list[_Node]):
        self._posed, self._nodes = posed, nodes
        self._index = [low.features.sites.index[name] for name in low.bases]
        self._owner = np.full(plan.sites.size, -1, dtype=np.int64)
        self._place = np.zeros(plan.sites.size, dtype=np.int64)
        for k, node in enumerate(nodes):
            sites = node.sites.cpu().numpy()
            self._owner[sites], self._place[sites] = k, np.arange(len(sites))

    def __call__(self, x: Tensor) -> Tensor:
        """``Q' P Q x`` for ``x (*batch, sites)``."""
        seen = x.new_zeros(*x.shape[:-1], self._posed.plan.sites.size)
        for node, own in zip(self._nodes, self._index, strict=True):
            seen = seen.index_copy(-1, own.to(x.device), node.see(x))
        moved = product(self._posed, seen)
        out = x.new_zeros(*moved.shape[:-1], x.shape[-1])
        for node, own in zip(self._nodes, self._index, strict=True):
            # less what is the evidence's
            own_part = moved[..., own.to(x.device)] - times(node.precision, node.see(x))
            out = out.index_add(-1, node.sites, times(node.basis.mT, own_part))
        return out

    def entries(self, rows: np.ndarray, columns: np.ndarray) -> Tensor:
        """Entries (rows[k], columns[k])."""
        like = self._posed.system.eta

        def between(a: int, b: int) -> Tensor:
            one, two = self._index[a].numpy(), self._index[b].numpy()
            known = precision_entries(self._posed, np.repeat(one, len(two)), np.tile(two, len(one)))
            known = known.reshape(*known.shape[:-1], len(one), len(two))
            return known - self._nodes[a].precision if a == b else known

        return self._spread(rows, columns, between, [node.basis for node in self._nodes], like)

    def covariances(self, rows: np.ndarray, columns: np.ndarray, features: Solution) -> Tensor:
        """What the features' posterior adds to the covariances under D alone."""

        def between(a: int, b: int) -> Tensor:
            one, two = self._index[a], self._index[b]
            known = features.entries(one.repeat_interleave(len(two)), two.repeat(len(one)))
            known = known.reshape(*known.shape[:-1], len(one), len(two))
            return known - self._nodes[a].spread if a == b else known

        return self._spread(
            rows, columns, between, [node.gain for node in self._nodes], self._posed.system.eta
        )

    def _spread(
        self,
        rows: np.ndarray,
        columns: np.ndarray,
        between: Callable[[int, int], Tensor],
        sides: list[Tensor],
        like: Tensor,
    ) -> Tensor:
        """``side_a[:, i]' M_ab side_b[:, j]`` for every entry (i, j) with i in node a and j in b."""
        out = like.new_zeros(len(rows))
        i, j = self._owner[rows], self._owner[columns]
        for a, b in sorted({(int(p), int(q)) for p, q in zip(i, j, strict=True) if p >= 0 and q >= 0}):
            chosen = np.flatnonzero((i == a) & (j == b))
            at = [torch.from_numpy(self._place[k[chosen]]).to(like.device) for k in (rows, columns)]
            left, right = sides[a][..., at[0]], sides[b][..., at[1]]
            values = (left * (between(a, b) @ right)).sum(-2)
            batch = torch.broadcast_shapes(out.shape[:-1], values.shape[:-1])
            where = torch.from_numpy(chosen).to(like.device)
            out = out.expand(*batch, len(rows)).index_add(-1, where, values.expand(*batch, len(chosen)))
        return out
