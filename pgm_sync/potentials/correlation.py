"""A Gaussian copula between matching elements (Eq. 2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..errors import ParameterError, ShapeError
from ..gaussian import as_real
from ..maps import Shape
from .base import Information, Marginal, Potential, finite_number, sizes


@dataclass(frozen=True, eq=False, repr=False)
class Correlation(Potential):
    """``psi = g_ij / (g_i g_j)`` with correlation `rho` between matching elements (Eq. 2).

    It adds dependence and leaves each trajectory's own mean and variance alone (on a tree, exactly).
    `rho` strictly between -1 and 1, a number or one per element; `variance` > 0 of the clean contents, and
    `mean`, one number for both ends or a pair of numbers or tensors.

    Raises ParameterError on values out of range, DtypeError on complex ones.

    Nodes that are N(0, 1) by themselves, and 2.0 observed at one (with precision 1e6). The other's posterior mean is
    0.8 times the evidence, its variance 1 - 0.8**2:

    >>> import pgm_sync as ps
    >>> graph = ps.chain_graph(2, shape=(1,), potential=ps.Correlation(0.8))
    >>> posterior = ps.infer(graph, evidence={0: (2.0, 1e6), 1: (0.0, 1.0)})
    >>> round(posterior.mean[1].item(), 3), round(posterior.variance[1].item(), 3)
    (1.6, 0.36)
    """

    rho: float | Tensor
    variance: float | Tensor | tuple[float | Tensor, float | Tensor] = 1.0
    mean: float | Tensor | tuple[float | Tensor, float | Tensor] = 0.0
    elementwise: ClassVar[bool] = True
    ends: ClassVar[int | None] = 2

    def __post_init__(self) -> None:
        for name in ("rho", "variance", "mean"):
            # A list is one number per element; a tuple would be one entry per end.
            if isinstance(value := getattr(self, name), list):
                object.__setattr__(self, name, as_real(value, f"Correlation: {name}"))
            elif isinstance(value, tuple) and (name == "rho" or len(value) != 2):
                raise ParameterError(
                    f"Correlation: {name} is one number, a tensor"
                    + ("" if name == "rho" else ", or a pair of them")
                    + f", not a tuple of {len(value)}",
                    value=value,
                )
        finite_number(self.rho, "Correlation: rho", low=-1, high=1)
        for variance in as_pair(self.variance):
            finite_number(variance, "Correlation: variance", low=0)
        for mean in as_pair(self.mean):
            finite_number(mean, "Correlation: mean")

    def check(self, factor: object, shapes: Sequence[Shape]) -> None:
        super().check(factor, shapes)
        for what, value in [
            ("rho", (self.rho,)),
            ("variance", as_pair(self.variance)),
            ("mean", as_pair(self.mean)),
        ]:
            for v in value:
                shape = tuple(torch.as_tensor(v).shape)
                if shape and shape != shapes[0]:
                    raise ShapeError(
                        f"factor {factor!r}: Correlation.{what} has shape {shape}, its ends see {shapes[0]}",
                        factor=factor,
                    )

    def information(self, shapes: Sequence[Shape]) -> Information:
        shape = shapes[0]
        rho = _full(self.rho, shape)
        scale = [_full(v, shape).rsqrt() for v in as_pair(self.variance)]
        mean = torch.stack([_full(m, shape) for m in as_pair(self.mean)])
        scale_rows = torch.stack(scale)
        block = torch.stack([torch.stack([rho**2, -rho]), torch.stack([-rho, rho**2])]) / (1 - rho**2)
        precision = block * scale_rows[:, None] * scale_rows[None, :]
        eta = (precision * mean[None]).sum(1)
        return Information(precision, eta, -0.5 * torch.log1p(-(rho**2)) - 0.5 * (eta * mean).sum(0))

    def marginals(self, shapes: Sequence[Shape]) -> list[Marginal | None]:
        (size, *_) = sizes(shapes)
        return [
            Marginal(_full(m, shapes[0]).reshape(size), _full(v, shapes[0]).reshape(size))
            for m, v in zip(as_pair(self.mean), as_pair(self.variance), strict=True)
        ]


def as_pair(value: object) -> tuple:
    """One entry per end."""
    return value if isinstance(value, tuple) else (value, value)


def _full(value: object, shape: Shape) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64).expand(shape)
