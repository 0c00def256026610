"""The pieces that a posterior falls into, and the sufficient statistics of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import networkx as nx
import torch
from torch import Tensor

from ...errors import CovarianceError, UnsupportedError
from ...graph.factor_graph import Name
from ..problem import Problem, group_labels
from .structures import Structure, structure_of


class Statistics(NamedTuple):
    """All that the likelihood sees of ``(n, P)`` features, in units of their standard deviations."""

    size: float  # independent samples: groups, where they are named
    mean: Tensor  # (P,)
    unit: Tensor  # (P,) standard deviations
    scatter: Tensor  # (P, P) of standardised features about their mean, summed over `size`
    weights: Tensor  # (n,) of the samples, summing to `size`
    labels: Tensor  # (n,) numbers of their groups

    @property
    def freedom(self) -> float:
        """Degrees of freedom of the scatter: the mean, under a flat prior, takes one."""
        return self.size - 1


class Part(NamedTuple):
    """M independent models of one graph over K scalars: a connected component, mode by mode."""

    names: list[Name]  # the K scalars' trajectories
    rows: Tensor  # (M, K) columns among the P features
    structure: Structure
    scatter: Tensor  # (M, K, K)


def statistics(samples: Tensor, groups: Sequence[int] | Tensor | None, columns: Sequence[str]) -> Statistics:
    """Moments of ``(n, P)`` features; every group counts as one sample, whatever its size.

    Raises BatchError on the labels, CovarianceError on a feature that does not vary.
    """
    _, label, size = group_labels(len(samples), groups).unique(return_inverse=True, return_counts=True)
    weights = 1.0 / size[label].to(samples)
    count = float(len(size))
    mean = weights @ samples / count
    centred = samples - mean
    unit = (weights @ centred.square() / count).sqrt()
    flat = unit <= 1e-12 * samples.abs().amax(0)
    if flat.any():
        which = columns[int(flat.nonzero()[0])]
        raise CovarianceError(
            f"feature {which} is the same in all samples: it has no correlations; leave it out of the maps"
        )
    scaled = centred / unit
    return Statistics(count, mean, unit, scaled.mT @ (weights[:, None] * scaled), weights, label)


def divide(problem: Problem, found: Statistics, cross: bool) -> list[Part]:
    """Connected components of the network; with `cross`, modes of neighbouring nodes are all joined.

    Raises UnsupportedError, without `cross`, where neighbours have different numbers of modes.
    """
    parts = []
    components = sorted(
        ([n for n in problem.blocks if n in c] for c in nx.connected_components(problem.network)),
        key=lambda names: int(problem.blocks[names[0]][0]),
    )
    for names in components:
        blocks = [problem.blocks[n] for n in names]
        sizes = {n: len(problem.blocks[n]) for n in names}
        graph = nx.Graph()
        if cross:
            rows = torch.cat(blocks)[None]
            owners = [n for n in names for _ in range(sizes[n])]
            graph.add_nodes_from(range(len(owners)))
            graph.add_edges_from(
                (a, b)
                for b in range(len(owners))
                for a in range(b)
                if owners[a] == owners[b] or problem.network.has_edge(owners[a], owners[b])
            )
        else:
            if len(set(sizes.values())) > 1:
                raise UnsupportedError(
                    f"modes are matched one to one, but the numbers of modes differ: {sizes}; give the factors maps "
                    "with as many outputs each, or cross=True",
                    sizes=sizes,
                )
            rows, owners = torch.stack(blocks, 1), names
            graph.add_nodes_from(range(len(names)))
            graph.add_edges_from(
                (a, b)
                for b in range(len(names))
                for a in range(b)
                if problem.network.has_edge(names[a], names[b])
            )
        scatter = found.scatter[rows[:, :, None], rows[:, None, :]]
        parts.append(Part(owners, rows, structure_of(graph), scatter))
    return parts
