"""Covariances from few samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import ParameterError

METHODS = ("ledoit_wolf", "oas", "none")
Shrinkage = str | float | tuple[str | float, float]


def split_shrinkage(shrinkage: Shrinkage) -> tuple[str | float, float]:
    """Of all correlations, and, on top of it, of those between different nodes.

    Raises ParameterError on what is neither one choice nor two.
    """
    if not isinstance(shrinkage, tuple | list):
        return shrinkage, 0.0
    if len(shrinkage) != 2:
        raise ParameterError(
            f"shrinkage={shrinkage} is not (of all correlations, of those between nodes)", shrinkage=shrinkage
        )
    apart = shrinkage[1]
    if not isinstance(apart, int | float) or isinstance(apart, bool) or not 0 <= apart <= 1:
        raise ParameterError(
            f"shrinkage={shrinkage}: the second number must lie in [0, 1]", shrinkage=shrinkage
        )
    return shrinkage[0], float(apart)


def shrink_between(covariance: Tensor, blocks: Mapping[Any, Tensor], intensity: float) -> Tensor:
    """Towards independent nodes that keep their own covariance: blocks between nodes times ``1 - intensity``."""
    if intensity == 0:
        return covariance
    shrunk = (1 - intensity) * covariance
    for rows in blocks.values():
        shrunk[rows[:, None], rows] = covariance[rows[:, None], rows]
    return shrunk


def shrunk_covariance(centred: Tensor, shrinkage: str | float) -> tuple[Tensor, float]:
    """Shrunk covariance ``(P, P)`` of `centred` samples ``(n, P)``, and the intensity used, in [0, 1].

    The samples are scaled to unit variance first and the result is scaled back: modes of very different variance
    are each shrunk towards independence, not towards the average variance. `shrinkage`: "ledoit_wolf" and "oas" choose
    the intensity (Ledoit and Wolf 2004; Chen et al. 2010, as implemented in scikit-learn), a number fixes it.

    >>> import torch
    >>> samples = torch.tensor([[1.0, 2.0], [-1.0, -2.0]]).double()
    >>> shrunk_covariance(samples, 0.25)[0]  # three quarters of the covariance, all of the variances
    tensor([[1.0000, 1.5000],
            [1.5000, 4.0000]], dtype=torch.float64)

    Raises ParameterError on an unknown method or an intensity outside [0, 1].
    """
    covariance = centred.mT @ centred / len(centred)
    if shrinkage != "ledoit_wolf":
        return shrink_moments(covariance, len(centred), shrinkage)
    from sklearn.covariance import ledoit_wolf_shrinkage

    scaled = (centred / _scale(covariance)).numpy()
    intensity = float(ledoit_wolf_shrinkage(scaled, assume_centered=True))
    return _shrink(covariance, intensity), intensity


def shrink_moments(covariance: Tensor, count: int, shrinkage: str | float) -> tuple[Tensor, float]:
    """As `shrunk_covariance`, from the covariance of `count` samples alone: "oas", "none" or an intensity.

    Raises ParameterError, also for "ledoit_wolf", whose intensity needs the samples.
    """
    if isinstance(shrinkage, int | float) and not isinstance(shrinkage, bool):
        if not 0 <= shrinkage <= 1:
            raise ParameterError(f"shrinkage={shrinkage} must lie in [0, 1]", shrinkage=shrinkage)
        intensity = float(shrinkage)
    elif shrinkage == "none":
        intensity = 0.0
    elif shrinkage == "oas":
        intensity = _oas(covariance, count)
    elif shrinkage in ("ledoit_wolf", "heldout"):
        raise ParameterError(
            f"shrinkage={shrinkage!r} needs the samples themselves; moments gathered in batches take 'oas', 'none' "
            "or a number",
            shrinkage=shrinkage,
        )
    else:
        raise ParameterError(
            f"shrinkage={shrinkage!r} is not {', '.join(METHODS)}, heldout, a number, or two of these",
            shrinkage=shrinkage,
        )
    return _shrink(covariance, intensity), intensity


def _oas(covariance: Tensor, count: int) -> float:
    """The oracle approximating shrinkage of unit-variance features, in scikit-learn's form of the rule."""
    scale, size = _scale(covariance), len(covariance)
    empirical = covariance / scale[:, None] / scale
    alpha, mu = empirical.square().mean().item(), empirical.trace().item() / size
    numerator, denominator = alpha + mu**2, (count + 1.0) * (alpha - mu**2 / size)
    return 1.0 if denominator == 0 else min(numerator / denominator, 1.0)


def _shrink(covariance: Tensor, intensity: float) -> Tensor:
    """Towards independence, features scaled to unit variance and back: correlations times ``1 - intensity``."""
    scale = _scale(covariance)
    empirical = covariance / scale[:, None] / scale
    target = empirical.diagonal().mean() * torch.eye(len(scale), dtype=covariance.dtype)
    return ((1 - intensity) * empirical + intensity * target) * scale[:, None] * scale


def _scale(covariance: Tensor) -> Tensor:
    scale = covariance.diagonal().sqrt()
    return torch.where(scale > 0, scale, torch.ones_like(scale))
