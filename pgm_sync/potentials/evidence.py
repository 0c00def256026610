"""Gaussian evidence about one trajectory or variable, kept in the graph."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..errors import ParameterError, ShapeError
from ..gaussian import as_real, require_finite
from ..maps import Shape, as_mask
from .base import Information, Potential


@dataclass(frozen=True, eq=False, repr=False)
class Evidence(Potential):
    """``psi = N(value; x, 1/precision)`` on one trajectory: an observation, or a prior on a hidden variable.

    `value` broadcasts to the shape the factor sees; `precision` >= 0, a number or one per element; elements
    where `mask` is false are not observed.

    Raises ParameterError (a negative precision, shapes that do not fit), NotFiniteError, DtypeError.

    A prior N(0, 1) and an observation 3.0 of precision 2 meet at their weighted mean:

    >>> import pgm_sync as ps
    >>> graph = ps.FactorGraph()
    >>> graph.add_trajectory("x", shape=(1,))
    >>> graph.add_factor("prior", ["x"], ps.Evidence(0.0))
    >>> graph.add_factor("seen", ["x"], ps.Evidence(3.0, precision=2.0))
    >>> ps.infer(graph).mean["x"].item()
    2.0
    """

    value: float | Tensor
    precision: float | Tensor = 1.0
    mask: Tensor | None = None
    elementwise: ClassVar[bool] = True
    ends: ClassVar[int | None] = 1

    def __post_init__(self) -> None:
        precision = as_real(self.precision, "Evidence: precision")
        if self.mask is not None:
            object.__setattr__(self, "mask", as_mask(self.mask, "Evidence: mask"))
        require_finite(as_real(self.value, "Evidence: value"), "Evidence: value")
        require_finite(precision, "Evidence: precision")
        if bool((precision < 0).any()):
            raise ParameterError(f"Evidence: precision {precision.min().item()} is negative", value=self.precision)

    def check(self, factor: object, shapes: Sequence[Shape]) -> None:
        super().check(factor, shapes)
        for what in ("value", "precision", "mask"):
            field = getattr(self, what)
            shape = tuple(torch.as_tensor(field).shape) if field is not None else ()
            try:
                torch.empty(shape).expand(shapes[0])
            except RuntimeError as error:
                raise ShapeError(
                    f"factor {factor!r}: Evidence.{what} of shape {shape} does not broadcast to {shapes[0]}",
                    factor=factor,
                ) from error

    def information(self, shapes: Sequence[Shape]) -> Information:
        shape = shapes[0]
        value = torch.as_tensor(self.value, dtype=torch.float64).expand(shape)
        precision = torch.as_tensor(self.precision, dtype=torch.float64).expand(shape)
        if self.mask is not None:
            precision = precision * self.mask.expand(shape)
        return Information(precision[None, None], (precision * value)[None], log_scale(value, precision))


def log_scale(mean: Tensor, precision: Tensor) -> Tensor:
    """Constant of ``log N(x; mean, 1/precision)`` in information form per element; 0 where precision is 0."""
    normalizer = 0.5 * torch.log(torch.where(precision > 0, precision / (2 * math.pi), 1.0))
    return normalizer - 0.5 * precision * mean**2
