"""Which site of a canvas every pixel shows, as a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import ParameterError, ShapeError
from .base import Shape, as_shape
from .index import IndexMap


@dataclass(frozen=True, eq=False, repr=False)
class Lookup(IndexMap):
    """``x[..., sites]``: `sites` ``(h, w)`` (any shape) are positions on the last axis of ``in_shape (*channels, S)``.

    >>> import torch, pgm_sync as ps
    >>> ps.Lookup((4,), torch.tensor([[3, 1], [0, 2]])).apply(torch.tensor([10, 11, 12, 13]))
    tensor([[13, 11],
            [10, 12]])

    Raises ParameterError (no integers, a site shown twice), ShapeError (a site that is not there).
    """

    in_shape: Shape
    sites: Tensor

    def __post_init__(self) -> None:
        object.__setattr__(self, "in_shape", as_shape(self.in_shape))
        sites: Any = torch.as_tensor(self.sites)
        if sites.dtype.is_floating_point or sites.dtype.is_complex or sites.dtype == torch.bool or not sites.numel():
            raise ParameterError(
                f"sites of shape {tuple(sites.shape)} and dtype {sites.dtype}; integers needed", value=self.sites
            )
        sites = sites.to(torch.int64)
        if sites.min() < 0 or sites.max() >= self.in_shape[-1]:
            raise ShapeError(
                f"sites reach from {int(sites.min())} to {int(sites.max())}, outside the last axis of {self.in_shape}",
                in_shape=self.in_shape,
            )
        twice = sites.numel() - sites.unique().numel()
        if twice:
            raise ParameterError(
                f"{twice} of {sites.numel()} sites are listed twice: noise through this map would not be white",
                count=twice,
            )
        object.__setattr__(self, "sites", sites)

    def _arrange(self, elements: Tensor) -> Tensor:
        return elements[..., self.sites]
