"""Mixture of Diffusers: windows that count most at their centre (Jimenez, 2023)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..errors import GraphStructureError, ParameterError
from ..graph import FactorGraph
from ..inspection.layout import windows
from .doubletake import seeing


def gaussian_weights(graph: FactorGraph, width: float = 0.1) -> FactorGraph:
    """A copy of a canvas graph whose windows are averaged with Gaussian weights (Eq. 12 with w_i).

    `graph` is made by `ps.wide_canvas`. A pixel of a window weighs ``exp(-(u^2 + v^2) / (2 width^2))``, u and v its
    distance from the centre in windows, divided by the sum over all windows that show it; Mixture of Diffusers takes
    a `width` of 0.1. Potentials between windows stay.

    >>> import pgm_sync as ps
    >>> weighted = gaussian_weights(ps.wide_canvas((1, 1, 6), window=(1, 4), stride=2), width=0.3)
    >>> weighted.potential("see w0").weight[0, 0].round(decimals=2)
    tensor([1.0000, 1.0000, 0.6700, 0.3300], dtype=torch.float64)

    Raises GraphStructureError if the graph is not one canvas seen through windows, ParameterError on the width.
    """
    found = windows(graph)
    if found is None:
        raise GraphStructureError(
            f"{graph!r} is not one canvas seen through windows, as ps.wide_canvas makes it"
        )
    if not 0 < width < math.inf:
        raise ParameterError(f"width={width} must be positive and finite", width=width)
    canvas, crops = found
    logs = {name: _log_weight(crop.out_shape, width) for name, crop in crops.items()}
    # In logarithms, or narrow weights are 0 / 0 where only tails meet
    most = torch.full((math.prod(graph.shape(canvas)),), -math.inf, dtype=torch.float64)
    for name, crop in crops.items():
        most[crop.index] = torch.maximum(most[crop.index], logs[name].flatten())
    total = torch.zeros_like(most)
    for name, crop in crops.items():
        total[crop.index] += (logs[name].flatten() - most[crop.index]).exp()
    log_total = most + total.log()
    weights = {
        name: (logs[name] - log_total[crop.index].reshape(crop.out_shape)).exp()
        for name, crop in crops.items()
    }
    return graph.with_potentials(seeing(graph, canvas, weights))


def _log_weight(shape: tuple[int, ...], width: float) -> Tensor:  # (..., h, w)
    u, v = ((torch.arange(n, dtype=torch.float64) - (n - 1) / 2) / (n * width) for n in shape[-2:])
    return (-0.5 * (u[:, None] ** 2 + v**2)).expand(shape)
