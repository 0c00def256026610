"""The learned potential: a joint Gaussian of all its ends, divided by their marginals (Eq. 1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import ParameterError, ShapeError, UnfittedError
from ..gaussian import as_real, cholesky, require_finite, require_symmetric
from ..maps import Shape
from .base import (
    Information,
    Marginal,
    Potential,
    block_diagonal_inverse,
    diagonal_blocks,
    finite_number,
    sizes,
)


@dataclass(frozen=True, eq=False, repr=False)
class JointGaussian(Potential):
    """``psi = g / prod_i g_i``, g = N(mean, covariance) over the concatenated contents of all ends (Eq. 1).

    Whole contents, or features of them when the factor has feature maps. Without arguments it is a
    placeholder that `ps.fit` fills in.

    Parameters: `mean` (P,), `covariance` (P, P) positive definite, in content units. On a graph with loops
    the factors of the maximum-likelihood model are not the ratios of their marginals; `ps.fit` then also
    stores `interaction` (P, P), the factor's own share of the joint precision, and `log_scale`, its share of
    the normaliser (Eq. 14).

    Raises CovarianceError if the covariance is not symmetric positive definite, NotFiniteError on NaN, ShapeError,
    ParameterError (a mean without a covariance, no numbers), DtypeError (complex numbers).

    Correlations of two pairs of numbers, each mode with its own:

    >>> import torch, pgm_sync as ps
    >>> cross = torch.diag(torch.tensor([0.9, 0.5]))
    >>> covariance = torch.cat([torch.cat([torch.eye(2), cross], 1), torch.cat([cross, torch.eye(2)], 1)])
    >>> graph = ps.chain_graph(2, shape=(2,), potential=ps.JointGaussian(covariance=covariance))
    >>> posterior = ps.infer(graph, evidence={0: (torch.ones(2), 1e6), 1: (0.0, 1.0)})
    >>> posterior.mean[1]
    tensor([0.9000, 0.5000])
    """

    mean: Tensor | None = None
    covariance: Tensor | None = None
    interaction: Tensor | None = None
    log_scale: float | None = None

    def __post_init__(self) -> None:
        if self.covariance is None:
            for what in ("mean", "interaction", "log_scale"):
                if getattr(self, what) is not None:
                    raise ParameterError(
                        f"JointGaussian: a {what} without a covariance; give both, or nothing for ps.fit to fill in",
                        field=what,
                    )
            return
        covariance = as_real(self.covariance, "JointGaussian: covariance")
        if covariance.ndim != 2:
            raise ShapeError(
                f"JointGaussian: covariance of shape {tuple(covariance.shape)} is not one square matrix",
                got=tuple(covariance.shape),
            )
        require_symmetric(covariance, "JointGaussian: covariance")
        cholesky(covariance, "JointGaussian: covariance")
        zero = covariance.new_zeros(len(covariance))
        mean = zero if self.mean is None else as_real(self.mean, "JointGaussian: mean").to(covariance).flatten()
        require_finite(mean, "JointGaussian: mean")
        if len(mean) != len(covariance):
            raise ShapeError(
                f"JointGaussian: mean has {len(mean)} elements, "
                f"covariance is {len(covariance)} x {len(covariance)}",
                expected=len(covariance),
                got=len(mean),
            )
        object.__setattr__(self, "covariance", covariance)
        object.__setattr__(self, "mean", mean)
        if self.interaction is not None:
            interaction = as_real(self.interaction, "JointGaussian: interaction")
            require_symmetric(interaction, "JointGaussian: interaction")
            if interaction.shape != covariance.shape:
                raise ShapeError(
                    f"JointGaussian: interaction is {tuple(interaction.shape)}, "
                    f"covariance {tuple(covariance.shape)}",
                    expected=tuple(covariance.shape),
                    got=tuple(interaction.shape),
                )
            object.__setattr__(self, "interaction", interaction)
        if self.log_scale is not None:
            finite_number(self.log_scale, "JointGaussian: log_scale")

    @property
    def fitted(self) -> bool:
        return self.covariance is not None

    def check(self, factor: object, shapes: Sequence[Shape]) -> None:
        super().check(factor, shapes)
        if self.mean is not None and sum(sizes(shapes)) != len(self.mean):
            raise ShapeError(
                f"factor {factor!r}: JointGaussian is over {len(self.mean)} elements, its ends have "
                f"{' + '.join(map(str, sizes(shapes)))} (shapes {', '.join(map(str, shapes))})",
                factor=factor,
                shapes=tuple(shapes),
            )

    def _parameters(self) -> tuple[Tensor, Tensor]:
        if self.mean is None or self.covariance is None:
            raise UnfittedError("JointGaussian has no parameters yet: call ps.fit(graph, data) first")
        return self.mean, self.covariance

    def information(self, shapes: Sequence[Shape]) -> Information:
        mean, covariance = self._parameters()
        blocks = diagonal_blocks(covariance, sizes(shapes))
        if self.interaction is None:
            precision = torch.linalg.inv(covariance) - block_diagonal_inverse(covariance, sizes(shapes))
            log_ratio = 0.5 * (sum(torch.logdet(b) for b in blocks) - torch.logdet(covariance))
        else:
            precision = self.interaction
            log_ratio = torch.tensor(self.log_scale or 0.0, dtype=covariance.dtype)
        eta = precision @ mean
        return Information(precision, eta, log_ratio - 0.5 * eta @ mean)

    def marginals(self, shapes: Sequence[Shape]) -> list[Marginal | None]:
        mean, covariance = self._parameters()
        parts = zip(mean.split(sizes(shapes)), diagonal_blocks(covariance, sizes(shapes)), strict=True)
        return [Marginal(m, c) for m, c in parts]
