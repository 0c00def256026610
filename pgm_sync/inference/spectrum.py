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
from .diagnosis import dense_component
from .evidence import Elements
from .precision import DENSE_UP_TO, Coordinates, coordinates, lowest, precision_batch
from .problem import Problem, pose
from .structure import ElementGroup


class WalkSummability(NamedTuple):
    """Spectral radius of ``|R|``, ``R = I - D^{-1/2} Lambda D^{-1/2}`` with D the diagonal of Lambda, per problem.

    `lower` and `upper` enclose it (Collatz and Wielandt). Where it is below 1 the graph is walk-summable: belief
    propagation converges from zero messages, under any schedule, to the exact means.
    Malioutov, Johnson, Willsky, Walk-Sums and Belief Propagation in Gaussian Graphical Models, 2006.
    """

    lower: Tensor  # (*batch)
    upper: Tensor  # (*batch)

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
    """By how much a joint precision is positive definite."""

    smallest: Tensor  # (*batch), smallest eigenvalue of Lambda; the density is proper where it is positive
    direction: dict[Name, Tensor]  # (*batch, *shape), the unit vector along which the precision is smallest

    @property
    def proper(self) -> bool:
        """Whether all of the batch can be normalised."""
        return bool((self.smallest > 0).all())


def walk_summability(
    graph: FactorGraph | Plan,
    evidence: Mapping[Name, Any] | Elements | None = None,
    tolerance: float = 1e-8,
    max_iterations: int = 20_000,
) -> WalkSummability:
    """``rho(|R|)`` of a graph under its evidence, by power iteration on ``|R| + I`` with bounds for every component.

    >>> from pgm_sync.graph import ring_graph
    >>> from pgm_sync.potentials import Attraction
    >>> found = walk_summability(ring_graph(4, 1, Attraction(1.0)), {k: (0.0, 2.0) for k in range(4)})
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
    labels = every.components()
    bounds = [_radius(every, weights[k], labels, tolerance, max_iterations) for k in range(len(weights))]
    lower, upper = (torch.tensor(side, dtype=torch.float64) for side in zip(*bounds, strict=True))
    return WalkSummability(lower.reshape(lead), upper.reshape(lead))


def _radius(
    every: Coordinates, weights: np.ndarray, labels: np.ndarray, tolerance: float, max_iterations: int
) -> tuple[float, float]:
    """Largest lower and upper bound over the components; all are iterated together, each with its own bounds."""
    n = len(every.sites)
    (i, j), both = every.ends.T, np.concatenate([weights, weights])
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
    return float(low.max()) - 1, float(high.max()) - 1


def margin(graph: FactorGraph | Plan, evidence: Mapping[Name, Any] | Elements | None = None) -> Margin:
    """Smallest eigenvalue of the joint precision and its direction, also where it is not positive.

    Where `Margin.smallest` is m > 0, evidence may lose a precision of up to m everywhere before the joint density
    becomes improper; where it is negative, more than -m is missing.

    >>> from pgm_sync.graph import chain_graph
    >>> from pgm_sync.potentials import Attraction
    >>> found = margin(chain_graph(2, 1, Attraction(1.0)), {0: (0.0, 0.5), 1: (0.0, 0.5)})
    >>> round(found.smallest.item(), 6), found.proper
    (0.5, True)

    Raises as `infer` on bad evidence.
    """
    problem = pose(graph, evidence)
    plan, structure, system, _ = problem
    lead = precision_batch(problem)
    flat = lead.numel()
    smallest = torch.full((flat,), torch.inf, dtype=torch.float64)
    direction = torch.zeros(flat, plan.sites.size, dtype=torch.float64)

    def note(values: Tensor, sites: np.ndarray, vectors: Callable[[int, int], Tensor]) -> None:
        """`values` (flat, copies) of components at `sites` (n, copies); `vectors` gives the one that is wanted."""
        low, copy = values.min(-1)
        for k in (low < smallest).nonzero()[:, 0].tolist():
            smallest[k] = low[k]
            direction[k] = 0
            direction[k, torch.from_numpy(sites[:, copy[k]])] = vectors(k, int(copy[k]))

    for group in structure.groups:
        note(*_of_group(problem, group, lead))
    own = structure.blocks.sites
    for label in np.unique(structure.component[np.concatenate(own)]) if own else ():
        sites = np.flatnonzero(structure.component == label)
        matrix = dense_component(problem, sites).expand(*lead, -1, -1).reshape(flat, len(sites), len(sites))
        note(torch.linalg.eigvalsh(matrix)[:, :1], sites[:, None], _first_vector(matrix[:, None]))
    vectors = direction.reshape(*lead, plan.sites.size)
    return Margin(
        smallest.reshape(lead), {name: plan.sites.gather(vectors, name) for name in plan.graph.variables}
    )


def _of_group(
    problem: Problem, group: ElementGroup, lead: torch.Size
) -> tuple[Tensor, np.ndarray, Callable[[int, int], Tensor]]:
    """Smallest eigenvalues of all copies, dense or by Lanczos iteration, and their vectors when asked for."""
    n, flat = group.scheme.n, lead.numel()
    if n <= DENSE_UP_TO:
        matrices = _matrices(group, problem.system)
        matrices = matrices.expand(*lead, -1, -1, -1).reshape(flat, group.copies, n, n)
        return torch.linalg.eigvalsh(matrices)[..., 0], group.sites, _first_vector(matrices)
    every = coordinates(problem)
    found = [[lowest(every.of(sites).matrix(k)) for sites in group.sites.T] for k in range(flat)]
    values = torch.tensor([[value for value, _ in row] for row in found], dtype=torch.float64)
    return values, group.sites, lambda k, copy: torch.from_numpy(found[k][copy][1])


def _first_vector(matrices: Tensor) -> Callable[[int, int], Tensor]:
    return lambda k, copy: torch.linalg.eigh(matrices[k, copy])[1][:, 0]


def _matrices(group: ElementGroup, system: System) -> Tensor:
    """The precision of every copy, ``(*batch, G, n, n)``, float64 on the CPU."""
    diagonal = group.site_rows.stacked(system.diagonal.detach().double().cpu()).movedim(-1, -2)
    coupled = group.pair_rows.stacked(system.pairs.detach().double().cpu()).movedim(-1, -2)
    matrices = torch.diag_embed(diagonal)
    i, j = np.array(group.scheme.edges, dtype=np.int64).reshape(-1, 2).T
    matrices[..., i, j] = coupled
    matrices[..., j, i] = coupled
    return matrices
