"""Linear maps between the content of a trajectory and what a factor sees of it."""

from __future__ import annotations

import abc
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from ..errors import ParameterError, ShapeError
from ..spec import Spec

#: Sizes of the axes of a content, without batch dimensions.
Shape = tuple[int, ...]


def as_shape(shape: Sequence[int] | int, what: str = "shape") -> Shape:
    """`shape` as a tuple of positive integers (numpy's too); `what` names it in messages.

    Raises ShapeError for anything else.

    >>> as_shape(5), as_shape([1, 12, 12])
    ((5,), (1, 12, 12))
    """
    given = tuple(shape) if isinstance(shape, Iterable) else (shape,)
    if not all(isinstance(n, Integral) and not isinstance(n, bool) and n > 0 for n in given):
        raise ShapeError(f"{what} {shape!r} is not a tuple of positive integers", shape=shape)
    return tuple(int(n) for n in given)


def as_integers(values: Any, what: str) -> tuple[int, ...]:
    """A sequence of integers (numpy's too) as a tuple; `what` names the `values` in messages.

    Raises ParameterError for anything else.

    >>> as_integers([2, 3], "the size")
    (2, 3)
    """
    given = tuple(values) if isinstance(values, Iterable) else None
    if given is None or not all(isinstance(n, Integral) and not isinstance(n, bool) for n in given):
        raise ParameterError(f"{what} {values!r} is not a sequence of integers", value=values)
    return tuple(int(n) for n in given)


class LinearMap(Spec, abc.ABC):
    """A linear map from arrays of `in_shape` to arrays of `out_shape`, batch dimensions on the left.

    Laws (tested for every map): ``adjoint`` is the transpose, ``<apply(x), y> == <x, adjoint(y)>``, and
    ``dense() @ x.flatten() == apply(x).flatten()``.

    >>> import torch, pgm_sync as ps
    >>> crop = ps.Crop((4,), start=(1,), size=(2,))
    >>> crop.dense()
    tensor([[0., 1., 0., 0.],
            [0., 0., 1., 0.]], dtype=torch.float64)
    >>> crop.adjoint(torch.tensor([5.0, 6.0]))
    tensor([0., 5., 6., 0.])
    """

    in_shape: Shape
    orthonormal: bool = False  # rows orthonormal, so that white noise stays white

    @property
    @abc.abstractmethod
    def out_shape(self) -> Shape:
        """Event shape of ``apply(x)``."""

    @abc.abstractmethod
    def apply(self, x: Tensor) -> Tensor:
        """Map x ``(*batch, *in_shape)`` to ``(*batch, *out_shape)``."""

    @abc.abstractmethod
    def adjoint(self, y: Tensor) -> Tensor:
        """Map y ``(*batch, *out_shape)`` to ``(*batch, *in_shape)`` by the transpose."""

    @property
    def in_size(self) -> int:
        """Number of input elements."""
        return math.prod(self.in_shape)

    @property
    def out_size(self) -> int:
        """Number of output elements."""
        return math.prod(self.out_shape)

    def dense(self, dtype: torch.dtype = torch.float64, device: torch.device | str | None = None) -> Tensor:
        """The matrix ``(out_size, in_size)`` in `dtype` on `device`; meant for small maps and for tests."""
        rows = torch.eye(self.out_size, dtype=dtype, device=device).reshape(self.out_size, *self.out_shape)
        return self.adjoint(rows).reshape(self.out_size, self.in_size)

    def labels(self) -> list[str]:
        """A short name for every output element, as shown in tables."""
        return [str(k) for k in range(self.out_size)]

    def __matmul__(self, inner: LinearMap) -> LinearMap:
        """Composition: ``(f @ g).apply(x) == f.apply(g.apply(x))``."""
        return Composition(self, inner)

    def _check(self, x: Tensor, shape: Shape) -> None:
        if tuple(x.shape[x.ndim - len(shape) :]) != shape or x.ndim < len(shape):
            raise ShapeError(
                f"{type(self).__name__} takes arrays of shape (*batch, {', '.join(map(str, shape))}), "
                f"not {tuple(x.shape)}",
                expected=shape,
                got=tuple(x.shape),
            )


@dataclass(frozen=True, eq=False, repr=False)
class Composition(LinearMap):
    """`outer` after `inner`; made by ``outer @ inner``.

    >>> import torch, pgm_sync as ps
    >>> last_two_mirrored = ps.Flip((2,)) @ ps.Crop((4,), start=(2,), size=(2,))
    >>> last_two_mirrored.apply(torch.arange(4))
    tensor([3, 2])

    Raises ShapeError if the inner map's output is not what the outer takes, ParameterError (not a map).
    """

    outer: LinearMap
    inner: LinearMap

    def __post_init__(self) -> None:
        for m in (self.outer, self.inner):
            if not isinstance(m, LinearMap):
                raise ParameterError(f"cannot compose with {m!r}, which is not a map", value=m)
        if self.inner.out_shape != self.outer.in_shape:
            raise ShapeError(
                f"cannot compose {self.outer!r} after {self.inner!r}: the inner map gives shape "
                f"{self.inner.out_shape}, the outer one takes {self.outer.in_shape}",
                inner=self.inner.out_shape,
                outer=self.outer.in_shape,
            )

    @property
    def in_shape(self) -> Shape:  # type: ignore[override]
        """Shape that the inner map takes."""
        return self.inner.in_shape

    @property
    def out_shape(self) -> Shape:
        return self.outer.out_shape

    @property
    def orthonormal(self) -> bool:  # type: ignore[override]
        return self.outer.orthonormal and self.inner.orthonormal

    def apply(self, x: Tensor) -> Tensor:
        return self.outer.apply(self.inner.apply(x))

    def adjoint(self, y: Tensor) -> Tensor:
        return self.inner.adjoint(self.outer.adjoint(y))

    def labels(self) -> list[str]:
        return self.outer.labels()
