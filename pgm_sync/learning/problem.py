"""What a fit is about: the factors to learn, the features they see, and joint samples of those features."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import networkx as nx
import torch
from torch import Tensor

from ..errors import BatchError, ParameterError, ShapeError, UnknownNameError, UnsupportedError
from ..gaussian import require_finite
from ..graph.factor_graph import FactorGraph, Name
from ..maps import Shape
from ..metrics import as_labels
from ..potentials import JointGaussian, Potential
from ..score import Carriers, Reduction, find_carriers, reduce

FEWEST = 2  # samples


class Problem(NamedTuple):
    """The `JointGaussian` factors of a graph, over P features of its nodes."""

    graph: FactorGraph
    factors: list[Name]  # to be learned
    reduction: Reduction  # these factors alone, in the features they see
    network: nx.Graph  # which nodes they join
    blocks: dict[Name, Tensor]  # columns of every node among the P features

    @property
    def size(self) -> int:
        """P."""
        return sum(len(rows) for rows in self.blocks.values())

    @property
    def partial(self) -> bool:
        """Whether factors see different parts of one node, so that no joint model of nodes has them as marginals."""
        nodes = self.reduction.graph.nodes
        return any(m is not None for f in self.factors for m in nodes[f]["maps"])

    def require_whole(self, method: str) -> None:
        """Raises UnsupportedError for a method that needs a joint model of nodes where there is none."""
        if self.partial:
            raise UnsupportedError(
                f"{method} needs factors that see the same features of a trajectory; use method='moments' on data in "
                "memory, which then fits every factor by itself"
            )

    def fitted(self, potentials: Mapping[Name, Potential], record: Mapping[str, Any]) -> FactorGraph:
        """The graph with these potentials, and how they were found."""
        graph = self.graph.with_potentials(dict(potentials))
        graph.graph["fit"] = dict(record)
        return graph


def pose(graph: FactorGraph) -> Problem:
    """Raises ParameterError where there is nothing to learn."""
    learned = [f for f in graph.factors if isinstance(graph.potential(f), JointGaussian)]
    if not learned:
        raise ParameterError(
            f"{graph!r} has no JointGaussian factor to fit; add_factor(name, [a, b], JointGaussian()) makes one"
        )
    # Placeholders in the place of the potentials: what they hold now is of no concern.
    alone = FactorGraph()
    ends = {end for f in learned for end in graph.scope(f)}
    for name in graph.variables:
        if name in ends:
            alone.add_trajectory(name, graph.shape(name))
    for f in learned:
        alone.add_factor(f, graph.scope(f), JointGaussian(), graph.nodes[f]["maps"])
    reduction = reduce(alone)
    blocks, start = {}, 0
    for name, feature in reduction.features.items():
        blocks[name] = torch.arange(start, start + feature.out_size)
        start += feature.out_size
    return Problem(graph, learned, reduction, reduction.graph.markov_network(), blocks)


def contents(
    problem: Problem, data: Mapping[Name, Any], nodes: Sequence[Name] | None = None
) -> dict[Name, Tensor]:
    """Joint clean samples ``(n, *shape)`` of `nodes` (all that the factors join), on the CPU, views cut from canvases.

    Raises UnknownNameError, ShapeError, BatchError, NotFiniteError.
    """
    graph = problem.graph
    given = {name: as_samples(graph, name, value) for name, value in data.items()}
    counts = {name: len(value) for name, value in given.items()}
    if len(set(counts.values())) != 1:
        raise BatchError(f"all nodes need the same number of joint samples, got {counts}", counts=counts)
    if next(iter(counts.values())) < FEWEST:
        raise BatchError(f"a covariance needs at least {FEWEST} samples, got {counts}", counts=counts)
    shown = cut_views(find_carriers(graph), given)
    names = problem.blocks if nodes is None else nodes
    for name in names:
        if name not in shown:
            joined = next(f for f in problem.factors if name in graph.scope(f))
            raise UnknownNameError(f"no data for {name!r}, which factor {joined!r} joins", name=name)
    return {name: shown[name] for name in names}


def cut_views(carriers: Carriers, given: Mapping[Name, Tensor]) -> dict[Name, Tensor]:
    """What is given, and the views of canvases that are: samples ``(n, *shape)``."""
    states = [given.get(carrier.name) for carrier in carriers.carriers]
    cut = {
        name: carriers.view(states, name)  # type: ignore[arg-type]  # of those that are there
        for name, view in carriers.views.items()
        if name not in given and states[view.carrier] is not None
    }
    return {**given, **cut}


def as_samples(graph: FactorGraph, name: Name, value: Any) -> Tensor:
    """Samples ``(n, *shape)`` of one node, on the CPU.

    Raises UnknownNameError, ShapeError, NotFiniteError.
    """
    if name not in graph.variables:
        raise UnknownNameError(
            f"data for {name!r}, which is no trajectory or variable of the graph", name=name
        )
    return checked_samples(name, value, graph.shape(name))


def checked_samples(name: Name, value: Any, shape: Shape) -> Tensor:
    """Samples ``(n, *shape)`` on the CPU. Raises ShapeError, NotFiniteError."""
    samples = torch.as_tensor(value).detach().cpu()
    if tuple(samples.shape[1:]) != shape:
        raise ShapeError(
            f"data for {name!r} has shape {tuple(samples.shape)}, expected (n, {', '.join(map(str, shape))})",
            name=name,
            expected=shape,
            got=tuple(samples.shape),
        )
    require_finite(samples, f"data for {name!r}")
    return samples


def features(problem: Problem, data: Mapping[Name, Any], nodes: Sequence[Name] | None = None) -> Tensor:
    """What the factors see of joint samples of `nodes` (all), ``(n, P)`` float64. Errors as `contents`."""
    seen, maps = contents(problem, data, nodes), problem.reduction.features
    return torch.cat([maps[name].apply(x.double()).flatten(1) for name, x in seen.items()], 1)


def split(n: int, heldout: float, groups: Sequence[Hashable] | Tensor | None, seed: int) -> tuple[Tensor, Tensor]:
    """Rows to fit on and rows to keep back, a share `heldout` of the samples, or of their groups.

    Raises ParameterError on the share, BatchError on the number of labels.
    """
    if not 0 <= heldout < 1:
        raise ParameterError(f"heldout={heldout} must lie in [0, 1)", heldout=heldout)
    labels = group_labels(n, groups)
    kinds = labels.unique()
    order = torch.randperm(len(kinds), generator=torch.Generator().manual_seed(seed))
    count = math.floor(heldout * len(kinds))
    test = torch.isin(labels, kinds[order[:count]])
    if n - int(test.sum()) < FEWEST:
        test = torch.zeros_like(test)
    return (~test).nonzero().flatten(), test.nonzero().flatten()


def group_labels(n: int, groups: Sequence[Hashable] | Tensor | None) -> Tensor:
    """A label per sample; samples of one group are not independent. Raises BatchError."""
    labels = torch.arange(n) if groups is None else as_labels(groups)
    if labels.shape != (n,):
        raise BatchError(f"{len(labels)} group labels for {n} samples")
    return labels


def potentials(problem: Problem, mean: Tensor, precision: Tensor) -> dict[Name, Potential]:
    """A joint model ``(P,), (P, P)`` cut into factors: marginals of each scope, and its share of the precision.

    Where the ratios g_ij / (g_i g_j) of the scopes' marginals already multiply to the model (trees), the factors
    are those. On loops they carry their share explicitly: off-diagonal blocks go to the factor that joins the two
    nodes (in equal parts where several do), what Lambda_ii has beyond Sigma_ii^{-1} in equal parts to all of i.
    """
    graph, learned, blocks = problem.reduction.graph, problem.factors, problem.blocks
    model = torch.linalg.inv(precision)
    own = {name: torch.linalg.inv(model[rows[:, None], rows]) for name, rows in blocks.items()}
    ratios = torch.zeros_like(model)
    for rows in (torch.cat([blocks[n] for n in graph.scope(f)]) for f in learned):
        ratios[rows[:, None], rows] += torch.linalg.inv(model[rows[:, None], rows])
    for f in learned:
        for name in graph.scope(f):
            rows = blocks[name]
            ratios[rows[:, None], rows] -= own[name]
    total = precision.clone()
    for name, rows in blocks.items():
        total[rows[:, None], rows] -= own[name]
    product_of_ratios = torch.allclose(ratios, total, atol=1e-9 * total.abs().max().item())
    log_ratio = 0.5 * torch.logdet(precision) - 0.5 * sum(torch.logdet(o) for o in own.values())
    out: dict[Name, Potential] = {}
    for f in learned:
        scope = graph.scope(f)
        rows = torch.cat([blocks[n] for n in scope])
        share = None
        if not product_of_ratios:
            share = torch.zeros(len(rows), len(rows), dtype=model.dtype)
            edges = [0, *torch.tensor([len(blocks[n]) for n in scope]).cumsum(0).tolist()]
            for i, a in enumerate(scope):
                for j, b in enumerate(scope):
                    together = sum(a in graph.scope(g) and b in graph.scope(g) for g in learned)
                    block = total[blocks[a][:, None], blocks[b]] / together
                    share[edges[i] : edges[i + 1], edges[j] : edges[j + 1]] = block
        covariance = model[rows[:, None], rows]
        out[f] = JointGaussian(
            mean[rows],
            (covariance + covariance.mT) / 2,
            None if share is None else (share + share.mT) / 2,
            None if share is None else log_ratio.item() / len(learned),
        )
    return out
