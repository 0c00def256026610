"""From own denoised contents to joint ones, and to joint scores."""

from .carriers import Carrier, Carriers, View, find_carriers
from .joint import JointDenoised, JointDenoiser, epsilon, score
from .noise import FeatureNoise
from .reduction import Reduction, reduce

__all__ = [
    "Carrier",
    "Carriers",
    "FeatureNoise",
    "JointDenoised",
    "JointDenoiser",
    "Reduction",
    "View",
    "epsilon",
    "find_carriers",
    "reduce",
    "score",
]
