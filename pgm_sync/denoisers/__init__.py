"""Denoisers behind one protocol."""

from .base import DenoisedPosterior, Denoiser
from .diffusers import DiffusersDenoiser, GuidedDenoiser
from .empirical import EmpiricalDenoiser
from .functional import FunctionDenoiser
from .gaussian import GaussianDenoiser
from .jacobian import JacobianDenoiser
from .mixture import MixtureDenoiser
from .motion import MotionDenoiser
from .predicting import PredictingDenoiser

__all__ = [
    "DenoisedPosterior",
    "Denoiser",
    "DiffusersDenoiser",
    "EmpiricalDenoiser",
    "FunctionDenoiser",
    "GaussianDenoiser",
    "GuidedDenoiser",
    "JacobianDenoiser",
    "MixtureDenoiser",
    "MotionDenoiser",
    "PredictingDenoiser",
]
