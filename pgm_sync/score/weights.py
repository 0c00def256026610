"""Canvas weights that depend on the noise level (Eq. 10), normalised at every site whatever their logits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import NotFiniteError, ParameterError, ShapeError, UnknownNameError
from ..graph.factor_graph import FactorGraph, Name
from ..levels import NoiseLevel
from ..maps import Shape
from .carriers import Carriers
from .schedule import Schedule, Setting, fitted


@dataclass(frozen=True, eq=False, repr=False)
class CanvasWeights(Setting):
    """``w_i = v_i exp(l_i) / sum_j v_j exp(l_j)`` at every site, v_i the graph's own weights, l_i the logits (Eq. 10).

    Parameters
    ----------
    logits
        ``{trajectory: l_i}``: a number; one per level, ``(L,)``; or one per level and element, ``(L, D_i)``.
        Trajectories that are not named have logit 0.
    log_snr
        ``(L,)`` increasing; logits are linear in log snr between its values and constant outside.

    Raises ParameterError, ShapeError, NotFiniteError.

    >>> import pgm_sync as ps
    >>> from pgm_sync.score import find_carriers
    >>> carriers = find_carriers(ps.wide_canvas((1, 2, 3), window=(2, 2), stride=1))
    >>> weights = ps.CanvasWeights({"w0": 1.0986}).at(ps.NoiseLevel(0.6, 0.8), carriers)  # log 3: three times as much
    >>> weights["w0"].round(decimals=2)
    tensor([1.0000, 0.7500, 1.0000, 0.7500], dtype=torch.float64)
    """

    logits: Any
    log_snr: Tensor | None = None

    def __post_init__(self) -> None:
        logits = self.logits.items() if isinstance(self.logits, Mapping) else self.logits
        table = []
        for name, values in logits:
            values = values if isinstance(values, Tensor) else torch.tensor(values, dtype=torch.float64)
            if not bool(torch.isfinite(values).all()):
                raise NotFiniteError(f"CanvasWeights: the logits of {name!r} have NaN or infinite entries")
            if values.ndim and self.log_snr is None:
                raise ShapeError(f"CanvasWeights: logits of shape {tuple(values.shape)} need log_snr")
            table.append((name, values))
        object.__setattr__(self, "logits", tuple(table))
        if self.log_snr is not None:
            object.__setattr__(self, "log_snr", torch.as_tensor(self.log_snr, dtype=torch.float64))
            for name, values in table:
                Schedule(self.log_snr, values).check(f"CanvasWeights: logits of {name!r}")

    def check(self, carriers: Carriers) -> None:
        """Raises UnknownNameError, ShapeError where this does not fit the views."""
        for name, values in self.logits:
            view = carriers.views.get(name)
            if view is None or view.weight is None:
                raise UnknownNameError(f"CanvasWeights: {name!r} is no trajectory on a canvas", name=name)
            if values.ndim > 1 and values.shape[1:] != view.weight.shape:
                raise ShapeError(
                    f"CanvasWeights: logits of shape {tuple(values.shape)} for {name!r}, "
                    f"which shows {len(view.weight)} elements",
                    name=name,
                )

    def at(self, level: NoiseLevel, carriers: Carriers) -> dict[Name, Tensor]:
        """Weights ``(D_i,)`` of all views, a partition of unity."""
        logits = dict(self.logits)
        raised: dict[Name, Tensor] = {}
        for name, view in carriers.views.items():
            if view.weight is None:
                continue
            value = logits.get(name, torch.zeros((), dtype=torch.float64))
            if value.ndim:
                assert self.log_snr is not None  # __post_init__ wants it for tables
                value = Schedule(self.log_snr, value).at(level)
            # one constant for all views of a site would cancel; this one keeps exp in range
            raised[name] = value + view.weight.to(value).log()
        top = max((float(v.detach().max()) for v in raised.values()), default=0.0)
        shares = {name: (v - top).exp().expand(_size(carriers, name)) for name, v in raised.items()}
        totals: dict[int, Tensor] = {}
        for name, share in shares.items():
            view = carriers.views[name]
            size = torch.Size(carriers.carriers[view.carrier].shape).numel()
            total = totals.get(view.carrier, share.new_zeros(size))
            assert view.index is not None
            totals[view.carrier] = total.index_add(0, view.index, share)
        return {
            name: share / totals[carriers.views[name].carrier][carriers.views[name].index]
            for name, share in shares.items()
        }


def as_canvas_weights(value: Any, graph: FactorGraph) -> CanvasWeights | None:
    """None, as it is, or "fitted" for what `graph` says. Raises ParameterError."""
    if value is None or isinstance(value, CanvasWeights):
        return value
    if value == "fitted":
        return CanvasWeights.from_dict(fitted(graph, "canvas_weights"))
    raise ParameterError(f"canvas_weights={value!r} is not None, 'fitted', or a CanvasWeights")


def window_profile(shape: Shape) -> Tensor:
    """Squared distance ``(D,)`` of elements from the middle of a window whose borders are at -1 and 1."""
    distance = torch.zeros(shape, dtype=torch.float64)
    for axis, n in list(enumerate(shape))[-2:]:
        place = (2 * torch.arange(n, dtype=torch.float64) + 1) / n - 1
        distance = distance + place.reshape(-1, *(1,) * (len(shape) - axis - 1)).square()
    return distance.flatten()


def _size(carriers: Carriers, name: Name) -> int:
    return torch.Size(carriers.shapes[name]).numel()
