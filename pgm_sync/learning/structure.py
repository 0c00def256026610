"""Which trajectories to join, learned from joint samples (Eq. 18)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import networkx as nx
import numpy as np
import torch
from torch import Tensor

from ..errors import ParameterError
from ..graph.factor_graph import FactorGraph, Name
from ..maps import Identity, LinearMap
from ..potentials import JointGaussian
from .estimate import shrunk_moments
from .moments import fit_moments
from .problem import features, group_labels, pose
from .shrinkage import Shrinkage

STRUCTURES = ("chow_liu", "glasso")


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
        cross-validation (scikit-learn), leaves anything of a pair's precision.
    maps
        ``{trajectory: map}``, what factors see of each; whole contents if not given.
    significant
        whether edges of a tree are dropped that do not pay for their parameters by the Bayesian information criterion.

    ``fitted.graph["structure"]`` records the mutual information in nats of all pairs, and what was chosen.

    >>> x = torch.randn(500, 3, generator=torch.Generator().manual_seed(0)).cumsum(1)
    >>> graph = FactorGraph()
    >>> for k in range(3):
    ...     graph.add_trajectory(k, 1)
    >>> sorted(learn_structure(graph, {k: x[:, k : k + 1] for k in range(3)}).factors)
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
    else:
        network = _lasso(samples, blocks)
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

    scaled = (samples - samples.mean(0)) / samples.std(0).clamp_min(1e-12)
    with np.errstate(invalid="ignore"):  # a fold whose likelihood is -inf for some penalty loses to others
        precision = torch.from_numpy(GraphicalLassoCV(assume_centered=True).fit(scaled.numpy()).precision_)
    network = nx.Graph()
    network.add_nodes_from(blocks)
    names = list(blocks)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            if bool((precision[blocks[a][:, None], blocks[b]] != 0).any()):
                network.add_edge(a, b)
    return network


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
