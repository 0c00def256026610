"""Candidate graphs compared on samples that they were not fitted to (Eq. 18, Eq. 16)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import networkx as nx
import torch
from torch import Tensor

from ..denoisers import Denoiser
from ..errors import ParameterError, UnsupportedError
from ..graph.factor_graph import FactorGraph, Name
from ..levels import NoiseLevel
from ..maps import LinearMap
from ..score import find_carriers
from .denoised import denoiser_of_each
from .estimate import bootstrap, crossvalidated, estimate_model
from .estimate import folds as make_folds
from .problem import Problem, contents, features, group_labels, pose
from .score_matching import default_levels, joint_gain, own_precisions
from .shrinkage import Shrinkage

CRITERIA = ("likelihood", "score")


class GraphScore(NamedTuple):
    """A row of `compare_graphs`: nats per joint sample, held out."""

    name: str  # of the candidate
    log_likelihood: float  # mean
    gain: float  # over independent trajectories
    interval: tuple[float, float]  # 95 %, of the gain, bootstrapped over groups
    samples: int  # scored


class GraphLoss(NamedTuple):
    """A row of `compare_graphs` by joint denoising: squared error over that of the denoisers alone, held out."""

    name: str  # of the candidate
    loss: float  # mean over noise levels; 1 without any coupling
    gain: float  # 1 - loss
    interval: tuple[float, float]  # 95 %, of the gain, bootstrapped over groups
    behind: tuple[float, float]  # 95 %, of what its loss has more than the best one's, paired
    samples: int  # scored


def compare_graphs(
    candidates: Mapping[str, FactorGraph],
    data: Mapping[Name, Any],
    *,
    by: str = "likelihood",
    denoisers: Mapping[Name, Denoiser] | Denoiser | None = None,
    levels: Sequence[NoiseLevel] | None = None,
    folds: int = 5,
    shrinkage: Shrinkage = "ledoit_wolf",
    groups: Sequence[int] | Tensor | None = None,
    seed: int = 0,
) -> list[GraphScore] | list[GraphLoss]:
    """Candidate graphs by cross-validation, best first.

    Every candidate has unfitted `JointGaussian` factors over the same features of the same trajectories (otherwise
    they cannot be compared); each is fitted by moments on all folds but one and scored on that.

    Parameters
    ----------
    by
        "likelihood", log density of joint samples (Eq. 18, `GraphScore`), or "score", squared error of joint denoising
        with frozen `denoisers` and the surrogate posterior covariance (Eq. 16, `GraphLoss`); all candidates see the
        same noise.
    denoisers, levels
        for "score", as for ``fit(method="score")``; the denoisers should not have been trained on `data`.
    folds, groups
        samples of one group are held out together, and resampled together for the intervals.
    shrinkage, seed
        as for `fit_moments`; of the folds and the noise.

    Raises ParameterError (features differ, fewer than 2 folds, no denoisers), BatchError (fewer groups than folds),
    UnsupportedError ("score" on a shared canvas), UnknownNameError (a trajectory without a denoiser), and as `fit`.

    A random walk over three nodes: a chain says as much as the complete graph, with a parameter less.

    >>> import torch, pgm_sync as ps
    >>> x = torch.randn(1000, 3, 1, generator=torch.Generator().manual_seed(0)).cumsum(1)
    >>> candidates = {"chain": ps.chain_graph(3, 1), "complete": ps.complete_graph(3, 1), "star": ps.star_graph(2, 1)}
    >>> [row.name for row in ps.compare_graphs(candidates, {k: x[:, k] for k in range(3)})]
    ['chain', 'complete', 'star']
    """
    if by not in CRITERIA:
        raise ParameterError(f"by={by!r} is not one of {', '.join(CRITERIA)}", by=by)
    if by == "score" and denoisers is None:
        raise ParameterError("by='score' needs denoisers={trajectory: denoiser}, or one for all")
    if folds < 2:
        raise ParameterError(f"folds={folds} is not at least 2", folds=folds)
    problems = _posed(candidates)
    shared = {name: (features(problem, data), problem) for name, problem in problems.items()}
    samples, problem = next(iter(shared.values()))
    labels = group_labels(len(samples), groups)
    parts = make_folds(labels, folds, seed)
    if by == "score":
        assert denoisers is not None
        return _by_score(shared, data, denoisers, levels, parts, shrinkage, labels, seed)
    alone = crossvalidated(
        samples, problem.blocks, nx.create_empty_copy(problem.network), parts, shrinkage, labels
    )
    rows = []
    for name, (own, posed) in shared.items():
        score = crossvalidated(own, posed.blocks, posed.network, parts, shrinkage, labels)
        gain = score - alone
        rows.append(
            GraphScore(
                name, score.mean().item(), gain.mean().item(), bootstrap(gain, labels, seed), len(samples)
            )
        )
    return sorted(rows, key=lambda row: -row.log_likelihood)


def _posed(candidates: Mapping[str, FactorGraph]) -> dict[str, Problem]:
    """Raises ParameterError where candidates see different features."""
    if not candidates:
        raise ParameterError("candidates is empty; give {name: graph}")
    problems = {name: pose(graph) for name, graph in candidates.items()}
    sizes = {name: {n: len(rows) for n, rows in p.blocks.items()} for name, p in problems.items()}
    first = next(iter(sizes))
    for name, own in sizes.items():
        if own != sizes[first]:
            raise ParameterError(
                f"candidate {name!r} sees features {own}, {first!r} sees {sizes[first]}; give all graphs factors on "
                "the same trajectories through the same maps",
                name=name,
            )
    return problems


def _by_score(
    shared: Mapping[str, tuple[Tensor, Problem]],
    data: Mapping[Name, Any],
    denoisers: Mapping[Name, Denoiser] | Denoiser,
    levels: Sequence[NoiseLevel] | None,
    parts: Sequence[Tensor],
    shrinkage: Shrinkage,
    labels: Tensor,
    seed: int,
) -> list[GraphLoss]:
    levels = default_levels() if levels is None else list(levels)
    clean, first = next(iter(shared.values()))
    if find_carriers(first.graph).shared:
        raise UnsupportedError(
            "by='score' is for trajectories that do not share a canvas; use by='likelihood'"
        )
    whole = contents(first, data)
    denoised = _denoised(whole, denoiser_of_each(denoisers, whole), first.reduction.features, levels, seed)  # (L, n, P)
    alone = (denoised - clean).square().sum(-1)  # (L, n)
    scale = alone.mean(1)
    losses = {}
    for name, (samples, problem) in shared.items():
        problem.require_whole("by='score'")
        order = torch.cat([first.blocks[node] for node in problem.blocks])
        loss = torch.zeros(len(samples), dtype=torch.float64)
        for part in parts:
            model = estimate_model(
                samples[~part], shrinkage, problem.network, problem.blocks, labels[~part], seed
            )
            own = own_precisions(model.precision, problem.blocks.values())
            for k, level in enumerate(levels):
                gain = joint_gain(model.precision, own, float(level.snr))
                joint = model.mean + (denoised[k][part][:, order] - model.mean) @ gain.mT
                loss[part] += (joint - samples[part]).square().sum(1) / scale[k] / len(levels)
        losses[name] = loss
    best = losses[min(losses, key=lambda name: losses[name].mean().item())]
    uncoupled = (alone / scale[:, None]).mean(0)
    rows = []
    for name, loss in losses.items():
        gain = uncoupled - loss
        rows.append(
            GraphLoss(
                name, loss.mean().item(), gain.mean().item(), bootstrap(gain, labels, seed),
                bootstrap(loss - best, labels, seed), len(clean),
            )
        )  # fmt: skip
    return sorted(rows, key=lambda row: row.loss)


def _denoised(
    whole: Mapping[Name, Tensor],
    denoisers: Mapping[Name, Denoiser],
    maps: Mapping[Name, LinearMap],
    levels: Sequence[NoiseLevel],
    seed: int,
    chunk: int = 256,
) -> Tensor:
    """What the denoisers make of the noised samples, in features: ``(L, n, P)``."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    with torch.no_grad():
        for level in levels:
            columns = []
            for name, x in whole.items():
                noise = torch.randn(x.shape, generator=generator, dtype=x.dtype)
                noisy = level.alpha * x + level.sigma * noise
                own = [denoisers[name].denoise(piece, level) for piece in noisy.split(chunk)]
                columns.append(maps[name].apply(torch.cat(own).double()).flatten(1))
            found.append(torch.cat(columns, 1))
    return torch.stack(found)
