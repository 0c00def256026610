"""Published ways of synchronising, as they were published, to run beside the joint model on the same graph."""

from __future__ import annotations

from .averaging import CASES
from .bethe import BetheDenoiser, bethe_windows
from .diffcollage import overlaps
from .doubletake import ramp_weights
from .mixture_of_diffusers import gaussian_weights
from .presets import methods, sample, why_not
from .pulls import pulls_from_graph
from .syncsde import Pull, amplification, pulled, sample_syncsde, step_gain
from .tuning import Tried, Tuning, tune

__all__ = [
    "CASES",
    "BetheDenoiser",
    "Pull",
    "Tried",
    "Tuning",
    "amplification",
    "bethe_windows",
    "gaussian_weights",
    "methods",
    "overlaps",
    "pulled",
    "pulls_from_graph",
    "ramp_weights",
    "sample",
    "sample_syncsde",
    "step_gain",
    "tune",
    "why_not",
]
