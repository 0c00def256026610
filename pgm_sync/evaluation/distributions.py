"""Distances between two sets of samples: sliced Wasserstein, Fréchet (FID), kernel (KID)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import ParameterError, ShapeError
from ..metrics import Measurement, bootstrap_weights, squared_discrepancy
from .features import AT_ONCE, Features, elements, embed, pooled_pixels

Groups = Sequence[int] | Tensor | None
DRAWS = 400


def sliced_wasserstein(
    samples: Tensor,  # (n, *shape)
    reference: Tensor,  # (m, *shape)
    features: Features = elements,
    projections: int = 128,
    groups: Groups = None,  # (n)
    reference_groups: Groups = None,  # (m)
    draws: int = DRAWS,
    seed: int = 0,
) -> Measurement:
    """Mean 1-Wasserstein distance of one-dimensional projections [Bonneel2015]_; in units of an element, 0 is best.

    `samples` and `reference` are ``(n, *shape)`` and ``(m, *shape)``. Directions are uniform on the sphere,
    `projections` of them from `seed`, orthogonal in blocks [Rowland2019]_; for the interval they count as given. What
    is projected is by default all elements, else `features`. As every plug-in distance it is above 0 for finite samples
    of equal distributions: compare methods at equal n. The interval is a bootstrap over both kinds of samples (whole
    `groups` and `reference_groups` where given), `draws` times, its mean moved to the value: it is about the distance
    expected at these n and m.

    >>> x = torch.randn(50, 1, generator=torch.Generator().manual_seed(0))
    >>> round(sliced_wasserstein(x + 2, x, draws=50).value, 4)  # moved by 2
    2.0

    Raises ShapeError, NotFiniteError, ParameterError.
    """
    if projections < 1:
        raise ParameterError(f"projections={projections} must be at least 1", projections=projections)
    x, y = _two(samples, reference, features)
    generator = torch.Generator().manual_seed(seed)
    directions = _directions(x.shape[1], projections, generator).to(x)
    pooled = torch.cat([x, y])
    pooled = (pooled - pooled.mean(0)) @ directions  # (n + m, projections)
    weights, name = _two_weights(len(x), len(y), groups, reference_groups, draws, seed)
    w = torch.cat(
        [weights[0] / weights[0].sum(1, keepdim=True), -weights[1] / weights[1].sum(1, keepdim=True)], 1
    )
    w = w.to(pooled)
    total = w.new_zeros(len(w))
    for column in pooled.T:  # the integral of |F_x - F_y|, a step function
        ordered, order = column.sort()
        total += w[:, order].cumsum(1)[:, :-1].abs() @ ordered.diff()
    return _bootstrapped(total / projections, len(x), name, at_least=0.0)


def frechet_distance(
    samples: Tensor,  # (n, *shape)
    reference: Tensor,  # (m, *shape)
    features: Features = pooled_pixels,
    extrapolate: bool = False,
    groups: Groups = None,  # (n)
    reference_groups: Groups = None,  # (m)
    draws: int = DRAWS // 2,
    seed: int = 0,
    batch: int = AT_ONCE,
) -> Measurement:
    """Fréchet distance of Gaussians fitted to features, ``|mu - mu'|^2 + tr(S + S' - 2 (S S')^(1/2))``; 0 is best.

    With Inception's features this is the FID [Heusel2017]_; with others its numbers compare only with themselves. The
    value is biased upwards, about as 1 / n, so methods are compared at equal n; `extrapolate` takes the bias away, to
    the order 1 / n, as [Chong2020]_ do, by the bootstrap instead of a line (n well above the number of features needed,
    and values around 0 can be negative). The interval is a bootstrap over both kinds of samples (whole `groups` and
    `reference_groups` where given), `draws` times from `seed`, its mean moved to the value. `samples` and `reference`
    are ``(n, *shape)`` and ``(m, *shape)``, embedded `batch` at a time.

    >>> x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    >>> round(frechet_distance(x + torch.tensor([3.0, 4.0]), x).value, 3)  # the same covariance: 3^2 + 4^2
    25.0

    Raises ShapeError, NotFiniteError, ParameterError on `extrapolate` without draws.
    """
    if extrapolate and draws < 20:
        raise ParameterError(f"extrapolate=True needs 20 draws or more, got {draws}", draws=draws)
    x, y = _two(samples, reference, features, batch)
    center = torch.cat([x, y]).mean(0)
    x, y = x - center, y - center
    (w, v), name = _two_weights(len(x), len(y), groups, reference_groups, draws, seed)
    found = torch.stack([_frechet(x, y, a, b) for a, b in zip(w.to(x), v.to(y), strict=True)])
    made = _bootstrapped(found, len(x), name, at_least=None if extrapolate else 0.0)
    if not extrapolate:
        return made
    assert made.draws is not None  # there are 20 or more
    bias = float(found[1:].mean() - found[0])
    return Measurement(
        made.value - bias,
        made.low - bias,
        made.high - bias,
        made.samples,
        None,
        made.draws - bias,
        made.resampling,
    )


def kernel_distance(
    samples: Tensor,  # (n, *shape)
    reference: Tensor,  # (m, *shape)
    features: Features = pooled_pixels,
    groups: Groups = None,  # (n)
    reference_groups: Groups = None,  # (m)
    draws: int = DRAWS,
    seed: int = 0,
    batch: int = AT_ONCE,
) -> Measurement:
    """Unbiased squared maximum mean discrepancy under ``k(a, b) = (a'b / d + 1)^3``; 0 is best, below 0 is chance.

    With Inception's features this is the KID [Binkowski2018]_, here over all pairs rather than over subsets, and not
    times 1000. The interval is that of `pgm_sync.metrics.energy_distance`, which holds at no difference too.

    `samples` and `reference` are ``(n, *shape)`` and ``(m, *shape)``, embedded by `features` `batch` at a time;
    `groups`, `reference_groups`, `draws` and `seed` as of `pgm_sync.metrics.squared_discrepancy`.

    >>> x, y = torch.randn(2, 200, 2, generator=torch.Generator().manual_seed(0))
    >>> round(kernel_distance(x, y).value, 1), round(kernel_distance(x + 2, y).value, 1)  # equal, and moved by 2
    (0.0, 214.8)

    Raises ShapeError, NotFiniteError.
    """
    x, y = _two(samples, reference, features, batch)

    def minus_kernel(a: Tensor, b: Tensor) -> Tensor:
        return -((a @ b.T / a.shape[1] + 1) ** 3)

    return squared_discrepancy(
        minus_kernel(x, x), minus_kernel(y, y), minus_kernel(x, y), groups, reference_groups, draws, seed
    )


def _directions(size: int, count: int, generator: torch.Generator) -> Tensor:  # (size, count)
    """Unit vectors, orthogonal in blocks of `size`: their mean is closer to that over the sphere."""
    blocks = []
    for start in range(0, count, size):
        block = torch.randn(size, min(size, count - start), generator=generator, dtype=torch.float64)
        blocks.append(torch.linalg.qr(block).Q)
    return torch.cat(blocks, 1)


def _two(
    samples: Tensor, reference: Tensor, features: Features, batch: int = AT_ONCE
) -> tuple[Tensor, Tensor]:
    if samples.shape[1:] != reference.shape[1:]:
        raise ShapeError(
            f"samples of shapes {tuple(samples.shape)} and {tuple(reference.shape)} do not compare"
        )
    x, y = embed(samples, features, batch), embed(reference, features, batch)
    if min(len(x), len(y)) < 2:
        raise ShapeError(
            f"a distance of distributions needs 2 samples of each kind, got {len(x)} and {len(y)}"
        )
    return x, y.to(x)


def _two_weights(
    n: int, m: int, groups: Groups, reference_groups: Groups, draws: int, seed: int
) -> tuple[tuple[Tensor, Tensor], str]:
    """Weights ``(1 + draws, n)`` and ``(1 + draws, m)``, the first row of ones, and the name of this resampling."""
    if draws < 0:
        raise ParameterError(f"draws={draws} must not be negative", draws=draws)
    generator = torch.Generator().manual_seed(seed)
    made = []
    for count, labels in ((n, groups), (m, reference_groups)):
        whole = torch.ones(1, count, dtype=torch.float64)
        made.append(torch.cat([whole, bootstrap_weights(count, labels, draws, generator)]))
    units = [
        count if labels is None else len(torch.as_tensor(labels).unique())
        for count, labels in ((n, groups), (m, reference_groups))
    ]
    return (made[0], made[1]), f"{units[0]} against {units[1]}, {draws} draws, seed {seed}"


def _bootstrapped(found: Tensor, n: int, name: str, at_least: float | None) -> Measurement:
    """The first number found, with the interval of the others moved so that their mean is the first."""
    value = float(found[0])
    if len(found) < 21:  # no quantiles of a few draws
        return Measurement(value, math.nan, math.nan, n)
    draws = (found[1:] - found[1:].mean() + value).cpu()
    low, high = (float(q) for q in torch.quantile(draws, draws.new_tensor([0.025, 0.975])))
    low = low if at_least is None else max(low, at_least)
    return Measurement(value, min(low, value), max(high, value), n, None, draws, name)


def _frechet(x: Tensor, y: Tensor, w: Tensor, v: Tensor) -> Tensor:
    """Of weighted samples. With covariances ``L L'`` and ``M M'``, the trace of the root of their product is the sum of
    the singular values of ``L' M``."""
    means, roots, traces = [], [], []
    for samples, weights in ((x, w), (y, v)):
        n = weights.sum()
        mean = weights @ samples / n
        scaled = (samples - mean) * (weights / (n - 1)).sqrt()[:, None]  # scaled' scaled is the covariance
        if scaled.shape[0] > scaled.shape[1]:
            variances, basis = torch.linalg.eigh(scaled.T @ scaled)
            root = basis * variances.clamp_min(0).sqrt()  # (d, d)
        else:
            root = scaled.T  # (d, n)
        means.append(mean)
        roots.append(root)
        traces.append(scaled.square().sum())
    overlap = torch.linalg.svdvals(roots[0].T @ roots[1]).sum()
    return (means[0] - means[1]).square().sum() + traces[0] + traces[1] - 2 * overlap
