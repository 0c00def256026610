"""Covariances from few samples."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ..errors import ParameterError

METHODS = ("ledoit_wolf", "oas", "none")


def shrunk_covariance(centred: Tensor, shrinkage: str | float) -> tuple[Tensor, float]:
    """Shrunk covariance ``(P, P)`` of centred samples ``(n, P)``, and the intensity used, in [0, 1].

    The samples are scaled to unit variance first and the result is scaled back: modes of very different variance
    are each shrunk towards independence, not towards the average variance. "ledoit_wolf" and "oas" choose the
    intensity (Ledoit and Wolf 2004; Chen et al. 2010, as implemented in scikit-learn), a number fixes it.

    Raises ParameterError on an unknown method or an intensity outside [0, 1].
    """
    scale = centred.square().mean(0).sqrt()
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    scaled = centred / scale
    empirical = scaled.mT @ scaled / len(scaled)
    intensity = _intensity(scaled.numpy(), shrinkage)
    target = empirical.diagonal().mean() * torch.eye(len(scale), dtype=scaled.dtype)
    shrunk = (1 - intensity) * empirical + intensity * target
    return shrunk * scale[:, None] * scale, intensity


def shrink_moments(covariance: Tensor, count: int, shrinkage: str | float) -> tuple[Tensor, float]:
    """As `shrunk_covariance`, from the covariance of `count` samples alone: "oas", "none" or an intensity.

    OAS needs the covariance only (Chen et al. 2010); Ledoit and Wolf's intensity needs the samples.

    Raises ParameterError.
    """
    scale = covariance.diagonal().sqrt()
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    empirical = covariance / scale[:, None] / scale
    size = len(scale)
    if shrinkage == "oas":
        # scikit-learn's form of the rule
        alpha, mu = empirical.square().mean().item(), empirical.trace().item() / size
        numerator, denominator = alpha + mu**2, (count + 1.0) * (alpha - mu**2 / size)
        intensity = 1.0 if denominator == 0 else min(numerator / denominator, 1.0)
    elif shrinkage == "ledoit_wolf":
        raise ParameterError(
            "shrinkage='ledoit_wolf' needs the samples themselves; moments gathered in batches take 'oas', 'none' or a "
            "number",
            shrinkage=shrinkage,
        )
    else:
        intensity = _intensity(np.zeros((1, size)), shrinkage)
    target = empirical.diagonal().mean() * torch.eye(size, dtype=covariance.dtype)
    shrunk = (1 - intensity) * empirical + intensity * target
    return shrunk * scale[:, None] * scale, intensity


def _intensity(scaled: np.ndarray, shrinkage: str | float) -> float:
    if isinstance(shrinkage, int | float) and not isinstance(shrinkage, bool):
        if not 0 <= shrinkage <= 1:
            raise ParameterError(f"shrinkage={shrinkage} must lie in [0, 1]", shrinkage=shrinkage)
        return float(shrinkage)
    if shrinkage == "none":
        return 0.0
    from sklearn.covariance import OAS, ledoit_wolf_shrinkage

    methods: dict[str, Callable[[np.ndarray], float]] = {
        "ledoit_wolf": lambda x: float(ledoit_wolf_shrinkage(x, assume_centered=True)),
        "oas": lambda x: float(OAS(assume_centered=True, store_precision=False).fit(x).shrinkage_),
    }
    if shrinkage not in methods:
        raise ParameterError(
            f"shrinkage={shrinkage!r} is not {', '.join(METHODS)} or a number", shrinkage=shrinkage
        )
    return methods[shrinkage](scaled)
