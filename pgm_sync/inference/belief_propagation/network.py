"""Cells and edges of belief propagation: which numbers of a problem speak to which, by the names of graph nodes.

Elements that only elementwise factors couple fall into components of a few patterns. A *cell* is one position of a
pattern over all copies whose positions belong to the same nodes; the message between two cells is as wide as there are
copies, and stored as one *lane*. A block of the block system is a cell of its own, with a matrix for a precision.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from ...graph.factor_graph import FactorGraph, Name
from ..compile import Plan
from ..evidence import Elements
from ..problem import Problem, pose
from ..structure import Structure

Edge = tuple[Name, Name]


class Firing(NamedTuple):
    """Lanes that are sent at once, and what has to be read for them."""

    lanes: Tensor  # (k,)
    nodes: Tensor  # (s,), the positions that send
    incoming: Tensor  # (q,), lanes that arrive there
    slot: Tensor  # (q,), at which of `nodes`
    which: Tensor  # (k,), which of `nodes` sends
    reverse: Tensor  # (k,), the lanes the other way, which a message leaves out


class Cells:
    """Components of one pattern with the same owners: n positions, m pairs of them coupled, G copies.

    Lane ``e < m`` goes along pair e from its first position to its second, lane ``e + m`` back.
    """

    def __init__(
        self, sites: np.ndarray, owners: np.ndarray, first: np.ndarray, second: np.ndarray, pairs: np.ndarray
    ):
        self.sites, self.owners, self.pairs = sites, owners, pairs  # (n, G), (n,), (m, G)
        self.n, self.m = len(sites), len(first)
        self.first, self.second = first, second
        self.source, self.target = np.concatenate([first, second]), np.concatenate([second, first])
        self.reverse = np.roll(np.arange(2 * self.m), self.m)
        self._by_target = np.argsort(self.target, kind="stable")
        self._starts = np.searchsorted(self.target[self._by_target], np.arange(self.n + 1))
        self._moved: dict[tuple[str, torch.device], Tensor] = {}

    def index(self, what: str, device: torch.device) -> Tensor:
        """One of the index arrays on a device."""
        key = (what, device)
        if key not in self._moved:
            self._moved[key] = torch.from_numpy(np.ascontiguousarray(getattr(self, what))).to(device)
        return self._moved[key]

    def firing(self, lanes: np.ndarray, device: torch.device) -> Firing:
        """What sending `lanes` at once takes."""
        nodes, which = np.unique(self.source[lanes], return_inverse=True)
        counts = self._starts[nodes + 1] - self._starts[nodes]
        ends = counts.cumsum()
        at = np.arange(ends[-1]) + np.repeat(self._starts[nodes] - (ends - counts), counts)
        found = (
            lanes, nodes, self._by_target[at], np.repeat(np.arange(len(nodes)), counts), which.reshape(-1),
            self.reverse[lanes],
        )  # fmt: skip
        return Firing(*(torch.from_numpy(np.ascontiguousarray(part)).to(device) for part in found))


class Layout:
    """The cells of a plan's structure, and its directed edges by node name.

    ``edges`` lists them in the order of the nodes and back: forward ones by their ends, then the others reversed.
    """

    def __init__(self, problem: Problem):
        plan, structure, system, _ = problem
        self.names = list(plan.graph.variables)
        owner = np.full(plan.sites.size, -1, dtype=np.int64)
        for k, name in reversed(list(enumerate(self.names))):
            owner[plan.sites.index[name].numpy()] = k
        self.owner = owner  # (sites,), the first node that shows each
        self.cells = [
            cells
            for group in structure.groups
            for cells in _split_by_owner(owner, structure.position, plan.pairs, group.sites, group.pairs)
        ]
        self.block_sites = structure.blocks.sites
        self.block_owner = [int(owner[sites[0]]) for sites in self.block_sites]
        pairs = sorted(key for key in system.blocks if key[0] != key[1])
        self.block_edges = pairs + [
            (b, a) for a, b in pairs
        ]  # directed; entry k + m is entry k the other way
        self.block_incoming: list[list[int]] = [[] for _ in self.block_sites]
        for k, (_, b) in enumerate(self.block_edges):
            self.block_incoming[b].append(k)
        order = np.concatenate(
            [c.sites.reshape(-1) for c in self.cells] + [np.asarray(s) for s in self.block_sites]
        )
        self._join = torch.from_numpy(np.argsort(order))
        self.edges, self.carried = self._name_edges()
        self.outgoing: dict[Name, list[Edge]] = {}
        for edge in self.edges:
            self.outgoing.setdefault(edge[0], []).append(edge)

    def _name_edges(self) -> tuple[tuple[Edge, ...], dict[Edge, list[tuple[int, np.ndarray]]]]:
        """Per edge what it carries: (part, lanes); parts are the cells in order, then the block edges one by one."""
        n = len(self.names)
        table: dict[int, list[tuple[int, np.ndarray]]] = {}
        for p, cells in enumerate(self.cells):
            if not cells.m:
                continue
            code = cells.owners[cells.source] * n + cells.owners[cells.target]
            order = np.argsort(code, kind="stable")
            codes, starts = np.unique(code[order], return_index=True)
            for c, lanes in zip(codes.tolist(), np.split(order, starts[1:]), strict=True):
                table.setdefault(c, []).append((p, lanes))
        for k, (a, b) in enumerate(self.block_edges):
            code_of = self.block_owner[a] * n + self.block_owner[b]
            table.setdefault(code_of, []).append((len(self.cells) + k, np.zeros(0, dtype=np.int64)))
        forward = sorted(c for c in table if c // n <= c % n)
        back = sorted((c for c in table if c // n > c % n), key=lambda c: (c % n, c // n), reverse=True)
        carried = {(self.names[c // n], self.names[c % n]): table[c] for c in [*forward, *back]}
        return tuple(carried), carried

    @cached_property
    def forest(self) -> bool:
        """Whether no message comes back to its sender: then belief propagation is exact, variances too."""
        trees = all(cells.m == cells.n - 1 for cells in self.cells)
        return trees and len(self.block_edges) // 2 == len(self.block_sites) - self._block_components

    @cached_property
    def _block_components(self) -> int:
        n = len(self.block_sites)
        if not n:
            return 0
        ends = np.array(self.block_edges, dtype=np.int64).reshape(-1, 2)
        return int(
            connected_components(coo_array((np.ones(len(ends)), ends.T), shape=(n, n)), directed=False)[0]
        )

    def join(self, parts: list[Tensor]) -> Tensor:
        """``(*batch, sites)`` from ``(*batch, n, G)`` per cells and ``(*batch, s)`` per block."""
        flat = [part.flatten(-2) for part in parts[: len(self.cells)]] + parts[len(self.cells) :]
        together = torch.cat(flat, -1)
        return together.index_select(-1, self._join.to(together.device))


def _split_by_owner(
    owner: np.ndarray, position: np.ndarray, plan_pairs: np.ndarray, sites: np.ndarray, pairs: np.ndarray
) -> list[Cells]:
    """The copies of a group, apart where their positions belong to different nodes."""
    ends = plan_pairs[pairs[:, 0]] if len(pairs) else np.zeros((0, 2), dtype=np.int64)
    first, second = position[ends[:, 0]], position[ends[:, 1]]
    owners = owner[sites]
    if (owners == owners[:, :1]).all():
        return [Cells(sites, owners[:, 0], first, second, pairs)]
    signatures, label = np.unique(owners, axis=1, return_inverse=True)
    chosen = [np.flatnonzero(label.reshape(-1) == k) for k in range(signatures.shape[1])]
    return [Cells(sites[:, c], signatures[:, k], first, second, pairs[:, c]) for k, c in enumerate(chosen)]


@dataclass(frozen=True, eq=False)
class Network:
    """A problem as cells that send messages. `network` makes one; its fields are for reading.

    ``edges`` are the directed edges by node name. Where nodes share elements (Equality), the first one speaks for them.

    >>> from pgm_sync.graph import chain_graph
    >>> from pgm_sync.potentials import Attraction
    >>> net = network(chain_graph(3, 1, Attraction(1.0)), {0: (1.0, 1.0)})
    >>> net.edges, net.forest
    (((0, 1), (1, 2), (2, 1), (1, 0)), True)
    """

    problem: Problem
    layout: Layout  # cells and edges
    diagonal: tuple[Tensor, ...]  # per cells (*batch, n, G), then per block (*batch, s, s)
    eta: tuple[Tensor, ...]  # per cells (*batch, n, G), then per block (*batch, s)
    coupling: tuple[Tensor, ...]  # per cells (2m, G), then per block edge (*batch, s_target, s_source)

    @property
    def edges(self) -> tuple[Edge, ...]:
        """Every directed edge, ``(from, to)``."""
        return self.layout.edges

    @property
    def forest(self) -> bool:
        """Whether there is no loop anywhere."""
        return self.layout.forest

    @property
    def width(self) -> int:
        """Numbers in the widest message."""
        lanes = [c.sites.shape[1] for c in self.layout.cells if c.m]
        return max(
            [*lanes, *(len(self.layout.block_sites[b]) for _, b in self.layout.block_edges)], default=0
        )

    def __repr__(self) -> str:
        kind = "a forest" if self.forest else "with loops"
        return f"Network({len(self.layout.names)} nodes, {len(self.edges)} directed edges, {kind})"


def network(
    problem: Problem | FactorGraph | Plan, evidence: Mapping[Name, Any] | Elements | None = None
) -> Network:
    """The cells of a problem, or of a graph (or its plan) under `evidence`.

    Factors of more than two ends act as one edge per pair of ends, as their precision does. Errors as in
    `pgm_sync.infer`, except that nothing is solved yet.

    >>> from pgm_sync.graph import chain_graph
    >>> from pgm_sync.potentials import Attraction
    >>> network(chain_graph(3, 4, Attraction(1.0)), dict.fromkeys(range(3), (0.0, 1.0))).edges
    ((0, 1), (1, 2), (2, 1), (1, 0))
    """
    if not isinstance(problem, Problem):
        problem = pose(problem, evidence)
    plan, structure, system, _ = problem
    layouts: dict[Structure, Layout] = plan.memory.setdefault("layouts", {})
    if structure not in layouts:
        layouts[structure] = Layout(problem)
    layout = layouts[structure]
    device = system.eta.device
    diagonal, coupling = [], []
    for cells in layout.cells:
        diagonal.append(system.diagonal[..., cells.index("sites", device)])
        pairs = system.pairs[cells.index("pairs", device)]
        coupling.append(torch.cat([pairs, pairs]))
    diagonal += [system.blocks[b, b] for b in range(len(layout.block_sites))]
    for a, b in layout.block_edges:
        coupling.append(system.blocks[a, b].mT if a < b else system.blocks[b, a])
    return Network(problem, layout, tuple(diagonal), _split(layout, system.eta), tuple(coupling))


def with_eta(net: Network, eta: Tensor) -> Network:
    """The same precision as `net` with another ``eta (*batch, sites)``.

    >>> import torch
    >>> from pgm_sync.graph import chain_graph
    >>> from pgm_sync.inference.belief_propagation import run
    >>> from pgm_sync.potentials import Attraction
    >>> net = network(chain_graph(2, 1, Attraction(1.0)), {0: (3.0, 1.0), 1: (0.0, 1.0)})
    >>> run(with_eta(net, torch.tensor([[3.0, 0.0], [0.0, 6.0]]).double())).mean[0].squeeze()
    tensor([2., 2.], dtype=torch.float64)
    """
    problem = net.problem._replace(system=net.problem.system._replace(eta=eta))
    return Network(problem, net.layout, net.diagonal, _split(net.layout, eta), net.coupling)


def _split(layout: Layout, values: Tensor) -> tuple[Tensor, ...]:
    device = values.device
    parts = [values[..., cells.index("sites", device)] for cells in layout.cells]
    return (*parts, *(values[..., torch.from_numpy(np.asarray(s)).to(device)] for s in layout.block_sites))
