"""Learning potentials, and graphs, from data."""

from .bayesian.diagnostics import Diagnostics
from .bayesian.fit import fit_bayesian
from .bayesian.posterior import BayesianFit, CredibleCorrelation
from .bayesian.predictive import PredictiveCheck
from .calibration import Calibration, calibrate
from .comparison import GraphLoss, GraphScore, compare_graphs
from .fit import fit
from .learned_features import FeatureChoice, FeatureScore, canonical_features, choose_features, pca_features
from .likelihood import denoiser_elbo, scheduler_levels
from .moments import FeatureMoments, fit_moments
from .noise import NoiseCorrelation, choose_noise_correlation
from .record import Fit
from .score_matching import fit_score
from .selection import Selection, select_covariance
from .shrinkage import shrunk_covariance
from .single_view import fit_single_view
from .structure import learn_structure
from .symmetry import Stationary, Symmetry, mirror
from .tuning import Tuned, fit_elbo, scaled_couplings, tune, weighted_views

__all__ = [
    "BayesianFit",
    "Calibration",
    "CredibleCorrelation",
    "Diagnostics",
    "FeatureChoice",
    "FeatureMoments",
    "FeatureScore",
    "Fit",
    "GraphLoss",
    "GraphScore",
    "NoiseCorrelation",
    "PredictiveCheck",
    "Selection",
    "Stationary",
    "Symmetry",
    "Tuned",
    "calibrate",
    "canonical_features",
    "choose_features",
    "choose_noise_correlation",
    "compare_graphs",
    "denoiser_elbo",
    "fit",
    "fit_bayesian",
    "fit_elbo",
    "fit_moments",
    "fit_score",
    "fit_single_view",
    "learn_structure",
    "mirror",
    "pca_features",
    "scaled_couplings",
    "scheduler_levels",
    "select_covariance",
    "shrunk_covariance",
    "tune",
    "weighted_views",
]
