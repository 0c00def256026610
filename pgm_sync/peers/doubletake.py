"""DoubleTake: neighbours blend into each other by a linear ramp (Shafir et al., ICLR 2024)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import GraphStructureError
from ..graph import FactorGraph
from ..graph.factor_graph import Name
from ..inspection.layout import windows
from ..maps import Crop
from ..potentials import Equality


def ramp_weights(graph: FactorGraph) -> FactorGraph:
    """A copy of a canvas graph whose windows are averaged with linear ramps over their overlaps (Eq. 12 with w_i).

    In an overlap of h elements with the window before, element j of a window counts j / h, and the window before
    1 - j / h, as the "handshake" of DoubleTake's first take. Where more than two windows meet, and on grids, weights
    are products of ramps divided by their sum. Potentials between windows stay.

    >>> import pgm_sync as ps
    >>> weighted = ramp_weights(ps.wide_canvas((1, 1, 6), window=(1, 4), stride=2))
    >>> [weighted.potential(f"see {name}").weight[0, 0].tolist() for name in ("w0", "w1")]
    [[1.0, 1.0, 1.0, 0.5], [0.0, 0.5, 1.0, 1.0]]

    Raises GraphStructureError if the graph is not one canvas seen through windows.
    """
    found = windows(graph)
    if found is None:
        raise GraphStructureError(
            f"{graph!r} is not one canvas seen through windows, as ps.wide_canvas makes it"
        )
    canvas, crops = found
    size = torch.Size(graph.shape(canvas)).numel()
    raw = {name: _ramps(crop, list(crops.values())).flatten() for name, crop in crops.items()}
    total = torch.zeros(size, dtype=torch.float64)
    for name, crop in crops.items():
        total.index_add_(0, crop.index, raw[name])
    weights = {name: (raw[name] / total[crop.index]).reshape(crop.out_shape) for name, crop in crops.items()}
    return graph.with_potentials(seeing(graph, canvas, weights))


def seeing(graph: FactorGraph, canvas: Name, weights: dict[Name, Tensor]) -> dict[Name, Equality]:
    """The Equality factors of a canvas with other weights."""
    potentials = {}
    for factor in graph.adj[canvas]:
        first, *others = scope = graph.scope(factor)
        name = next(end for end in scope if end != canvas) if others else first
        if name in weights and isinstance(graph.potential(factor), Equality):
            potentials[factor] = Equality(weights[name])
    return potentials


def _ramps(crop: Crop, crops: Sequence[Crop]) -> Tensor:  # (*out_shape)
    out = torch.ones(crop.out_shape, dtype=torch.float64)
    lead = len(crop.out_shape) - len(crop.start)
    for axis, (start, size) in enumerate(zip(crop.start, crop.size, strict=True)):
        whole = crop.in_shape[lead + axis]
        before, after = 0, 0
        for other in crops:
            steps = start - other.start[axis]
            if crop.wrap:
                steps = (steps + whole // 2) % whole - whole // 2  # the way round that is shorter
            if 0 < steps < other.size[axis]:
                before = max(before, other.size[axis] - steps)
            elif -size < steps < 0:
                after = max(after, size + steps)
        place = torch.arange(size, dtype=torch.float64)
        ramp = torch.ones(size, dtype=torch.float64)
        if before:
            ramp = torch.minimum(ramp, place / before)
        if after:
            ramp = torch.minimum(ramp, (size - place) / after)
        out = out * ramp.reshape(-1, *(1,) * (len(crop.start) - 1 - axis))
    return out
