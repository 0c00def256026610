"""Learning potentials, and graphs, from data."""

from .fit import fit
from .likelihood import denoiser_elbo, scheduler_levels
from .moments import FeatureMoments, fit_moments
from .record import Fit
from .score_matching import fit_score
from .selection import Selection, select_covariance
from .shrinkage import shrunk_covariance
from .single_view import fit_single_view
from .structure import GraphScore, compare_graphs, learn_structure
from .tuning import Tuned, fit_elbo, scaled_couplings, tune, weighted_views

__all__ = [
    "FeatureMoments",
    "Fit",
    "GraphScore",
    "Selection",
    "Tuned",
    "compare_graphs",
    "denoiser_elbo",
    "fit",
    "fit_elbo",
    "fit_moments",
    "fit_score",
    "fit_single_view",
    "learn_structure",
    "scaled_couplings",
    "scheduler_levels",
    "select_covariance",
    "shrunk_covariance",
    "tune",
    "weighted_views",
]
