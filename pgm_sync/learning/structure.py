"""Which trajectories to join, learned from joint samples (Eq. 18)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import networkx as nx
import numpy as np
import torch
from torch import Tensor

from ..errors import ConvergenceError, CovarianceError, ParameterError
from ..graph.factor_graph import FactorGraph, Name
from ..maps import Identity, LinearMap
from ..potentials import JointGaussian
from .estimate import shrunk_moments
from .moments import fit_moments
from .problem import features, group_labels, pose
from .selection import select_covariance
from .shrinkage import Shrinkage

STRUCTURES = ("chow_liu", "glasso", "ebic")
PENALTIES = 30  # of the path of "ebic"
PATIENCE = 6  # graphs on the path, each worse than the best
EBIC = 0.5  # Foygel and Drton's gamma; 0 is BIC


def learn_structure(
    graph: FactorGraph,
    data: Mapping[Name, Any],
    method: str = "chow_liu",
    *,
    maps: Mapping[Name, LinearMap] | None = None,
    shrinkage: Shrinkage = "ledoit_wolf",
    significant: bool = True,
    groups: Sequence[int] | Tensor | None = None,
    seed: int = 0,
) -> FactorGraph:
    """A fitted graph over the trajectories of `graph`, whose edges are learned from joint clean samples.

    Parameters
    ----------
    graph
        gives the trajectories; factors it has are left out.
    data, shrinkage, groups, seed
        as in `fit`, which fits the potentials of the edges that are found.
    method
        "chow_liu": the tree of largest likelihood (Chow and Liu 1968), a maximum spanning tree over the mutual
        information of pairs. "glasso": an edge where the graphical lasso over all features, its penalty chosen by
        cross-validation (scikit-learn), leaves anything of a pair's precision; a penalty that predicts well keeps many
        edges that are not there. "ebic": of the graphs on the path of the graphical lasso, each refitted without a
        penalty, the one with the best extended Bayesian information criterion [FoygelDrton2010]_, and from there edge
        by edge, out and in, while that improves. To find the graph rather than to predict.
    maps
        ``{trajectory: map}``, what factors see of each; whole contents if not given.
    significant
        whether edges of a tree are dropped that do not pay for their parameters by the Bayesian information criterion.

    ``fitted.graph["structure"]`` records the mutual information in nats of all pairs, and what was chosen.

    >>> import torch, pgm_sync as ps
    >>> x = torch.randn(500, 3, 1, generator=torch.Generator().manual_seed(0)).cumsum(1)  # a random walk
    >>> fitted = ps.learn_structure(ps.complete_graph(3, shape=(1,)), {k: x[:, k] for k in range(3)})
    >>> sorted(fitted.factors)
    [(0, 1), (1, 2)]

    Raises ParameterError on an unknown method or a single trajectory; errors on data as `fit`.
    """
    if method not in STRUCTURES:
        raise ParameterError(f"method={method!r} is not one of {', '.join(STRUCTURES)}", method=method)
    names = graph.trajectories
    if len(names) < 2:
        raise ParameterError(f"{graph!r} has {len(names)} trajectories; a structure joins at least two")
    seen = {name: (maps or {}).get(name, Identity(graph.shape(name))) for name in names}
    complete = _joined(graph, nx.complete_graph(names), seen)
    problem = pose(complete)
    samples, blocks = features(problem, data), problem.blocks
    covariance = shrunk_moments(samples, shrinkage, problem.network, blocks, groups, seed).covariance
    information = pair_information(covariance, blocks)
    if method == "chow_liu":
        network = chow_liu(information)
        if significant:
            network = _significant(network, len(group_labels(len(samples), groups).unique()), blocks)
    elif method == "glasso":
        network = _lasso(samples, blocks)
    else:
        network = _best_by_ebic(samples, blocks, len(group_labels(len(samples), groups).unique()))
    joined = _joined(graph, network, seen)
    if not network.edges:
        joined.graph["structure"] = _record(method, information, network)
        return joined
    fitted = fit_moments(joined, data, shrinkage=shrinkage, groups=groups, seed=seed)
    fitted.graph["structure"] = _record(method, information, network)
    return fitted


def pair_information(covariance: Tensor, blocks: Mapping[Name, Tensor]) -> nx.Graph:
    """Mutual information in nats of every two nodes under a Gaussian, as the weights of a complete networkx graph."""
    names = list(blocks)
    logs = {name: torch.logdet(covariance[rows[:, None], rows]).item() for name, rows in blocks.items()}
    network = nx.Graph()
    network.add_nodes_from(names)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            rows = torch.cat([blocks[a], blocks[b]])
            both = torch.logdet(covariance[rows[:, None], rows]).item()
            network.add_edge(a, b, weight=max(0.5 * (logs[a] + logs[b] - both), 0.0))
    return network


def chow_liu(information: nx.Graph) -> nx.Graph:
    """The tree of largest total mutual information: the maximum-likelihood tree."""
    return nx.maximum_spanning_tree(information)


def _significant(tree: nx.Graph, samples: int, blocks: Mapping[Name, Tensor]) -> nx.Graph:
    """Edges with ``2 n I > p_a p_b log n``: worth their parameters."""
    kept = tree.copy()
    for a, b, weight in tree.edges(data="weight"):
        if 2 * samples * weight <= len(blocks[a]) * len(blocks[b]) * math.log(samples):
            kept.remove_edge(a, b)
    return kept


def _lasso(samples: Tensor, blocks: Mapping[Name, Tensor]) -> nx.Graph:
    from sklearn.covariance import GraphicalLassoCV

    scaled = _standardised(samples)
    with np.errstate(invalid="ignore"):  # a fold whose likelihood is -inf for some penalty loses to others
        precision = torch.from_numpy(GraphicalLassoCV(assume_centered=True).fit(scaled.numpy()).precision_)
    return _support(precision, blocks)


def _standardised(samples: Tensor) -> Tensor:
    return (samples - samples.mean(0)) / samples.std(0).clamp_min(1e-12)


def _support(precision: Tensor, blocks: Mapping[Name, Tensor]) -> nx.Graph:
    """An edge where anything is left of a pair's precision."""
    network = nx.Graph()
    network.add_nodes_from(blocks)
    names = list(blocks)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            if bool((precision[blocks[a][:, None], blocks[b]] != 0).any()):
                network.add_edge(a, b)
    return network


