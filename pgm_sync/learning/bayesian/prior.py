"""Priors on the correlations of a graph and on scales, and the likelihood of moments (Eq. 17)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution, Gamma, HalfNormal

from ...errors import ParameterError
from .parts import Part
from .structures import Structure

SCALES = ("gamma", "half_normal", "fixed")


class Prior(NamedTuple):
    """On every correlation matrix, and on standard deviations in units of the sample's."""

    concentration: float = 1.0  # of LKJ on the graph; 1 is uniform
    scales: str = "gamma"  # shape 2 and rate 1; or half normal of scale 2; or as in the sample

    def check(self) -> None:
        """Raises ParameterError."""
        if not (self.concentration > 0 and math.isfinite(self.concentration)):
            raise ParameterError(
                f"concentration={self.concentration} must be positive; 1 is uniform, more favours weak correlations",
                concentration=self.concentration,
            )
        if self.scales not in SCALES:
            raise ParameterError(
                f"scales={self.scales!r} is not one of {', '.join(SCALES)}", scales=self.scales
            )

    def of_scales(self) -> Distribution:
        """Of one standard deviation."""
        number = torch.tensor(2.0, dtype=torch.float64)
        return HalfNormal(number) if self.scales == "half_normal" else Gamma(number, number / 2)


def densities(
    structure: Structure,
    scatter: Tensor,  # (M, K, K)
    prior: Prior,
    freedom: float,
    free: Tensor,  # (..., M, E)
    scale: Tensor | None,  # (..., M, K); None where fixed
) -> tuple[Tensor, Tensor]:
    """Log prior of the free coordinates, and log likelihood of the scatter (Wishart, up to constants), ``(..., M)``."""
    if scale is None:
        found = structure.evaluate(free, scatter, prior.concentration)
        log_det = found.log_det
    else:
        scaled = scatter / (scale[..., :, None] * scale[..., None, :])
        found = structure.evaluate(free, scaled, prior.concentration)
        log_det = found.log_det + 2 * scale.log().sum(-1)
    if freedom == 0:  # the scatter is zero too, in principle; what was given is of no concern
        return found.log_prior, torch.zeros_like(log_det)
    return found.log_prior, -0.5 * (freedom * log_det + found.trace)


def log_joint(parts: Sequence[Part], prior: Prior, freedom: float, values: Mapping[str, Tensor]) -> Tensor:
    """Log density ``(...)`` of unconstrained coordinates (logarithms of scales), for sites ``(..., M, *)``."""
    total = torch.zeros((), dtype=torch.float64)
    for k, part in enumerate(parts):
        scale = values.get(f"scale{k}")
        free = values.get(f"free{k}")
        if free is None:
            shape = part.rows.shape[:1] if scale is None else scale.shape[:-1]
            free = part.scatter.new_zeros(*shape, 0)
        log_prior, log_likelihood = densities(part.structure, part.scatter, prior, freedom, free, scale)
        total = total + (log_prior + log_likelihood).sum(-1)
        if scale is not None:
            total = total + (prior.of_scales().log_prob(scale) + scale.log()).sum((-2, -1))
    return total
