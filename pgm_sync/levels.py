"""The noise level of a state, x_t = alpha x_0 + sigma eps, as every scheduler and denoiser sees it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

SAME = 1e-3  # relative difference of snr; schedulers keep 1 - alpha^2 near 1e-3 in float32


class NoiseLevel(NamedTuple):
    """Coordinates of a noisy state: ``x_t = alpha * x_0 + sigma * eps``.

    Variance preserving: ``alpha**2 + sigma**2 = 1``; variance exploding: ``alpha = 1``; flow:
    ``alpha = 1 - sigma``.

    >>> import pgm_sync as ps
    >>> ps.NoiseLevel(alpha=0.8, sigma=0.4).snr  # alpha^2 / sigma^2
    4.0
    """

    alpha: float | Tensor
    sigma: float | Tensor
    timestep: Any = None  # the scheduler's own timestep, for denoisers that are networks
    scale_model_input: Callable[[Tensor], Tensor] | None = None  # the scheduler's scaling, likewise

    @property
    def snr(self) -> float | Tensor:
        """Signal-to-noise ratio alpha^2 / sigma^2, in (0, inf)."""
        return self.alpha**2 / self.sigma**2


def variance_preserving(snr: float) -> NoiseLevel:
    """The level with ``alpha**2 + sigma**2 = 1`` of a signal-to-noise ratio `snr` = ``alpha**2 / sigma**2`` >= 0.

    >>> level = variance_preserving(1.0)
    >>> level.alpha == level.sigma == 0.5**0.5
    True
    """
    return NoiseLevel(math.sqrt(snr / (1 + snr)), math.sqrt(1 / (1 + snr)))


def normalised(level: NoiseLevel) -> tuple[NoiseLevel, float | Tensor]:
    """The variance-preserving level of the same information, and by what to divide a state to bring it there.

    States of one signal-to-noise ratio differ by a factor between variance-preserving, variance-exploding and flow
    coordinates; unlike ``x / alpha`` this form stays finite where a flow schedule starts, at alpha = 0.

    >>> normalised(NoiseLevel(alpha=3.0, sigma=4.0))
    (NoiseLevel(alpha=0.6, sigma=0.8, timestep=None, scale_model_input=None), 5.0)
    """
    scale = (level.alpha**2 + level.sigma**2) ** 0.5
    return level._replace(alpha=level.alpha / scale, sigma=level.sigma / scale), scale


def same_level(a: NoiseLevel, b: NoiseLevel, tolerance: float = SAME) -> bool:
    """Whether levels `a` and `b` have one signal-to-noise ratio, up to the float32 rounding of schedulers.

    `tolerance` is the relative difference that passes. Levels of tensors agree if every element does.

    >>> same_level(NoiseLevel(0.6, 0.8), NoiseLevel(1.0, 4 / 3)), same_level(NoiseLevel(0.6, 0.8), NoiseLevel(1.0, 1.0))
    (True, False)
    """
    left, right = torch.as_tensor(a.snr, dtype=torch.float64), torch.as_tensor(b.snr, dtype=torch.float64)
    return bool(((left - right).abs() <= tolerance * torch.maximum(left, right)).all())


def expand(value: float | Tensor, like: Tensor, event_ndim: int) -> Tensor:
    """`value`, a number or one number per batch element, shaped to broadcast against ``(*batch, *event)``.

    `like` gives dtype and device, `event_ndim` the number of event axes.

    >>> pictures = torch.ones(2, 3, 8, 8)
    >>> expand(torch.tensor([0.6, 0.8]), like=pictures, event_ndim=3).shape
    torch.Size([2, 1, 1, 1])
    """
    value = torch.as_tensor(value, dtype=like.dtype, device=like.device)
    return value.reshape(value.shape + (1,) * event_ndim) if value.ndim else value
