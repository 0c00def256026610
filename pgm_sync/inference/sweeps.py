"""The two sweeps of the exact engine, message by message: what elimination does, shown on the junction tree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..graph.factor_graph import FactorGraph, Name
from . import elimination
from .compile import Plan
from .diagnosis import component_of, improper
from .evidence import Elements
from .plans import BlockElimination, LaneElimination
from .problem import Problem, pose


class SweepMessage(NamedTuple):
    """What passes over one edge of the junction tree, for all elements at once.

    In the collect sweep the eliminated `sender` tells its later neighbours, the separator, what is left of the joint
    density once it is integrated out: `precision` and `eta` are added to theirs. In the distribute sweep the
    separator tells the eliminated node its own posterior: `precision` holds the covariance, `eta` the mean. `receiver`
    is who is told.

    Elementwise components have one small matrix per copy, ``precision (*batch, G, k, k)`` and ``eta (*batch, G, k)``
    for a separator of k; blocks ``(*batch, K, K)`` and ``(*batch, K)``, K the elements of the separator.

    >>> from pgm_sync.graph import chain_graph
    >>> from pgm_sync.potentials import Attraction
    >>> first = sweeps(chain_graph(2, 1, Attraction(1.0)), {0: (3.0, 1.0)})[0]
    >>> print(first)
    collect: 0 -> 1, 1 numbers, 1 copies
    >>> first.precision.item(), first.eta.item()  # with the factor's own precision, 1: a mean of 1.5 / 0.5
    (-0.5, 1.5)
    """

    sweep: str  # "collect" or "distribute"
    sender: tuple[tuple[Name, ...], ...]  # per position or block the nodes whose elements it holds
    receiver: tuple[tuple[Name, ...], ...]
    precision: Tensor
    eta: Tensor

    def __str__(self) -> str:
        ends = [
            " & ".join("/".join(map(str, names)) for names in side) for side in (self.sender, self.receiver)
        ]
        copies = self.eta.shape[:-1].numel()
        return f"{self.sweep}: {ends[0]} -> {ends[1]}, {self.eta.shape[-1]} numbers, {copies} copies"


def sweeps(
    graph: FactorGraph | Plan, evidence: Mapping[Name, Any] | Elements | None = None
) -> list[SweepMessage]:
    """All messages of the collect and then of the distribute sweep, in the order in which they are sent.

    `graph` and `evidence` as of `infer`. The message of a node without later neighbours (the root of its component) is
    not sent and not listed. Sums of what a node receives and its own precision are the pivots of the elimination; at a
    root they are the inverse of its variance. Lauritzen, Graphical Models, 1996, chapter 6; DESIGN section 7.

    >>> from pgm_sync.graph import chain_graph
    >>> from pgm_sync.potentials import Attraction
    >>> for message in sweeps(chain_graph(3, 2, Attraction(1.0)), {0: (1.0, 1.0), 2: (0.0, 1.0)}):
    ...     print(message)
    collect: 0 -> 1, 1 numbers, 2 copies
    collect: 1 -> 2, 1 numbers, 2 copies
    distribute: 2 -> 1, 1 numbers, 2 copies
    distribute: 1 -> 0, 1 numbers, 2 copies

    Raises as `infer`.
    """
    problem = pose(graph, evidence)
    names = _owners(problem)
    collected: list[SweepMessage] = []
    distributed: list[SweepMessage] = []
    for group in problem.structure.groups:
        solver = LaneElimination(group, problem)
        copy = solver.failed()
        if copy is not None:
            raise improper(problem, group.sites[:, copy])
        collected += _collect(problem, solver, names)
        distributed += _distribute(problem, solver, names)
    if problem.structure.blocks.sites:
        first, second = _blocks(problem, names)
        collected += first
        distributed += second
    return collected + distributed


def _owners(problem: Problem) -> list[tuple[Name, ...]]:
    """The nodes that show each site."""
    owners: list[list[Name]] = [[] for _ in range(problem.plan.sites.size)]
    for name, index in problem.plan.sites.index.items():
        for site in index.tolist():
            owners[site].append(name)
    return [tuple(names) for names in owners]


def _at(sites: np.ndarray, owners: list[tuple[Name, ...]]) -> tuple[Name, ...]:
    return tuple(dict.fromkeys(name for site in sites.tolist() for name in owners[site]))


def _collect(
    problem: Problem, solver: LaneElimination, owners: list[tuple[Name, ...]]
) -> Iterator[SweepMessage]:
    group, factor = solver.group, solver.factor
    x = dict(enumerate(group.site_rows.lanes(problem.system.eta)))
    for node, later, column, _ in group.scheme.pivots:
        if not later:
            continue
        gains = torch.stack(torch.broadcast_tensors(*(factor.gains[slot] for slot in column)), -1)
        eta = gains * x[node].unsqueeze(-1)
        precision = -gains.unsqueeze(-1) * gains.unsqueeze(-2) * factor.pivots[node][..., None, None]
        for k, u in enumerate(later):
            x[u] = x[u] + eta[..., k]
        ends = (_at(group.sites[node], owners),), tuple(_at(group.sites[u], owners) for u in later)
        yield SweepMessage("collect", *ends, precision, eta)


def _distribute(
    problem: Problem, solver: LaneElimination, owners: list[tuple[Name, ...]]
) -> Iterator[SweepMessage]:
    group, mean = solver.group, solver.solve(problem.system.eta)
    inverse = elimination.selected_inverse(group.scheme, solver.factor)
    for node, later, _, pairs in reversed(group.scheme.pivots):
        if not later:
            continue
        rows = [torch.stack(torch.broadcast_tensors(*(inverse[slot] for slot in row)), -1) for row in pairs]
        ends = tuple(_at(group.sites[u], owners) for u in later), (_at(group.sites[node], owners),)
        yield SweepMessage(
            "distribute", *ends, torch.stack(rows, -2), torch.stack([mean[u] for u in later], -1)
        )


def _blocks(
    problem: Problem, owners: list[tuple[Name, ...]]
) -> tuple[list[SweepMessage], list[SweepMessage]]:
    structure = problem.structure
    sites = structure.blocks.sites
    solver = BlockElimination(problem)
    bad = solver.failed()
    if bad is not None:
        raise improper(problem, component_of(structure, sites[bad][0]))
    factor = solver.factor
    names = [_at(own, owners) for own in sites]
    x = [problem.system.eta.index_select(-1, index) for index in solver.index]
    mean = solver.solve(problem.system.eta)
    collected, distributed = [], []
    for v, later in zip(factor.elimination.order, factor.elimination.later, strict=True):
        if not later:
            continue
        cross = factor.cross[v]
        half = torch.linalg.solve_triangular(
            factor.lower[v].expand(*x[v].shape[:-1], *factor.lower[v].shape[-2:]),
            x[v].unsqueeze(-1),
            upper=False,
        )
        eta = -(cross.mT @ half).squeeze(-1)
        for u, part in zip(later, eta.split([len(sites[u]) for u in later], -1), strict=True):
            x[u] = x[u] + part
        to = tuple(names[u] for u in later)
        collected.append(SweepMessage("collect", (names[v],), to, -cross.mT @ cross, eta))
        rows = [torch.cat([solver.covariance(a, b) for b in later], -1) for a in later]
        posterior = torch.cat(rows, -2), torch.cat([mean[u] for u in later], -1)
        distributed.append(SweepMessage("distribute", to, (names[v],), *posterior))
    return collected, distributed[::-1]
