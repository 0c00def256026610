"""Going back up in noise and denoising again (RePaint: Lugmayr et al., 2022)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from ..errors import ParameterError, UnsupportedSchedulerError
from ..levels import NoiseLevel

# A step of these uses nothing but the state it is handed, so the state may be changed between steps.
MEMORYLESS = (
    "DDPMScheduler",
    "DDPMParallelScheduler",
    "DDIMScheduler",
    "DDIMParallelScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "FlowMatchEulerDiscreteScheduler",
)


@dataclass(frozen=True)
class Resample:
    """Every `jump` denoising steps, go back up by as many levels and take them again, `times` times in all.

    The way up is the forward process itself, ``x_t = (alpha_t / alpha_s) x_s + sqrt(sigma_t^2 - (alpha_t sigma_s /
    alpha_s)^2) eps`` with Cov(eps) = R, for variance preserving, exploding and flow coordinates alike. A round trip
    leaves the diffused joint invariant where the denoiser is exact; where it is not, the trajectories get more passes
    to agree. The last block of steps, which ends without noise, is taken once.

    Parameters: `times`, passes over every block of steps (1: no resampling); `jump`, steps in a block. The number of
    denoising steps grows about `times` times.

    Raises ParameterError.

    >>> import torch, pgm_sync as ps
    >>> from diffusers import DDIMScheduler
    >>> graph, denoiser = ps.chain_graph(2, (1,), ps.Correlation(0.8)), ps.GaussianDenoiser([0.0], [[1.0]])
    >>> scheduler = DDIMScheduler(clip_sample=False)
    >>> result = ps.sample(graph, denoiser, scheduler, 10, resample=ps.Resample(times=2), progress=False)
    >>> result.info["denoiser_evaluations"]  # of two trajectories: nine levels twice, the last once
    38
    """

    times: int = 2
    jump: int = 1

    def __post_init__(self) -> None:
        for name in ("times", "jump"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ParameterError(f"Resample: {name}={value!r} must be a positive integer", option=name)

    def passes(self, count: int) -> list[Pass]:
        """The steps of a run over `count` noise levels, in order.

        >>> [p.step for p in Resample(times=2, jump=2).passes(5)]
        [0, 1, 0, 1, 2, 3, 2, 3, 4]
        """
        out = []
        for start in range(0, count, self.jump):
            stop = min(start + self.jump, count)
            for time in range(self.times if stop < count else 1):
                out += [Pass(step, time > 0 and step == start, step == start) for step in range(start, stop)]
        return out


class Pass(NamedTuple):
    """One denoising step of a run."""

    step: int  # index of the noise level
    back: bool  # whether the state has to be noised to this level first, from the one that the last step reached
    opens: bool  # whether a block starts here


def forward(
    states: Sequence[Tensor], noise: Sequence[Tensor], low: NoiseLevel, high: NoiseLevel
) -> list[Tensor]:
    """States ``(n, *shape)`` at level `low` taken up to the noisier `high`, with the given standard noise."""
    ratio = high.alpha / low.alpha
    # Rounding of float32 schedules may take a tiny variance below zero
    spread = math.sqrt(max(high.sigma**2 - (ratio * low.sigma) ** 2, 0.0))
    return [ratio * x + spread * e for x, e in zip(states, noise, strict=True)]


def check_memoryless(scheduler: Any, option: str) -> None:
    """Raises UnsupportedSchedulerError for a scheduler whose steps depend on earlier states."""
    if not {cls.__name__ for cls in type(scheduler).__mro__} & set(MEMORYLESS):
        name = type(scheduler).__name__
        raise UnsupportedSchedulerError(
            f"{option} changes states between steps, and {name} extrapolates from the ones it has seen; use one of "
            f"{', '.join(MEMORYLESS)}",
            scheduler=name,
            option=option,
            supported=MEMORYLESS,
        )

