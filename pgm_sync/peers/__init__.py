"""Published ways of synchronising, as they were published, to run beside the joint model."""

from __future__ import annotations

from .bethe import BetheDenoiser, bethe_windows
from .mixture_of_diffusers import gaussian_weights
from .syncsde import Pull, pulled, sample_syncsde, step_gain

__all__ = [
    "BetheDenoiser",
    "Pull",
    "bethe_windows",
    "gaussian_weights",
    "pulled",
    "sample_syncsde",
    "step_gain",
]
