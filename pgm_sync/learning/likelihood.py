"""How likely clean contents look to a denoiser: the variational bound of a diffusion model, by quadrature.

For the exact denoiser m of a density p, the I-MMSE relation holds sample by sample (Guo et al. 2005; Kong et al. 2023),

    log p(x) = log N(x; 0, s) + 1/2 int (|x - m_N(x_t)|^2 - |x - m(x_t)|^2) d(snr),     averaged over x_t given x,

N being a Gaussian of any variance s. Both squared errors go as D / snr, so the difference converges where either
alone does not, and with the same noise in both most of the Monte Carlo error cancels. For a denoiser that is no
density's own it is the evidence lower bound of variational diffusion models (Kingma et al. 2021), up to what the
denoiser leaves at the ends.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..denoisers import Denoiser
from ..errors import NotFiniteError, ParameterError, ShapeError
from ..levels import NoiseLevel, variance_preserving
from ..sampling import noise_level

LOG_SNR = (
    math.log(1e-3),
    math.log(1e6),
)  # in units of 1 / scale: the errors beyond fall as their first order


@torch.no_grad()
def denoiser_elbo(
    denoiser: Denoiser,
    samples: Tensor,  # (n, *shape)
    levels: Sequence[NoiseLevel] | None = None,
    num_levels: int = 48,
    num_noises: int = 1,
    condition: Any = None,
    scale: float | None = None,
    seed: int = 0,
) -> Tensor:  # (n,)
    """Log density in nats of every sample under the model that `denoiser` implies (what Eq. 19 adds up), float64.

    Parameters
    ----------
    levels
        noise levels to integrate over, in any order, for a network those it was trained for (`scheduler_levels`); by
        default `num_levels` variance preserving ones, equally spaced in log snr, from 1e-3 to 1e6 over `scale`.
        Trapezoidal rule in log snr; beyond the ends the integrand is taken as constant below, as falling with
        snr^-2 above.
    num_noises
        antithetic pairs of noise per sample and level: ``2 * num_levels * num_noises`` evaluations.
    condition
        handed to the denoiser.
    scale
        variance s of the Gaussian compared with, by default the mean square of `samples`. The value does not depend on
        it, its quadrature and Monte Carlo errors do; give it to compare sets of samples number by number.
    seed
        of the noise: row k of equally many samples meets the same noise, whatever the samples are.

    Raises ShapeError, NotFiniteError (the samples, or what the denoiser makes of them), ParameterError.

    Of an exact denoiser it is the log density itself, here of N(0, 1) at 0 and 2:

    >>> import math, torch, pgm_sync as ps
    >>> denoiser = ps.GaussianDenoiser([0.0], [[1.0]])
    >>> values = denoiser_elbo(denoiser, torch.tensor([[0.0], [2.0]]), scale=1.0)
    >>> (values + math.log(2 * math.pi) / 2).round(decimals=3)  # -x^2 / 2
    tensor([-0., -2.], dtype=torch.float64)
    """
    if samples.shape[1:] != tuple(denoiser.shape) or samples.ndim == 0 or len(samples) == 0:
        raise ShapeError(
            f"samples of shape {tuple(samples.shape)} for a denoiser of shape {tuple(denoiser.shape)}; "
            "give (n, *shape)"
        )
    if not torch.isfinite(samples).all():
        raise NotFiniteError("the log density of samples with NaN or infinite numbers")
    if num_noises < 1 or num_levels < 2:
        raise ParameterError(f"num_noises={num_noises}, num_levels={num_levels}: need at least 1 and 2")
    clean = samples.double()
    s = (float(clean.square().mean()) or 1.0) if scale is None else float(scale)
    if not 0 < s < math.inf:
        raise ParameterError(f"scale={scale} must be positive and finite", scale=scale)
    ordered = _ordered(default_levels(s, num_levels) if levels is None else levels)
    generator = torch.Generator().manual_seed(seed)
    rows = []  # snr * integrand, per level
    for level in ordered:
        snr = float(level.snr)
        excess = clean.new_zeros(len(clean))
        for _ in range(num_noises):
            noise = torch.randn(clean.shape, generator=generator, dtype=torch.float64).to(clean.device)
            for eps in (noise, -noise):
                noisy = level.alpha * clean + level.sigma * eps
                own = denoiser.denoise(noisy.to(samples.dtype), level, condition).double()
                gaussian = noisy * (level.alpha * s / (level.alpha**2 * s + level.sigma**2))
                difference = (clean - gaussian).square() - (clean - own).square()
                excess += difference.flatten(1).sum(1) / (2 * num_noises)
        rows.append(0.5 * snr * excess)
    values = torch.stack(rows)
    if not torch.isfinite(values).all():
        bad = ordered[int((~torch.isfinite(values)).any(1).nonzero()[0])]
        raise NotFiniteError(f"{denoiser!r} returned NaN or infinite numbers at snr {bad.snr:.4g}")
    log_snr = torch.tensor([math.log(level.snr) for level in ordered], dtype=torch.float64)
    integral = torch.trapezoid(values, log_snr.to(values.device), dim=0) + values[0] + values[-1]
    square = clean.flatten(1).square().sum(1)
    return integral - 0.5 * (square / s + clean[0].numel() * math.log(2 * math.pi * s))


def default_levels(scale: float, count: int) -> list[NoiseLevel]:
    """Variance preserving levels, equally spaced in log snr."""
    snrs = (torch.linspace(*LOG_SNR, count, dtype=torch.float64).exp() / scale).tolist()
    return [variance_preserving(snr) for snr in snrs]


def scheduler_levels(scheduler: Any, num_inference_steps: int) -> list[NoiseLevel]:
    """The levels a scheduler would step through, for denoisers that know no others; the scheduler stays as it is.

    `num_inference_steps` are the denoising steps. Levels without signal or without noise are left out.

    >>> from diffusers import DDIMScheduler
    >>> levels = scheduler_levels(DDIMScheduler(), num_inference_steps=10)
    >>> len(levels), levels[0].snr < levels[-1].snr
    (10, True)

    Raises UnsupportedSchedulerError.
    """
    ready = copy.deepcopy(scheduler)
    ready.set_timesteps(num_inference_steps)
    # A copy each: schedulers that scale their input count on from the first level they were asked for.
    levels = [noise_level(copy.deepcopy(ready), timestep) for timestep in ready.timesteps]
    return [level for level in levels if level.alpha > 0 and level.sigma > 0]


def _ordered(levels: Sequence[NoiseLevel]) -> list[NoiseLevel]:
    """By rising snr, each once."""
    for level in levels:
        if not 0 < float(level.snr) < math.inf:
            raise ParameterError(
                f"a noise level of snr {level.snr} has no place in the integral", level=level
            )
    found = list({float(level.snr): level for level in levels}.values())
    if len(found) < 2:
        raise ParameterError(f"the integral over snr needs at least 2 levels, not {len(found)}")
    return sorted(found, key=lambda level: float(level.snr))
