"""Digits and capital letters, printed in sixteen faces and digits written by hand, randomly slanted and weighted."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import affine_grid, avg_pool2d, grid_sample, interpolate, pad

from ...errors import ParameterError, SavedFileError

#: Digits and capital letters, by position: what `glyph-unet` takes as condition.
CHARACTERS = tuple("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ")
#: Type faces that characters are printed in.
FACES = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique",
    "DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSansMono-Oblique", "DejaVuSansMono-BoldOblique",
    "DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "DejaVuSerif-BoldItalic",
    "STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta",
)  # fmt: skip
HELD_OUT_FACES = ("DejaVuSansMono-BoldOblique", "DejaVuSerif-Italic", "STIXGeneralBol")
HELD_OUT_DIGITS = 360  # the last of scikit-learn's 1,797
SPLITS = ("train", "test")

SHEET = Path(__file__).parents[1] / "glyphs.png"
TILE = 48  # pixels of the sheet per character
SIZE = 32
FAINT = 0.25  # ink of a handwritten digit that counts as none: strokes enlarged from 8 x 8 pixels are too bold

ROTATION = math.radians(8)
SLANT = 0.12
ZOOM = (0.85, 1.1)
ASPECT = 0.1
SHIFT = 0.06  # of half the picture
WEIGHT = (0.2, 0.45)  # where the blurred ink ends: low is bold
EDGE = 0.24  # width of its edge, in the same units; below 2 * WEIGHT[0], so that what is no ink is exactly -1


def glyphs(
    n: int, split: str = "train", *, generator: torch.Generator | None = None, characters: str | None = None
) -> tuple[Tensor, Tensor]:  # (n, 1, 32, 32), (n) int64
    """`n` random characters, bright on dark in [-1, 1], in random order, and their positions in `CHARACTERS`.

    Every one of `characters` (None: all 36) comes equally often, or once more. Half of the digits are written by hand;
    all else is printed in a random face. `split` is "train" or "test"; they share neither a face nor a handwritten
    digit. Rotation, slant, size, proportions, place and stroke weight are drawn from `generator` (torch's own without
    one).

    Raises ParameterError on the numbers, SavedFileError where the sheet of characters is damaged.

    >>> pictures, labels = glyphs(72, generator=torch.Generator().manual_seed(0))
    >>> tuple(pictures.shape), labels.bincount().unique().tolist()
    ((72, 1, 32, 32), [2])
    """
    if split not in SPLITS:
        raise ParameterError(f"split must be 'train' or 'test', got {split!r}", split=split)
    if n < 1:
        raise ParameterError(f"n must be at least 1, got {n}", n=n)
    wanted = CHARACTERS if characters is None else tuple(characters)
    unknown = [c for c in wanted if c not in CHARACTERS]
    if unknown or not wanted:
        raise ParameterError(f"characters={characters!r} must be some of {''.join(CHARACTERS)}")
    positions = torch.tensor([CHARACTERS.index(c) for c in wanted])
    # A turn of its own for every draw: small batches would never reach the last characters
    turns = torch.randperm(n, generator=generator) + torch.randint(len(wanted), (), generator=generator)
    labels = positions[turns % len(wanted)]
    return _jittered(_masters(labels, split, generator), generator), labels


def _masters(labels: Tensor, split: str, generator: torch.Generator | None) -> Tensor:  # (n, 1, TILE, TILE)
    """A printed or written original for every label."""
    faces = torch.tensor([k for k, face in enumerate(FACES) if (face in HELD_OUT_FACES) == (split == "test")])
    drawn, which = torch.rand(2, len(labels), generator=generator)
    masters = printed()[faces[(which * len(faces)).long()], labels]
    digits, digit_labels = written(split)
    for i in ((labels < 10) & (drawn < 0.5)).nonzero().flatten().tolist():
        own = (digit_labels == labels[i]).nonzero().flatten()
        masters[i] = digits[own[int(which[i] * len(own))]]
    return masters[:, None]


def _jittered(masters: Tensor, generator: torch.Generator | None) -> Tensor:  # -> (n, 1, SIZE, SIZE)
    n = len(masters)
    u = 2 * torch.rand(6, n, generator=generator) - 1
    angle, slant, aspect = ROTATION * u[0], SLANT * u[1], 1 + ASPECT * u[2]
    zoom = ZOOM[0] * (ZOOM[1] / ZOOM[0]) ** ((u[3] + 1) / 2)
    cos, sin = angle.cos() / zoom, angle.sin() / zoom
    # From places in the picture to places in the master: rotation, then slant and proportions.
    rows = [cos * aspect + slant * sin, -sin * aspect + slant * cos, SHIFT * u[4], sin, cos, SHIFT * u[5]]
    theta = torch.stack(rows, 1).reshape(n, 2, 3)
    grid = affine_grid(theta, [n, 1, 2 * SIZE, 2 * SIZE], align_corners=False)
    ink = grid_sample(_blurred(masters), grid, mode="bilinear", align_corners=False)
    weight = WEIGHT[0] + (WEIGHT[1] - WEIGHT[0]) * torch.rand(n, 1, 1, 1, generator=generator)
    return 2 * avg_pool2d(((ink - weight) / EDGE + 0.5).clamp(0, 1), 2) - 1


def _blurred(images: Tensor) -> Tensor:
    """A binomial blur of standard deviation one: strokes get flanks, which a threshold makes bold or light."""
    taps = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
    kernel = (taps[:, None] * taps[None]).reshape(1, 1, 5, 5)
    return torch.nn.functional.conv2d(images, kernel, padding=2)


@cache
def printed() -> Tensor:  # (faces, characters, TILE, TILE) in [0, 1]
    """The sheet of printed characters."""
    try:
        with Image.open(SHEET) as image:
            pixels = torch.from_numpy(np.array(image.convert("L"))).float() / 255
    except OSError as error:
        raise SavedFileError(f"cannot read the characters {SHEET}: {error}", path=str(SHEET)) from error
    return pixels.reshape(len(FACES), TILE, len(CHARACTERS), TILE).transpose(1, 2).contiguous()


@cache
def written(split: str) -> tuple[Tensor, Tensor]:  # (n, TILE, TILE) in [0, 1], (n)
    """scikit-learn's handwritten digits (8 x 8 pixels), enlarged, and their labels."""
    from sklearn.datasets import load_digits

    data = load_digits()
    part = slice(-HELD_OUT_DIGITS, None) if split == "test" else slice(None, -HELD_OUT_DIGITS)
    small = torch.from_numpy(data.images[part]).float()[:, None] / 16
    large = interpolate(small, size=(40, 40), mode="bicubic", align_corners=False)
    large = ((large - FAINT) / (1 - FAINT)).clamp(0, 1)
    return pad(large[:, 0], (4, 4, 4, 4)), torch.from_numpy(data.target[part]).long()
