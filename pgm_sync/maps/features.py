"""Feature maps with orthonormal rows: a few numbers per trajectory that carry its correlations (Eq. 13)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ..errors import CovarianceError, DtypeError, NotFiniteError, ParameterError, ShapeError
from ..gaussian import as_real, require_finite
from .base import LinearMap, Shape, as_integers, as_shape


class FeatureMap(LinearMap):
    """``features = rows @ x`` with orthonormal rows (Eq. 13); a subclass gives the rows, ``(out_size, in_size)``.

    White noise of the content is white noise of the features, because ``rows @ rows.T`` is the identity:

    >>> import torch, pgm_sync as ps
    >>> rows = ps.DCT((4,), modes=2).rows
    >>> torch.allclose(rows @ rows.T, torch.eye(2, dtype=rows.dtype))
    True
    """

    orthonormal = True

    @cached_property
    def rows(self) -> Tensor:
        """The orthonormal rows, ``(out_size, in_size)``, float64."""
        raise NotImplementedError

    def apply(self, x: Tensor) -> Tensor:
        self._check(x, self.in_shape)
        batch = x.shape[: x.ndim - len(self.in_shape)]
        return (x.reshape(*batch, self.in_size) @ self.rows.to(x).mT).reshape(*batch, *self.out_shape)

    def adjoint(self, y: Tensor) -> Tensor:
        self._check(y, self.out_shape)
        batch = y.shape[: y.ndim - len(self.out_shape)]
        return (y.reshape(*batch, self.out_size) @ self.rows.to(y)).reshape(*batch, *self.in_shape)


@dataclass(frozen=True, eq=False, repr=False)
class DCT(FeatureMap):
    """The `modes` lowest-frequency cosines over the last two axes (the last one, for vectors), per channel (Eq. 13).

    `in_shape` is the content's shape. Modes are ordered by spatial frequency, the constant first. Output shape
    ``(*channels, modes)``. A feature is a coordinate in an orthonormal basis, so the first is
    ``sqrt(number of pixels) * mean``.

    >>> import torch, pgm_sync as ps
    >>> ps.DCT((3, 12, 12), modes=4).out_shape
    (3, 4)
    >>> ps.DCT((1, 4, 4), modes=1).apply(torch.full((1, 4, 4), 0.5)).item()
    2.0

    Raises ParameterError if `modes` is no number between 1 and the number of pixels.
    """

    in_shape: Shape
    modes: int = 4

    def __post_init__(self) -> None:
        object.__setattr__(self, "in_shape", as_shape(self.in_shape))
        size = math.prod(self._axes)
        (modes,) = as_integers((self.modes,), "modes")
        object.__setattr__(self, "modes", modes)
        if not 1 <= modes <= size:
            raise ParameterError(
                f"modes={self.modes} is not in 1..{size} for axes {self._axes}", modes=self.modes
            )

    @property
    def _axes(self) -> Shape:
        return self.in_shape[-2:]

    @property
    def out_shape(self) -> Shape:
        return (*self.in_shape[:-2], self.modes)

    @cached_property
    def _frequencies(self) -> list[tuple[int, ...]]:
        grid = torch.cartesian_prod(*(torch.arange(n) for n in self._axes)).reshape(-1, len(self._axes))
        # half periods per pixel, so that a long axis does not use up all the low modes; ties in raster order
        frequency = (grid.double() / torch.tensor(self._axes)).square().sum(1)
        return [tuple(grid[i].tolist()) for i in torch.argsort(frequency, stable=True)[: self.modes]]

    @cached_property
    def rows(self) -> Tensor:
        cosines = [_dct_matrix(n) for n in self._axes]
        modes = []
        for ks in self._frequencies:
            mode = cosines[0][ks[0]]
            for k, c in zip(ks[1:], cosines[1:], strict=True):
                mode = torch.outer(mode.flatten(), c[k])
            modes.append(mode.flatten())
        channels = math.prod(self.in_shape[:-2])
        return torch.kron(torch.eye(channels, dtype=torch.float64), torch.stack(modes))

    def labels(self) -> list[str]:
        modes = ["dct" + ",".join(map(str, ks)) for ks in self._frequencies]
        channels = math.prod(self.in_shape[:-2])
        return modes if channels == 1 else [f"c{c} {m}" for c in range(channels) for m in modes]


def _dct_matrix(n: int) -> Tensor:
    """Orthonormal DCT-II, ``(n, n)``, rows by frequency."""
    k, x = torch.meshgrid(torch.arange(n).double(), torch.arange(n).double() + 0.5, indexing="ij")
    matrix = torch.cos(math.pi * k * x / n) * math.sqrt(2 / n)
    matrix[0] /= math.sqrt(2)
    return matrix


def ChannelMeans(in_shape: Shape) -> DCT:
    """One feature per channel of `in_shape`, ``sqrt(number of pixels) * mean`` (the scale keeps noise white; Eq. 13).

    >>> import torch, pgm_sync as ps
    >>> ps.ChannelMeans((2, 4, 4)).apply(torch.ones(2, 4, 4)).flatten().tolist()
    [4.0, 4.0]
    """
    return DCT(in_shape, modes=1)


@dataclass(frozen=True, eq=False, repr=False)
class Features(FeatureMap):
    """Features in a basis of your own: ``basis`` is ``(r, *in_shape)`` with orthonormal rows (Eq. 13).

    >>> import torch, pgm_sync as ps
    >>> contrast = ps.Features(torch.tensor([[1.0, -1.0]]) / 2**0.5)
    >>> round(contrast.apply(torch.tensor([3.0, 1.0])).item(), 4)
    1.4142

    Raises CovarianceError if the rows are not orthonormal to 1e-6, NotFiniteError on NaN, ShapeError, DtypeError.
    """

    basis: Tensor

    def __post_init__(self) -> None:
        basis = self.basis if isinstance(self.basis, Tensor) else as_real(self.basis, "the feature basis")
        if basis.is_complex():
            raise DtypeError("the feature basis has complex numbers; real ones needed", dtype=basis.dtype)
        if basis.ndim < 2:
            raise ShapeError(
                f"a basis has shape (r, *in_shape), not {tuple(basis.shape)}", got=tuple(basis.shape)
            )
        if not torch.isfinite(basis).all():
            raise NotFiniteError(
                f"the feature basis of shape {tuple(basis.shape)} has NaN or infinite entries",
                shape=tuple(basis.shape),
            )
        rows = basis.flatten(1).double()
        error = (
            (rows @ rows.mT - torch.eye(len(rows), dtype=rows.dtype, device=rows.device)).abs().max().item()
        )
        if error > 1e-6:
            raise CovarianceError(
                f"the {len(rows)} rows of the feature basis are not orthonormal (largest deviation "
                f"{error:.2g}); Features.orthonormalise(rows) or Features.pca(data, rank) gives such a basis",
                error=error,
            )
        # contiguous, or products with it round differently before and after saving
        object.__setattr__(self, "basis", basis.contiguous())

    @property
    def in_shape(self) -> Shape:  # type: ignore[override]
        """Shape of the content, that of one row of the basis."""
        return tuple(self.basis.shape[1:])

    @property
    def out_shape(self) -> Shape:
        return (self.basis.shape[0],)

    @cached_property
    def rows(self) -> Tensor:
        return self.basis.flatten(1).double()

    @classmethod
    def orthonormalise(cls, rows: Tensor) -> Features:
        """An orthonormal basis of the span of ``rows (r, *in_shape)``; dependent rows are dropped.

        Raises NotFiniteError on NaN, ParameterError if all rows are zero.
        """
        require_finite(rows, "rows")
        if not bool((rows != 0).any()):
            raise ParameterError(
                f"the rows of shape {tuple(rows.shape)} are all zero: they span nothing", shape=tuple(rows.shape)
            )
        _, values, basis = torch.linalg.svd(rows.flatten(1).double(), full_matrices=False)
        kept = basis[values > values[0] * 1e-9]
        return cls(kept.reshape(-1, *rows.shape[1:]))

    @classmethod
    def pca(cls, data: Tensor, rank: int) -> Features:
        """The `rank` leading principal directions of ``data (n, *in_shape)``.

        Raises ParameterError if `rank` exceeds what the data span, NotFiniteError on NaN.
        """
        require_finite(data, "PCA data")
        centred = (data - data.mean(0)).flatten(1).double()
        _, values, basis = torch.linalg.svd(centred, full_matrices=False)
        # n rows span at most n - 1 directions around their mean; the next one would be arbitrary
        spanned = int((values > values.max() * 1e-9).sum())
        if not 1 <= rank <= spanned:
            raise ParameterError(
                f"rank={rank} is not in 1..{spanned}, the directions that {len(data)} rows of data span",
                rank=rank,
                spanned=spanned,
            )
        return cls(basis[:rank].reshape(rank, *data.shape[1:]))

    def labels(self) -> list[str]:
        return [f"mode {k}" for k in range(len(self.basis))]
