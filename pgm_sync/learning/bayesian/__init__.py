"""Bayesian learning of potentials (Eq. 17)."""

from .diagnostics import Diagnostics
from .fit import fit_bayesian
from .posterior import BayesianFit, CredibleCorrelation
from .predictive import PredictiveCheck

__all__ = ["BayesianFit", "CredibleCorrelation", "Diagnostics", "PredictiveCheck", "fit_bayesian"]