def _best_by_ebic(samples: Tensor, blocks: Mapping[Name, Tensor], count: int) -> nx.Graph:
    """From the path of the graphical lasso, and then edge by edge; `count` is the number of independent samples."""
    scaled = _standardised(samples)
    covariance = scaled.mT @ scaled / len(scaled)
    best: tuple[nx.Graph, Criterion] | None = None
    seen, worse = set(), 0
    for candidate in _path(covariance, blocks):
        edges = frozenset(map(frozenset, candidate.edges))
        if edges in seen:
            continue
        seen.add(edges)
        found = _ebic(covariance, candidate, blocks, count)
        if best is None or (found is not None and found.value < best[1].value):
            assert found is not None  # the first has no edges, whose likelihood has a maximum
            best, worse = (candidate, found), 0
        else:
            worse += 1
        if worse == PATIENCE:
            break
    assert best is not None
    while True:
        best = _without_needless(covariance, *best, blocks, count)
        more = _with_most_wanted(covariance, *best, blocks, count)
        if more is None:
            return best[0]
        best = more


def _without_needless(
    covariance: Tensor, network: nx.Graph, at: Criterion, blocks: Mapping[Name, Tensor], count: int
) -> tuple[nx.Graph, Criterion]:
    """Drop the weakest edge as long as the criterion improves."""
    while network.edges:
        less = network.copy()
        less.remove_edge(*min(network.edges, key=lambda edge: _strength(at.precision, blocks, *edge)))
        found = _ebic(covariance, less, blocks, count)
        if found is None or found.value >= at.value:
            break
        network, at = less, found
    return network, at


