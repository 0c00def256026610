"""Hidden variables that no data shows, by expectation maximisation (Eq. 18): a style that all windows share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import networkx as nx
import torch
from torch import Tensor

from ..errors import ConvergenceError
from ..graph.factor_graph import Name
from ..score import find_carriers
from .estimate import Estimate, shrunk_moments
from .problem import Problem
from .selection import select_covariance
from .shrinkage import Shrinkage

START = 0.9  # correlation of a hidden variable with the principal components it starts from


class Completed(NamedTuple):
    """A joint Gaussian over observed and hidden features, hidden ones with identity covariance."""

    precision: Tensor  # (P, P)
    trace: list[float]  # log likelihood per sample of the observed features, in nats, per iteration


def estimate_hidden(
    samples: Tensor,
    shrinkage: Shrinkage,
    network: nx.Graph,
    blocks: Mapping[Name, Tensor],
    hidden: Sequence[Name],
    labels: Tensor | None = None,
    seed: int = 0,
) -> Estimate:
    """The maximum-likelihood Gaussian under a graph from ``(n, O)`` features of all nodes but the `hidden` ones.

    Hidden features have mean 0; the trace is that of expectation maximisation.
    """
    columns, start = {}, 0
    for name, rows in blocks.items():
        if name not in hidden:
            columns[name] = torch.arange(start, start + len(rows))
            start += len(rows)
    # what is seen has no zeros once the hidden are integrated out
    moments = shrunk_moments(samples, shrinkage, nx.complete_graph(list(columns)), columns, labels, seed)
    seen = torch.cat([blocks[name] for name in columns])
    mean = samples.new_zeros(sum(len(rows) for rows in blocks.values())).index_copy(0, seen, moments.mean)
    found = complete(moments.covariance, network, blocks, hidden)
    details = {"estimator": "expectation maximisation", "hidden": [repr(name) for name in hidden]}
    return Estimate(mean, found.precision, moments.intensity, found.trace, moments.details | details, seen)


def unobserved(problem: Problem, data: Mapping[Name, Any]) -> list[Name]:
    """Hidden variables among the ends of the factors that have no data, and are no canvas whose views have.

    Raises UnsupportedError where there are some and factors see different parts of a node.
    """
    hidden = [name for name in problem.blocks if name in problem.graph.hidden and name not in data]
    views = find_carriers(problem.graph).views if hidden else {}
    hidden = [name for name in hidden if name not in views]
    if hidden:
        problem.require_whole(f"the hidden variable {hidden[0]!r} without data")
    return hidden


def complete(
    covariance: Tensor,  # (O, O), of the observed features, in the order of their blocks
    network: nx.Graph,
    blocks: Mapping[Name, Tensor],
    hidden: Sequence[Name],
    tolerance: float = 1e-5,
    most_iterations: int = 2000,
) -> Completed:
    """The maximum-likelihood Gaussian under a graph some of whose nodes are never seen (Dempster, Laird, Rubin 1977).

    E step: moments of the hidden given the observed, ``B = -Lambda_hh^{-1} Lambda_ho``, ``S_ho = B S_oo``,
    ``S_hh = B S_oo B' + Lambda_hh^{-1}``. M step: covariance selection (Eq. 14) on the completed moments. The
    likelihood never falls. Hidden variables are rescaled to identity covariance, which the likelihood does not see; a
    star of one hidden variable is factor analysis. Finds a local maximum, from the principal components of what is
    observed.

    Raises ConvergenceError, with the trace, where the likelihood still rises by more than `tolerance` per iteration.
    """
    own = torch.cat([blocks[name] for name in hidden])
    seen = torch.cat([rows for name, rows in blocks.items() if name not in hidden])
    size = len(own) + len(seen)
    moments = torch.eye(size, dtype=covariance.dtype)
    moments[seen[:, None], seen] = covariance
    cross = _start(covariance, len(own))
    moments[own[:, None], seen], moments[seen[:, None], own] = cross, cross.mT
    trace: list[float] = []
    for _ in range(most_iterations):
        precision = select_covariance(moments, network, blocks).precision
        precision = _rescaled(precision, [blocks[name] for name in hidden])
        trace.append(_log_likelihood(precision, seen, covariance))
        if len(trace) > 1 and trace[-1] - trace[-2] < tolerance:
            return Completed(precision, trace)
        spread = torch.linalg.inv(precision[own[:, None], own])
        back = -spread @ precision[own[:, None], seen]
        cross = back @ covariance
        moments[own[:, None], seen], moments[seen[:, None], own] = cross, cross.mT
        moments[own[:, None], own] = cross @ back.mT + spread
    raise ConvergenceError(
        f"expectation maximisation over the hidden {', '.join(map(repr, hidden))} still gained "
        f"{trace[-1] - trace[-2]:.2g} nats per sample after {most_iterations} iterations (tolerance {tolerance:g}); "
        "make them smaller, or shrink more",
        trace=trace,
    )


def _start(covariance: Tensor, count: int) -> Tensor:
    """Cross-covariance ``(count, O)`` of hidden numbers with unit variance that follow principal components."""
    scale = covariance.diagonal().sqrt()
    values, vectors = torch.linalg.eigh(covariance / scale[:, None] / scale)
    leading = vectors.flip(1)[:, :count] * values.flip(0)[:count].sqrt()
    out = covariance.new_zeros(count, len(covariance))
    out[: leading.shape[1]] = START * (leading * scale[:, None]).mT
    return out


def _rescaled(precision: Tensor, blocks: list[Tensor]) -> Tensor:
    """The same model with hidden variables whose covariance is the identity."""
    covariance = torch.linalg.inv(precision)
    change = torch.eye(len(precision), dtype=precision.dtype)
    for rows in blocks:
        change[rows[:, None], rows] = torch.linalg.cholesky(covariance[rows[:, None], rows])
    out = change.mT @ precision @ change
    return (out + out.mT) / 2


def _log_likelihood(precision: Tensor, seen: Tensor, covariance: Tensor) -> float:
    """Per sample of the observed features, but for the constant."""
    model = torch.linalg.inv(precision)[seen[:, None], seen]
    return -0.5 * (torch.logdet(model) + torch.linalg.solve(model, covariance).trace()).item()
