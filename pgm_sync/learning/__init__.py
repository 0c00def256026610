"""Learning potentials, and graphs, from data."""

from .moments import FeatureMoments, fit
from .noise import NoiseCorrelation, choose_noise_correlation
from .selection import Selection, select_covariance
from .shrinkage import shrunk_covariance
from .structure import GraphScore, compare_graphs, learn_structure

__all__ = [
    "FeatureMoments",
    "GraphScore",
    "NoiseCorrelation",
    "Selection",
    "choose_noise_correlation",
    "compare_graphs",
    "fit",
    "learn_structure",
    "select_covariance",
    "shrunk_covariance",
]
