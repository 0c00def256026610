"""Learning potentials, and graphs, from data."""

from .bayesian.diagnostics import Diagnostics
from .bayesian.fit import fit_bayesian
from .bayesian.posterior import BayesianFit, CredibleCorrelation
from .bayesian.predictive import PredictiveCheck
from .comparison import GraphLoss, GraphScore, compare_graphs
from .fit import fit
from .learned_features import FeatureChoice, FeatureScore, canonical_features, choose_features, pca_features
from .moments import FeatureMoments, fit_moments
from .record import Fit
from .score_matching import fit_score
from .selection import Selection, select_covariance
from .shrinkage import shrunk_covariance
from .single_view import fit_single_view
from .structure import learn_structure
from .symmetry import Stationary, Symmetry, mirror

__all__ = [
    "BayesianFit",
    "CredibleCorrelation",
    "Diagnostics",
    "FeatureChoice",
    "FeatureMoments",
    "FeatureScore",
    "Fit",
    "GraphLoss",
    "GraphScore",
    "PredictiveCheck",
    "Selection",
    "Stationary",
    "Symmetry",
    "canonical_features",
    "choose_features",
    "compare_graphs",
    "fit",
    "fit_bayesian",
    "fit_moments",
    "fit_score",
    "fit_single_view",
    "learn_structure",
    "mirror",
    "pca_features",
    "select_covariance",
    "shrunk_covariance",
]
