"""Potentials from joint clean samples by their moments (Eq. 14)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import networkx as nx
import torch
from torch import Tensor

from ..errors import BatchError, ParameterError
from ..graph.factor_graph import FactorGraph, Name
from ..potentials import JointGaussian, Potential
from .hidden import complete, unobserved
from .problem import FEWEST, Problem, features, group_labels, pose, potentials, split
from .record import Fit, fingerprint
from .selection import select_covariance
from .shrinkage import shrink_moments, shrunk_covariance


class FeatureMoments:
    """Moments of the features that a graph's factors see, gathered batch by batch: data need not fit into memory.

    >>> from pgm_sync.graph import chain_graph
    >>> graph = chain_graph(2, 3)
    >>> moments = FeatureMoments(graph)
    >>> for _ in range(4):
    ...     moments.update({0: torch.randn(50, 3), 1: torch.randn(50, 3)})
    >>> moments.count
    200

    Pass it to `fit` in the place of data, with ``shrinkage="oas"``, "none" or a number (Ledoit and Wolf's intensity
    needs the samples themselves). Batches combine exactly, in any order up to rounding [Chan, Golub, LeVeque 1983].

    Raises ParameterError for a graph without `JointGaussian` factors, UnsupportedError for one whose factors see
    different parts of one trajectory.
    """

    def __init__(self, graph: FactorGraph):
        self.problem = pose(graph)
        self.problem.require_whole("moments gathered in batches")
        size = self.problem.size
        self.count = 0
        self.mean = torch.zeros(size, dtype=torch.float64)  # (P,)
        self._scatter = torch.zeros(size, size, dtype=torch.float64)

    @property
    def covariance(self) -> Tensor:
        """``(P, P)``, of all samples so far, divided by their number."""
        return self._scatter / max(self.count, 1)

    def update(self, data: Mapping[Name, Any]) -> None:
        """Add a batch of joint clean samples, as `fit` takes them. A batch that is refused changes nothing.

        Raises as `fit` on data.
        """
        samples = features(self.problem, data)
        total = self.count + len(samples)
        mean = samples.mean(0)
        centred = samples - mean
        shift = mean - self.mean
        self._scatter += centred.mT @ centred + (self.count * len(samples) / total) * shift[:, None] * shift
        self.mean = self.mean + shift * len(samples) / total
        self.count = total


def fit_moments(
    graph: FactorGraph,
    data: Mapping[Name, Any] | FeatureMoments,
    *,
    shrinkage: str | float = "ledoit_wolf",
    heldout: float = 0.2,
    groups: Sequence[int] | Tensor | None = None,
    seed: int = 0,
) -> FactorGraph:
    """Shrunk moments of the features that the factors see, then maximum likelihood under the graph (Eq. 14).

    Parameters
    ----------
    data
        ``{trajectory: (n, *shape)}``, row k of all of them from the same joint sample; on a canvas
        ``{"canvas": (n, *canvas)}`` is enough, its views are cut out. Hidden variables without data are learned by
        expectation maximisation. Or `FeatureMoments`, gathered in batches (no samples are held out then).
    shrinkage
        "ledoit_wolf", "oas", "none" or an intensity in [0, 1].
    heldout
        share of the samples (of the groups, where given) kept back to score the fit; 0 for none. The potentials are
        then refitted on all samples.
    groups
        a label per sample: samples of one group (crops of one photograph) are not independent, and are held out
        together.

    The score is the mean log density of held-out samples in nats (``details["heldout_independent"]``: without
    edges). Factors that see different parts of one trajectory are fitted one by one.

    Raises as `fit`.
    """
    problem = pose(graph)
    if isinstance(data, FeatureMoments):
        return _fit_gathered(problem, data, shrinkage)
    hidden = unobserved(problem, data)
    samples = features(problem, data, [name for name in problem.blocks if name not in hidden])
    n = len(samples)
    train, test = split(n, heldout, groups, seed)
    details: dict[str, Any] = {"shrinkage": shrinkage}
    score, trace = None, []
    if problem.partial:
        found, details["shrinkage_intensity"] = _pairwise(problem, samples, shrinkage)
        details["estimator"] = "pairwise"
    else:
        if len(test):
            alone = nx.create_empty_copy(problem.network)
            score, details["heldout_independent"] = (
                _score(
                    samples[test], estimate_model(samples[train], shrinkage, network, problem.blocks, hidden)
                )
                for network in (problem.network, alone)
            )
        estimate = estimate_model(samples, shrinkage, problem.network, problem.blocks, hidden)
        found, trace = potentials(problem, estimate.mean, estimate.precision), estimate.trace
        details |= {"estimator": "joint", "shrinkage_intensity": estimate.intensity}
        if hidden:
            details |= {"estimator": "expectation maximisation", "hidden": [repr(name) for name in hidden]}
    record = Fit(
        method="moments",
        num_samples=n,
        features=samples.shape[1],
        data=fingerprint(samples),
        num_groups=None if groups is None else len(group_labels(n, groups).unique()),
        objective=trace,
        heldout=score,
        heldout_samples=0 if score is None else len(test),
        seed=seed,
        details=details,
    )
    return problem.fitted(found, record.to_dict())


def _fit_gathered(problem: Problem, moments: FeatureMoments, shrinkage: str | float) -> FactorGraph:
    """Eq. 14 from moments that were gathered batch by batch."""
    if moments.count < FEWEST:
        raise BatchError(f"the moments are of {moments.count} samples; at least {FEWEST} needed")
    sizes, known = ({name: len(rows) for name, rows in p.blocks.items()} for p in (problem, moments.problem))
    if sizes != known:
        raise ParameterError(f"the moments are of features {known}, the graph's factors see {sizes}")
    covariance, intensity = shrink_moments(moments.covariance, moments.count, shrinkage)
    selection = select_covariance(covariance, problem.network, problem.blocks)
    record = Fit(
        method="moments",
        num_samples=moments.count,
        features=len(covariance),
        data=fingerprint(moments.covariance),
        objective=selection.trace,
        details={
            "estimator": "joint, gathered in batches",
            "shrinkage": shrinkage,
            "shrinkage_intensity": intensity,
        },
    )
    return problem.fitted(potentials(problem, moments.mean, selection.precision), record.to_dict())


class Estimate(NamedTuple):
    """A joint Gaussian of all features, and how it was found."""

    mean: Tensor  # (P,)
    precision: Tensor  # (P, P)
    seen: Tensor  # (O,) the features that data show
    intensity: float  # of shrinkage
    trace: list[float]  # of covariance selection, or of expectation maximisation


def estimate_model(
    samples: Tensor,
    shrinkage: str | float,
    network: nx.Graph,
    blocks: Mapping[Name, Tensor],
    hidden: Sequence[Name] = (),
) -> Estimate:
    """The maximum-likelihood Gaussian under a graph, from shrunk moments of features ``(n, O)`` (Eq. 14, 18).

    `samples` has the columns of all nodes but the `hidden` ones, whose mean is 0.
    """
    centre = samples.mean(0)
    covariance, intensity = shrunk_covariance(samples - centre, shrinkage)
    seen = torch.cat([rows for name, rows in blocks.items() if name not in hidden])
    mean = centre.new_zeros(sum(len(rows) for rows in blocks.values())).index_copy(0, seen, centre)
    found = (
        complete(covariance, network, blocks, hidden)
        if hidden
        else select_covariance(covariance, network, blocks)
    )
    return Estimate(mean, found.precision, seen, intensity, found.trace)


def log_density(samples: Tensor, estimate: Estimate) -> Tensor:
    """Of every sample ``(n, O)`` under the fitted Gaussian, ``(n)`` nats."""
    seen, precision = estimate.seen, estimate.precision
    if len(seen) < len(precision):
        precision = torch.linalg.inv(torch.linalg.inv(precision)[seen[:, None], seen])
    offset = samples - estimate.mean[seen]
    constant = torch.logdet(precision) - samples.shape[1] * math.log(2 * math.pi)
    return 0.5 * (constant - ((offset @ precision) * offset).sum(1))


def _score(samples: Tensor, estimate: Estimate) -> float:
    return log_density(samples, estimate).mean().item()


def crossvalidated(
    samples: Tensor,
    blocks: dict[Name, Tensor],
    network: nx.Graph,
    parts: Sequence[Tensor],
    shrinkage: str | float,
) -> Tensor:
    """Held-out log density of every sample ``(n)``, each from the fit on all parts but its own.

    `parts` are masks ``(n)`` that cover every sample once.
    """
    out = samples.new_zeros(len(samples))
    for part in parts:
        out[part] = log_density(samples[part], estimate_model(samples[~part], shrinkage, network, blocks))
    return out


def _pairwise(
    problem: Problem, samples: Tensor, shrinkage: str | float
) -> tuple[dict[Name, Potential], float]:
    """Every factor from the moments of what it sees by itself, g_ij / (g_i g_j); and the mean shrinkage intensity."""
    graph = problem.reduction.graph
    found: dict[Name, Potential] = {}
    intensities = []
    for f in problem.factors:
        ends = zip(graph.scope(f), graph.maps(f), strict=True)
        own = torch.cat([samples[:, problem.blocks[name]] @ m.dense().T for name, m in ends], 1)
        mean = own.mean(0)
        covariance, intensity = shrunk_covariance(own - mean, shrinkage)
        found[f] = JointGaussian(mean, covariance)
        intensities.append(intensity)
    return found, sum(intensities) / len(intensities)
