"""Posterior-covariance scales found by a search, level by level, as the start of a descent.

Where Eq. 8's floor acts in all directions, the loss does not depend on the scale: a plateau that no gradient leaves. A
covariance stated too wide is on it at all levels of low snr. One scale at one level is a one-dimensional problem.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

SPACING = 1.0
GRID = sorted((SPACING * k for k in range(-5, 4)), key=abs)  # of log scales; ties go to the scale nearest to one
ACCURACY = 0.02  # of a log scale


CERTAINTY = 2.0  # standard errors by which a scale has to be better on held-out samples


def search_scale(loss: Callable[[float], float], check: Callable[[float], Tensor] | None = None) -> float:
    """The log scale that makes `loss` small: the best of a grid, then Brent's search between its neighbours.

    0, a scale of one, where nothing is better, or where `check`, the losses ``(n,)`` of held-out samples, cannot tell.
    """
    values = {x: loss(x) for x in GRID}
    best = min(values, key=lambda x: values[x])
    if best == 0.0 or values[best] < values[0.0]:
        ends = (best - SPACING, best + SPACING)
        refined = minimize_scalar(loss, bounds=ends, method="bounded", options={"xatol": ACCURACY})
        if refined.fun < values[best]:
            best = float(refined.x)
    if check is None or best == 0.0:
        return best
    gain = check(0.0) - check(best)  # paired
    return best if gain.mean() > CERTAINTY * gain.std() / len(gain) ** 0.5 else 0.0


def search_scales(
    levels: int,
    losses: Callable[[int, float, Tensor], Tensor],  # of a level, a log scale, and samples, one each
    train: Tensor,
    test: Tensor,
) -> Tensor:
    """Log scales ``(levels,)``: `search_scale` on the samples `train`, checked on `test` if there are any."""

    def search(k: int) -> float:
        check = (lambda x: losses(k, x, test)) if len(test) > 1 else None
        return search_scale(lambda x: losses(k, x, train).mean().item(), check)

    found = [search(k) for k in range(levels)]
    return torch.tensor(found, dtype=torch.float64)
