"""Learning potentials, and graphs, from data."""

from .calibration import Calibration, calibrate
from .fit import fit
from .moments import FeatureMoments, fit_moments
from .record import Fit
from .score_matching import fit_score
from .selection import Selection, select_covariance
from .shrinkage import shrunk_covariance
from .single_view import fit_single_view
from .structure import GraphScore, compare_graphs, learn_structure

__all__ = [
    "Calibration",
    "FeatureMoments",
    "Fit",
    "GraphScore",
    "Selection",
    "calibrate",
    "compare_graphs",
    "fit",
    "fit_moments",
    "fit_score",
    "fit_single_view",
    "learn_structure",
    "select_covariance",
    "shrunk_covariance",
]
