"""Means, shares and ratios of per-sample numbers, with intervals over independent units."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import NotFiniteError, ParameterError, ShapeError
from ..metrics import Measurement, jackknife, proportion, student


def as_values(values: Tensor, what: str) -> Tensor:  # (n)
    """Finite per-sample numbers in float64 on the CPU.

    Raises ShapeError, NotFiniteError that says how many and which first.
    """
    given = torch.as_tensor(values).detach().cpu().double()
    if given.ndim != 1 or not len(given):
        raise ShapeError(f"{what}: one number per sample needed, got shape {tuple(given.shape)}", what=what)
    finite = torch.isfinite(given)
    if not finite.all():
        first = int((~finite).nonzero()[0])
        raise NotFiniteError(
            f"{what}: {int((~finite).sum())} of {len(given)} are NaN or infinite, sample {first} first",
            sample=first,
        )
    return given


def mean(
    values: Tensor,  # (n)
    groups: Sequence[int] | Tensor | None = None,  # (n)
    what: str = "values",
) -> Measurement:
    """The mean, with Student's interval over samples; over `groups` where samples share one (crops of a picture).

    `values` are ``(n)``, `what` names them in messages.
    >>> print(mean(torch.tensor([1.0, 2.0, 3.0, 4.0])))
    2.5000 [.4457, 4.5543] (n=4)

    Raises ShapeError, NotFiniteError.
    """
    x = as_values(values, what)
    n = len(x)
    if groups is not None:
        return jackknife(lambda w: (w * x).sum(-1) / w.sum(-1), n, groups)
    value = float(x.mean())
    half = student(n) * float(x.std()) / math.sqrt(n) if n > 1 else math.nan
    return Measurement(value, value - half, value + half, n, x)


def share(hits: Tensor, what: str = "hits") -> Measurement:  # (n) of 0 and 1
    """The share of samples that are hits, with Wilson's interval.

    `hits` are ``(n)`` of 0 and 1, `what` names them in messages.
    >>> print(share(torch.tensor([True] * 8 + [False] * 2)))
    .8000 [.4902, .9433] (n=10)

    Raises ShapeError; ParameterError on numbers other than 0 and 1.
    """
    x = as_values(hits, what)
    if not ((x == 0) | (x == 1)).all():
        raise ParameterError(f"{what}: hits are 0 or 1, got {float(x[(x != 0) & (x != 1)][0])}")
    return Measurement(*proportion(int(x.sum()), len(x)), values=x)


def ratio(
    numerators: Tensor,  # (n)
    denominators: Tensor,  # (n)
    groups: Sequence[int] | Tensor | None = None,  # (n)
    what: str = "ratio",
) -> Measurement:
    """Sum over sum of per-sample numbers, with a jackknife over samples or `groups`.

    `numerators` and `denominators` are ``(n)``, `what` names them in messages.

    >>> print(ratio(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 4.0, 6.0])))
    .5000 [.5000, .5000] (n=3)

    Raises ShapeError, NotFiniteError; ParameterError where the denominators do not add up to more than 0.
    """
    a, b = as_values(numerators, what), as_values(denominators, what)
    if len(a) != len(b):
        raise ShapeError(f"{what}: {len(a)} numerators and {len(b)} denominators")
    if not float(b.sum()) > 0:
        raise ParameterError(
            f"{what}: the denominators add up to {float(b.sum()):g}; there is nothing to compare with"
        )
    return jackknife(lambda w: (w * a).sum(-1) / (w * b).sum(-1), len(a), groups)
