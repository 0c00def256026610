"""Maps that pick elements: every output element is one input element, none picked twice."""

from __future__ import annotations

import abc
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..errors import ParameterError, ShapeError
from .base import Composition, LinearMap, Shape, as_integers, as_shape


class IndexMap(LinearMap):
    """A map given by where each output element comes from.

    A subclass arranges one integer array; everything else follows from it. Its `index` says where:

    >>> import pgm_sync as ps
    >>> ps.Rotate((2, 2)).index
    tensor([1, 3, 0, 2])
    """

    orthonormal = True

    @abc.abstractmethod
    def _arrange(self, elements: Tensor) -> Tensor:
        """The array of shape `out_shape` that `apply` makes of `elements`, an array of `in_shape`."""

    @cached_property
    def _source(self) -> Tensor:
        elements = torch.arange(self.in_size).reshape(self.in_shape)
        return self._arrange(elements).contiguous()

    @property
    def index(self) -> Tensor:
        """Flat input position of every output element, ``(out_size,)``, int64."""
        return self._source.flatten()

    @property
    def out_shape(self) -> Shape:
        return tuple(self._source.shape)

    def apply(self, x: Tensor) -> Tensor:
        self._check(x, self.in_shape)
        batch = x.shape[: x.ndim - len(self.in_shape)]
        flat = x.reshape(*batch, self.in_size)
        return flat.index_select(-1, self.index.to(x.device)).reshape(*batch, *self.out_shape)

    def adjoint(self, y: Tensor) -> Tensor:
        self._check(y, self.out_shape)
        batch = y.shape[: y.ndim - len(self.out_shape)]
        flat = y.reshape(*batch, self.out_size)
        out = flat.new_zeros(*batch, self.in_size)
        return out.index_copy(-1, self.index.to(y.device), flat).reshape(*batch, *self.in_shape)


@dataclass(frozen=True, eq=False, repr=False)
class Identity(IndexMap):
    """The whole content of `in_shape`, unchanged.

    >>> import torch, pgm_sync as ps
    >>> ps.Identity((3,)).apply(torch.arange(3))
    tensor([0, 1, 2])
    """

    in_shape: Shape

    def __post_init__(self) -> None:
        object.__setattr__(self, "in_shape", as_shape(self.in_shape))

    def _arrange(self, elements: Tensor) -> Tensor:
        return elements


@dataclass(frozen=True, eq=False, repr=False)
class Crop(IndexMap):
    """A box over the last axes of `in_shape`: ``x[..., start:start+size]`` on each of the last ``len(start)`` axes.

    With ``wrap=True`` a box that passes the end of an axis goes on at its beginning (a 360 degree canvas).

    >>> import torch, pgm_sync as ps
    >>> ps.Crop((1, 4, 10), start=(0, 8), size=(4, 4), wrap=True).out_shape
    (1, 4, 4)
    >>> ps.Crop((5,), start=(3,), size=(3,), wrap=True).apply(torch.arange(5))
    tensor([3, 4, 0])

    Raises ShapeError if the box does not fit.
    """

    in_shape: Shape
    start: Sequence[int] = ()
    size: Sequence[int] = ()
    wrap: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "in_shape", as_shape(self.in_shape))
        object.__setattr__(self, "start", _tuple(self.start))
        object.__setattr__(self, "size", as_shape(self.size, "crop size"))
        axes = self.in_shape[len(self.in_shape) - len(self.start) :]
        fits = len(self.start) == len(self.size) == len(axes) and all(
            isinstance(a, int) and 0 <= a < n and s <= n and (self.wrap or a + s <= n)
            for a, s, n in zip(self.start, self.size, axes, strict=True)
        )
        if not fits:
            raise ShapeError(
                f"a crop starting at {self.start} of size {self.size} does not fit into shape "
                f"{self.in_shape}"
                + ("" if self.wrap else " (wrap=True lets it pass the end)"),
                start=self.start,
                size=self.size,
                in_shape=self.in_shape,
            )

    def _arrange(self, elements: Tensor) -> Tensor:
        for k, (start, size) in enumerate(zip(self.start, self.size, strict=True)):
            axis = elements.ndim - len(self.start) + k
            elements = elements.index_select(axis, torch.arange(start, start + size) % self.in_shape[axis])
        return elements


