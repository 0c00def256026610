"""Pictures to learn from and to compare with: crops of the embedded photographs, or of a folder of one's own."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from .. import zoo
from ..errors import ParameterError, SavedFileError, ShapeError, UnsupportedError
from ..zoo import PHOTOGRAPHS, SCALES
from .models import Model

AT_ONCE = 16  # crops of a picture
LATENTS = 400  # contents that are encoded for one set, at most
ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


def crops(
    shape: tuple[int, int, int],  # (3, H, W)
    n: int,
    split: str,
    generator: torch.Generator | None,
    pictures: Sequence[str] = PHOTOGRAPHS,
    folder: str | None = None,
    each: Callable[[Tensor], Tensor] = lambda found: found,
) -> tuple[Tensor, Tensor]:  # (n, 3, H, W) in [-1, 1], (n) the picture of each
    """Random crops of `pictures`, or of those in `folder`, of which every second one, by name, is in a split.

    `each` is applied to a few crops at a time, so that large ones need not be held together.

    Tall crops come from vertical bands of the embedded photographs; crops that are large for a band show fewer
    photograph pixels per pixel than `zoo.SCALES` allows. Raises ShapeError where not even that fits, ParameterError,
    UnknownNameError, SavedFileError.
    """
    if folder is not None:
        return _of_folder(shape, n, split, generator, folder, each)
    upright = not _fits(shape, pictures, upright=False)
    if upright and not _fits(shape, pictures, upright):
        raise ShapeError(
            f"crops of {shape[-2]} x {shape[-1]} pixels do not fit into a band of every embedded photograph; give a "
            "folder of larger pictures",
            shape=tuple(shape),
        )
    scales = (SCALES[0], min(SCALES[1], _limit(shape, pictures, upright)))
    found, photos = zoo.wide_crops(
        shape, n, split, generator=generator, scales=scales, pictures=pictures, upright=upright, return_photos=True
    )
    return each(found), photos


def contents(
    model: Model,
    size: tuple[int, int],  # in elements
    n: int,
    split: str,
    generator: torch.Generator,
    pictures: Sequence[str] = PHOTOGRAPHS,
    folder: str | None = None,
    margin: int = 0,
) -> tuple[Tensor, Tensor]:  # (n, C, *size), (n) the picture of each
    """Contents of a `model` from `crops`, at most `LATENTS` where they have to be encoded.

    With a `margin`, in elements, they are of a circle (`close`). Raises ParameterError for latents without a folder,
    and as `crops`.
    """
    check_folder(model, folder)

    def content(found: Tensor) -> Tensor:
        return model.encode(close(found, margin * model.scale) if margin else found)

    shape = (3, size[0] * model.scale, (size[1] + margin) * model.scale)
    count = n if model.scale == 1 else min(n, LATENTS)
    return crops(shape, count, split, generator, pictures, folder, content)


def check_folder(model: Model, folder: str | None) -> None:
    """That there are pictures large enough for a model of latents. Raises ParameterError."""
    if model.scale > 1 and folder is None:
        raise ParameterError(f"{model.name} needs pictures to learn from: data=FOLDER", setting="data")


def kinds(pictures: Sequence[str] = PHOTOGRAPHS, folder: str | None = None, split: str = "train") -> int:
    """How many pictures `crops` are of: of every one there is the same number of crops, but for a remainder."""
    return len(pictures) if folder is None else len(_paths(folder, split))


def fit_photographs(shape: tuple[int, int, int], pictures: Sequence[str] = PHOTOGRAPHS) -> bool:
    """Whether the embedded photographs are large enough for such crops."""
    return _fits(shape, pictures, False) or _fits(shape, pictures, True)


def _fits(shape: tuple[int, int, int], pictures: Sequence[str], upright: bool) -> bool:
    return _limit(shape, pictures, upright) >= SCALES[0]


def _limit(shape: tuple[int, int, int], pictures: Sequence[str], upright: bool) -> float:
    """Photograph pixels per crop pixel, at most."""
    bands = zoo.photographs("train", pictures, upright).values()
    return min(min(band.shape[-2] / shape[-2], band.shape[-1] / shape[-1]) for band in bands)


def _of_folder(
    shape: tuple[int, int, int],
    n: int,
    split: str,
    generator: torch.Generator | None,
    folder: str,
    each: Callable[[Tensor], Tensor],
) -> tuple[Tensor, Tensor]:
    mine = _paths(folder, split)
    made: list[Tensor] = []
    order: list[int] = []
    which = torch.arange(n)[torch.randperm(n, generator=generator)] % len(mine)
    u = torch.rand(3, n, generator=generator).tolist()
    for k, path in enumerate(mine):
        own = (which == k).nonzero().flatten()
        if not len(own):
            continue
        picture = _read(path)
        for rows in own.split(AT_ONCE):
            few = [_crop(picture, shape, u[0][i], u[1][i], u[2][i], path) for i in rows.tolist()]
            made.append(each(torch.stack(few)))
            order += rows.tolist()
    return torch.cat(made)[torch.tensor(order).argsort()], which


def _paths(folder: str, split: str) -> list[Path]:
    paths = sorted(path for path in Path(folder).glob("*") if path.suffix.lower() in ENDINGS)
    if len(paths) < 4:
        raise ParameterError(
            f"the folder {folder!r} has {len(paths)} pictures ({', '.join(ENDINGS)}); at least 4 are needed, half of "
            "them to compare with",
            folder=folder,
        )
    return paths[0 if split == "train" else 1 :: 2]


def _read(path: Path) -> Tensor:  # (3, H, W) in [-1, 1]
    try:
        with Image.open(path) as image:
            return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).float() / 127.5 - 1
    except OSError as error:
        raise SavedFileError(f"cannot read the picture {path}: {error}", path=str(path)) from error


def read_square(path: str, side: int) -> Tensor:  # (3, side, side)
    """The middle square of a picture's file, in [-1, 1]. Raises SavedFileError."""
    picture = _read(Path(path))
    size = min(picture.shape[-2:])
    y, x = ((whole - size) // 2 for whole in picture.shape[-2:])
    square = picture[None, :, y : y + size, x : x + size]
    return interpolate(square, (side, side), mode="bilinear", antialias=True, align_corners=False)[0]


def read_mask(path: str, side: int) -> Tensor:  # (side, side) float64 in [0, 1]
    """The middle square of a picture's file as weights, white 1. Raises SavedFileError."""
    return ((read_square(path, side).mean(0).double() + 1) / 2).clamp(0, 1)  # resizing rounds beyond black and white


def check_share(mask: Tensor, what: str) -> None:
    """That a region is neither next to nothing nor next to everything. Raises ParameterError."""
    share = (mask > 0.99).double().mean().item()
    if not 0.02 < share < 0.9:
        raise ParameterError(
            f"region={what!r} covers {100 * share:.0f} % of the picture alone; give a mask of 2 to 90 %", region=what
        )


def _crop(picture: Tensor, shape: tuple[int, int, int], scale: float, top: float, left: float, path: Path) -> Tensor:
    height, width = picture.shape[-2:]
    limit = min(height / shape[-2], width / shape[-1])
    if limit < 1:
        raise ShapeError(f"{path.name} has {height} x {width} pixels, too few for a crop of {shape[-2]} x {shape[-1]}")
    factor = math.exp(scale * math.log(min(SCALES[1], limit)))
    h, w = (min(round(size * factor), whole) for size, whole in zip(shape[-2:], (height, width), strict=True))
    y, x = int(top * (height - h + 1)), int(left * (width - w + 1))
    piece = picture[None, :, y : y + h, x : x + w]
    return interpolate(piece, shape[-2:], mode="bilinear", antialias=True, align_corners=False)[0]


def class_means(contents: Tensor, labels: Tensor, count: int) -> Tensor:  # (n, *shape), (n) -> (count, *shape)
    """The mean content of each of `count` classes."""
    return torch.stack([contents[labels == k].mean(0) for k in range(count)])


def close(crops: Tensor, margin: int) -> Tensor:  # (n, C, H, W + margin) -> (n, C, H, W)
    """Crops whose right end goes on at their left: the last `margin` columns fade into the first.

    Photographs end at their borders, so windows across the border of a 360 degree picture are learned, and
    measured, on crops closed this way.

    Raises UnsupportedError for a margin wider than what remains.
    """
    if margin > crops.shape[-1] - margin:
        raise UnsupportedError(f"{crops.shape[-1]} columns cannot close over {margin} of them")
    fade = (torch.arange(margin, dtype=crops.dtype) + 0.5) / margin
    closed = crops[..., :-margin].clone()
    closed[..., :margin] = fade * closed[..., :margin] + (1 - fade) * crops[..., -margin:]
    return closed
