"""A spring between matching elements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..errors import ShapeError
from ..maps import Shape
from .base import Information, Potential, finite_number


@dataclass(frozen=True, eq=False, repr=False)
class Attraction(Potential):
    """``log psi = -precision/2 * |x_i - x_j|^2``, what heuristics that pull trajectories together assume.

    It shrinks every marginal (section 2 of the theory: why averaging blurs); `Correlation` does not.
    `precision` is positive, a number or one per element, in 1/(content units)^2.

    Raises ParameterError (a precision that is not positive, or not of the shape of the ends), DtypeError.

    Two nodes of variance 1 that attract each other have less, 2/3:

    >>> import pgm_sync as ps
    >>> graph = ps.chain_graph(2, shape=(1,), potential=ps.Attraction(1.0))
    >>> ps.infer(graph, evidence={0: (0.0, 1.0), 1: (0.0, 1.0)}).variance[0]
    tensor([0.6667], dtype=torch.float64)
    """

    precision: float | Tensor
    elementwise: ClassVar[bool] = True
    ends: ClassVar[int | None] = 2

    def __post_init__(self) -> None:
        finite_number(self.precision, "Attraction: precision", low=0)

    def check(self, factor: object, shapes: Sequence[Shape]) -> None:
        super().check(factor, shapes)
        shape = tuple(torch.as_tensor(self.precision).shape)
        if shape and shape != shapes[0]:
            raise ShapeError(
                f"factor {factor!r}: Attraction.precision has shape {shape}, its ends see {shapes[0]}",
                factor=factor,
            )

    def information(self, shapes: Sequence[Shape]) -> Information:
        strength = torch.as_tensor(self.precision, dtype=torch.float64)
        signs = torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=torch.float64)
        signs = signs.reshape(2, 2, *(1,) * strength.ndim)
        zero = torch.zeros_like(strength)
        return Information(signs * strength, zero.expand(2, *zero.shape), zero)
