"""Potentials from joint clean samples by their moments (Eq. 14)."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import networkx as nx
import torch
from torch import Tensor

from ..errors import BatchError, ParameterError, UnsupportedError
from ..graph.factor_graph import FactorGraph, Name
from ..potentials import JointGaussian, Potential
from .estimate import Estimate, estimate_model, log_density, shrunk_moments
from .hidden import estimate_hidden, unobserved
from .problem import FEWEST, Problem, features, group_labels, pose, potentials, split
from .record import Fit, fingerprint
from .selection import select_covariance
from .shrinkage import Shrinkage, shrink_between, shrink_moments, split_shrinkage
from .symmetry import Tie, Ties, bind_ties, describe_ties


class FeatureMoments:
    """Moments of the features that a graph's factors see, gathered batch by batch: data need not fit into memory.

    >>> import torch, pgm_sync as ps
    >>> moments = ps.FeatureMoments(ps.chain_graph(2, shape=(1,)))
    >>> for x in torch.tensor([[1.0], [-1.0]]), torch.tensor([[3.0], [-3.0]]):
    ...     moments.update({0: x, 1: -x})
    >>> moments.count, moments.covariance.tolist()
    (4, [[5.0, -5.0], [-5.0, 5.0]])

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
    shrinkage: Shrinkage = "ledoit_wolf",
    heldout: float = 0.2,
    groups: Sequence[Hashable] | Tensor | None = None,
    ties: Tie | Sequence[Tie] | None = None,
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
        "ledoit_wolf", "oas", "none" or an intensity in [0, 1]: all correlations times ``1 - intensity``. Two of these,
        ``("oas", 0.2)``: correlations between different trajectories by the second on top. "heldout": the two with
        the best cross-validated likelihood under the graph (``details["shrinkage_compared"]``); some two hundred
        fits, and worth it for few samples or many features.
    heldout
        share of the samples (of the groups, where given) kept back to score the fit; 0 for none. The potentials are
        then refitted on all samples.
    groups
        a label per sample, a number or a name: samples of one group (crops of one photograph) are not independent, are
        held out together, and count once in intervals.
    seed
        of the choice of what is held out.
    ties
        `Symmetry`, `Stationary`, or several: moments are averaged over them, so that edges share parameters.
        Intensities of shrinkage are those of the samples without ties, which is more than needed.

    The score is the mean log density of held-out samples in nats (``details["heldout_independent"]``: without
    edges). Factors that see different parts of one trajectory are fitted one by one.

    Raises as `fit`, UnsupportedError for ties of graphs with hidden variables without data.

    >>> import torch, pgm_sync as ps
    >>> x = torch.tensor([[1.0], [-1.0], [2.0], [-2.0]])
    >>> y = torch.tensor([[1.0], [-1.0], [-1.0], [1.0]])
    >>> fitted = fit_moments(ps.chain_graph(2, (1,)), {0: x, 1: y}, shrinkage=0.5, heldout=0.0)
    >>> fitted.potential((0, 1)).covariance  # -0.5 by the samples, half of it after shrinkage
    tensor([[ 2.5000, -0.2500],
            [-0.2500,  1.0000]], dtype=torch.float64)
    """
    problem = pose(graph)
    if isinstance(data, FeatureMoments):
        return _fit_gathered(problem, data, shrinkage, bind_ties(ties, problem))
    hidden = unobserved(problem, data)
    samples = features(problem, data, [name for name in problem.blocks if name not in hidden])
    n = len(samples)
    train, test = split(n, heldout, groups, seed)
    labels = group_labels(n, groups)
    tied = bind_ties(ties, problem)
    details: dict[str, Any] = {
        "shrinkage": str(shrinkage) if isinstance(shrinkage, tuple | list) else shrinkage
    }
    if tied is not None:
        details["ties"] = describe_ties(ties)
    if hidden and tied is not None:
        raise UnsupportedError("ties of graphs with hidden variables without data are not supported", hidden=hidden)

    def model(rows: Tensor | slice, network: nx.Graph) -> Estimate:
        arguments = (samples[rows], shrinkage, network, problem.blocks)
        if hidden:
            return estimate_hidden(*arguments, hidden, labels[rows], seed)
        return estimate_model(*arguments, labels[rows], seed, tied)

    score, trace = None, []
    if problem.partial:
        found, details["shrinkage_intensity"] = _pairwise(problem, samples, shrinkage, labels, seed)
        details["estimator"] = "pairwise"
    else:
        if len(test):
            score, details["heldout_independent"] = (
                log_density(samples[test], *model(train, network).observed).mean().item()
                for network in (problem.network, nx.create_empty_copy(problem.network))
            )
        estimate = model(slice(None), problem.network)
        found, trace = potentials(problem, estimate.mean, estimate.precision), estimate.trace
        details |= {"estimator": "joint", "shrinkage_intensity": estimate.intensity} | estimate.details
    record = Fit(
        method="moments",
        num_samples=n,
        features=samples.shape[1],
        data=fingerprint(samples),
        num_groups=None if groups is None else len(labels.unique()),
        objective=trace,
        heldout=score,
        heldout_samples=0 if score is None else len(test),
        seed=seed,
        details=details,
    )
    return problem.fitted(found, record.to_dict())


def _fit_gathered(
    problem: Problem, moments: FeatureMoments, shrinkage: Shrinkage, ties: Ties | None
) -> FactorGraph:
    """Eq. 14 from moments that were gathered batch by batch."""
    if moments.count < FEWEST:
        raise BatchError(f"the moments are of {moments.count} samples; at least {FEWEST} needed")
    sizes, known = ({name: len(rows) for name, rows in p.blocks.items()} for p in (problem, moments.problem))
    if sizes != known:
        raise ParameterError(f"the moments are of features {known}, the graph's factors see {sizes}")
    overall, between = split_shrinkage(shrinkage)
    mean = moments.mean
    covariance, intensity = shrink_moments(moments.covariance, moments.count, overall)
    covariance = shrink_between(covariance, problem.blocks, between)
    if ties is not None:
        mean, covariance, _ = ties.moments(mean, covariance)
    selection = select_covariance(covariance, problem.network, problem.blocks)
    record = Fit(
        method="moments",
        num_samples=moments.count,
        features=len(covariance),
        data=fingerprint(moments.covariance),
        objective=selection.trace,
        details={
            "estimator": "joint, gathered in batches",
            "shrinkage": str(shrinkage) if isinstance(shrinkage, tuple | list) else shrinkage,
            "shrinkage_intensity": intensity,
            **selection.certificate,
        },
    )
    precision = selection.precision if ties is None else ties.precision(selection.precision)
    return problem.fitted(potentials(problem, mean, precision), record.to_dict())


def _pairwise(
    problem: Problem, samples: Tensor, shrinkage: Shrinkage, labels: Tensor, seed: int
) -> tuple[dict[Name, Potential], float]:
    """Every factor from the moments of what it sees by itself, g_ij / (g_i g_j); and the mean shrinkage intensity."""
    graph = problem.reduction.graph
    found: dict[Name, Potential] = {}
    intensities = []
    for f in problem.factors:
        seen = [
            samples[:, problem.blocks[name]] @ m.dense().T
            for name, m in zip(graph.scope(f), graph.maps(f), strict=True)
        ]
        rows = torch.arange(sum(own.shape[1] for own in seen)).split([own.shape[1] for own in seen])
        blocks = dict(zip(graph.scope(f), rows, strict=True))
        moments = shrunk_moments(
            torch.cat(seen, 1), shrinkage, nx.complete_graph(graph.scope(f)), blocks, labels, seed
        )
        found[f] = JointGaussian(moments.mean, moments.covariance)
        intensities.append(moments.intensity)
    return found, sum(intensities) / len(intensities)
