"""When a pivot says that a precision is not positive definite, for every factorisation alike."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def rounding(rows: int, width: int) -> float:
    """How many units of rounding may add up in a pivot, for `rows` that are coupled and messages `width` numbers wide.

    One unit per row along a chain. A wide message rounds numbers that are alike in the same way, so that a step may
    be off by its width; from step to step that goes up and down. Singular chains, stars, grids, random and complete
    graphs of equal and of different strengths stay below by a factor of 1.3 or more.
    """
    return max(16, rows, 3 * width * rows**0.5)


ALONG = 16  # units of rounding per row that x' D x may be off by


def closeness(dtype: torch.dtype) -> float:
    """The share of its diagonal below which a pivot is looked at more closely: far above rounding."""
    return torch.finfo(dtype).eps ** (1 / 3)


def close(left: Tensor) -> bool:
    """Whether pivots as shares of the diagonal are so small that `lost` has to look closer."""
    return not bool((left > closeness(left.dtype)).all())


def lost(
    left: Tensor,  # (*batch, sites), pivots as shares of the diagonal
    diagonal: Tensor,  # (*batch, sites)
    root: Callable[[Tensor], Tensor],  # (*batch, sites) -> W of it, W W' = Lambda^{-1}
    component: Tensor,  # (sites,)
    width: int = 0,
) -> int | None:
    """A site along whose direction there is no more precision than rounding of what is on the diagonal along it.

    Where couplings differ in strength, the last pivot of a singular matrix is small beside the largest entries, but
    maybe not beside its own. With x the column of W at the weakest pivot of a component, ``x' Lambda x = 1``, of
    which some ``eps x' D x`` is rounding.
    """
    eps, sites = torch.finfo(left.dtype).eps, component.expand(left.shape)
    rows = torch.bincount(component).to(left.dtype)
    lowest = left.new_full((*left.shape[:-1], len(rows)), torch.inf).scatter_reduce(-1, sites, left, "amin")
    at = (left == lowest.gather(-1, sites)) & (left < closeness(left.dtype))
    white = at.to(left.dtype)
    rounded = torch.zeros_like(lowest).scatter_add(-1, sites, diagonal * root(white).square())
    total = torch.zeros_like(lowest).scatter_add(-1, sites, white)
    bad = (total > 0) & ~((3 * width * rows.rsqrt()).clamp_min(ALONG) * eps * rounded < total)
    return first_bad(at & bad.gather(-1, sites))


def weak(pivots: Tensor, diagonal: Tensor, units: float) -> Tensor:
    """Where rounding has left nothing of a pivot: as bad as a negative one, and NaN is too.

    The last pivot of a singular matrix may be `units` of what was on its `diagonal`, see `rounding`.
    """
    return ~(pivots > units * torch.finfo(pivots.dtype).eps * diagonal.abs())


def weak_rows(lower: Tensor, info: Tensor, diagonal: Tensor, units: float) -> Tensor:
    """The same for what ``cholesky_ex`` returns, ``(*batch, n)``."""
    pivots = lower.diagonal(dim1=-2, dim2=-1).detach().square()
    stopped = torch.arange(1, lower.shape[-1] + 1, device=info.device) == info.unsqueeze(-1)
    return stopped | weak(pivots, diagonal.detach(), units)


def first_bad(bad: Tensor) -> int | None:
    """The first position of the last dimension that is bad anywhere in the batch."""
    where = bad.reshape(-1, bad.shape[-1]).any(0)
    return int(where.nonzero()[0]) if bool(where.any()) else None