@dataclass(frozen=True, eq=False, repr=False)
class Flip(IndexMap):
    """Mirror content of `in_shape` along `axes`, axis numbers of the event shape (the last axis by default).

    >>> import torch, pgm_sync as ps
    >>> ps.Flip((3,)).apply(torch.arange(3))
    tensor([2, 1, 0])
    """

    in_shape: Shape
    axes: Sequence[int] = (-1,)

    def __post_init__(self) -> None:
        object.__setattr__(self, "in_shape", as_shape(self.in_shape))
        object.__setattr__(self, "axes", _tuple(self.axes))
        _check_axes(self, self.axes)

    def _arrange(self, elements: Tensor) -> Tensor:
        return elements.flip(tuple(self.axes))


@dataclass(frozen=True, eq=False, repr=False)
class Rotate(IndexMap):
    """Rotate content of `in_shape` by `quarter_turns` x 90 degrees counter-clockwise in the plane of the last two axes.

    >>> import torch, pgm_sync as ps
    >>> ps.Rotate((2, 2)).apply(torch.tensor([[1, 2], [3, 4]]))
    tensor([[2, 4],
            [1, 3]])

    Raises ShapeError (fewer than two axes), ParameterError (no whole number of turns).
    """

    in_shape: Shape
    quarter_turns: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "in_shape", as_shape(self.in_shape))
        if len(self.in_shape) < 2:
            raise ShapeError(
                f"a rotation needs two axes, shape {self.in_shape} has one", in_shape=self.in_shape
            )
        (turns,) = as_integers((self.quarter_turns,), "quarter_turns")
        object.__setattr__(self, "quarter_turns", turns)

    def _arrange(self, elements: Tensor) -> Tensor:
        return elements.rot90(self.quarter_turns, (-2, -1))


@dataclass(frozen=True, eq=False, repr=False)
class Permutation(IndexMap):
    """Reorder all elements of `in_shape`: output element k is input element ``order[k]`` (flat, row-major); a jigsaw.

    >>> import torch, pgm_sync as ps
    >>> ps.Permutation((3,), order=[2, 0, 1]).apply(torch.tensor([10, 20, 30]))
    tensor([30, 10, 20])

    Raises ParameterError if `order` is not a permutation of ``0 .. size-1``.
    """

    in_shape: Shape
    order: Tensor | Sequence[int] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "in_shape", as_shape(self.in_shape))
        order = _array(self.order, "order").flatten()
        if order.is_floating_point() or order.is_complex() or order.dtype == torch.bool:
            raise ParameterError(f"order has dtype {order.dtype}; integers needed", dtype=order.dtype)
        order = order.to(torch.int64)
        object.__setattr__(self, "order", order)
        size = math.prod(self.in_shape)
        if not torch.equal(order.sort().values, torch.arange(size)):
            raise ParameterError(
                f"order is not a permutation of 0..{size - 1} (it has {order.numel()} entries, "
                f"{order.unique().numel()} of them different)",
                size=size,
            )

    def _arrange(self, elements: Tensor) -> Tensor:
        return elements.flatten()[torch.as_tensor(self.order)].reshape(self.in_shape)


