"""Learning potentials from data."""

from .moments import fit
from .selection import Selection, select_covariance
from .shrinkage import shrunk_covariance

__all__ = ["Selection", "fit", "select_covariance", "shrunk_covariance"]
