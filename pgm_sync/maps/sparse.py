"""A map given by a sparse matrix: UV look-ups, warps, resampling."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from scipy.sparse import coo_array, issparse
from torch import Tensor

from ..errors import DtypeError, ParameterError, ShapeError, UnsupportedError
from ..gaussian import require_finite
from .base import Composition, LinearMap, Shape, as_shape
from .index import element_index


@dataclass(frozen=True, eq=False, repr=False)
class SparseMap(LinearMap):
    """``apply(x) = matrix @ x.flatten()``; `indices` (2, nnz) row and column, `values` (nnz,).

    It takes contents of `in_shape` to contents of `to_shape`. ``SparseMap.from_scipy(matrix, in_shape, out_shape)``
    takes any scipy.sparse matrix.

    The mean of neighbours, as a bilinear lookup halfway between pixels takes it:

    >>> import torch, pgm_sync as ps
    >>> indices = torch.tensor([[0, 0, 1, 1], [0, 1, 1, 2]])
    >>> halfway = ps.SparseMap((3,), (2,), indices, torch.full((4,), 0.5))
    >>> halfway.apply(torch.tensor([0.0, 2.0, 6.0]))
    tensor([1., 4.])

    Raises ParameterError (no tensors), DtypeError (indices that are not integers, values that are not real),
    ShapeError, NotFiniteError.
    """

    in_shape: Shape
    to_shape: Shape
    indices: Tensor
    values: Tensor

    def __post_init__(self) -> None:
        object.__setattr__(self, "in_shape", as_shape(self.in_shape))
        object.__setattr__(self, "to_shape", as_shape(self.to_shape))
        size = (math.prod(self.to_shape), math.prod(self.in_shape))
        for what, given in (("indices", self.indices), ("values", self.values)):
            if not isinstance(given, Tensor):
                raise ParameterError(
                    f"{what} of a sparse map are a {type(given).__name__}; give a tensor", value=given
                )
        if self.indices.dtype not in (torch.int64, torch.int32):
            raise DtypeError(f"sparse indices have dtype {self.indices.dtype}; use int64", dtype=self.indices.dtype)
        if self.values.is_complex():
            raise DtypeError(
                f"sparse values have dtype {self.values.dtype}; real numbers needed", dtype=self.values.dtype
            )
        if self.indices.ndim != 2 or self.indices.shape != (2, self.values.numel()):
            raise ShapeError(
                f"indices of shape {tuple(self.indices.shape)} do not fit {self.values.numel()} values: "
                "(2, nnz) needed",
                got=tuple(self.indices.shape),
                expected=(2, self.values.numel()),
            )
        top = [int(row.max()) if row.numel() else 0 for row in self.indices]
        if top[0] >= size[0] or top[1] >= size[1] or (self.indices.numel() and int(self.indices.min()) < 0):
            raise ShapeError(
                f"sparse indices reach {tuple(top)}, outside the matrix of size {size} "
                f"between {self.in_shape} and {self.to_shape}",
                size=size,
            )
        require_finite(self.values, "the sparse map")

    @classmethod
    def from_scipy(cls, matrix: Any, in_shape: Shape, out_shape: Shape) -> SparseMap:
        """From a scipy.sparse matrix of shape (out_size, in_size). Raises ParameterError, ShapeError."""
        if not issparse(matrix):
            raise ParameterError(
                f"a {type(matrix).__name__} is not a scipy.sparse matrix; scipy.sparse.coo_array(matrix) is one",
                value=matrix,
            )
        coo = matrix.tocoo()
        size = (math.prod(as_shape(out_shape)), math.prod(as_shape(in_shape)))
        if coo.shape != size:
            raise ShapeError(
                f"a matrix of shape {coo.shape} does not map {in_shape} to {out_shape}: {size} needed",
                got=coo.shape,
                expected=size,
            )
        indices = torch.stack([torch.as_tensor(coo.row).long(), torch.as_tensor(coo.col).long()])
        return cls(in_shape, out_shape, indices, torch.as_tensor(coo.data))

    @property
    def out_shape(self) -> Shape:
        return self.to_shape

    def apply(self, x: Tensor) -> Tensor:
        self._check(x, self.in_shape)
        return self._gather(x, self.in_shape, self.to_shape, rows=0)

    def adjoint(self, y: Tensor) -> Tensor:
        self._check(y, self.to_shape)
        return self._gather(y, self.to_shape, self.in_shape, rows=1)

    def _gather(self, x: Tensor, source: Shape, target: Shape, rows: int) -> Tensor:
        batch = x.shape[: x.ndim - len(source)]
        indices = self.indices.to(x.device)
        terms = x.reshape(*batch, math.prod(source))[..., indices[1 - rows]] * self.values.to(x)
        out = terms.new_zeros(*batch, math.prod(target))
        return out.index_add(-1, indices[rows], terms).reshape(*batch, *target)


def is_sparse(map: LinearMap) -> bool:
    """Whether `sparse_entries` can list a map.

    >>> import pgm_sync as ps
    >>> is_sparse(ps.Flip((4,))), is_sparse(ps.DCT((4,), modes=2))
    (True, False)
    """
    if isinstance(map, Composition):
        return is_sparse(map.outer) and is_sparse(map.inner)
    return isinstance(map, SparseMap) or element_index(map) is not None


def sparse_entries(map: LinearMap) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, columns and values ``(nnz,)`` of a map that `is_sparse`; an entry may be listed in parts that add up.

    Index maps, sparse maps and their compositions. Raises UnsupportedError for any other.

    >>> import pgm_sync as ps
    >>> [part.tolist() for part in sparse_entries(ps.Flip((3,)))]
    [[0, 1, 2], [2, 1, 0], [1.0, 1.0, 1.0]]
    """
    index = element_index(map)
    if index is not None:
        return torch.arange(len(index)), index, torch.ones(len(index), dtype=torch.float64)
    if isinstance(map, SparseMap):
        return map.indices[0], map.indices[1], map.values.double()
    if not isinstance(map, Composition):
        raise UnsupportedError(f"{map!r} is no index or sparse map; use dense()", map=map)
    parts = []
    for m in (map.outer, map.inner):
        rows, columns, values = sparse_entries(m)
        parts.append(coo_array((values.numpy(), (rows.numpy(), columns.numpy())), shape=(m.out_size, m.in_size)))
    product = (parts[0] @ parts[1]).tocoo()
    rows, columns = (torch.as_tensor(part).long() for part in product.coords)
    return rows, columns, torch.as_tensor(product.data)
