"""How strongly to correlate the noises (c of Eq. 5'): the likelihood bound of the joint denoiser on held-out contents.

Denoising losses at different c do not compare: states with correlated noise carry other information about the
contents. The variational bound does. For noise of covariance R and any joint denoiser m, the law that the stochastic
sampler draws from satisfies, with q any density whose exact denoiser m^q is known (Kong et al., 2023; Kingma et al.,
2021),

    -log p(x_0) <= -log q(x_0) + 1/2 int_0^inf E[ |x_0 - m(x_t)|^2_{R^{-1}} - |x_0 - m^q(x_t)|^2_{R^{-1}} ] d snr,

with equality for every R where m is exact. So the bound differs between c by nothing but the errors of m. Here q is
the Gaussian g itself, whose errors cancel most of the noise of the estimate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..denoisers import Denoiser
from ..errors import ParameterError, ShapeError, UnknownNameError, UnsupportedError
from ..gaussian import Gaussian, cholesky, require_finite
from ..graph.factor_graph import FactorGraph, Name
from ..inference import infer
from ..levels import NoiseLevel, variance_preserving
from ..score import JointDenoiser, PosteriorCovariance, find_carriers
from ..score.noise import own_gaussian
from .denoised import denoiser_of_each

CORRELATIONS = (0.0, 0.3, 0.6, 0.8, 0.9, 0.95, 0.98)
LEVELS = 33
RANGE = 1e3  # how far the integral reaches beyond the snr of the widest and of the narrowest content


@dataclass(frozen=True)
class NoiseCorrelation:
    """The bound on the negative log likelihood, in nats per joint sample, for every strength tried.

    >>> found = NoiseCorrelation(0.5, (0.0, 0.5), (1.2, 1.0), (0.1, 0.1), (0.2, 0.0), (0.02, 0.0), samples=64)
    >>> print(found)
    c          bound    excess
    0          1.200     0.200 +- 0.020
    0.5        1.000     0.000 +- 0.000
    """

    best: float  # the strength with the smallest bound
    correlations: tuple[float, ...]  # the strengths tried
    bounds: tuple[float, ...]  # of each
    errors: tuple[float, ...]  # standard errors of `bounds`
    excess: tuple[float, ...]  # bound - bound of `best`
    excess_errors: tuple[float, ...]  # standard errors of `excess`, paired: the same contents and white noise
    samples: int  # joint contents
    def __str__(self) -> str:
        rows = zip(self.correlations, self.bounds, self.excess, self.excess_errors, strict=True)
        lines = [f"{c:<6g}{b:>10.3f}{d:>10.3f} +- {e:.3f}" for c, b, d, e in rows]
        return "\n".join([f"{'c':<6}{'bound':>10}{'excess':>10}", *lines])


@torch.no_grad()
def choose_noise_correlation(
    graph: FactorGraph,
    denoisers: Mapping[Name, Denoiser] | Denoiser,
    data: Mapping[Name, Tensor],
    *,
    correlations: Sequence[float] = CORRELATIONS,
    posterior_covariance: str | float | PosteriorCovariance = "surrogate",
    levels: Sequence[NoiseLevel] | None = None,
    seed: int = 0,
    progress: bool = False,
) -> NoiseCorrelation:
    """Choose ``noise_correlation`` for `sample` by the likelihood bound on held-out joint contents.

    Parameters
    ----------
    graph
        a graph with fitted potentials, no canvases or hidden variables.
    denoisers
        one for all trajectories, or ``{name: denoiser}``.
    data
        joint contents ``{name: (n, *shape)}`` that neither the potentials nor the denoisers were fitted on.
    correlations
        the strengths to try, each in [0, 1).
    posterior_covariance
        as it will be passed to `sample`.
    levels
        noise levels that carry the integral (trapezoids in log snr); by default 33 that cover the eigenvalues of the
        covariance of g widely.
    seed, progress
        of the noise; whether to show a progress bar.

    Costs ``len(correlations) * len(levels) * n`` evaluations of every denoiser. The bound is that of the stochastic
    sampler with many steps; a coarse or deterministic one may prefer another strength.

    Raises ParameterError, ShapeError, UnknownNameError, UnsupportedError, NotFiniteError.

    Of two signs that agree, too much common noise hides which they are:

    >>> import torch, pgm_sync as ps
    >>> generator = torch.Generator().manual_seed(0)
    >>> sign = ps.MixtureDenoiser([0.5, 0.5], torch.tensor([[-1.0], [1.0]]), 0.01 * torch.ones(2, 1, 1))
    >>> data = {0: sign.sample(32, generator=generator)}
    >>> data[1] = data[0] + 0.02 * torch.randn(32, 1, generator=generator)
    >>> graph, options = ps.chain_graph(2, (1,), ps.Correlation(0.9)), {"posterior_covariance": "denoiser"}
    >>> found = ps.choose_noise_correlation(graph, sign, data, correlations=(0.0, 0.5, 0.9), **options)
    >>> found.best < 0.9, found.excess[2] > 0
    (True, True)
    """
    if len(correlations) == 0:
        raise ParameterError("correlations is empty; give the strengths to try")
    clean = _check(graph, data)
    given = denoiser_of_each(denoisers, graph.trajectories)
    joints = [JointDenoiser(graph, posterior_covariance, c) for c in correlations]
    values = []
    for joint in tqdm(joints, desc="noise correlation", disable=not progress):
        denoise = partial(_joint_means, joint, given)
        values.append(likelihood_bound(joint, clean, denoise, levels, torch.Generator().manual_seed(seed)))
    return _summary(correlations, torch.stack(values))


def likelihood_bound(
    joint: JointDenoiser,
    clean: Sequence[Tensor],  # (n, *shape) per trajectory, float64
    denoise: Callable[[list[Tensor], NoiseLevel], Sequence[Tensor]],
    levels: Sequence[NoiseLevel] | None,
    generator: torch.Generator,
) -> Tensor:  # (n,)
    """The bound on ``-log p(x_0)`` under the noise of `joint`, for the joint denoised contents that `denoise` gives."""
    reference = _Reference(joint, clean)
    levels = sorted(levels if levels is not None else reference.levels(), key=lambda level: float(level.snr))
    snr = torch.tensor([float(level.snr) for level in levels], dtype=torch.float64)
    gaps = []
    for level in levels:
        noise = [torch.randn(x.shape, generator=generator, dtype=torch.float64) for x in clean]
        noise = joint.correlated(noise)
        noisy = [level.alpha * x + level.sigma * e for x, e in zip(clean, noise, strict=True)]
        gaps.append(reference.gap(joint, clean, noisy, denoise(noisy, level), level))
    integrand = snr[:, None] * torch.stack(gaps)  # d snr = snr d log snr
    return 0.5 * torch.trapezoid(integrand, snr.log(), dim=0) - reference.log_density(joint, clean)


def _summary(correlations: Sequence[float], values: Tensor) -> NoiseCorrelation:  # (c, n)
    n = values.shape[1]
    best = int(values.mean(1).argmin())
    excess = values - values[best]

    def spread(rows: Tensor) -> tuple[float, ...]:
        return tuple((rows.std(1) / math.sqrt(n)).tolist())

    return NoiseCorrelation(
        float(correlations[best]),
        tuple(float(c) for c in correlations),
        tuple(values.mean(1).tolist()),
        spread(values),
        tuple(excess.mean(1).tolist()),
        spread(excess),
        n,
    )


def _joint_means(
    joint: JointDenoiser, denoisers: Mapping[Name, Denoiser], states: Sequence[Tensor], level: NoiseLevel
) -> list[Tensor]:
    noisy = dict(zip(joint.graph.trajectories, states, strict=True))
    denoised, covariances = joint.ask(denoisers, noisy, level)
    return list(joint(noisy, denoised, level, covariances).mean.values())


class _Reference:
    """q: the Gaussian g on the coupled features, an isotropic Gaussian with the data's moments on all that is left."""

    def __init__(self, joint: JointDenoiser, clean: Sequence[Tensor]):
        reduction = joint.reduction
        names = list(reduction.features)
        if not names:
            raise ParameterError("no factor couples the trajectories, so no noise correlation follows from one")
        prior = {name: own_gaussian(reduction, name) for name in reduction.graph.trajectories}
        g = infer(reduction.graph, prior).joint(names)
        self.mean, self.covariance = g.mean, g.covariance  # (P,), (P, P)
        _, rest = split(joint, clean)
        self.center = rest.mean(0)  # (D,)
        self.dimensions = rest.shape[1] - len(self.mean)
        scatter = float((rest - self.center).square().sum(1).mean())
        self.variance = scatter / self.dimensions if self.dimensions else 1.0  # per direction

    def levels(self) -> list[NoiseLevel]:
        """Equally spaced in log snr, from where nothing of the widest content shows to where all of the finest does."""
        values = torch.linalg.eigvalsh(self.covariance)
        low, high = 1 / (RANGE * values[-1].item()), RANGE / values[0].item()
        snr = torch.logspace(math.log10(low), math.log10(high), LEVELS, dtype=torch.float64).tolist()
        return [variance_preserving(s) for s in snr]

    def gap(
        self,
        joint: JointDenoiser,
        clean: Sequence[Tensor],
        noisy: Sequence[Tensor],
        means: Sequence[Tensor],
        level: NoiseLevel,
    ) -> Tensor:  # (n,)
        """``|x_0 - m|^2_{R^{-1}} - |x_0 - m^q|^2_{R^{-1}}``; R is the identity outside the features."""
        (u, r), (ut, rt), (um, rm) = (split(joint, values) for values in (clean, noisy, means))
        alpha, variance = level.alpha, level.sigma**2
        noise = torch.eye(len(self.mean), dtype=torch.float64) if joint.noise is None else joint.noise.covariance
        gain = torch.linalg.solve(alpha**2 * self.covariance + variance * noise, alpha * self.covariance)
        uq = self.mean + (ut - alpha * self.mean) @ gain
        shrink = alpha * self.variance / (alpha**2 * self.variance + variance)
        rq = self.center + shrink * (rt - alpha * self.center)
        inverse = torch.cholesky_inverse(cholesky(noise, "the noise covariance"))

        def square(du: Tensor, dr: Tensor) -> Tensor:
            return ((du @ inverse) * du).sum(1) + dr.square().sum(1)

        return square(u - um, r - rm) - square(u - uq, r - rq)

    def log_density(self, joint: JointDenoiser, clean: Sequence[Tensor]) -> Tensor:  # (n,)
        u, r = split(joint, clean)
        outside = (r - self.center).square().sum(1) / self.variance
        outside = -0.5 * (outside + self.dimensions * math.log(2 * math.pi * self.variance))
        return Gaussian.from_moments(self.mean, self.covariance).log_density(u) + outside


