"""The posterior of a graph's correlations as a Pyro model (Eq. 17)."""

from __future__ import annotations

from collections.abc import Sequence

import pyro
import pyro.distributions as dist
import torch
from torch.distributions import constraints

from .parts import Part
from .prior import Prior, densities


def model(parts: Sequence[Part], prior: Prior, freedom: float, chains: int = 1) -> None:
    """`chains` copies of the posterior, next to each other.

    The model in its own terms. Samplers move in coordinates that whiten it (`inference`); the density is the same.

    Sites ``free{k}`` ``(chains, M, E)``, coordinates of the correlation matrices of part k (`structures`), and
    ``scale{k}`` ``(chains, M, K)``. The mean is integrated out under a flat prior. ``freedom=0`` leaves the prior.
    """
    one = torch.tensor(1.0, dtype=torch.float64)
    for k, part in enumerate(parts):
        modes, size = part.rows.shape
        edges = len(part.structure.edges)
        free, scale = part.scatter.new_zeros(chains, modes, 0), None
        if edges:
            real = constraints.independent(constraints.real, 3)
            free = pyro.sample(f"free{k}", dist.ImproperUniform(real, (), (chains, modes, edges)))
        if prior.scales != "fixed":
            own = dist.HalfNormal(2 * one) if prior.scales == "half_normal" else dist.Gamma(2 * one, one)
            scale = pyro.sample(f"scale{k}", own.expand([chains, modes, size]).to_event(3))
        log_prior, log_likelihood = densities(part.structure, part.scatter, prior, freedom, free, scale)
        pyro.factor(f"correlations{k}", log_prior.sum())
        pyro.factor(f"data{k}", log_likelihood.sum())
