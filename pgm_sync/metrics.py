"""Measures of samples, each with a 95 % interval and its sample count."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

Z95 = 1.959963984540054


class Estimate(NamedTuple):
    """A measured number, its 95 % interval, and the number of samples behind it."""

    value: float
    low: float
    high: float
    samples: int

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}] (n={self.samples})"


def proportion(successes: int, n: int) -> Estimate:
    """A share of n independent trials, with Wilson's interval.

    >>> print(proportion(8, 10))
    0.8000 [0.4902, 0.9433] (n=10)
    """
    share, z2 = successes / n, Z95**2
    center = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return Estimate(share, center - half, center + half, n)


def far_correlation(pictures: Tensor, window: int, far: int) -> Estimate:  # (n, C, H, W)
    """Correlation, over pictures, of the mean brightness of `window` columns from 0 and from `far` on."""
    ends = (pictures[..., :window], pictures[..., far : far + window])
    left, right = (end.double().flatten(1).mean(1) for end in ends)

    def statistic(weights: Tensor) -> Tensor:  # (..., n) -> (...), on Fisher's scale
        w = weights / weights.sum(-1, keepdim=True)
        a, b = (x - (w * x).sum(-1, keepdim=True) for x in (left, right))
        covariance = (w * a * b).sum(-1)
        scale = ((w * a * a).sum(-1) * (w * b * b).sum(-1)).sqrt()
        return torch.atanh((covariance / scale).clamp(-1 + 1e-12, 1 - 1e-12))

    z = _jackknife(statistic, len(pictures))
    return Estimate(math.tanh(z.value), math.tanh(z.low), math.tanh(z.high), z.samples)


def seam_discontinuity(pictures: Tensor, seams: list[int]) -> Estimate:  # (n, C, H, W)
    """Mean absolute step into the columns `seams`, over that into all other columns; 1 for seamless pictures.

    nan without seams.
    """
    if not seams:
        return Estimate(math.nan, math.nan, math.nan, len(pictures))
    steps = (pictures[..., 1:] - pictures[..., :-1]).double().abs().mean((1, 2))  # (n, W - 1)
    at = torch.zeros(steps.shape[1], dtype=torch.bool)
    at[[s - 1 for s in seams]] = True
    across, elsewhere = steps[:, at].mean(1), steps[:, ~at].mean(1)
    return _jackknife(lambda w: (w * across).sum(-1) / (w * elsewhere).sum(-1), len(pictures))


def energy_distance(pictures: Tensor, reference: Tensor) -> Estimate:  # (n, C, H, W), (m, C, H, W)
    """Unbiased energy distance between two sets of pictures; 0 for equal distributions.

    Distances between pictures are root mean square, so that the number of pixels does not matter.
    """
    x, y = (p.flatten(1).float() / math.sqrt(p[0].numel()) for p in (pictures, reference))
    to_reference = torch.cdist(x, y).double().mean(1)
    among = torch.cdist(x, x).double()
    m = len(y)
    spread = torch.cdist(y, y).double().sum() / (m * (m - 1))

    def statistic(weights: Tensor) -> Tensor:  # weights are zero or one
        n = weights.sum(-1)
        pairs = ((weights @ among) * weights).sum(-1) / (n * (n - 1))
        return 2 * (weights * to_reference).sum(-1) / n - pairs - spread

    return _jackknife(statistic, len(pictures))


def _jackknife(statistic: Callable[[Tensor], Tensor], n: int) -> Estimate:
    """`statistic` of all pictures, and its 95 % interval from leaving out each in turn."""
    value = float(statistic(torch.ones(n, dtype=torch.float64)))
    if n < 3:
        return Estimate(value, math.nan, math.nan, n)
    without = statistic(1 - torch.eye(n, dtype=torch.float64))
    error = Z95 * math.sqrt((n - 1) / n * float(((without - without.mean()) ** 2).sum()))
    return Estimate(value, value - error, value + error, n)
