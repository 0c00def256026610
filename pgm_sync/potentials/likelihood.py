"""A place for a Gaussian that arrives with the evidence."""

from __future__ import annotations

from dataclasses import dataclass

from .base import StructuralPotential


@dataclass(frozen=True, eq=False, repr=False)
class Likelihood(StructuralPotential):
    """A factor whose Gaussian is given at inference time: ``evidence={factor: Gaussian(...)}``.

    Its scope is part of the graph, so that the elimination order and the plan know it; its numbers may change
    with every call (the correlated noise of Eq. 5' is one). Left out of the evidence, it says nothing.

    >>> import torch, pgm_sync as ps
    >>> graph = ps.FactorGraph()
    >>> for name in ("a", "b"):
    ...     graph.add_trajectory(name, shape=(1,))
    >>> graph.add_factor("seen", ["a", "b"], ps.Likelihood())
    >>> joint = ps.Gaussian.from_moments(torch.tensor([1.0, 2.0]), torch.tensor([[1.0, 0.5], [0.5, 1.0]]))
    >>> ps.infer(graph, evidence={"seen": joint}).mean["b"]
    tensor([2.0000])
    """
