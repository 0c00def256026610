"""Gaussian components: the exact posterior under a mixture, which is the logic of three denoisers.

A single Gaussian, a Gaussian mixture and a finite data set (point masses, or a kernel density) are the same
model at different sizes. All of them keep component k as a mean, an orthonormal basis with one variance per
column, and one residual variance for every direction orthogonal to that basis; optionally all components
live in a shared orthonormal frame, with one more residual variance outside it. The noise is white, so it is
white in each of those coordinates too, and every formula below is elementwise in them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import DtypeError, ParameterError, ShapeError
from ..levels import NoiseLevel
from ..maps import LinearMap
from .base import DenoisedPosterior, Denoiser
from .checks import as_integer, check_noisy, level_rows, shorten, working_dtype

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
        return self._replace(
            **{k: t.to(dtype=dtype, device=device) for k, t in self._asdict().items() if t is not None}
        )

    def select(self, index: Tensor) -> Components:
        """The components that `index` (a mask or positions) picks."""
        return self._replace(
            **{
                name: getattr(self, name)[index]
                for name in ("log_weights", "means", "basis", "variances", "residual")
            }
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

    def select(self, index: Tensor) -> FeatureProjection:
        """What they see of the components that `index` picks."""
        gram = self.residual_gram if len(self.residual_gram) == 1 else self.residual_gram[index]
        return self._replace(means=self.means[index], basis=self.basis[index], residual_gram=gram)


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


def log_joint(
    components: Components,
    g: Gains,
    z: Tensor,  # (K, n, r)
    rest: Tensor,  # (K, n)
    allowed: Tensor | None = None,  # (K, n) bool
) -> Tensor:  # (K, n)
    """log p(component, noisy state in the frame), up to ``p/2 log(2 pi noise_variance)``, which all share."""
    c, (p, r) = components, components.basis.shape[1:]
    # Logs relative to the pure-noise density, so that large sigma cancels nothing (log1p, no differences).
    snr = g.alpha**2 / g.noise_variance
    log_determinant = torch.log1p(snr[:, None] * c.variances[:, None, :]).sum(-1)
    quadratic = (z**2 / (g.alpha[:, None] ** 2 * c.variances[:, None, :] + g.noise_variance[:, None])).sum(-1)
    if r < p:
        log_determinant = log_determinant + (p - r) * torch.log1p(snr * c.residual[:, None])
        quadratic = quadratic + rest / (g.alpha**2 * c.residual[:, None] + g.noise_variance)
    logits = torch.log_softmax(c.log_weights, 0)[:, None] - (log_determinant + quadratic) / 2
    return logits if allowed is None else logits.masked_fill(~allowed, -torch.inf)


def posterior_mean(
    components: Components, g: Gains, latent: Tensor, z: Tensor, weights: Tensor
) -> Tensor:  # (n, p)
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
    """Law of total covariance: within components plus between their means; a sum of Gram matrices."""
    c, f = components, seen.frame.shape[0]

    # Eq. 4, sigma^2 / alpha * gain, written out because alpha may be 0 (pure noise).
    def variance(prior: Tensor, a: Tensor, n: Tensor) -> Tensor:
        return prior * n / (a**2 * prior + n)

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
    means = seen.means[:, None] * (1 - g.alpha * g.rest)[..., None] + g.rest[..., None] * (
        latent @ seen.frame.T
    )
    means = means + ((g.along - g.rest[..., None]) * z) @ seen.basis.mT  # (K, n, f)
    deviations = means - (weights[..., None] * means).sum(0)
    deviations = (weights.sqrt()[..., None] * deviations).permute(1, 2, 0)  # (n, f, K)
    return within + deviations @ deviations.mT


class ComponentDenoiser(Denoiser):
    """Exact denoiser of a distribution given as Gaussian components, which subclasses come by."""

    has_covariance = True

    def __init__(self, shape: tuple[int, ...], components: Components, labels: Tensor | None = None):
        self.shape = tuple(shape)
        self.components = components
        self.labels = labels  # (K), int64
        self._cast: dict[tuple[torch.dtype, torch.device], Components] = {}
        self._seen: tuple[LinearMap | None, torch.dtype, torch.device, FeatureProjection] | None = (
            None  # the last
        )

    def __repr__(self) -> str:
        k, p, r = self.components.basis.shape
        conditions = "" if self.labels is None else f", conditions={self.conditions}"
        return f"{type(self).__name__}(shape={self.shape}, components={k}, latent={p}, rank={r}{conditions})"

    @property
    def conditions(self) -> list[int]:
        """The labels that `condition` may take."""
        return [] if self.labels is None else self.labels.unique().tolist()

    @property
    def mean(self) -> Tensor:  # (*shape)
        """Prior mean of the clean content."""
        c = self.components
        latent = torch.softmax(c.log_weights, 0) @ c.means
        return (c.center + (latent if c.frame is None else c.frame @ latent)).reshape(self.shape)

    def sample(self, num_samples: int, *, generator: torch.Generator, condition: int | None = None) -> Tensor:
        """Independent exact draws of the clean content, ``(num_samples, *shape)``."""
        c = self.components if condition is None else self.components.select(self._matching(condition))
        weights = torch.softmax(c.log_weights, 0)
        k = torch.multinomial(weights, num_samples, replacement=True, generator=generator)

        def normal(*size: int) -> Tensor:
            return torch.randn(*size, generator=generator, dtype=c.means.dtype)

        x = c.means[k]
        if c.residual.any():
            e = normal(*x.shape)
            e = e - torch.einsum("npr,nr->np", c.basis[k], torch.einsum("npr,np->nr", c.basis[k], e))
            x = x + c.residual[k, None].sqrt() * e
        x = x + torch.einsum(
            "npr,nr->np", c.basis[k], c.variances[k].sqrt() * normal(num_samples, c.basis.shape[2])
        )
        if c.frame is not None:
            x = x @ c.frame.T
            if c.outside > 0:
                e = normal(*x.shape)
                x = x + c.outside.sqrt() * (e - (e @ c.frame) @ c.frame.T)
        return (c.center + x).reshape(num_samples, *self.shape)

    def denoise(
        self,
        noisy: Tensor,  # (*batch, *shape)
        level: NoiseLevel,
        condition: Any = None,  # None, a label, or a (*batch) tensor of labels
    ) -> Tensor:  # (*batch, *shape)
        """Exact ``E[x_0 | x_t]``.

        Raises ShapeError, DtypeError on a state that does not fit, ParameterError on an unknown label.
        """
        return self._run(noisy, level, condition, None)[0]

    def posterior(
        self,
        noisy: Tensor,  # (*batch, *shape)
        level: NoiseLevel,
        condition: Any = None,
        features: LinearMap | None = None,
    ) -> DenoisedPosterior:
        """Exact posterior mean, and covariance of ``features(x_0)`` (Eq. 4); positive semidefinite as built.

        Raises ShapeError, DtypeError on a state that does not fit, ParameterError on an unknown label.
        """
        check_noisy(self, noisy)
        mean, covariance = self._run(noisy, level, condition, self._projection(features, noisy))
        assert covariance is not None
        return DenoisedPosterior(mean, covariance)

    def _projection(self, features: LinearMap | None, like: Tensor) -> FeatureProjection:
        key = (features, working_dtype(like.dtype), like.device)
        if self._seen is None or self._seen[0] is not key[0] or self._seen[1:3] != key[1:]:
            components = self._components_as(*key[1:])
            if features is None:
                rows = torch.eye(components.center.numel(), dtype=key[1], device=like.device)
            elif tuple(features.in_shape) == self.shape:
                rows = features.dense().to(dtype=key[1], device=like.device)
            else:
                raise ShapeError(
                    f"features take shape {tuple(features.in_shape)}, "
                    f"but {type(self).__name__} denoises {self.shape}",
                    shape=self.shape,
                )
            self._seen = (*key, project(components, rows))
        return self._seen[3]

    def _run(
        self, noisy: Tensor, level: NoiseLevel, condition: Any, seen: FeatureProjection | None
    ) -> tuple[Tensor, Tensor | None]:
        batch = check_noisy(self, noisy)
        dtype = working_dtype(noisy.dtype)
        c = self._components_as(dtype, noisy.device)
        x = noisy.reshape(-1, c.center.numel()).to(dtype)
        alpha, sigma = level_rows(level, batch, x)
        allowed = None
        if isinstance(condition, Tensor) and condition.ndim:
            allowed = self._allowed(condition, batch)
        elif condition is not None:
            index = self._matching(condition).to(noisy.device)
            c, seen = c.select(index), None if seen is None else seen.select(index)
        k, p, r = c.basis.shape
        width = max(r, p if r or len(alpha) > 1 else 1)
        f = 0 if seen is None else len(seen.frame)
        chunk = max(1, CHUNK_ELEMENTS // (k * max(width, f * (r if len(alpha) > 1 else 1))))
        means, covariances = [], []
        for start in range(0, max(len(x), 1), chunk):
            rows = slice(start, start + chunk)
            level_slice = slice(None) if len(alpha) == 1 else rows
            part = None if allowed is None else allowed[:, rows]
            mean, covariance = _posterior_rows(c, x[rows], alpha[level_slice], sigma[level_slice], part, seen)
            means.append(mean)
            if covariance is not None:
                covariances.append(covariance)
        mean = torch.cat(means).reshape(noisy.shape).to(noisy.dtype)
        return mean, None if seen is None else torch.cat(covariances).reshape(*batch, f, f).to(noisy.dtype)

    def _components_as(self, dtype: torch.dtype, device: torch.device) -> Components:
        if (dtype, device) not in self._cast:
            self._cast[dtype, device] = self.components.to(dtype, device)
        return self._cast[dtype, device]

    def _matching(self, condition: Any) -> Tensor:  # (K) bool
        label = torch.as_tensor(as_integer(condition))
        return self._known_labels(label) == label

    def _allowed(self, condition: Tensor, batch: tuple[int, ...]) -> Tensor:  # (K, n) bool
        if condition.is_floating_point():
            raise DtypeError(f"labels are integers, got a condition of dtype {condition.dtype}")
        try:
            condition = condition.broadcast_to(batch)
        except RuntimeError:
            raise ShapeError(
                f"condition has shape {tuple(condition.shape)}, the batch {tuple(batch)}"
            ) from None
        condition = condition.reshape(-1)
        return self._known_labels(condition).to(condition.device)[:, None] == condition

    def _known_labels(self, condition: Tensor) -> Tensor:  # (K)
        """The labels, after a check that `condition` is among them."""
        if self.labels is None:
            raise ParameterError(
                f"{type(self).__name__} was given condition {shorten(condition)} but has no labels; "
                "build it with labels=, or pass condition=None"
            )
        known = torch.isin(condition.cpu(), self.labels.cpu())
        if not known.all():
            raise ParameterError(
                f"unknown label {shorten(condition.cpu()[~known])}; "
                f"{type(self).__name__} knows {self.conditions}"
            )
        return self.labels


def _posterior_rows(
    components: Components,
    x: Tensor,  # (n, D)
    alpha: Tensor,  # (1) or (n)
    sigma: Tensor,
    allowed: Tensor | None,  # (K, n)
    seen: FeatureProjection | None,
) -> tuple[Tensor, Tensor | None]:
    c, g = components, gains(components, alpha, sigma)
    centered = x - alpha[:, None] * c.center
    latent = centered if c.frame is None else centered @ c.frame
    z, rest = coordinates(c, latent, alpha)
    weights = torch.softmax(log_joint(c, g, z, rest, allowed), 0)
    mean = posterior_mean(c, g, latent, z, weights)
    if c.frame is not None:
        mean = mean @ c.frame.T + g.outside[:, None] * (centered - latent @ c.frame.T)
    covariance = None if seen is None else posterior_covariance(c, seen, g, latent, z, weights)
    return c.center + mean, covariance
