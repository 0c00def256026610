"""Wide pictures: coherence over disjoint crops, seams, and windows off the grid that was denoised."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..errors import NotFiniteError, ParameterError, ShapeError
from ..metrics import Measurement
from .features import AT_ONCE
from .means import mean, ratio

FeatureMaps = Callable[
    [Tensor], Sequence[Tensor]
]  # (n, C, H, W) -> maps (n, C_l, H_l, W_l) of several layers


def perceptual_distances(
    x: Tensor,  # (n, C, H, W)
    y: Tensor,  # (n, C, H, W)
    layers: FeatureMaps,
    weights: Sequence[Tensor] | None = None,  # (C_l) of each layer
    batch: int = AT_ONCE,
) -> Tensor:  # (n)
    """LPIPS [Zhang2018]_ under any network: squared distances of channels normalised to unit length, averaged over
    positions, summed over layers; ``(n)``, one per pair of a picture in `x` and one in `y`.

    ``layers(pictures)`` gives the maps ``(n, C_l, h, w)`` of every layer, for `batch` pictures at a time.
    `weights` are LPIPS's learned weights per channel; without, all 1, each layer's share is twice the mean cosine
    distance. 0 for equal pictures; unitless. For a background alone, give both pictures with the rest masked.

    >>> red, green = torch.zeros(2, 1, 3, 4, 4).unbind()
    >>> red[:, 0], green[:, 1] = 1.0, 1.0
    >>> perceptual_distances(red, green, layers=lambda pictures: [pictures])  # the squared distance of two unit vectors
    tensor([2.0000], dtype=torch.float64)

    Raises ShapeError, NotFiniteError.
    """
    if x.shape != y.shape or x.ndim != 4:
        raise ShapeError(
            f"pictures (n, C, H, W) of one shape needed, got {tuple(x.shape)} and {tuple(y.shape)}"
        )
    parts = []
    with torch.no_grad():
        for a, b in zip(x.split(batch), y.split(batch), strict=True):
            maps = [list(layers(p)) for p in (a, b)]
            if not maps[0] or any(m.ndim != 4 or len(m) != len(a) for m in maps[0]):
                shapes = [tuple(m.shape) for m in maps[0]]
                raise ShapeError(f"layers must return feature maps ({len(a)}, C, H, W), got shapes {shapes}")
            if weights is not None and len(weights) != len(maps[0]):
                raise ShapeError(f"{len(weights)} weight vectors for {len(maps[0])} layers")
            total = torch.zeros(len(a), dtype=torch.float64, device=maps[0][0].device)
            for k, (p, q) in enumerate(zip(*maps, strict=True)):
                squares = (_unit(p.double()) - _unit(q.double())).square()
                if weights is not None:
                    squares = squares * weights[k].to(squares).reshape(1, -1, 1, 1)
                total += squares.sum(1).mean((1, 2))
            parts.append(total)
    found = torch.cat(parts)
    if not torch.isfinite(found).all():
        raise NotFiniteError(
            "perceptual distances of pictures, or under features, with NaN or infinite numbers"
        )
    return found


def intra_distance(
    pictures: Tensor,  # (n, C, H, W)
    window: tuple[int, int],
    layers: FeatureMaps,
    weights: Sequence[Tensor] | None = None,
    batch: int = AT_ONCE,
) -> Measurement:
    """Coherence as Intra-LPIPS [LeeY2023]_: the mean perceptual distance between disjoint crops of one picture.

    Crops of shape `window` from the upper left of `pictures` ``(n, C, H, W)``, all pairs; what is left at the right and
    the bottom is not used. Lower is more coherent, but 0 is a picture that repeats itself: the value of real pictures
    is what to aim for. The interval is over pictures. `layers`, `weights` and `batch` as of `perceptual_distances`.

    >>> pictures = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)).repeat(1, 1, 1, 3)
    >>> intra_distance(pictures, (8, 8), layers=lambda x: [x]).value  # three times the same
    0.0

    Raises ShapeError where a picture has no two disjoint crops; and as `perceptual_distances`.
    """
    h, w = window
    places = [
        (i, j)
        for i in range(0, pictures.shape[-2] - h + 1, h)
        for j in range(0, pictures.shape[-1] - w + 1, w)
    ]
    if pictures.ndim != 4 or len(places) < 2:
        raise ShapeError(f"pictures of shape {tuple(pictures.shape)} have no two disjoint crops of {h} x {w}")
    crops = [pictures[..., i : i + h, j : j + w] for i, j in places]
    pairs = list(itertools.combinations(range(len(crops)), 2))
    # Features anew for each pair: simple, and crops are small
    total = sum(perceptual_distances(crops[a], crops[b], layers, weights, batch) for a, b in pairs)
    assert isinstance(total, Tensor)  # there is a pair
    return mean(total / len(pairs), what="distances between crops")


def _unit(maps: Tensor) -> Tensor:
    return maps / (maps.square().sum(1, keepdim=True).sqrt() + 1e-10)


def off_grid_windows(
    pictures: Tensor,  # (n, C, H, W)
    window: tuple[int, int],
    stride: int | tuple[int, int],
    offset: int | tuple[int, int] | None = None,
) -> tuple[Tensor, Tensor]:  # (n * k, C, h, w), (n * k)
    """Windows of `pictures` between those that were denoised, and the picture of each, for `groups` of a metric.

    They start at ``offset + k * stride``, by default half a stride off the grid; along an axis that holds one window
    only, at 0. A distance of their distribution to that of real windows shows what seams and averaging do.

    >>> windows, groups = off_grid_windows(torch.zeros(2, 3, 8, 24), (8, 8), 8)
    >>> windows.shape, groups.tolist()
    (torch.Size([4, 3, 8, 8]), [0, 0, 1, 1])

    Raises ShapeError where no such window fits, ParameterError.
    """
    strides = (stride, stride) if isinstance(stride, int) else tuple(stride)
    if min(strides) < 1 or min(window) < 1:
        raise ParameterError(f"window={window} and stride={stride} must be positive")
    half = tuple(s // 2 for s in strides)
    offsets = half if offset is None else (offset, offset) if isinstance(offset, int) else tuple(offset)
    if pictures.ndim != 4:
        raise ShapeError(f"pictures have shape (n, C, H, W), got {tuple(pictures.shape)}")
    starts = [
        [0] if size == extent else list(range(first, size - extent + 1, step))
        for size, extent, step, first in zip(pictures.shape[-2:], window, strides, offsets, strict=True)
    ]
    if not all(starts):
        raise ShapeError(
            f"no window of {window[0]} x {window[1]} fits into {tuple(pictures.shape[-2:])} {offsets} off the grid"
        )
    crops = [pictures[..., i : i + window[0], j : j + window[1]] for i in starts[0] for j in starts[1]]
    groups = torch.arange(len(pictures)).repeat_interleave(len(crops))
    return torch.stack(crops, 1).flatten(0, 1), groups


def seam_gradient(
    pictures: Tensor,  # (n, C, H, W)
    columns: Sequence[int] = (),
    rows: Sequence[int] = (),
    groups: Sequence[int] | Tensor | None = None,  # (n)
) -> Measurement:
    """Mean absolute step across seams, over that elsewhere along the same axes; 1 for seamless pictures.

    A seam at column s of `pictures` ``(n, C, H, W)`` lies between columns s - 1 and s, rows likewise. Above 1 windows
    do not fit; below 1 they were blurred together. Best is what real pictures have at the same places, close to 1. The
    interval is a jackknife over pictures, or `groups` of them.

    >>> row = torch.tensor([0.0, 1.0, 4.0, 5.0]).expand(3, 1, 4, 4)
    >>> seam_gradient(row, columns=[2]).value  # a step of 3 between steps of 1
    3.0

    Raises ShapeError on seams outside the picture, ParameterError on none, on nothing else, or on flat pictures.
    """
    if not len(columns) + len(rows):
        raise ParameterError("a seam gradient needs seams: columns=, rows= or both")
    if pictures.ndim != 4:
        raise ShapeError(f"pictures have shape (n, C, H, W), got {tuple(pictures.shape)}")
    across, elsewhere = torch.zeros(2, len(pictures), dtype=torch.float64, device=pictures.device)
    counts = [0, 0]
    for axis, seams in ((-1, columns), (-2, rows)):
        if not len(seams):
            continue
        size = pictures.shape[axis]
        outside = [s for s in seams if not 1 <= s < size]
        if outside:
            raise ShapeError(
                f"seams {outside} lie outside pictures of {size} {'columns' if axis == -1 else 'rows'}"
            )
        other = -2 if axis == -1 else -1
        steps = pictures.detach().double().diff(dim=axis).abs().mean((1, other))  # (n, size - 1)
        at = torch.zeros(size - 1, dtype=torch.bool, device=steps.device)
        at[[s - 1 for s in seams]] = True
        across, elsewhere = across + steps[:, at].sum(1), elsewhere + steps[:, ~at].sum(1)
        counts = [counts[0] + int(at.sum()), counts[1] + int((~at).sum())]
    if not counts[1]:
        raise ParameterError("every step of the pictures is a seam; there is nothing to compare with")
    return ratio(across / counts[0], elsewhere / counts[1], groups, "steps across seams")