def split(joint: JointDenoiser, values: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Coupled features ``(n, P)`` of contents ``(n, *shape)`` of all trajectories, and what is left, ``(n, D)``."""
    features, rest = [], []
    for name, value in zip(joint.graph.trajectories, values, strict=True):
        feature, left = joint.reduction.features.get(name), value
        if feature is not None:
            u = feature.apply(value)
            features.append(u.flatten(1))
            left = value - feature.adjoint(u)
        rest.append(left.flatten(1))
    return torch.cat(features, 1), torch.cat(rest, 1)


def _check(graph: FactorGraph, data: Mapping[Name, Tensor]) -> list[Tensor]:  # (n, *shape) each, float64
    if graph.hidden or find_carriers(graph).shared:
        raise UnsupportedError(
            "trajectories on a canvas share its noise, and hidden variables have none: noise_correlation is for "
            "trajectories without either"
        )
    count, out = None, []
    for name in graph.trajectories:
        if name not in data:
            raise UnknownNameError(f"no data for {name!r}; there are {list(data)}", name=name)
        value = torch.as_tensor(data[name])
        count = len(value) if count is None else count
        if tuple(value.shape) != (count, *graph.shape(name)) or count < 2:
            raise ShapeError(
                f"data of {name!r} has shape {tuple(value.shape)}; joint contents are (n, *{graph.shape(name)}) with "
                "one n >= 2 for all",
                name=name,
            )
        require_finite(value, f"data of {name!r}")
        out.append(value.double())
    return out
