"""Langevin steps at one noise level: predictor-corrector sampling with the joint score (Song et al., 2021)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ..errors import ParameterError
from ..levels import NoiseLevel


@dataclass(frozen=True)
class Langevin:
    """Langevin steps before every denoising step, preconditioned by the noise covariance R.

    One step is ``x <- x + h sigma^2 R s(x) + sigma sqrt(2 h) eps``, Cov(eps) = R, with the joint score s of Eq. 7; by
    Tweedie's formula ``sigma^2 R s = alpha m_joint - x`` (Eq. 5'), so R is never formed. A diffused density is nowhere
    sharper than its noise, hence a step is stable for ``0 < h < 2`` whatever R, the level and the coupling; on a
    Gaussian of variance v the stationary variance is ``v / (1 - h sigma^2 / (2 v))``.

    Parameters
    ----------
    steps
        steps per noise level; each costs one evaluation of every denoiser.
    step_size
        h, in units of sigma^2. Song et al.'s signal-to-noise rule with ratio r is ``h = 2 r^2`` where the score has its
        expected norm (their r = .16 is .05); being fixed, it does not depend on the other samples of a batch.
    noisiest
        corrects only where ``sigma / alpha`` is at most this: above, states are noise and the steps are wasted.
    finest
        corrects only where ``sigma / alpha`` is at least this: below, modes no longer mix.

    Raises ParameterError.

    Without noise, a step of size h goes the share h of the way to ``alpha m_joint``:

    >>> import torch, pgm_sync as ps
    >>> step, level = ps.Langevin(step_size=0.25).step, ps.NoiseLevel(alpha=0.8, sigma=0.6)
    >>> step([torch.tensor([[4.0]])], joint=[torch.tensor([[0.0]])], noise=[torch.zeros(1, 1)], level=level)
    [tensor([[3.]])]
    """

    steps: int = 1
    step_size: float = 0.1
    noisiest: float = math.inf
    finest: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.steps, int) or isinstance(self.steps, bool) or self.steps < 1:
            raise ParameterError(f"Langevin: steps={self.steps!r} must be a positive integer", steps=self.steps)
        if not 0 < self.step_size < 2:
            raise ParameterError(
                f"Langevin: step_size={self.step_size!r} must lie between 0 and 2 (in units of sigma^2), where a "
                "step is stable",
                step_size=self.step_size,
            )
        if not 0 <= self.finest <= self.noisiest:
            raise ParameterError(
                f"Langevin: finest={self.finest!r} and noisiest={self.noisiest!r} must satisfy 0 <= finest <= noisiest"
            )

    def acts(self, level: NoiseLevel) -> bool:
        """Whether this level is corrected."""
        alpha, sigma = float(level.alpha), float(level.sigma)
        return self.finest * alpha <= sigma and (
            self.noisiest == math.inf or sigma <= self.noisiest * alpha
        )

    def step(
        self, states: Sequence[Tensor], joint: Sequence[Tensor], noise: Sequence[Tensor], level: NoiseLevel
    ) -> list[Tensor]:
        """One step of all carriers: states, joint denoised contents and noise of covariance R, ``(n, *shape)`` each."""
        h = self.step_size
        spread = level.sigma * math.sqrt(2 * h)
        return [
            x + h * (level.alpha * m - x) + spread * e
            for x, m, e in zip(states, joint, noise, strict=True)
        ]
