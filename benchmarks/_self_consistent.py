"""Eq. 5 about the joint mean: the denoisers are asked again where the others say that the content lies.

Eq. 4 describes a denoiser's posterior by its mean and covariance at x_t. What the other trajectories multiply it with
is, to first order about the joint mean m*, exp(h'x) with h = eta_c - K m*; K and eta_c are the precision and eta of the
coupling. A posterior times exp(h'x) is the posterior at x_t + (sigma^2 / alpha) h, at the same noise level: exactly, of
any denoiser. So: solve Eq. 6, shift, ask again, and solve Eq. 6 with what is left,

    (blockdiag(C_i^{-1}) + K) m* = blockdiag(C_i^{-1}) m_i(h) - h + eta_c .

For Gaussian denoisers of the potentials' marginals nothing changes. The fixed point, m_i(h_i) = m*_i, does not depend
on C_i, so the surrogate serves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

import pgm_sync as ps
from pgm_sync.denoisers import Denoiser
from pgm_sync.levels import NoiseLevel
from pgm_sync.score.noise import correlate
from pgm_sync.score.reduction import own_prior


def joint_mean(
    joint: ps.JointDenoiser,
    denoisers: Mapping[str, Denoiser],
    noisy: Mapping[str, Tensor],  # (n, *shape)
    level: NoiseLevel,
    again: int = 0,
) -> dict[str, Tensor]:
    """Joint means ``(n, *shape)``; with `again`, asked so many times more, kept sample by sample where it helps.

    Kept where the joint means and the denoisers' own, at the shifted states, come closer to each other.
    """
    if again and joint.needs_covariance:
        raise ValueError("asking again is for the surrogate posterior covariance")
    features = joint.reduction.features
    own: dict[str, Tensor] = {}
    covariances: dict[str, Tensor] = {}
    for name, x in noisy.items():
        if name in joint.needs_covariance:
            own[name], covariances[name] = denoisers[name].posterior(x, level, None, features[name])
        else:
            own[name] = denoisers[name].denoise(x, level)
    mean = joint(noisy, own, level, covariances).mean
    if not again:
        return mean
    precision = {name: _surrogate(joint, name, level).to(x) for name, x in noisy.items()}  # C^{-1}
    tilt = {name: features[name].apply(x).flatten(1) * 0 for name, x in noisy.items()}  # h
    pseudo = own  # m - C h: what Eq. 6 is to be given
    apart = _apart(joint, own, mean)
    for _ in range(again):
        new_tilt, new_own, new_pseudo = {}, {}, {}
        for name, f in features.items():
            # Eq. 6 solved: blockdiag(C^{-1}) (m* - pseudo) = eta_c - K m*
            h = f.apply(mean[name] - pseudo[name]).flatten(1) @ precision[name]
            new_tilt[name] = h
            shift = f.adjoint(h.reshape(-1, *f.out_shape))
            new_own[name] = denoisers[name].denoise(noisy[name] + level.sigma**2 / level.alpha * shift, level)
            back = torch.linalg.solve(precision[name], h.mT).mT
            new_pseudo[name] = new_own[name] - f.adjoint(back.reshape(-1, *f.out_shape))
        new_mean = joint(noisy, new_pseudo, level).mean
        new_apart = _apart(joint, new_own, new_mean)
        better = new_apart < apart
        mean, tilt, pseudo = (
            {name: torch.where(better.reshape(-1, *[1] * (a[name].ndim - 1)), a[name], b[name]) for name in a}
            for a, b in ((new_mean, mean), (new_tilt, tilt), (new_pseudo, pseudo))
        )
        apart = torch.where(better, new_apart, apart)
    return mean


def sample_again(
    joint: ps.JointDenoiser,
    denoisers: Mapping[str, Denoiser],
    scheduler: Any,
    steps: int,
    white: Mapping[str, Tensor],
    again: int = 1,
) -> dict[str, Tensor]:
    """Joint samples ``(n, *shape)`` by DDIM with `joint_mean`, from white noise that is correlated where c > 0."""
    names = joint.graph.trajectories
    states = [white[name] for name in names]
    if joint.noise is not None:
        states = correlate(joint.noise, joint.reduction, states, joint.carriers)
    noisy = dict(zip(names, states, strict=True))
    scheduler.set_timesteps(steps)
    for timestep in scheduler.timesteps:
        kept = float(scheduler.alphas_cumprod[timestep])
        level = NoiseLevel(kept**0.5, (1 - kept) ** 0.5)
        mean = joint_mean(joint, denoisers, noisy, level, again)
        noisy = {
            name: scheduler.step((x - level.alpha * mean[name]) / level.sigma, timestep, x).prev_sample
            for name, x in noisy.items()
        }
    return noisy


def _surrogate(joint: ps.JointDenoiser, name: str, level: NoiseLevel) -> Tensor:
    prior = own_prior(joint.reduction.graph, name).precision
    prior = torch.diag(prior) if prior.ndim == 1 else prior
    return prior + level.snr * torch.eye(len(prior), dtype=prior.dtype)


def _apart(joint: ps.JointDenoiser, own: Mapping[str, Tensor], mean: Mapping[str, Tensor]) -> Tensor:  # (n)
    parts = [f.apply(mean[name] - own[name]).flatten(1).square().sum(1) for name, f in joint.reduction.features.items()]
    return torch.stack(parts).sum(0)
