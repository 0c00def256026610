"""Sampling trajectories together through diffusers schedulers."""

from .attach import Attachment, attach
from .coordinates import Coordinates, coordinates, noise_level
from .corrector import Langevin
from .inversion import invert
from .latents import decode_latents, encode_images
from .lockstep import Call, LockstepResult, LockstepState, synchronize
from .resampling import Resample
from .sampler import SampleResult, SamplingState, sample, sampling_steps
from .step_noise import step_noise

__all__ = [
    "Attachment",
    "Call",
    "Coordinates",
    "Langevin",
    "LockstepResult",
    "LockstepState",
    "Resample",
    "SampleResult",
    "SamplingState",
    "attach",
    "coordinates",
    "decode_latents",
    "encode_images",
    "invert",
    "noise_level",
    "sample",
    "sampling_steps",
    "step_noise",
    "synchronize",
]
