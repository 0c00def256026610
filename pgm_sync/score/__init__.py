"""From own denoised contents to joint ones, and to joint scores."""

from .carriers import Carrier, Carriers, View, find_carriers
from .joint import Guard, JointDenoised, JointDenoiser, epsilon_from_denoised, score_from_denoised
from .noise import FeatureNoise
from .posterior import FromDenoiser, Jacobian, PosteriorCovariance, Scaled, Surrogate
from .reduction import Reduction, reduce
from .weights import CanvasWeights

__all__ = [
    "CanvasWeights",
    "Carrier",
    "Carriers",
    "FeatureNoise",
    "FromDenoiser",
    "Guard",
    "Jacobian",
    "JointDenoised",
    "JointDenoiser",
    "PosteriorCovariance",
    "Reduction",
    "Scaled",
    "Surrogate",
    "View",
    "epsilon_from_denoised",
    "find_carriers",
    "reduce",
    "score_from_denoised",
]