@dataclass(frozen=True, eq=False, repr=False)
class Tokens(IndexMap):
    """``(C, H, W)`` as ``(H W / patch^2, C patch^2)``: a row per square patch, as Flux packs its latents.

    `in_shape` is ``(C, H, W)``, `patch` the side of a patch.

    >>> import torch, pgm_sync as ps
    >>> ps.Tokens((1, 2, 4)).apply(torch.arange(8).reshape(1, 2, 4))
    tensor([[0, 1, 4, 5],
            [2, 3, 6, 7]])

    Raises ShapeError (no whole patches), ParameterError.
    """

    in_shape: Shape
    patch: int = 2

    def __post_init__(self) -> None:
        object.__setattr__(self, "in_shape", as_shape(self.in_shape))
        if not isinstance(self.patch, int) or self.patch < 1:
            raise ParameterError(f"patch={self.patch!r} must be a positive integer", patch=self.patch)
        if len(self.in_shape) != 3 or any(n % self.patch for n in self.in_shape[1:]):
            raise ShapeError(
                f"a content of shape {self.in_shape} is not (channels, height, width) in patches of {self.patch}",
                shape=self.in_shape,
            )

    def _arrange(self, elements: Tensor) -> Tensor:
        c, h, w = self.in_shape
        p = self.patch
        parts = elements.reshape(c, h // p, p, w // p, p).permute(1, 3, 0, 2, 4)
        return parts.reshape(h * w // p**2, c * p**2)


@dataclass(frozen=True, eq=False, repr=False)
class Mask(IndexMap):
    """The elements where `mask` is true, as a flat vector.

    The mask may have fewer axes than `in_shape`; it then repeats over the leading ones (channels).

    >>> import torch, pgm_sync as ps
    >>> ps.Mask((2, 3), mask=torch.tensor([True, False, True])).apply(torch.arange(6).reshape(2, 3))
    tensor([0, 2, 3, 5])

    Raises ParameterError if there are none, ShapeError if the mask does not broadcast to `in_shape`.
    """

    in_shape: Shape
    mask: Tensor

    def __post_init__(self) -> None:
        object.__setattr__(self, "in_shape", as_shape(self.in_shape))
        mask = as_mask(self.mask, "mask")
        try:
            mask = mask.expand(self.in_shape)
        except RuntimeError as error:
            raise ShapeError(
                f"a mask of shape {tuple(mask.shape)} does not broadcast to {self.in_shape}",
                mask=tuple(mask.shape),
                in_shape=self.in_shape,
            ) from error
        if not mask.any():
            raise ParameterError(
                f"the mask of shape {tuple(mask.shape)} selects no element", mask=tuple(mask.shape)
            )
        object.__setattr__(self, "mask", mask.contiguous())

    def _arrange(self, elements: Tensor) -> Tensor:
        return elements[self.mask]


def _tuple(given: Any) -> tuple:
    return tuple(given) if isinstance(given, Iterable) else (given,)


def as_mask(value: Any, what: str) -> Tensor:
    """Booleans, or zeros and ones, as a bool tensor; `what` names the `value` in messages.

    Raises ParameterError for anything else.

    >>> as_mask([1, 0, 1], "the mask")
    tensor([ True, False,  True])
    """
    given = _array(value, what)
    mask = given.to(torch.bool) if not given.is_complex() else given.real != 0
    if not torch.equal(mask.to(given.dtype), given):
        raise ParameterError(f"{what} has entries other than 0 and 1 (True and False)", value=value)
    return mask


def _array(value: Any, what: str) -> Tensor:
    try:
        return torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ParameterError(f"{what} {value!r} is not an array of numbers", value=value) from error


def element_index(map: LinearMap) -> Tensor | None:
    """Flat input position of every output element, or None for a map that does more than pick elements.

    >>> element_index(Flip((2,)) @ Crop((4,), start=(2,), size=(2,)))
    tensor([3, 2])
    """
    if isinstance(map, IndexMap):
        return map.index
    if isinstance(map, Composition):
        outer, inner = element_index(map.outer), element_index(map.inner)
        return None if outer is None or inner is None else inner[outer]
    return None


def _check_axes(map: IndexMap, axes: Sequence[int]) -> None:
    ndim = len(map.in_shape)
    if not all(isinstance(a, int) and -ndim <= a < ndim for a in axes):
        raise ShapeError(
            f"axes {tuple(axes)} do not exist in shape {map.in_shape}", axes=axes, in_shape=map.in_shape
        )
    if len({a % ndim for a in axes}) < len(axes):
        raise ShapeError(
            f"axes {tuple(axes)} name an axis of shape {map.in_shape} twice", axes=axes, in_shape=map.in_shape
        )
