"""Joint samples of real data, cut into trajectories: digits, photographs, a stereo pair, faces."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn.functional import interpolate

from pgm_sync import zoo
from pgm_sync.errors import MissingPackageError

Box = tuple[slice, slice]  # rows and columns of a whole picture


class Split(NamedTuple):
    """Joint pictures ``(n, C, H, W)`` in [-1, 1], and the independent unit that each held-out one is from."""

    train: Tensor
    heldout: Tensor
    units: Tensor  # (n) of heldout
    groups: Tensor  # (n) of train


class JointData(NamedTuple):
    """Pictures, and the trajectories that are cut from them."""

    name: str
    splits: list[Split]  # one, or one per fold
    boxes: dict[str, Box]
    unit: str  # what a unit is

    def cut(self, pictures: Tensor) -> dict[str, Tensor]:
        return {name: pictures[..., rows, columns] for name, (rows, columns) in self.boxes.items()}

    def paste(self, parts: dict[str, Tensor]) -> Tensor:
        first = self.splits[0].train
        out = torch.zeros(len(next(iter(parts.values()))), *first.shape[1:])
        for name, (rows, columns) in self.boxes.items():
            out[..., rows, columns] = parts[name]
        return out


def grid(height: int, width: int, rows: int, columns: int) -> dict[str, Box]:
    """Equal boxes in reading order: "a", "b", ..."""
    h, w = height // rows, width // columns
    boxes = [(slice(i * h, (i + 1) * h), slice(j * w, (j + 1) * w)) for i in range(rows) for j in range(columns)]
    return {chr(ord("a") + k): box for k, box in enumerate(boxes)}


def digits(rows: int, columns: int, name: str, quick: bool = False) -> JointData:
    """scikit-learn's 1,797 digits of 8 x 8: 1,000 to learn from."""
    pictures = torch.tensor(load_digits().images / 8 - 1).float()[:, None]
    pictures = pictures[torch.randperm(len(pictures), generator=torch.Generator().manual_seed(0))]
    train, heldout = (pictures[:300], pictures[1000:1200]) if quick else (pictures[:1000], pictures[1000:])
    split = Split(train, heldout, torch.arange(len(heldout)), torch.arange(len(train)))
    return JointData(name, [split], grid(8, 8, rows, columns), "digit")


def photographs(quick: bool) -> JointData:
    """Crops of 12 x 48 of the embedded photographs, cut into four windows; bands of every photograph are held out."""
    crops = {}
    for split, count, seed in (("train", 700 if quick else 2100, 0), ("test", 140 if quick else 280, 1)):
        generator = torch.Generator().manual_seed(seed)
        crops[split] = zoo.wide_crops((3, 12, 48), count, split, generator=generator, return_photos=True)
    split = Split(crops["train"][0], crops["test"][0], crops["test"][1], crops["train"][1])
    return JointData("wide photographs", [split], grid(12, 48, 1, 4), "photograph")


STEREO_SHAPE, STEREO_BANDS, STEREO_BLOCKS, STEREO_SCALES = (10, 20), 8, 4, (3.0, 5.0)


def stereo(quick: bool) -> JointData:
    """Windows of 10 x 20 at the same place of scikit-image's stereo pair, side by side; every second band is held out.

    A window shows 3 to 5 pixels of the photograph per pixel, so that the disparity, 9 to 58 pixels, is a part of it.
    """
    pair = [_installed(f"motorcycle_{side}.png") for side in ("left", "right")]
    both = torch.stack([torch.from_numpy(np.array(Image.open(path).convert("RGB"))) for path in pair])
    both = both.permute(0, 3, 1, 2).float() / 127.5 - 1  # (2, 3, H, W)
    parts = {}
    for first, count in ((0, 600 if quick else 1500), (1, 160 if quick else 320)):
        generator = torch.Generator().manual_seed(first)
        parts[first] = _stereo_crops(both, first, count, generator)
    split = Split(parts[0][0], parts[1][0], parts[1][1], parts[0][1])
    h, w = STEREO_SHAPE
    return JointData("stereo pair", [split], grid(h, 2 * w, 1, 2), "block of a band")


def _stereo_crops(both: Tensor, first: int, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    height, width = both.shape[2] // STEREO_BANDS, both.shape[3]
    h, w = STEREO_SHAPE
    low, high = STEREO_SCALES
    out, units = torch.empty(count, 3, h, 2 * w), torch.empty(count, dtype=torch.long)
    u = torch.rand(4, count, generator=generator)
    for i in range(count):
        scale = low * (high / low) ** float(u[0, i])
        size = (round(h * scale), round(w * scale))
        band = first + 2 * int(u[1, i] * (STEREO_BANDS // 2))
        y = band * height + int(u[2, i] * (height - size[0] + 1))
        x = int(u[3, i] * (width - size[1] + 1))
        windows = interpolate(
            both[..., y : y + size[0], x : x + size[1]], (h, w), mode="bilinear", antialias=True, align_corners=False
        )
        out[i] = torch.cat([windows[0], windows[1]], -1)
        units[i] = band * STEREO_BLOCKS + int((x + size[1] / 2) / width * STEREO_BLOCKS)
    return out, units


def faces(folds: int = 5) -> JointData:
    """scikit-image's 100 faces, 24 x 24 of their 25 x 25 pixels, each held out once; learned from mirrored ones too."""
    pictures = torch.tensor(np.load(_installed("lfw_subset.npy"))[:100, :24, :24]).float()[:, None] * 2 - 1
    order = torch.randperm(len(pictures), generator=torch.Generator().manual_seed(0))
    splits = []
    for fold in range(folds):
        test = order[fold::folds]
        train = torch.tensor([k for k in order.tolist() if k not in set(test.tolist())])
        both = torch.cat([pictures[train], pictures[train].flip(-1)])
        splits.append(Split(both, pictures[test], test, torch.cat([train, train])))
    return JointData("faces", splits, grid(24, 24, 2, 1), "face")


def _installed(name: str) -> Path:
    """A file that lies in scikit-image's package (no download). Raises MissingPackageError."""
    found = importlib.util.find_spec("skimage")
    if found is None or found.origin is None:
        raise MissingPackageError(f"{name} comes with scikit-image; install pgm_sync[zoo]", package="scikit-image")
    return Path(found.origin).parent / "data" / name
