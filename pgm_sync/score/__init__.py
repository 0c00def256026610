"""From own denoised contents to joint ones, and to joint scores."""

from .carriers import Carrier, Carriers, View, find_carriers
from .exact import NoisyMixture, joint_mixture, noise_covariance
from .joint import JointDenoised, JointDenoiser, epsilon_from_denoised, score_from_denoised
from .noise import FeatureNoise
from .reduction import Reduction, reduce

__all__ = [
    "Carrier",
    "Carriers",
    "FeatureNoise",
    "JointDenoised",
    "JointDenoiser",
    "NoisyMixture",
    "Reduction",
    "View",
    "epsilon_from_denoised",
    "find_carriers",
    "joint_mixture",
    "noise_covariance",
    "reduce",
    "score_from_denoised",
]
