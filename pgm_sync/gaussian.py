"""A Gaussian in information form, and its algebra."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .errors import CovarianceError, DtypeError, NotFiniteError, ParameterError, ShapeError


class Gaussian(NamedTuple):
    """``log density(x) = -x' precision x / 2 + eta' x + log_scale``; it need not be normalised, or proper.

    Laws: ``(f + g).log_density(x) == f.log_density(x) + g.log_density(x)``;
    ``f.marginalize(keep).log_density(a)`` integrates the other variables out;
    ``f.condition(index, b).log_density(a) == f.log_density((a, b))``.

    A prior N(0, 1) and an observation of 2 with variance 1:

    >>> import torch, pgm_sync as ps
    >>> prior, seen = (ps.Gaussian.from_moments(torch.tensor([mean]), torch.eye(1)) for mean in (0.0, 2.0))
    >>> (prior + seen).mean, (prior + seen).covariance
    (tensor([1.]), tensor([[0.5000]]))
    """

    precision: Tensor  # (*batch, n, n), symmetric
    eta: Tensor  # (*batch, n)
    log_scale: Tensor  # (*batch)

    @classmethod
    def from_moments(cls, mean: Tensor, covariance: Tensor) -> Gaussian:
        """The normalised density N(mean, covariance).

        Raises CovarianceError unless positive definite, ShapeError, DtypeError (not floating point), NotFiniteError.
        """
        _require_matrix(covariance, mean, "the covariance", "mean")
        require_finite(mean, "the mean")
        factor = cholesky(covariance, "the covariance")
        precision = torch.cholesky_inverse(factor)
        eta = (precision @ mean.unsqueeze(-1)).squeeze(-1)
        half_log_det = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        n = mean.shape[-1]
        return cls(
            precision, eta, -0.5 * (eta * mean).sum(-1) - half_log_det - 0.5 * n * math.log(2 * math.pi)
        )

    @property
    def mean(self) -> Tensor:
        """``(*batch, n)``. Raises CovarianceError if the density is improper."""
        factor = cholesky(self.precision, "the precision")
        return torch.cholesky_solve(self.eta.unsqueeze(-1), factor).squeeze(-1)

    @property
    def covariance(self) -> Tensor:
        """``(*batch, n, n)``. Raises CovarianceError if the density is improper."""
        return torch.cholesky_inverse(cholesky(self.precision, "the precision"))

    @property
    def log_normalizer(self) -> Tensor:
        """log of the integral over x, ``(*batch)``; 0 for a normalised density."""
        factor = cholesky(self.precision, "the precision")
        mean = torch.cholesky_solve(self.eta.unsqueeze(-1), factor).squeeze(-1)
        half_log_det = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        n = self.eta.shape[-1]
        return (
            self.log_scale + 0.5 * (self.eta * mean).sum(-1) - half_log_det + 0.5 * n * math.log(2 * math.pi)
        )

    def log_density(self, x: Tensor) -> Tensor:
        """Value at ``x (*batch, n)``. Raises ShapeError."""
        _require_length(x, self.eta.shape[-1], "x")
        quadratic = (x.unsqueeze(-2) @ self.precision @ x.unsqueeze(-1)).squeeze(-1).squeeze(-1)
        return -0.5 * quadratic + (self.eta * x).sum(-1) + self.log_scale

    def __add__(self, other: Gaussian) -> Gaussian:  # type: ignore[override]
        """The product of the two densities.

        Raises ShapeError where they are over different numbers of variables, ParameterError (not a Gaussian).
        """
        if not isinstance(other, Gaussian):
            raise ParameterError(f"cannot multiply a Gaussian by {other!r}: not a Gaussian", value=other)
        if self.eta.shape[-1] != other.eta.shape[-1]:
            raise ShapeError(
                f"cannot multiply densities over {self.eta.shape[-1]} and {other.eta.shape[-1]} variables",
                expected=self.eta.shape[-1],
                got=other.eta.shape[-1],
            )
        return Gaussian(
            self.precision + other.precision, self.eta + other.eta, self.log_scale + other.log_scale
        )

    def marginalize(self, keep: Tensor) -> Gaussian:
        """Integrate out every variable not in `keep`, a vector of positions.

        Raises CovarianceError where that diverges, ParameterError (positions that are not there, or repeated).
        """
        n = self.eta.shape[-1]
        _require_positions(keep, n, "keep")
        rest = torch.tensor([i for i in range(n) if i not in set(keep.tolist())], dtype=torch.int64)
        factor = cholesky(
            self.precision[..., rest[:, None], rest], "the precision of the variables integrated out"
        )
        cross = self.precision[..., rest[:, None], keep]
        right = torch.cat([cross, self.eta[..., rest].unsqueeze(-1)], -1)
        solved = torch.cholesky_solve(right, factor)
        eta_rest = self.eta[..., rest]
        half_log_det = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return Gaussian(
            self.precision[..., keep[:, None], keep] - cross.mT @ solved[..., :-1],
            self.eta[..., keep] - (cross.mT @ solved[..., -1:]).squeeze(-1),
            self.log_scale
            + 0.5 * (eta_rest * solved[..., -1]).sum(-1)
            - half_log_det
            + 0.5 * len(rest) * math.log(2 * math.pi),
        )

    def condition(self, index: Tensor, value: Tensor) -> Gaussian:
        """Fix the variables at positions `index` to `value`; a Gaussian of the remaining ones.

        Raises ParameterError (positions that are not there, or repeated), ShapeError.
        """
        n = self.eta.shape[-1]
        _require_positions(index, n, "index")
        _require_length(value, len(index), "value")
        keep = torch.tensor([i for i in range(n) if i not in set(index.tolist())], dtype=torch.int64)
        cross = self.precision[..., keep[:, None], index]
        own = self.precision[..., index[:, None], index]
        quadratic = (value.unsqueeze(-2) @ own @ value.unsqueeze(-1)).squeeze(-1).squeeze(-1)
        return Gaussian(
            self.precision[..., keep[:, None], keep],
            self.eta[..., keep] - (cross @ value.unsqueeze(-1)).squeeze(-1),
            self.log_scale + (self.eta[..., index] * value).sum(-1) - 0.5 * quadratic,
        )

    def to_pyro(self) -> Any:
        """The same density as a `pyro.ops.gaussian.Gaussian`."""
        from pyro.ops.gaussian import Gaussian as PyroGaussian

        return PyroGaussian(self.log_scale, self.eta, self.precision)

    @classmethod
    def from_pyro(cls, other: Any) -> Gaussian:
        """From a `pyro.ops.gaussian.Gaussian`."""
        return cls(other.precision, other.info_vec, other.log_normalizer)


def as_real(value: Any, what: str) -> Tensor:
    """`value` as a float64 tensor; `what` names it in messages.

    Raises ParameterError for what is not numbers, DtypeError for complex ones.

    >>> as_real([1, 2.5], "the mean")
    tensor([1.0000, 2.5000], dtype=torch.float64)
    """
    if torch.is_complex(value) if isinstance(value, Tensor) else _complex(value):
        raise DtypeError(f"{what} has complex numbers; real ones needed", value=value)
    try:
        return torch.as_tensor(value, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise ParameterError(f"{what} {value!r} is neither a number nor a tensor", value=value) from error


def _complex(value: Any) -> bool:
    return isinstance(value, complex) or (isinstance(value, np.ndarray) and np.iscomplexobj(value))


def cholesky(matrix: Tensor, what: str) -> Tensor:
    """Lower Cholesky factor of symmetric positive definite ``matrix (*batch, n, n)``; `what` names it in messages.

    Raises CovarianceError with the smallest eigenvalue where it is not positive definite, NotFiniteError on NaN.

    >>> cholesky(torch.tensor([[4.0, 2.0], [2.0, 2.0]]), "the covariance")
    tensor([[2., 0.],
            [1., 1.]])
    """
    factor, info = torch.linalg.cholesky_ex(matrix)
    if bool((info > 0).any()) or not torch.isfinite(factor).all():
        require_finite(matrix, what)
        low = torch.linalg.eigvalsh(matrix.detach().double()).min().item()
        raise CovarianceError(
            f"{what} ({matrix.shape[-1]} x {matrix.shape[-1]}) is not positive definite: "
            f"its smallest eigenvalue is {low:.3g}",
            smallest_eigenvalue=low,
        )
    return factor


def _require_matrix(matrix: Tensor, vector: Tensor, what: str, of: str) -> None:
    """Square, symmetric, floating point, and as long as `vector`."""
    if not matrix.is_floating_point():
        raise DtypeError(f"{what} has dtype {matrix.dtype}; use float32 or float64", dtype=matrix.dtype)
    # not to the tolerance of what people type in: the inverse of a float32 system is symmetric to its rounding only
    require_symmetric(matrix, what, tolerance=1e-2)
    _require_length(vector, matrix.shape[-1], of)


def _require_length(vector: Tensor, n: int, what: str) -> None:
    if vector.ndim < 1 or vector.shape[-1] != n:
        raise ShapeError(
            f"{what} has shape {tuple(vector.shape)}, which is not (*batch, {n})",
            expected=n,
            got=tuple(vector.shape),
        )


def _require_positions(index: Tensor, n: int, what: str) -> None:
    listed = index.tolist()
    if index.ndim != 1 or not all(type(i) is int and 0 <= i < n for i in listed) or len(set(listed)) < len(listed):
        raise ParameterError(
            f"{what}={listed} must be different integers between 0 and {n - 1}", positions=listed, size=n
        )


def require_symmetric(matrix: Tensor, what: str, tolerance: float = 1e-5) -> None:
    """Pass a square ``matrix (*batch, n, n)`` that is symmetric to `tolerance` times its largest entry.

    `what` names it in messages. Raises CovarianceError (not symmetric), ShapeError (not square, empty), NotFiniteError.

    >>> require_symmetric(torch.tensor([[1.0, 0.5], [0.4, 1.0]]), "the covariance")
    Traceback (most recent call last):
    pgm_sync.errors.CovarianceError: the covariance is not symmetric: entries differ by up to 0.1
    """
    if matrix.ndim < 2 or matrix.shape[-1] != matrix.shape[-2]:
        raise ShapeError(f"{what} of shape {tuple(matrix.shape)} is not square", got=tuple(matrix.shape))
    if not matrix.numel():
        raise ShapeError(f"{what} of shape {tuple(matrix.shape)} is empty", got=tuple(matrix.shape))
    require_finite(matrix, what)
    error = (matrix - matrix.mT).abs().max().item()
    if error > tolerance * max(matrix.abs().max().item(), 1e-30):
        raise CovarianceError(f"{what} is not symmetric: entries differ by up to {error:.3g}", error=error)


def require_finite(tensor: Tensor, what: str) -> None:
    """Pass a `tensor` without NaN or infinity; `what` names it in messages.

    Raises NotFiniteError, with ``count`` and the position of the ``first``.

    >>> require_finite(torch.tensor([1.0, float("nan")]), "the evidence of 'left'")
    Traceback (most recent call last):
    pgm_sync.errors.NotFiniteError: the evidence of 'left' has 1 NaN or infinite entries out of 2, the first at (1,)
    """
    bad = ~torch.isfinite(tensor)
    if bad.any():
        first = tuple(bad.nonzero()[0].tolist())
        raise NotFiniteError(
            f"{what} has {int(bad.sum())} NaN or infinite entries out of {tensor.numel()}, "
            f"the first at {first}",
            count=int(bad.sum()),
            first=first,
        )


def canonical_correlations(first: Tensor, cross: Tensor, second: Tensor) -> Tensor:
    """Canonical correlations between two vectors, descending, ``(*batch, min(r, s))``, from blocks of their covariance.

    `first` is ``(*batch, r, r)``, `cross` ``(*batch, r, s)`` and `second` ``(*batch, s, s)``; the outer two positive
    definite. Scales of the vectors do not matter:

    >>> canonical_correlations(torch.eye(2), torch.diag(torch.tensor([0.5, 1.8])), 4 * torch.eye(2))
    tensor([0.9000, 0.2500])
    """
    left, right = torch.linalg.cholesky(first), torch.linalg.cholesky(second)
    half = torch.linalg.solve_triangular(left, cross, upper=False)
    return torch.linalg.svdvals(torch.linalg.solve_triangular(right, half.mT, upper=False))
