"""From own denoised contents to joint ones, and to joint scores."""

from .carriers import Carrier, Carriers, View, find_carriers
from .exact import NoisyMixture, joint_mixture, noise_covariance
from .joint import Guard, JointDenoised, JointDenoiser, epsilon_from_denoised, score_from_denoised
from .noise import FeatureNoise
from .posterior import Annealed, FromDenoiser, Jacobian, PosteriorCovariance, Scaled, Surrogate
from .reduction import Reduction, reduce
from .tilt import Tilt
from .weights import CanvasWeights

__all__ = [
    "Annealed",
    "CanvasWeights",
    "Carrier",
    "Carriers",
    "FeatureNoise",
    "FromDenoiser",
    "Guard",
    "Jacobian",
    "JointDenoised",
    "JointDenoiser",
    "NoisyMixture",
    "PosteriorCovariance",
    "Reduction",
    "Scaled",
    "Surrogate",
    "Tilt",
    "View",
    "epsilon_from_denoised",
    "find_carriers",
    "joint_mixture",
    "noise_covariance",
    "reduce",
    "score_from_denoised",
]
