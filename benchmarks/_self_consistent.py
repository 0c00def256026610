"""Eq. 5 about the joint mean: the denoisers are asked again where the others say that the content lies.

Eq. 4 describes a denoiser's posterior by its mean and covariance at x_t. What the other trajectories multiply it with
is, to first order about the joint mean m*, exp(h'x) with h = eta_c - K m*; K and eta_c are the precision and eta of the
coupling. A posterior times exp(h'x) is the posterior at x_t + (sigma^2 / alpha) h, at the same noise level: exactly, of
any denoiser. So: solve Eq. 6, shift, ask again, and solve Eq. 6 with what is left,

    (blockdiag(C_i^{-1}) + K) m* = blockdiag(C_i^{-1}) m_i(h) - h + eta_c .

For Gaussian denoisers of the potentials' marginals nothing changes. The fixed point, m_i(h_i) = m*_i, does not depend
on C_i, so the surrogate serves. A part of h (`step`) leaves more to the second order, which counts where K is large.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

import pgm_sync as ps
from pgm_sync.denoisers import Denoiser
from pgm_sync.gaussian import Gaussian
from pgm_sync.inference import compile, dense_joint
from pgm_sync.levels import NoiseLevel
from pgm_sync.score.covariance import floored_solve, guarded_precision
from pgm_sync.score.noise import correlate, likelihood
from pgm_sync.score.reduction import own_prior

Contents = dict[str, Tensor]  # (n, *shape) each


class Dense(NamedTuple):
    """The potentials of a graph as matrices over all features."""

    coupling: Gaussian  # K and eta_c
    prior: Tensor  # Sigma^{-1}
    own: dict[str, Tensor]  # Sigma_ii^{-1}

    @classmethod
    def of(cls, joint: ps.JointDenoiser) -> Dense:
        graph = joint.reduction.graph
        alone = ps.FactorGraph()  # without what correlated noise adds
        for name in joint.reduction.features:
            alone.add_trajectory(name, graph.shape(name))
        for f in graph.factors:
            if graph.potential(f).marginals(graph.seen_shapes(f))[0] is not None:
                alone.add_factor(f, graph.scope(f), graph.potential(f), graph.nodes[f]["maps"])
        own = {name: own_prior(alone, name).precision for name in joint.reduction.features}
        own = {name: torch.diag(p) if p.ndim == 1 else p for name, p in own.items()}
        zero = torch.zeros((), dtype=torch.float64)
        unary = {name: Gaussian(p, zero.expand(len(p)), zero) for name, p in own.items()}
        sites = compile(alone).sites
        return cls(dense_joint(alone, None, sites), dense_joint(alone, unary, sites).precision, own)


def joint_mean(
    joint: ps.JointDenoiser,
    denoisers: Mapping[str, Denoiser],
    noisy: Mapping[str, Tensor],  # (n, *shape)
    level: NoiseLevel,
    again: int = 0,
    step: float = 1.0,
    dense: Dense | None = None,
) -> Contents:
    """Joint means ``(n, *shape)``; with `again`, asked so many times more, kept sample by sample where it helps.

    Kept where the joint means and the denoisers' own, at the shifted states, come closer to each other.
    """
    own, covariances = _ask(joint, denoisers, noisy, level)
    mean = joint(noisy, own, level, covariances).mean
    if not again:
        return mean
    features = joint.reduction.features
    dense = Dense.of(joint) if dense is None else dense

    def seen(contents: Mapping[str, Tensor]) -> Tensor:  # (n, P)
        return torch.cat([f.apply(contents[name]).flatten(1) for name, f in features.items()], 1)

    def lift(values: Tensor) -> Contents:
        parts = values.split([f.out_size for f in features.values()], 1)
        return {n: f.adjoint(u.reshape(-1, *f.out_shape)) for u, (n, f) in zip(parts, features.items(), strict=True)}

    like = next(iter(noisy.values()))
    coupling, eta = dense.coupling.precision.to(like), dense.coupling.eta.to(like)
    if joint.noise is not None:
        extra = likelihood(joint.noise, level.snr, seen(noisy) / level.alpha)
        coupling, eta = coupling + extra.precision, eta + extra.eta
    tilt = torch.zeros_like(seen(mean))  # h
    apart = (seen(mean) - seen(own)).square().sum(1)
    for _ in range(again):
        new_tilt = (1 - step) * tilt + step * (eta - seen(mean) @ coupling)
        shift = lift(level.sigma**2 / level.alpha * new_tilt)
        own, covariances = _ask(joint, denoisers, {n: x + shift[n] for n, x in noisy.items()}, level)
        residual = eta - seen(own) @ coupling - new_tilt
        if covariances:
            inverses = [guarded_precision(covariances[n], dense.own[n], torch.inf)[0] for n in features]
            precision = coupling + torch.stack([torch.block_diag(*row) for row in zip(*inverses, strict=True)])
            change = floored_solve(precision, residual, dense.prior, 1.0)[0]
        else:
            blocks = [p.to(like) + level.snr * torch.eye(len(p)).to(like) for p in dense.own.values()]
            change = torch.linalg.solve(coupling + torch.block_diag(*blocks), residual.mT).mT
        new_apart = change.square().sum(1)
        better = new_apart < apart
        moved = lift(change)
        mean = {n: torch.where(_rows(better, own[n]), own[n] + moved[n], mean[n]) for n in mean}
        tilt, apart = torch.where(better[:, None], new_tilt, tilt), torch.where(better, new_apart, apart)
    return mean


def sample_again(
    joint: ps.JointDenoiser,
    denoisers: Mapping[str, Denoiser],
    scheduler: Any,
    steps: int,
    white: Mapping[str, Tensor],
    again: int = 1,
    step: float = 1.0,
) -> Contents:
    """Joint samples ``(n, *shape)`` by DDIM with `joint_mean`, from white noise that is correlated where c > 0."""
    names = joint.graph.trajectories
    states = [white[name] for name in names]
    if joint.noise is not None:
        states = correlate(joint.noise, joint.reduction, states, joint.carriers)
    noisy, dense = dict(zip(names, states, strict=True)), Dense.of(joint)
    scheduler.set_timesteps(steps)
    for timestep in scheduler.timesteps:
        kept = float(scheduler.alphas_cumprod[timestep])
        level = NoiseLevel(kept**0.5, (1 - kept) ** 0.5)
        mean = joint_mean(joint, denoisers, noisy, level, again, step, dense)
        noisy = {
            name: scheduler.step((x - level.alpha * mean[name]) / level.sigma, timestep, x).prev_sample
            for name, x in noisy.items()
        }
    return noisy


def _ask(
    joint: ps.JointDenoiser, denoisers: Mapping[str, Denoiser], noisy: Mapping[str, Tensor], level: NoiseLevel
) -> tuple[Contents, Contents]:
    """Means, and covariances of the features where the joint denoiser needs them."""
    means, covariances = {}, {}
    for name, x in noisy.items():
        if name in joint.needs_covariance:
            feature = joint.reduction.features[name]
            means[name], covariances[name] = denoisers[name].posterior(x, level, None, feature)
        else:
            means[name] = denoisers[name].denoise(x, level)
    return means, covariances


def _rows(mask: Tensor, like: Tensor) -> Tensor:
    return mask.reshape(-1, *[1] * (like.ndim - 1))