def _with_most_wanted(
    covariance: Tensor, network: nx.Graph, at: Criterion, blocks: Mapping[Name, Tensor], count: int
) -> tuple[nx.Graph, Criterion] | None:
    """With the edge of the largest score statistic, if that improves the criterion.

    The slope of the likelihood in a block of the precision that the graph holds at zero is model minus sample.
    """
    absent = list(nx.non_edges(network))
    if not absent:
        return None
    model = torch.linalg.inv(at.precision)
    scale = model.diagonal().rsqrt()
    slope = ((model - covariance) * scale[:, None] * scale).square()
    more = network.copy()
    more.add_edge(
        *max(absent, key=lambda edge: slope[blocks[edge[0]][:, None], blocks[edge[1]]].mean().item())
    )
    found = _ebic(covariance, more, blocks, count)
    return None if found is None or found.value >= at.value else (more, found)


def _path(covariance: Tensor, blocks: Mapping[Name, Tensor]) -> Iterator[nx.Graph]:
    """Graphs of the graphical lasso, from none of the edges on, until it fails (more features than samples)."""
    from sklearn.covariance import graphical_lasso
    from sklearn.exceptions import ConvergenceWarning

    yield _support(torch.eye(len(covariance)), blocks)
    off = covariance - torch.diag(covariance.diagonal())
    largest = off.abs().max().item()
    for penalty in np.geomspace(largest, largest / 100, PENALTIES)[1:]:
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore", ConvergenceWarning)  # only the zeros are used
                _, precision = graphical_lasso(covariance.numpy(), penalty)
        except FloatingPointError:
            return
        yield _support(torch.from_numpy(precision), blocks)


class Criterion(NamedTuple):
    """The extended Bayesian information criterion of a graph, smaller is better, and the fitted precision."""

    value: float
    precision: Tensor  # (P, P)


def _ebic(
    covariance: Tensor, network: nx.Graph, blocks: Mapping[Name, Tensor], count: int
) -> Criterion | None:
    """None for a graph on which the likelihood has no maximum."""
    try:
        precision = select_covariance(covariance, network, blocks, tolerance=1e-5).precision
    except (CovarianceError, ConvergenceError):
        return None
    likelihood = 0.5 * count * (torch.logdet(precision) - (precision * covariance).sum()).item()
    parameters = sum(len(blocks[a]) * len(blocks[b]) for a, b in network.edges)
    penalty = parameters * (math.log(count) + 4 * EBIC * math.log(len(blocks)))
    return Criterion(penalty - 2 * likelihood, precision)


def _strength(precision: Tensor, blocks: Mapping[Name, Tensor], a: Name, b: Name) -> float:
    """Partial correlation of a pair: the nats that are lost without the edge, nearly, per parameter."""
    rows, columns = blocks[a], blocks[b]
    scale = precision.diagonal().rsqrt()
    partial = precision[rows[:, None], columns] * scale[rows][:, None] * scale[columns]
    return partial.square().mean().item()


def _joined(graph: FactorGraph, network: nx.Graph, seen: Mapping[Name, LinearMap]) -> FactorGraph:
    """The trajectories of a graph with one unfitted factor per edge of a network, in the order of the trajectories."""
    place = {name: k for k, name in enumerate(graph.trajectories)}
    out = FactorGraph()
    for name in place:
        out.add_trajectory(name, graph.shape(name))
    edges = [tuple(sorted(edge, key=place.__getitem__)) for edge in network.edges]
    for a, b in sorted(edges, key=lambda edge: (place[edge[0]], place[edge[1]])):
        maps = [None if isinstance(seen[end], Identity) else seen[end] for end in (a, b)]
        out.add_factor((a, b), [a, b], JointGaussian(), maps)
    return out


def _record(method: str, information: nx.Graph, network: nx.Graph) -> dict[str, Any]:
    return {
        "method": method,
        "edges": [[repr(a), repr(b)] for a, b in network.edges],
        "mutual_information": [[repr(a), repr(b), w] for a, b, w in information.edges(data="weight")],
    }
