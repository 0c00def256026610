"""Gaussian components: the exact posterior under a mixture, which is the logic of three denoisers.

A single Gaussian, a Gaussian mixture and a finite data set (point masses, or a kernel density) are the same
model at different sizes. All of them keep component k as a mean, an orthonormal basis with one variance per
column, and one residual variance for every direction orthogonal to that basis; optionally all components
live in a shared orthonormal frame, with one more residual variance outside it. The noise is white, so it is
white in each of those coordinates too, and every formula below is elementwise in them.
"""

from __future__ import annotations

import operator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import DtypeError, ParameterError, ShapeError
from ..levels import NoiseLevel
from ..maps import LinearMap
from .base import DenoisedPosterior, Denoiser

CHUNK_ELEMENTS = 2**24  # the largest temporary, in numbers: 64 MiB in float32


class Components(NamedTuple):
    """Parameters of K components in p latent dimensions; the event has D = prod(shape) elements."""

    log_weights: Tensor  # (K)
    means: Tensor  # (K, p), in the frame, relative to its center
    basis: Tensor  # (K, p, r), orthonormal columns; r = 0 for isotropic components
    variances: Tensor  # (K, r), along the basis
    residual: Tensor  # (K), variance orthogonal to the basis
    center: Tensor  # (D)
    frame: Tensor | None  # (D, p), orthonormal columns shared by all components; None: p = D, the identity
    outside: Tensor  # (), variance orthogonal to the frame, the same under every component

    def to(self, dtype: torch.dtype, device: torch.device) -> Components:
        return Components(*(t if t is None else t.to(dtype=dtype, device=device) for t in self))

    def select(self, index: Tensor) -> Components:
        """The components that `index` (a mask or positions) picks."""
        return self._replace(
            **{name: getattr(self, name)[index] for name in ("log_weights", "means", "basis", "variances", "residual")}
        )

    @property
    def is_full_rank(self) -> bool:
        """No direction of the frame is left to the residual variance."""
        return self.basis.shape[2] == self.basis.shape[1]


class FeatureProjection(NamedTuple):
    """What f features see of the components."""

    means: Tensor  # (K, f), relative to the features of the center
    frame: Tensor  # (f, p)
    basis: Tensor  # (K, f, r)
    residual_gram: Tensor  # (K or 1, f, f), of the directions left to the residual variance
    outside_gram: Tensor  # (f, f), of the directions outside the frame


def project(components: Components, features: Tensor) -> FeatureProjection:  # features: (f, D)
    """The components as seen through the rows of `features`."""
    c = components
    frame = features if c.frame is None else features @ c.frame
    outside = torch.zeros_like(features[:, :1]) if c.frame is None else features - frame @ c.frame.T
    basis = frame @ c.basis
    rest = frame[None] if c.basis.shape[2] == 0 else frame - basis @ c.basis.mT
    return FeatureProjection(c.means @ frame.T, frame, basis, rest @ rest.mT, outside @ outside.T)


class Gains(NamedTuple):
    """Per-component shrinkage at m noise levels (m = 1, or one per row)."""

    alpha: Tensor  # (m)
    noise_variance: Tensor  # (m)
    along: Tensor  # (K, m, r), d(denoised)/d(noisy) along the basis
    rest: Tensor  # (K, m), orthogonal to it
    outside: Tensor  # (m), outside the frame


def gains(components: Components, alpha: Tensor, sigma: Tensor) -> Gains:  # alpha, sigma: (m)
    """alpha v / (alpha^2 v + sigma^2) for every variance v of the model."""
    # The floor turns sigma = 0 into the limit (nearest component, its own support) instead of 0/0.
    noise = (sigma**2).clamp_min(torch.finfo(sigma.dtype).eps ** 2)

    def gain(variance: Tensor, a: Tensor, n: Tensor) -> Tensor:
        return a * variance / (a**2 * variance + n)

    return Gains(
        alpha,
        noise,
        gain(components.variances[:, None, :], alpha[:, None], noise[:, None]),
        gain(components.residual[:, None], alpha, noise),
        gain(components.outside, alpha, noise),
    )


