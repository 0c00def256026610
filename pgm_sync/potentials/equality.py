"""The same content seen by several trajectories: the shared canvas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..errors import ParameterError, ShapeError
from ..gaussian import as_real
from ..maps import Shape
from .base import StructuralPotential


@dataclass(frozen=True, eq=False, repr=False)
class Equality(StructuralPotential):
    """Matching elements of the ends are one and the same number (section 4 of the theory).

    Through index maps, elements merge into shared sites when the graph is compiled, and the trajectories
    share the noise of these sites.

    `weight` is how much the *first* end's view counts on the shared content, the canvas weight w_i of
    Eq. 10: a number, or one per element the factor sees, finite and >= 0. At every site the weights of all
    views must sum to one, which is checked when sampling (WeightError). None: equal weights.

    Two windows of three numbers on a canvas of four, and evidence about one of them:

    >>> import torch, pgm_sync as ps
    >>> graph = ps.FactorGraph()
    >>> graph.add_variable("canvas", shape=(4,))
    >>> for name, start in {"left": 0, "right": 1}.items():
    ...     graph.add_trajectory(name, shape=(3,))
    ...     window = ps.Crop((4,), start=(start,), size=(3,))
    ...     graph.add_factor(f"see {name}", [name, "canvas"], ps.Equality(), maps=[None, window])
    >>> evidence = {"left": (torch.tensor([1.0, 2.0, 3.0]), 1.0), "canvas": (0.0, 1.0)}
    >>> ps.infer(graph, evidence).mean["right"]
    tensor([1.0000, 1.5000, 0.0000])

    Raises ShapeError, ParameterError in `check`.
    """

    weight: float | Tensor | None = None
    elementwise: ClassVar[bool] = True

    def check(self, factor: object, shapes: Sequence[Shape]) -> None:
        super().check(factor, shapes)
        if self.weight is None:
            return
        weight = as_real(self.weight, f"factor {factor!r}: Equality.weight")
        if weight.ndim and tuple(weight.shape) != shapes[0]:
            raise ShapeError(
                f"factor {factor!r}: Equality.weight has shape {tuple(weight.shape)}, "
                f"its ends see {shapes[0]}",
                factor=factor,
            )
        if not torch.isfinite(weight).all() or bool((weight < 0).any()):
            raise ParameterError(
                f"factor {factor!r}: Equality.weight with entries in "
                f"[{weight.min():.4g}, {weight.max():.4g}] must be finite and >= 0",
                factor=factor,
            )
