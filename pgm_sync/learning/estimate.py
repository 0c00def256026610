"""A joint Gaussian of all features from their samples, and how well it does on samples it has not seen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import networkx as nx
import numpy as np
import torch
from torch import Tensor

from ..errors import BatchError, ConvergenceError, CovarianceError, ParameterError
from ..graph.factor_graph import Name
from .problem import group_labels
from .selection import select_covariance
from .shrinkage import Shrinkage, shrink_between, shrunk_covariance, split_shrinkage
from .symmetry import Ties

FOLDS = 5
# What shrinkage="heldout" chooses from: of all correlations, and of those between nodes on top
CHOICES: tuple[str | float, ...] = ("none", "oas", "ledoit_wolf", 0.003, 0.01, 0.03, 0.1, 0.2, 0.4, 0.7)
STARTS = (0.0, 0.4)
BETWEEN = (0.0, 0.03, 0.1, 0.2, 0.4, 0.7, 0.9)


class Estimate(NamedTuple):
    """A joint Gaussian of all features, and how it was found."""

    mean: Tensor  # (P,)
    precision: Tensor  # (P, P)
    intensity: float  # of shrinkage
    trace: list[float]  # of covariance selection
    details: dict[str, Any]  # for the record: how shrinkage was chosen, the certificate
    seen: Tensor | None = None  # (O,) the features that data show; None: all

    @property
    def observed(self) -> tuple[Tensor, Tensor]:
        """Mean and precision of what data show."""
        if self.seen is None:
            return self.mean, self.precision
        covariance = torch.linalg.inv(self.precision)[self.seen[:, None], self.seen]
        return self.mean[self.seen], torch.linalg.inv(covariance)


class ShrunkMoments(NamedTuple):
    """Of all features, before covariance selection."""

    mean: Tensor  # (P,)
    covariance: Tensor  # (P, P)
    intensity: float
    details: dict[str, Any]


def shrunk_moments(
    samples: Tensor,
    shrinkage: Shrinkage,
    network: nx.Graph,
    blocks: Mapping[Name, Tensor],
    labels: Sequence[int] | Tensor | None = None,
    seed: int = 0,
    ties: Ties | None = None,
) -> ShrunkMoments:
    """Mean and shrunk, tied covariance of ``(n, P)`` features. Arguments as for `estimate_model`."""
    details: dict[str, Any] = {}
    if shrinkage == "heldout":
        shrinkage, details["shrinkage_compared"] = choose_shrinkage(
            samples, network, blocks, labels, seed, ties
        )
        details["shrinkage_chosen"] = str(shrinkage[0])
    overall, between = split_shrinkage(shrinkage)
    mean = samples.mean(0)
    covariance, intensity = shrunk_covariance(samples - mean, overall)
    covariance = shrink_between(covariance, blocks, between)
    if between:
        details["shrinkage_between"] = between
    if ties is not None:
        mean, covariance, details["ties_between"] = ties.moments(mean, covariance)
    return ShrunkMoments(mean, covariance, intensity, details)


def estimate_model(
    samples: Tensor,
    shrinkage: Shrinkage,
    network: nx.Graph,
    blocks: Mapping[Name, Tensor],
    labels: Sequence[int] | Tensor | None = None,
    seed: int = 0,
    ties: Ties | None = None,
) -> Estimate:
    """The maximum-likelihood Gaussian under a graph, from shrunk moments of ``(n, P)`` features (Eq. 14).

    `labels` (groups of samples) and `seed` make the folds by which ``shrinkage="heldout"`` chooses. `ties` are
    symmetries that the moments are averaged over.
    """
    mean, covariance, intensity, details = shrunk_moments(
        samples, shrinkage, network, blocks, labels, seed, ties
    )
    selection = select_covariance(covariance, network, blocks)
    precision = selection.precision if ties is None else ties.precision(selection.precision)
    return Estimate(mean, precision, intensity, selection.trace, details | selection.certificate)


def choose_shrinkage(
    samples: Tensor,
    network: nx.Graph,
    blocks: Mapping[Name, Tensor],
    labels: Sequence[int] | Tensor | None = None,
    seed: int = 0,
    ties: Ties | None = None,
) -> tuple[tuple[str | float, float], list[list[Any]]]:
    """The shrinkage of the largest cross-validated log density under a graph, and all that were compared.

    The overall intensity first, then that between nodes, and again around what was found, until neither improves.
    Compared: rows ``[overall, between nodes, nats per sample]``; None where a fold was singular. Raises BatchError
    where there are not two groups, CovarianceError where all are singular.
    """
    parts = folds(group_labels(len(samples), labels), FOLDS, seed, fewest=2)
    compared: dict[tuple[str | float, float], float] = {}

    def best_of(choices: Sequence[tuple[str | float, float]]) -> tuple[str | float, float]:
        for choice in choices:
            if choice not in compared:
                compared[choice] = _score(choice)
        return max(choices, key=compared.__getitem__)

    def _score(choice: tuple[str | float, float]) -> float:
        try:
            score = crossvalidated(samples, blocks, network, parts, choice, ties=ties).mean().item()
        except (CovarianceError, ConvergenceError):
            return -math.inf
        return score if math.isfinite(score) else -math.inf

    # two starts: without any between nodes, independence may look better than every moderate intensity
    best = best_of([(overall, between) for between in STARTS for overall in CHOICES])
    while len(blocks) > 1:
        again = best_of([(best[0], between) for between in BETWEEN])
        again = best_of([again, *((overall, again[1]) for overall in CHOICES)])
        if again == best:
            break
        best = again
    if compared[best] == -math.inf:
        raise CovarianceError(
            "no shrinkage makes the moments of every fold positive definite; leave features without variance out"
        )
    rows = [[*choice, score if math.isfinite(score) else None] for choice, score in compared.items()]
    return best, rows


def log_density(samples: Tensor, mean: Tensor, precision: Tensor) -> Tensor:
    """Of every sample under a Gaussian, ``(n)`` nats."""
    offset = samples - mean
    constant = torch.logdet(precision) - samples.shape[1] * math.log(2 * math.pi)
    return 0.5 * (constant - ((offset @ precision) * offset).sum(1))


def information_gain(samples: Tensor, model: Estimate, blocks: Mapping[Name, Tensor]) -> Tensor:
    """Log density of every sample over that of its nodes taken alone, ``(n)`` nats, under one model.

    On samples that the model has not seen, its mean estimates the mutual information that the model captures; it does
    not depend on the units or on the number of features, so models of different features compare.
    """
    covariance = torch.linalg.inv(model.precision)
    gain = log_density(samples, model.mean, model.precision)
    for rows in blocks.values():
        own = torch.linalg.inv(covariance[rows[:, None], rows])
        gain = gain - log_density(samples[:, rows], model.mean[rows], own)
    return gain


def crossvalidated(
    samples: Tensor,
    blocks: Mapping[Name, Tensor],
    network: nx.Graph,
    parts: Sequence[Tensor],
    shrinkage: Shrinkage,
    labels: Sequence[int] | Tensor | None = None,
    ties: Ties | None = None,
) -> Tensor:
    """Held-out log density of every sample ``(n)``, each from the fit on all parts but its own.

    `parts` are masks ``(n)`` that cover every sample once.
    """
    out = samples.new_zeros(len(samples))
    kinds = group_labels(len(samples), labels)
    for part in parts:
        model = estimate_model(samples[~part], shrinkage, network, blocks, kinds[~part], ties=ties)
        out[part] = log_density(samples[part], model.mean, model.precision)
    return out


def folds(labels: Tensor, count: int, seed: int, fewest: int | None = None) -> list[Tensor]:
    """Masks ``(n)`` that cover every sample once and cut through no group.

    As many as there are groups, at most `count`. Raises ParameterError (count < 2), BatchError for fewer groups than
    `fewest` (default: `count`).
    """
    if count < 2:
        raise ParameterError(f"folds={count} is not at least 2", folds=count)
    own = labels.numpy()
    kinds = np.unique(own)
    if len(kinds) < (count if fewest is None else fewest):
        raise BatchError(
            f"{len(kinds)} groups of samples do not make {count if fewest is None else fewest} folds"
        )
    order = np.random.default_rng(seed).permutation(kinds)
    return [torch.from_numpy(np.isin(own, part)) for part in np.array_split(order, min(count, len(kinds)))]


def bootstrap(values: Tensor, labels: Tensor, seed: int, draws: int = 2000) -> tuple[float, float]:
    """95 % interval of the mean of ``values (n)``, resampling groups."""
    kinds, index = np.unique(labels.numpy(), return_inverse=True)
    sums, counts = np.bincount(index, values.numpy()), np.bincount(index)
    chosen = np.random.default_rng(seed).integers(0, len(kinds), (draws, len(kinds)))
    means = sums[chosen].sum(1) / counts[chosen].sum(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
