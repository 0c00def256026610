"""A place for a Gaussian that arrives with the evidence."""

from __future__ import annotations

from dataclasses import dataclass

from .base import StructuralPotential


@dataclass(frozen=True, eq=False, repr=False)
class Likelihood(StructuralPotential):
    """A factor whose Gaussian is given at inference time: ``evidence={factor: Gaussian(...)}``.

    Its scope is part of the graph, so that the elimination order and the plan know it; its numbers may change
    with every call (the correlated noise of Eq. 5' is one). Left out of the evidence, it says nothing.
    """
