"""Gaussian potentials: what the factors of a graph say."""

from .attraction import Attraction
from .base import Information, Marginal, Potential
from .correlation import Correlation
from .equality import Equality
from .evidence import Evidence
from .joint_gaussian import JointGaussian
from .likelihood import Likelihood
from .quadratic import Quadratic

__all__ = [
    "Attraction",
    "Correlation",
    "Equality",
    "Evidence",
    "Information",
    "JointGaussian",
    "Likelihood",
    "Marginal",
    "Potential",
    "Quadratic",
]
