"""Eq. 5 about the joint mean: ask the denoisers again where the others say the content lies.

Eq. 4 describes each denoiser's posterior by its mean and covariance at x_t. The factor that the other trajectories
multiply it with is, to first order about the joint mean m*, exp(h'x) with h = eta_c - K m*, K and eta_c the precision and
eta of the coupling. A denoiser's posterior times exp(h'x) is its posterior at x_t + (sigma^2 / alpha) h, at the same noise
level, exactly, for any denoiser. So: solve Eq. 6, shift, ask again, and solve Eq. 6 with what is left,

    Lambda m* = blockdiag(C_i^{-1}) m_i(h) - h + eta_c .

For Gaussian denoisers nothing changes. The fixed point, m_i(h_i) = m*_i, does not depend on C_i.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

import pgm_sync as ps
from pgm_sync.denoisers import Denoiser
from pgm_sync.levels import NoiseLevel


def joint_mean(
    joint: ps.JointDenoiser,
    denoisers: Mapping[str, Denoiser],
    noisy: Mapping[str, Tensor],  # (n, *shape)
    level: NoiseLevel,
    again: int = 0,
) -> dict[str, Tensor]:
    """Joint means ``(n, *shape)``, the denoisers asked `again` times more where it makes them agree better."""
    features = joint.reduction.features
    tilt = {name: torch.zeros(len(x), features[name].out_size) for name, x in noisy.items()}
    own = {name: _ask(joint, denoisers[name], name, x, level) for name, x in noisy.items()}
    mean = _solve(joint, noisy, own, tilt, level)
    apart = _disagreement(joint, own, mean)
    for _ in range(again):
        new_tilt, new = {}, {}
        for name, (m, c) in own.items():
            step = features[name].apply(mean[name] - m).flatten(1)  # = C (h_new - h)
            new_tilt[name] = tilt[name] + torch.linalg.solve(c, step.unsqueeze(-1)).squeeze(-1)
            shift = features[name].adjoint(new_tilt[name].reshape(-1, *features[name].out_shape))
            new[name] = _ask(joint, denoisers[name], name, noisy[name] + level.sigma**2 / level.alpha * shift, level)
        new_mean = _solve(joint, noisy, new, new_tilt, level)
        new_apart = _disagreement(joint, new, new_mean)
        better = new_apart < apart

        def keep(a: Tensor, b: Tensor, better: Tensor = better) -> Tensor:
            return torch.where(better.reshape(-1, *[1] * (a.ndim - 1)), a, b)

        mean = {name: keep(new_mean[name], mean[name]) for name in mean}
        tilt = {name: keep(new_tilt[name], tilt[name]) for name in tilt}
        own = {name: tuple(keep(a, b) for a, b in zip(new[name], own[name], strict=True)) for name in own}
        apart = torch.where(better, new_apart, apart)
    return mean


def _ask(
    joint: ps.JointDenoiser, denoiser: Denoiser, name: str, noisy: Tensor, level: NoiseLevel
) -> tuple[Tensor, Tensor]:
    """Mean and covariance of the features, as the joint denoiser takes it."""
    feature = joint.reduction.features[name]
    if name in joint.needs_covariance:
        mean, covariance = denoiser.posterior(noisy, level, None, feature)
        ridge = 1e-6 * covariance.diagonal(dim1=-2, dim2=-1).mean(-1)[:, None, None] + 1e-9
        return mean, covariance + ridge * torch.eye(feature.out_size)
    prior = joint._own[name].precision.to(noisy)  # the surrogate
    prior = torch.diag(prior) if prior.ndim == 1 else prior
    covariance = torch.linalg.inv(prior + level.snr * torch.eye(len(prior)))
    return denoiser.denoise(noisy, level), covariance.expand(len(noisy), -1, -1)


def _solve(
    joint: ps.JointDenoiser,
    noisy: Mapping[str, Tensor],
    own: Mapping[str, tuple[Tensor, Tensor]],
    tilt: Mapping[str, Tensor],
    level: NoiseLevel,
) -> dict[str, Tensor]:
    """Eq. 6 with evidence of precision C^{-1} and eta C^{-1} m - h: of mean m - C h."""
    means = {}
    for name, (m, c) in own.items():
        feature = joint.reduction.features[name]
        back = (c @ tilt[name].unsqueeze(-1)).squeeze(-1)
        means[name] = m - feature.adjoint(back.reshape(-1, *feature.out_shape))
    covariances = {name: c for name, (_, c) in own.items()} if joint.needs_covariance else {}
    return joint(noisy, means, level, covariances).mean


def _disagreement(
    joint: ps.JointDenoiser, own: Mapping[str, tuple[Tensor, Tensor]], mean: Mapping[str, Tensor]
) -> Tensor:  # (n)
    return sum(
        joint.reduction.features[name].apply(mean[name] - m).flatten(1).square().sum(1) for name, (m, _) in own.items()
    )
