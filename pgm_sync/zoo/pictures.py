"""Small colour photographs and textures, cut into bands, and random crops of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Literal, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from ..errors import ParameterError, SavedFileError, ShapeError, UnknownNameError

#: Names of the seven photographs, by position: what `photo-patches` takes as condition.
PHOTOGRAPHS = ("china", "flower", "astronaut", "coffee", "chelsea", "rocket", "hubble")
#: Names of three pictures that repeat all over, so that bands of both splits look alike.
TEXTURES = ("tissue", "brick", "gravel")
#: Photographs and textures, by position: what `photo-unet` takes as condition.
PICTURES = PHOTOGRAPHS + TEXTURES
FOLDER = Path(__file__).with_name("photographs")
BANDS = 4
SPLITS = ("train", "test")
#: Photograph pixels per crop pixel, from and to: a 32 x 160 crop still fits into every band.
SCALES = (1.25, 2.0)


@cache
def _photograph(name: str) -> Tensor:  # (3, H, W) uint8
    path = FOLDER / f"{name}.png"
    try:
        with Image.open(path) as image:
            pixels = np.array(image.convert("RGB"))
    except OSError as error:
        raise SavedFileError(f"cannot read the photograph {path}: {error}", path=str(path)) from error
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def photographs(
    split: str = "train", names: Sequence[str] = PHOTOGRAPHS, upright: bool = False
) -> dict[str, Tensor]:
    """Bands ``(3, H, W)`` of the photographs, float32 in [-1, 1], by name: ``"china-1"`` is its topmost band.

    `names` may be any of `PICTURES`. Every photograph is cut into four horizontal bands of equal height. Bands 1 and 3
    belong to one split and 2 and 4 to the other, the other way round for every second photograph, so that both splits
    hold skies, horizons and grounds, and share no pixel. Each band keeps the full width. With `upright` the cuts are
    vertical, into four bands of the full height; a test band of those shares pixels with training bands of the others.

    Raises ParameterError on a split other than "train" and "test", UnknownNameError on a name.

    >>> bands = photographs("train")
    >>> sorted(bands)[:2], tuple(bands["china-1"].shape)
    (['astronaut-1', 'astronaut-3'], (3, 64, 384))
    """
    if split not in SPLITS:
        raise ParameterError(f"split must be 'train' or 'test', got {split!r}", split=split)
    unknown = [name for name in names if name not in PICTURES]
    if unknown or not names:
        raise UnknownNameError(
            f"no embedded picture is called {unknown[0] if unknown else None!r}; there are {', '.join(PICTURES)}",
            name=unknown[0] if unknown else None,
        )
    bands = {}
    for name in names:
        k = PICTURES.index(name)
        pixels = _photograph(name).float() / 127.5 - 1
        axis = 2 if upright else 1
        size = pixels.shape[axis] // BANDS
        for band in range((k + SPLITS.index(split)) % 2, BANDS, 2):
            bands[f"{name}-{band + 1}"] = pixels.narrow(axis, band * size, size).clone()
    return bands


@overload
def wide_crops(
    shape: tuple[int, int, int],
    n: int,
    split: str = ...,
    *,
    generator: torch.Generator | None = ...,
    scales: tuple[float, float] = ...,
    pictures: Sequence[str] = ...,
    upright: bool = ...,
    return_photos: Literal[False] = ...,
) -> Tensor: ...


@overload
def wide_crops(
    shape: tuple[int, int, int],
    n: int,
    split: str = ...,
    *,
    generator: torch.Generator | None = ...,
    scales: tuple[float, float] = ...,
    pictures: Sequence[str] = ...,
    upright: bool = ...,
    return_photos: Literal[True],
) -> tuple[Tensor, Tensor]: ...


def wide_crops(
    shape: tuple[int, int, int],  # (3, H, W)
    n: int,
    split: str = "train",
    *,
    generator: torch.Generator | None = None,
    scales: tuple[float, float] = SCALES,
    pictures: Sequence[str] = PHOTOGRAPHS,
    upright: bool = False,
    return_photos: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:  # (n, 3, H, W) [, (n) int64]
    """Random crops of the photographs, float32 in [-1, 1], in random order.

    `n` of them, of the bands of `split` "train" or "test".
    `pictures` are the seven photographs, or any of `PICTURES`; each gives ``n / 7`` crops (the first ``n % 7`` one
    more; with another number of pictures likewise). A crop has a random band and
    position drawn from `generator` (torch's own without one), is mirrored with probability one half, and
    shows ``scale`` photograph pixels per pixel, with ``log(scale)`` uniform over `scales`: the same range for
    windows and for canvases makes both show the same kind of content. `upright` takes vertical bands. `return_photos`
    adds the position in `pictures` of each crop's photograph, which is also the label that `photo-patches` takes as
    condition,
    and the group for statistics whose samples are photographs rather than crops.

    Raises ShapeError where the shape is not (3, H, W) or fits no band at the largest scale, ParameterError on
    the numbers, UnknownNameError on a picture.

    >>> crops = wide_crops((3, 24, 96), 14, generator=torch.Generator().manual_seed(0))
    >>> tuple(crops.shape)
    (14, 3, 24, 96)
    """
    bands = photographs(split, pictures, upright)
    if len(shape) != 3 or shape[0] != 3 or min(shape) < 1:
        raise ShapeError(f"a crop has shape (3, H, W), got {tuple(shape)}", shape=tuple(shape))
    if n < 1:
        raise ParameterError(f"n must be at least 1, got {n}", n=n)
    low, high = scales
    if not 1 <= low <= high:
        raise ParameterError(f"scales must be (low, high) with 1 <= low <= high, got {scales}", scales=scales)
    h, w = shape[1:]
    largest = min(min(band.shape[1] / h, band.shape[2] / w) for band in bands.values())
    if high > largest:
        raise ShapeError(
            f"crops of shape {tuple(shape)} at scale {high:g} do not fit into the bands of every photograph; "
            f"the largest scale that fits is {largest:.3g}",
            shape=tuple(shape),
            largest=largest,
        )
    halves = [[band for key, band in bands.items() if key.startswith(name + "-")] for name in pictures]
    photos = torch.arange(n)[torch.randperm(n, generator=generator)] % len(pictures)
    scale, half, top, left, mirror = torch.rand(5, n, generator=generator)
    factors = low * (high / low) ** scale
    crops = torch.empty(n, *shape)
    for i, photo in enumerate(photos.tolist()):
        band = halves[photo][int(half[i] * len(halves[photo]))]
        size = (round(h * float(factors[i])), round(w * float(factors[i])))
        y, x = (int(u * (d - s + 1)) for u, d, s in zip((top[i], left[i]), band.shape[1:], size, strict=True))
        piece = band[None, :, y : y + size[0], x : x + size[1]]
        if size != (h, w):
            piece = interpolate(piece, (h, w), mode="bilinear", antialias=True, align_corners=False)
        crops[i] = piece[0].flip(-1) if mirror[i] < 0.5 else piece[0]
    return (crops, photos) if return_photos else crops
