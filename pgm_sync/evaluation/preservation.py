"""How much of an edited picture is what it was: PSNR and SSIM, under a mask."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import ParameterError, ShapeError
from ..metrics import Measurement
from .means import mean


def psnr(
    pictures: Tensor,  # (n, C, H, W)
    originals: Tensor,  # (n, C, H, W) or (C, H, W)
    mask: Tensor | None = None,  # (H, W), (1, H, W) or (n, 1, H, W), true where pixels should be kept
    data_range: float = 2.0,
    most: float = 100.0,
) -> Measurement:
    """Mean peak signal-to-noise ratio ``10 log10(data_range^2 / MSE)`` over the mask; in dB, higher is better.

    `pictures` are ``(n, C, H, W)``, `originals` too, or one for all; `mask` is true where pixels should be kept.
    `data_range` is 2 for pictures in [-1, 1]. Identical pictures would be infinite: none counts more than `most`.

    >>> originals = torch.zeros(2, 3, 8, 8)
    >>> round(psnr(originals + 0.2, originals).value, 4)  # 10 log10(2^2 / 0.2^2)
    20.0

    Raises ShapeError, ParameterError on an empty mask, NotFiniteError.
    """
    x, y, kept = _compared(pictures, originals, mask, data_range)
    errors = (x - y).square().mean(1, keepdim=True)
    mse = (errors * kept).sum((1, 2, 3)) / kept.sum((1, 2, 3))
    least = data_range**2 * 10 ** (-most / 10)
    return mean(10 * torch.log10(data_range**2 / mse.clamp_min(least)), what="PSNR")


def ssim(
    pictures: Tensor,  # (n, C, H, W)
    originals: Tensor,  # (n, C, H, W) or (C, H, W)
    mask: Tensor | None = None,  # (H, W), (1, H, W) or (n, 1, H, W), true where pixels should be kept
    data_range: float = 2.0,
    window: int = 7,
) -> Measurement:
    """Mean structural similarity [Wang2004]_ over the windows that lie inside the mask; 1 for equal pictures.

    `pictures` are ``(n, C, H, W)``, `originals` too, or one for all; `mask` is true where pixels should be kept.
    `data_range` is 2 for pictures in [-1, 1]. Uniform windows of `window` pixels a side, unbiased variances, K1 = .01
    and K2 = .03, averaged over channels: without a mask, scikit-image's ``structural_similarity``.

    >>> originals = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    >>> round(ssim(originals, originals).value, 6), ssim(originals.flip(-1), originals).value < 0.5
    (1.0, True)

    Raises ShapeError, ParameterError where no window lies inside the mask, NotFiniteError.
    """
    x, y, kept = _compared(pictures, originals, mask, data_range)
    if window < 2 or window > min(x.shape[-2:]):
        raise ParameterError(f"window={window} must be from 2 to {min(x.shape[-2:])} pixels", window=window)

    def local(values: Tensor) -> Tensor:
        return functional.avg_pool2d(values, window, stride=1)

    unbiased = window**2 / (window**2 - 1)
    a, b = local(x), local(y)
    vx, vy, c = (unbiased * (local(p) - q) for p, q in ((x * x, a * a), (y * y, b * b), (x * y, a * b)))
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    found = (2 * a * b + c1) * (2 * c + c2) / ((a * a + b * b + c1) * (vx + vy + c2))
    inside = (local(kept) > 1 - 0.5 / window**2).double()
    count = inside.sum((1, 2, 3))
    if (count == 0).any():
        raise ParameterError(
            f"no window of {window} x {window} pixels lies inside the mask; use a smaller window"
        )
    return mean((found.mean(1, keepdim=True) * inside).sum((1, 2, 3)) / count, what="SSIM")


def _compared(
    pictures: Tensor, originals: Tensor, mask: Tensor | None, data_range: float
) -> tuple[Tensor, Tensor, Tensor]:  # (n, C, H, W), (n, C, H, W), (n, 1, H, W)
    if not (data_range > 0 and math.isfinite(data_range)):
        raise ParameterError(f"data_range={data_range} must be positive", data_range=data_range)
    if pictures.ndim != 4 or originals.shape not in (pictures.shape, pictures.shape[1:]):
        got = (tuple(pictures.shape), tuple(originals.shape))
        raise ShapeError(
            f"pictures (n, C, H, W) and their originals needed, got {got[0]} and {got[1]}", got=got
        )
    x = pictures.detach().double()
    y = originals.detach().to(x).expand_as(x)
    n, _, h, w = x.shape
    kept = torch.ones(h, w) if mask is None else mask.detach()
    if kept.ndim == 3 and kept.shape[0] == 1:
        kept = kept[0]
    if kept.shape not in ((h, w), (n, 1, h, w)):
        raise ShapeError(f"a mask of shape {tuple(kept.shape)} for pictures of shape {tuple(x.shape)}")
    kept = (kept != 0).to(x).expand(n, 1, h, w)
    if (kept.sum((1, 2, 3)) == 0).any():
        raise ParameterError(
            "the mask keeps no pixel of some picture; it is true where pixels should be kept"
        )
    return x, y, kept