def coordinates(components: Components, latent: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
    """Offsets from each component's noisy mean: coordinates (K, n, r) in its basis, squared rest (K, n).

    The rest is formed explicitly: |offset|^2 - |coordinates|^2 cancels catastrophically in float32.
    """
    c = components
    if c.basis.shape[2] == 0 and alpha.numel() == 1:
        distance = torch.cdist(alpha * c.means, latent, compute_mode="donot_use_mm_for_euclid_dist")
        return latent.new_zeros(*distance.shape, 0), distance**2
    offsets = latent - alpha[:, None] * c.means[:, None, :]  # (K, n, p)
    z = offsets @ c.basis
    if c.is_full_rank:
        return z, latent.new_zeros(z.shape[:2])
    rest = offsets - z @ c.basis.mT
    return z, rest.square().sum(-1)


def responsibilities(
    components: Components,
    g: Gains,
    z: Tensor,  # (K, n, r)
    rest: Tensor,  # (K, n)
    allowed: Tensor | None = None,  # (K, n) bool
) -> Tensor:  # (K, n), columns sum to one
    """Posterior probability of each component given the noisy state."""
    c, (p, r) = components, components.basis.shape[1:]
    # Logs relative to the pure-noise density, so that large sigma cancels nothing (log1p, not differences of logs).
    snr = g.alpha**2 / g.noise_variance
    log_determinant = torch.log1p(snr[:, None] * c.variances[:, None, :]).sum(-1)
    quadratic = (z**2 / (g.alpha[:, None] ** 2 * c.variances[:, None, :] + g.noise_variance[:, None])).sum(-1)
    if r < p:
        log_determinant = log_determinant + (p - r) * torch.log1p(snr * c.residual[:, None])
        quadratic = quadratic + rest / (g.alpha**2 * c.residual[:, None] + g.noise_variance)
    logits = c.log_weights[:, None] - (log_determinant + quadratic) / 2
    if allowed is not None:
        logits = logits.masked_fill(~allowed, -torch.inf)
    return torch.softmax(logits, dim=0)


def posterior_mean(components: Components, g: Gains, latent: Tensor, z: Tensor, weights: Tensor) -> Tensor:  # (n, p)
    """Responsibility-weighted posterior means, in the frame."""
    c = components
    shrunk = weights * g.rest  # (K, n)
    mean = (weights - g.alpha * shrunk).T @ c.means + shrunk.sum(0)[:, None] * latent
    if c.basis.shape[2]:
        along = weights[..., None] * (g.along - g.rest[..., None]) * z  # (K, n, r)
        mean = mean + along.transpose(0, 1).flatten(1) @ c.basis.mT.flatten(0, 1)
    return mean


def posterior_covariance(
    components: Components,
    seen: FeatureProjection,
    g: Gains,
    latent: Tensor,
    z: Tensor,
    weights: Tensor,
) -> Tensor:  # (n, f, f)
    """Law of total covariance: within components plus between their posterior means; a sum of Gram matrices."""
    c, f = components, seen.frame.shape[0]
    per_gain = g.noise_variance / g.alpha.clamp_min(torch.finfo(g.alpha.dtype).tiny)

    # gain * sigma^2 / alpha is the posterior variance; written out because alpha may be 0 (pure noise).
    def variance(prior: Tensor, a: Tensor, n: Tensor) -> Tensor:
        return prior * n / (a**2 * prior + n)

    del per_gain
    along = variance(c.variances[:, None, :], g.alpha[:, None], g.noise_variance[:, None])  # (K, m, r)
    rest = variance(c.residual[:, None], g.alpha, g.noise_variance)  # (K, m)
    outside = variance(c.outside, g.alpha, g.noise_variance)  # (m)
    within = outside[:, None, None] * seen.outside_gram
    if len(seen.residual_gram) == 1:
        within = within + (weights * rest).sum(0)[:, None, None] * seen.residual_gram
    else:
        within = within + ((weights * rest).T @ seen.residual_gram.flatten(1)).unflatten(1, (f, f))
    if c.basis.shape[2]:
        if along.shape[1] == 1:
            grams = (seen.basis * along) @ seen.basis.mT  # (K, f, f)
            within = within + (weights.T @ grams.flatten(1)).unflatten(1, (f, f))
        else:
            roots = (weights[..., None] * along).sqrt()[:, :, None, :] * seen.basis[:, None]  # (K, n, f, r)
            roots = roots.permute(1, 2, 0, 3).flatten(2)
            within = within + roots @ roots.mT
    means = seen.means[:, None] * (1 - g.alpha * g.rest)[..., None] + g.rest[..., None] * (latent @ seen.frame.T)
    means = means + ((g.along - g.rest[..., None]) * z) @ seen.basis.mT  # (K, n, f)
    deviations = means - (weights[..., None] * means).sum(0)
    deviations = (weights.sqrt()[..., None] * deviations).permute(1, 2, 0)  # (n, f, K)
    return within + deviations @ deviations.mT
