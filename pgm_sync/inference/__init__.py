"""Exact and iterative inference on Gaussian factor graphs."""

from .compile import Plan, compile
from .dense import dense_joint
from .evidence import Elements
from .infer import infer
from .interchange import SparseSystem, correlation_network, from_scipy, to_scipy
from .posterior import Info, Posterior
from .queries import Directions
from .spectrum import Margin, WalkSummability, margin, walk_summability
from .sweeps import SweepMessage, sweeps

__all__ = [
    "Directions",
    "Elements",
    "Info",
    "Margin",
    "SweepMessage",
    "Plan",
    "Posterior",
    "SparseSystem",
    "WalkSummability",
    "compile",
    "correlation_network",
    "dense_joint",
    "from_scipy",
    "infer",
    "margin",
    "sweeps",
    "to_scipy",
    "walk_summability",
]
