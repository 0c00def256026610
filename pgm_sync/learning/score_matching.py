"""Potentials learned for what they are used for: joint denoising score matching with frozen denoisers (Eq. 16).

With the surrogate posterior covariance the joint denoised features are linear in what the denoisers say,

    m_joint = mu + (Lambda + snr)^{-1} (B + snr) (m - mu),      B = blockdiag(Sigma_ii^{-1}),  Sigma = Lambda^{-1},

so the expected squared error at a noise level needs the second moments of (x_0, m) there and nothing else: they are
gathered once, from any number of samples, and the optimisation never sees a denoiser.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import networkx as nx
import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor
from tqdm.auto import tqdm

from ..denoisers import Denoiser
from ..errors import ParameterError, UnsupportedError
from ..graph.factor_graph import FactorGraph, Name
from ..levels import NoiseLevel
from ..maps import LinearMap
from ..score import PosteriorCovariance, find_carriers, reduce
from .calibration import calibrate
from .denoised import denoiser_of_each
from .estimate import estimate_model
from .moments import fit_moments
from .problem import contents, features, group_labels, pose, split
from .problem import potentials as as_potentials
from .record import Fit, fingerprint
from .shrinkage import Shrinkage

# Loss of a precision that is not positive definite, in units of the first one: enough for a line search to turn back,
# and no more, because it interpolates, and a huge number would send it back to where it started.
REFUSED = 2.0
ANCHOR = 0.01  # weight of the fit by moments, in nats per feature


def fit_score(
    graph: FactorGraph,
    data: Mapping[Name, Any],
    *,
    denoisers: Mapping[Name, Denoiser] | Denoiser | None = None,
    levels: Sequence[NoiseLevel] | None = None,
    iterations: int = 200,
    anchor: float = ANCHOR,
    shrinkage: Shrinkage = "ledoit_wolf",
    heldout: float = 0.2,
    groups: Sequence[int] | Tensor | None = None,
    seed: int = 0,
    progress: bool = False,
    potentials: str = "score",
    scales: str | None = None,
    base: str | float | PosteriorCovariance = "surrogate",
    canvas_weights: str | None = None,
    noise_correlation: float = 0.0,
    epochs: int = 30,
    batch_size: int = 64,
    learning_rate: float = 0.1,
    patience: int = 5,
    checkpoint: str | Path | None = None,
    cache: str | Path | None = None,
) -> FactorGraph:
    """From the fit by moments, what makes joint denoising best (Eq. 16), with frozen denoisers.

    Potentials come first, under the surrogate posterior covariance; then, if asked for, what depends on the noise
    level, with those potentials: sample from the result with ``posterior_covariance="fitted"`` and
    ``canvas_weights="fitted"``.

    Parameters
    ----------
    denoisers
        one per trajectory, or one for all; ones that were not trained on `data`, or with held-out groups of it.
    levels
        noise levels; variance preserving ones if not given (`default_levels`).
    iterations
        of L-BFGS, at most; stopped early on the held-out share.
    anchor
        weight >= 0 of the divergence of the fit by moments from the potentials, in nats per feature, against the loss
        (relative to that of uncoupled denoisers). Large: moments. It also bars the way to potentials that are not
        normalisable, where the loss by itself may lead.
    graph, data, shrinkage, heldout, groups, seed, progress
        as for `fit_moments`; whether to show a progress bar.
    potentials
        "score" as described; "moments" as `fit_moments` finds them; "keep" as they are (any factors).
    scales, base, canvas_weights, noise_correlation, epochs, batch_size, learning_rate, patience, checkpoint, cache
        as for `calibrate`, which learns posterior-covariance scales and canvas weights per noise level.

    Raises as `fit`, and UnsupportedError for potentials="score" with trajectories that share a canvas, or factors that
    see different parts of one; SavedFileError on a checkpoint of another run.

    >>> import torch, pgm_sync as ps
    >>> generator = torch.Generator().manual_seed(0)
    >>> left, noise = torch.randn(2, 500, 1, generator=generator)
    >>> denoiser = ps.GaussianDenoiser([0.0], [[1.0]])
    >>> data = {0: left, 1: 0.8 * left + 0.6 * noise}
    >>> fitted = fit_score(ps.chain_graph(2, (1,)), data, denoisers=denoiser, iterations=20)
    >>> round(ps.correlations(fitted)[0].rho, 1)
    0.8
    """
    if denoisers is None:
        raise ParameterError("method='score' needs denoisers={trajectory: denoiser}, or one for all")
    levels = default_levels() if levels is None else list(levels)
    if potentials == "score":
        fitted = _fit_potentials(
            graph, data, denoisers, levels, iterations, anchor, shrinkage, heldout, groups, seed, progress
        )
    elif potentials == "moments":
        fitted = fit_moments(graph, data, shrinkage=shrinkage, heldout=heldout, groups=groups, seed=seed)
    elif potentials == "keep":
        fitted = graph.with_potentials({})
    else:
        raise ParameterError(f"potentials={potentials!r} is not 'score', 'moments' or 'keep'")
    if scales is None and canvas_weights is None:
        if potentials == "keep":
            raise ParameterError("nothing to learn: potentials='keep', and neither scales nor canvas_weights")
        return fitted
    found = calibrate(
        fitted, data, denoisers=denoisers, levels=levels, scales=scales, base=base, canvas_weights=canvas_weights,
        noise_correlation=noise_correlation, epochs=epochs, batch_size=batch_size, learning_rate=learning_rate,
        patience=patience, heldout=heldout, groups=groups, seed=seed, checkpoint=checkpoint, cache=cache,
        progress=progress,
    )  # fmt: skip
    if potentials == "keep":
        samples = {name: torch.as_tensor(value) for name, value in data.items()}
        reduced = reduce(graph).features
        first = Fit(
            method="score",
            num_samples=len(next(iter(samples.values()))),
            features=sum(feature.out_size for feature in reduced.values()),
            data=fingerprint(samples),
            objective=found.losses,
            heldout=found.heldout[found.epoch] if found.heldout else None,
            heldout_samples=len(found.heldout_errors) if found.heldout else 0,
            seed=seed,
        )
    else:
        first = Fit.of(fitted)
    details = {**first.details, **found.details(), "potentials": potentials}
    fitted.graph["fit"] = replace(first, method="score", details=details).to_dict()
    return fitted


def _fit_potentials(
    graph: FactorGraph,
    data: Mapping[Name, Any],
    denoisers: Mapping[Name, Denoiser] | Denoiser,
    levels: list[NoiseLevel],
    iterations: int,
    anchor: float,
    shrinkage: Shrinkage,
    heldout: float,
    groups: Sequence[int] | Tensor | None,
    seed: int,
    progress: bool,
) -> FactorGraph:
    problem = pose(graph)
    problem.require_whole("method='score'")
    if find_carriers(graph).shared:
        raise UnsupportedError(
            "method='score' learns potentials of trajectories that do not share a canvas; use method='moments', or "
            "potentials='moments' and canvas_weights"
        )
    samples, clean = features(problem, data), contents(problem, data)
    train, test = split(len(samples), heldout, groups, seed)
    labels = group_labels(len(samples), groups)[train]
    start = estimate_model(samples[train], shrinkage, problem.network, problem.blocks, labels, seed)
    generator = torch.Generator().manual_seed(seed)
    seen, unseen = (
        denoised_moments(
            {name: x[rows] for name, x in clean.items()}, denoisers, problem.reduction.features, levels, start.mean,
            generator, progress=progress,
        )
        if len(rows)
        else []
        for rows in (train, test)
    )  # fmt: skip
    found = fit_precision(start.precision, problem.network, problem.blocks, seen, unseen, iterations, anchor=anchor)
    record = Fit(
        method="score",
        num_samples=len(samples),
        features=samples.shape[1],
        data=fingerprint(clean),
        objective=found.losses,
        heldout=found.heldout[found.best] if found.heldout else None,
        heldout_samples=len(test),
        seed=seed,
        details={
            "shrinkage_intensity": start.intensity,
            "anchor": anchor,
            "levels": [[float(level.alpha), float(level.sigma)] for level in levels],
            "heldout_losses": found.heldout,
            "iteration": found.best,
        },
    )
    return problem.fitted(as_potentials(problem, start.mean, found.precision), record.to_dict())


class Moments(NamedTuple):
    """Second moments of clean features x and denoised ones m at one noise level, about the mean of x."""

    snr: float
    clean: float  # E |x|^2
    cross: Tensor  # (P, P), E x m'
    denoised: Tensor  # (P, P), E m m'


class ScoreFit(NamedTuple):
    """A fitted precision, and how the losses went."""

    precision: Tensor  # (P, P)
    losses: list[float]  # training loss per iteration, relative to uncoupled
    heldout: list[float]  # the same on held-out samples, where there are any
    best: int  # the iteration that was kept


def default_levels(count: int = 12) -> list[NoiseLevel]:
    """Variance preserving, equally spaced in the angle whose tangent is sigma / alpha."""
    angles = (torch.arange(count, dtype=torch.float64) + 0.5) / count * math.pi / 2
    return [NoiseLevel(alpha=math.cos(a), sigma=math.sin(a)) for a in angles.tolist()]


def denoised_moments(
    data: Mapping[Name, Tensor],
    denoisers: Mapping[Name, Denoiser] | Denoiser,
    features: Mapping[Name, LinearMap],
    levels: Sequence[NoiseLevel],
    mean: Tensor,
    generator: torch.Generator,
    chunk: int = 256,
    progress: bool = False,
) -> list[Moments]:
    """Noise all of `data` (joint clean contents, ``(n, *shape)`` each) at every level and denoise it, once.

    Raises UnknownNameError for a trajectory without a denoiser.
    """
    own = denoiser_of_each(denoisers, features)
    count = len(next(iter(data.values())))
    found = []
    with torch.no_grad():
        for level in tqdm(levels, desc="denoise", disable=not progress):
            size = len(mean)
            cross, denoised, clean = torch.zeros(size, size).double(), torch.zeros(size, size).double(), 0.0
            for start in range(0, count, chunk):
                parts = []
                for name in features:
                    x = data[name][start : start + chunk]
                    noise = torch.randn(x.shape, generator=generator, dtype=x.dtype)
                    m = own[name].denoise(level.alpha * x + level.sigma * noise, level)
                    parts.append([features[name].apply(v.double()).flatten(1) for v in (x, m)])
                x, m = (torch.cat(side, 1) - mean for side in zip(*parts, strict=True))
                cross += x.mT @ m
                denoised += m.mT @ m
                clean += x.square().sum().item()
            found.append(Moments(float(level.snr), clean / count, cross / count, denoised / count))
    return found


def joint_loss(precision: Tensor, blocks: Sequence[Tensor], moments: Sequence[Moments]) -> Tensor:
    """Eq. 16 over the levels, each relative to what the denoisers reach by themselves."""
    own = own_precisions(precision, blocks)
    total = precision.new_zeros(())
    for part in moments:
        gain = joint_gain(precision, own, part.snr)
        error = part.clean - 2 * (gain * part.cross).sum() + (gain @ part.denoised * gain).sum()
        alone = part.clean - 2 * part.cross.trace() + part.denoised.trace()
        total = total + error / alone
    return total / len(moments)


def own_precisions(precision: Tensor, blocks: Iterable[Tensor]) -> Tensor:
    """``blockdiag(Sigma_ii^{-1})``, ``(P, P)``, of a joint model."""
    covariance = torch.linalg.inv(precision)
    own = torch.zeros_like(precision)
    for rows in blocks:
        inverse = torch.linalg.inv(covariance[rows[:, None], rows])
        own = own.index_put((rows[:, None].expand_as(inverse), rows.expand_as(inverse)), inverse)
    return own


def joint_gain(precision: Tensor, own: Tensor, snr: float) -> Tensor:
    """``(Lambda + snr)^{-1} (B + snr)``, ``(P, P)``: from denoised features to joint ones, about the mean (Eq. 8)."""
    noise = snr * torch.eye(len(precision), dtype=precision.dtype)
    return torch.linalg.solve(precision + noise, own + noise)


def fit_precision(
    start: Tensor,
    network: nx.Graph,
    blocks: Mapping[Name, Tensor],
    train: Sequence[Moments],
    heldout: Sequence[Moments],
    iterations: int = 200,
    patience: int = 20,
    anchor: float = ANCHOR,
) -> ScoreFit:
    """Minimise `joint_loss` over precisions with the zeros of a graph, from `start`; stop early on held-out samples.

    L-BFGS on the free entries, scaled by the diagonal of `start`. Never leaves the positive definite matrices: the
    divergence of `start`, ``anchor * KL / P``, is added to the loss, and grows without bound at their edge.
    Raises ParameterError (iterations < 1, anchor < 0).
    """
    if not anchor >= 0:
        raise ParameterError(f"anchor={anchor} is negative", anchor=anchor)
    if iterations < 1:
        raise ParameterError(f"iterations={iterations} is not at least 1", iterations=iterations)
    size, rows = len(start), list(blocks.values())
    free = torch.zeros(size, size, dtype=torch.bool)
    names = list(blocks)
    for a in names:
        for b in names:
            if a == b or network.has_edge(a, b):
                free[blocks[a][:, None], blocks[b]] = True
    i, j = torch.triu(free).nonzero().T
    scale = (start.diagonal()[i] * start.diagonal()[j]).sqrt()

    def unpack(values: np.ndarray | Tensor) -> Tensor:
        half = torch.zeros_like(start).index_put((i, j), torch.as_tensor(values) * scale)
        return half + half.mT - torch.diag(half.diagonal())

    def objective(values: np.ndarray) -> tuple[float, np.ndarray]:
        free_values = torch.from_numpy(values.copy()).requires_grad_()
        precision = unpack(free_values)
        if int(torch.linalg.cholesky_ex(precision.detach())[1]) > 0:
            return REFUSED * losses[0], np.zeros_like(values)
        loss = joint_loss(precision, rows, train) + anchor / size * divergence(precision)
        (gradient,) = torch.autograd.grad(loss, free_values)
        return loss.item(), gradient.numpy()

    covariance, log_det = torch.linalg.inv(start), torch.logdet(start)

    def divergence(precision: Tensor) -> Tensor:
        """KL(N(0, start^{-1}) || N(0, precision^{-1})), ``()``, in nats."""
        return 0.5 * ((precision * covariance).sum() - size - torch.logdet(precision) + log_det)

    def score(values: np.ndarray, moments: Sequence[Moments]) -> float:
        with torch.no_grad():
            return joint_loss(unpack(values), rows, moments).item()

    first = (start[i, j] / scale).numpy()
    losses, held = [score(first, train)], [score(first, heldout)] if heldout else []
    best = _Best((held or losses)[0], first, 0)

    stopped = False

    def after(values: np.ndarray) -> None:
        nonlocal best, stopped
        losses.append(score(values, train))
        if heldout:
            held.append(score(values, heldout))
        watched = (held or losses)[-1]
        if watched < best.loss:
            best = _Best(watched, values.copy(), len(losses) - 1)
        elif len(losses) - 1 - best.iteration >= patience:
            stopped = True
            raise StopIteration  # as scipy wants it

    left, values = iterations, first
    while left > 0 and not stopped:
        options = {"maxiter": left}
        done = minimize(objective, values, jac=True, method="L-BFGS-B", callback=after, options=options)
        # A line search that ran into the edge of the positive definite matrices starts again without its history
        if done.success or done.nit == 0:
            break
        left, values = left - done.nit, done.x
    return ScoreFit(unpack(best.values), losses, held, best.iteration)


class _Best(NamedTuple):
    loss: float
    values: np.ndarray
    iteration: int
