"""When a pivot says that a precision is not positive definite, for every factorisation alike."""

from __future__ import annotations

import torch
from torch import Tensor


def rounding(rows: int, width: int) -> float:
    """How many units of rounding may add up in a pivot, for `rows` that are coupled and messages `width` numbers wide.

    One unit per row along a chain. A wide message rounds numbers that are alike in the same way, so that a step may
    be off by its width; from step to step that goes up and down. Singular chains, stars, grids, random and complete
    graphs of equal and of different strengths stay below by a factor of 1.3 or more.
    """
    return max(16, rows, 3 * width * rows**0.5)


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
