"""A potential given by its precision and eta, for matching elements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..errors import ShapeError
from ..gaussian import as_real, require_finite, require_symmetric
from ..maps import Shape
from .base import Information, Potential


@dataclass(frozen=True, eq=False, repr=False)
class Quadratic(Potential):
    """``log psi = -x' precision x / 2 + eta' x`` for matching elements x of n ends: the information form itself.

    `precision` is ``(n, n)`` or ``(n, n, *event)``, symmetric, and need not be positive definite by itself; `eta`
    ``(n)`` or ``(n, *event)``, 0 if not given. What other programs hand over as (Lambda, eta) becomes such factors.

    Raises ShapeError, CovarianceError (not symmetric), NotFiniteError, ParameterError, DtypeError (no real numbers).

    Precision and eta of N(0, [[1, 0.6], [0.6, 1]]) and the correlation that comes back:

    >>> import torch, pgm_sync as ps
    >>> precision = torch.linalg.inv(torch.tensor([[1.0, 0.6], [0.6, 1.0]]))
    >>> graph = ps.chain_graph(2, shape=(1,), potential=ps.Quadratic(precision))
    >>> round(ps.infer(graph).correlation(0, 1).item(), 4)
    0.6
    """

    precision: Tensor
    eta: Tensor | None = None
    elementwise: ClassVar[bool] = True
    ends: ClassVar[int | None] = None

    def __post_init__(self) -> None:
        precision = as_real(self.precision, "Quadratic: precision")
        if precision.ndim < 2 or precision.shape[0] != precision.shape[1]:
            raise ShapeError(
                f"Quadratic: precision has shape {tuple(precision.shape)}; (n, n) or (n, n, *event) needed",
                got=tuple(precision.shape),
            )
        require_symmetric(precision.movedim((0, 1), (-2, -1)), "Quadratic: precision")
        object.__setattr__(self, "precision", precision)
        if self.eta is not None:
            eta = as_real(self.eta, "Quadratic: eta")
            if eta.ndim < 1 or len(eta) != len(precision):
                raise ShapeError(
                    f"Quadratic: eta has shape {tuple(eta.shape)} for {len(precision)} ends; (n) or (n, *event) needed",
                    expected=len(precision),
                    got=tuple(eta.shape),
                )
            require_finite(eta, "Quadratic: eta")
            object.__setattr__(self, "eta", eta)

    def check(self, factor: object, shapes: Sequence[Shape]) -> None:
        super().check(factor, shapes)
        n = len(shapes)
        if len(self.precision) != n:
            raise ShapeError(
                f"factor {factor!r}: Quadratic.precision is for {len(self.precision)} ends, the factor has {n}",
                factor=factor,
            )
        for what, event in (
            ("precision", self.precision.shape[2:]),
            ("eta", () if self.eta is None else self.eta.shape[1:]),
        ):
            if tuple(event) not in ((), tuple(shapes[0])):
                raise ShapeError(
                    f"factor {factor!r}: Quadratic.{what} is for elements of shape {tuple(event)}, "
                    f"its ends see {shapes[0]}",
                    factor=factor,
                )

    def information(self, shapes: Sequence[Shape]) -> Information:
        eta = self.precision.new_zeros(len(self.precision)) if self.eta is None else self.eta
        return Information(self.precision, eta, self.precision.new_zeros(()))
