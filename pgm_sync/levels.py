"""The noise level of a state, x_t = alpha x_0 + sigma eps, as every scheduler and denoiser sees it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor


class NoiseLevel(NamedTuple):
    """Coordinates of a noisy state: ``x_t = alpha * x_0 + sigma * eps``.

    Variance preserving: ``alpha**2 + sigma**2 = 1``; variance exploding: ``alpha = 1``; flow:
    ``alpha = 1 - sigma``.

    >>> NoiseLevel(alpha=0.8, sigma=0.4).snr
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
    """The level with ``alpha**2 + sigma**2 = 1`` of a signal-to-noise ratio.

    >>> level = variance_preserving(1.0)
    >>> level.alpha == level.sigma == 0.5**0.5
    True
    """
    return NoiseLevel(math.sqrt(snr / (1 + snr)), math.sqrt(1 / (1 + snr)))


def expand(value: float | Tensor, like: Tensor, event_ndim: int) -> Tensor:
    """`value`, a number or one number per batch element, shaped to broadcast against ``(*batch, *event)``."""
    value = torch.as_tensor(value, dtype=like.dtype, device=like.device)
    return value.reshape(value.shape + (1,) * event_ndim) if value.ndim else value
