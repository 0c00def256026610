"""Checks that every denoiser makes, on its data when built and on the state when asked."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor

from ..errors import CovarianceError, DtypeError, NotFiniteError, ShapeError
from ..levels import NoiseLevel
from .base import Denoiser


def as_data(data: Any, name: str) -> Tensor:
    """`data` (tensor, array or nested list) as a finite floating-point tensor."""
    data = torch.as_tensor(data)
    if not data.is_floating_point():
        raise DtypeError(f"{name} must be floating point, got {data.dtype}; convert (and scale) it first")
    finite = torch.isfinite(data)
    if not finite.all():
        where = tuple((~finite).nonzero()[0].tolist())
        raise NotFiniteError(
            f"{name} has {int((~finite).sum())} NaN or infinite numbers, the first at {where}"
        )
    return data


def as_labels(labels: Any, count: int, what: str) -> Tensor | None:
    """Integer labels, one for each of `count`; None stays None."""
    if labels is None:
        return None
    labels = torch.as_tensor(labels)
    if labels.is_floating_point() or labels.is_complex():
        raise DtypeError(f"labels must be integers, got {labels.dtype}")
    if tuple(labels.shape) != (count,):
        raise ShapeError(f"labels have shape {tuple(labels.shape)}, but there are {count} {what}")
    return labels.long()


def eigendecompose(
    covariance: Tensor, name: str
) -> tuple[Tensor, Tensor]:  # (..., p, p) -> (..., p), (..., p, p)
    """Variances and orthonormal columns of positive semidefinite matrices, in float64.

    Raises CovarianceError where one is not symmetric or has an eigenvalue below zero (by more than rounding).
    """
    covariance = covariance.double()
    scale = covariance.diagonal(dim1=-2, dim2=-1).abs().amax().clamp_min(torch.finfo(torch.float64).tiny)
    skew = (covariance - covariance.mT).abs().amax()
    if skew > 1e-6 * scale:
        raise CovarianceError(
            f"{name} is not symmetric: entries differ by up to {skew:.3g}; pass (C + C.T) / 2"
        )
    variances, basis = torch.linalg.eigh((covariance + covariance.mT) / 2)
    if variances.min() < -1e-6 * scale:
        raise CovarianceError(
            f"{name} is not positive semidefinite: its smallest eigenvalue is {variances.min():.3g}"
        )
    return variances.clamp_min(0), basis


def check_noisy(denoiser: Denoiser, noisy: Tensor) -> tuple[int, ...]:
    """The batch shape of `noisy`; ShapeError or DtypeError where it is no state of this denoiser."""
    name, shape = type(denoiser).__name__, denoiser.shape
    if not noisy.is_floating_point():
        raise DtypeError(f"{name} needs a floating-point state, got {noisy.dtype}", dtype=noisy.dtype)
    batch = tuple(noisy.shape[: noisy.ndim - len(shape)])
    if noisy.ndim < len(shape) or tuple(noisy.shape[len(batch) :]) != shape:
        raise ShapeError(
            f"{name} denoises (*batch, {', '.join(map(str, shape))}), got {tuple(noisy.shape)}", shape=shape
        )
    return batch


def level_rows(level: NoiseLevel, batch: tuple[int, ...], like: Tensor) -> tuple[Tensor, Tensor]:
    """alpha and sigma as ``(1)``, or one row per flattened batch element where either is a tensor of them."""
    alpha, sigma = (
        torch.as_tensor(value, dtype=like.dtype, device=like.device) for value in (level.alpha, level.sigma)
    )
    if alpha.numel() == sigma.numel() == 1:
        return alpha.reshape(1), sigma.reshape(1)
    try:
        return alpha.broadcast_to(batch).reshape(-1), sigma.broadcast_to(batch).reshape(-1)
    except RuntimeError:
        raise ShapeError(
            f"alpha has shape {tuple(alpha.shape)}, sigma {tuple(sigma.shape)}, the batch {tuple(batch)}"
        ) from None


def working_dtype(dtype: torch.dtype) -> torch.dtype:
    """Half precision is computed in float32."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def as_integer(condition: Any) -> int:
    """A label given as any integer type."""
    try:
        return operator.index(condition)
    except TypeError:
        raise DtypeError(
            f"a condition is a label (an integer) or a tensor of them, got {condition!r}"
        ) from None


def shorten(labels: Tensor) -> str:
    """The distinct labels, at most five of them, for a message."""
    values = labels.reshape(-1).unique().tolist()
    return ", ".join(map(str, values[:5])) + ("..." if len(values) > 5 else "")
