"""Whether belief propagation must converge, and by how much a joint precision is positive definite."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.sparse import csr_array, eye_array
from torch import Tensor

from ..errors import ConvergenceError, ImproperGraphError
from ..graph.factor_graph import FactorGraph, Name
from .compile import Plan, System
from .evidence import Elements
from .precision import DENSE_UP_TO, Coordinates, coordinates, lowest, precision_batch, precision_block
from .problem import Problem, pose
from .structure import ElementGroup


class WalkSummability(NamedTuple):
    """Spectral radius of ``|R|``, ``R = I - D^{-1/2} Lambda D^{-1/2}`` with D the diagonal of Lambda, per problem.

    `lower` and `upper` enclose it (Collatz and Wielandt). Where it is below 1 the graph is walk-summable: belief
    propagation converges from zero messages, under any schedule, to the exact means.
    Malioutov, Johnson, Willsky, Walk-Sums and Belief Propagation in Gaussian Graphical Models, 2006.

    >>> import pgm_sync as ps
    >>> ring = ps.ring_graph(4, 1, ps.Correlation(0.9))  # rows of |R| add up to 2 rho / (1 + rho^2)
    >>> found = ps.walk_summability(ring, {k: (0.0, 1.0) for k in range(4)})
    >>> round(found.radius.item(), 4), found.walk_summable
    (0.9945, True)
    """

    lower: Tensor  # (*batch)
    upper: Tensor  # (*batch)
    lower_of: dict[Name, Tensor]  # (*batch, *shape), the bounds of the component that an element is in
    upper_of: dict[Name, Tensor]  # (*batch, *shape); they meet for the components with the largest radius

    @property
    def radius(self) -> Tensor:
        """``rho(|R|)``, the middle of the bounds, ``(*batch)``."""
        return (self.lower + self.upper) / 2

    @property
    def walk_summable(self) -> bool:
        """Whether all of the batch is. Raises ConvergenceError where the bounds do not tell."""
        if bool((self.upper < 1).all()):
            return True
        if bool((self.lower >= 1).any()):
            return False
        raise ConvergenceError(
            f"rho(|R|) lies between {self.lower.max().item():.8g} and {self.upper.max().item():.8g}, on both "
            "sides of 1; lower the tolerance",
            trace=(),
        )


class Margin(NamedTuple):
    """By how much a joint precision is positive definite; the answer of `margin`.

    >>> import pgm_sync as ps
    >>> found = ps.margin(ps.chain_graph(2, 1, ps.Attraction(1.0)), {0: (0.0, 1.0), 1: (0.0, 1.0)})
    >>> round(found.smallest.item(), 6), round(found.largest.item(), 6), found.proper  # of [[2, -1], [-1, 2]]
    (1.0, 3.0, True)
    """

    smallest: Tensor  # (*batch), smallest eigenvalue of Lambda; the density is proper where it is positive
    largest: Tensor  # (*batch), its largest eigenvalue
    direction: dict[Name, Tensor]  # (*batch, *shape), the unit vector along which the precision is smallest

    @property
    def proper(self) -> bool:
        """Whether all of the batch can be normalised."""
        return bool((self.smallest > 0).all())

    @property
    def relative(self) -> Tensor:
        """Smallest eigenvalue over the largest: the inverse of the condition number where proper, ``(*batch)``."""
        return self.smallest / self.largest


def walk_summability(
    graph: FactorGraph | Plan,
    evidence: Mapping[Name, Any] | Elements | None = None,
    tolerance: float = 1e-8,
    max_iterations: int = 20_000,
) -> WalkSummability:
    """``rho(|R|)`` of a graph under its evidence, by power iteration on ``|R| + I`` with bounds for every component.

    It ends when the bounds are within `tolerance`, relatively, or after `max_iterations`.

    >>> import pgm_sync as ps
    >>> ring = ps.ring_graph(4, 1, ps.Attraction(1.0))
    >>> found = ps.walk_summability(ring, {k: (0.0, 2.0) for k in range(4)})
    >>> round(found.radius.item(), 6), found.walk_summable  # two neighbours, each 1 / (1 + 1 + 2)
    (0.5, True)

    Raises ImproperGraphError where a site has no precision of its own, and as `infer` on bad evidence.
    """
    problem = pose(graph, evidence)
    every, lead = coordinates(problem), precision_batch(problem)
    if (every.diagonal <= 0).any():
        site = int(every.sites[np.flatnonzero((every.diagonal <= 0).any(0))[0]])
        name = next(n for n, index in problem.plan.sites.index.items() if bool((index == site).any()))
        raise ImproperGraphError(
            f"an element of {name!r} has no precision of its own, so |R| is not defined; give it evidence or a prior",
            nodes=[name],
        )
    scale = every.diagonal**-0.5
    i, j = every.ends.T
    weights = np.abs(every.values) * scale[:, i] * scale[:, j]
    bounds = [_radii(every, row, tolerance, max_iterations) for row in weights]
    sides = torch.from_numpy(np.array(bounds)).movedim(1, 0).reshape(2, *lead, -1)
    lower, upper = sides.amax(-1)
    gather = problem.plan.sites.gather
    return WalkSummability(
        lower, upper, *({n: gather(side, n) for n in problem.plan.graph.variables} for side in sides)
    )


def _radii(every: Coordinates, weights: np.ndarray, tolerance: float, max_iterations: int) -> np.ndarray:
    """Lower and upper bounds for the component of every site ``(2, sites)``; those with the largest radius are tight.

    All components are iterated together, each with its own bounds.
    """
    n = len(every.sites)
    coupled = weights > 0  # a problem of a batch may have fewer couplings than the others
    every = every._replace(ends=every.ends[coupled], values=every.values[:, coupled])
    (i, j), both, labels = every.ends.T, np.tile(weights[coupled], 2), every.components()
    matrix = csr_array((both, (np.concatenate([i, j]), np.concatenate([j, i]))), shape=(n, n)) + eye_array(n)
    count = labels.max() + 1
    x = np.ones(n)
    low, high = np.zeros(count), np.full(count, np.inf)
    for _ in range(max_iterations):
        y = matrix @ x
        ratio = y / x
        # + I makes every component primitive, so that the bounds meet; each of them holds at every step
        smallest, largest = np.full(count, np.inf), np.zeros(count)
        np.minimum.at(smallest, labels, ratio)
        np.maximum.at(largest, labels, ratio)
        low, high = np.maximum(low, smallest), np.minimum(high, largest)
        if high.max() - low.max() <= tolerance * high.max():
            break
        top = np.zeros(count)
        np.maximum.at(top, labels, y)
        x = y / top[labels]
    return np.stack([low, high])[:, labels] - 1


def margin(graph: FactorGraph | Plan, evidence: Mapping[Name, Any] | Elements | None = None) -> Margin:
    """Smallest eigenvalue of a graph's joint precision and its direction, also where it is not positive.

    `graph` and `evidence` as of `infer`.
    Where `Margin.smallest` is m > 0, evidence may lose a precision of up to m everywhere before the joint density
    becomes improper; where it is negative, more than -m is missing.

    >>> import pgm_sync as ps
    >>> found = ps.margin(ps.chain_graph(2, 1, ps.Attraction(1.0)), {0: (0.0, 0.5), 1: (0.0, 0.5)})
    >>> round(found.smallest.item(), 6), found.proper  # of [[1.5, -1], [-1, 1.5]], along (1, 1)
    (0.5, True)

    Raises as `infer` on bad evidence.
    """
    problem = pose(graph, evidence)
    plan, structure = problem.plan, problem.structure
    lead = precision_batch(problem)
    smallest = torch.full((lead.numel(),), torch.inf, dtype=torch.float64)
    largest = torch.full((lead.numel(),), -torch.inf, dtype=torch.float64)
    direction = torch.zeros(lead.numel(), plan.sites.size, dtype=torch.float64)
    parts = [(group.sites, _of_group(problem, group)) for group in structure.groups]
    own = structure.blocks.sites
    for label in np.unique(structure.component[np.concatenate(own)]) if own else ():
        sites = np.flatnonzero(structure.component == label)
        parts.append((sites[:, None], _of_component(problem, sites)))
    for sites, (low, high, vectors) in parts:
        largest = torch.maximum(largest, high.amax(-1))
        least, copy = low.min(-1)
        for k in (least < smallest).nonzero()[:, 0].tolist():
            smallest[k] = least[k]
            direction[k] = 0
            direction[k, torch.from_numpy(sites[:, copy[k]])] = vectors(k, int(copy[k]))
    along = direction.reshape(*lead, plan.sites.size)
    return Margin(
        smallest.reshape(lead),
        largest.reshape(lead),
        {name: plan.sites.gather(along, name) for name in plan.graph.variables},
    )


class _Ends(NamedTuple):
    """Both ends of the spectra of the copies of a pattern, for all of the batch made flat."""

    low: Tensor  # (B, copies)
    high: Tensor  # (B, copies)
    vector: Callable[[int, int], Tensor]  # problem, copy -> the vector of its lowest eigenvalue


def _of_group(problem: Problem, group: ElementGroup) -> _Ends:
    n, lead = group.scheme.n, precision_batch(problem)
    if n > DENSE_UP_TO:
        every = coordinates(problem)
        return _by_iteration([every.of(sites) for sites in group.sites.T])
    matrices = _matrices(group, problem.system)
    return _dense(matrices.expand(*lead, -1, -1, -1).reshape(lead.numel(), group.copies, n, n))


def _of_component(problem: Problem, sites: np.ndarray) -> _Ends:
    n, lead = len(sites), precision_batch(problem)
    if n > DENSE_UP_TO:
        return _by_iteration([coordinates(problem).of(sites)])
    matrix = precision_block(problem, sites).detach().double().cpu()
    return _dense(matrix.reshape(lead.numel(), 1, n, n))


def _dense(matrices: Tensor) -> _Ends:
    values = torch.linalg.eigvalsh(matrices)
    return _Ends(
        values[..., 0], values[..., -1], lambda k, copy: torch.linalg.eigh(matrices[k, copy])[1][:, 0]
    )


def _by_iteration(copies: list[Coordinates]) -> _Ends:
    problems = range(len(copies[0].diagonal))
    found = [[lowest(own.matrix(k)) for own in copies] for k in problems]
    low = torch.tensor([[value for value, _ in row] for row in found], dtype=torch.float64)
    high = torch.tensor([[-lowest(-own.matrix(k))[0] for own in copies] for k in problems], dtype=torch.float64)
    return _Ends(low, high, lambda k, copy: torch.from_numpy(found[k][copy][1]))


def _matrices(group: ElementGroup, system: System) -> Tensor:
    """The precision of every copy, ``(*batch, G, n, n)``, float64 on the CPU."""
    diagonal, pairs = (part.detach().double().cpu() for part in (system.diagonal, system.pairs))
    return group.matrices(group.site_rows.stacked(diagonal), group.pair_rows.stacked(pairs))
