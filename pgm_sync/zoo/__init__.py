"""Embedded photographs, and denoisers of their patches: something to sample from without a download."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from ..denoisers import Denoiser, EmpiricalDenoiser, MixtureDenoiser
from ..errors import UnknownNameError
from .pictures import PHOTOGRAPHS, SCALES, photographs, wide_crops

__all__ = ["PHOTOGRAPHS", "SCALES", "load", "names", "photographs", "wide_crops"]

KERNEL_CROPS = 2100
KERNEL_BANDWIDTH = 0.03


def names() -> list[str]:
    """The denoisers that `load` knows.

    >>> names()
    ['photo-patches', 'photo-kernel']
    """
    return list(_DENOISERS)


def load(name: str) -> Denoiser:
    """An embedded denoiser of ``(3, 24, 24)`` colour patches in [-1, 1].

    `condition` is a position in `PHOTOGRAPHS`, or None for all of them. "photo-patches" is a Gaussian mixture
    (its card: photo-patches.md). "photo-kernel" is the kernel density of 2,100 crops with standard deviation
    0.03: sharper, slower, and it only knows those crops.

    Raises UnknownNameError, which lists the names, and SavedFileError where the file is damaged.

    >>> load("photo-patches")
    MixtureDenoiser(shape=(3, 24, 24), components=168, latent=160, rank=56, conditions=[0, 1, 2, 3, 4, 5, 6])
    """
    if name not in _DENOISERS:
        raise UnknownNameError(
            f"no embedded denoiser is called {name!r}; there are {', '.join(_DENOISERS)}", name=name
        )
    return _DENOISERS[name]()


def _photo_patches() -> Denoiser:
    return MixtureDenoiser.load(Path(__file__).with_name("photo-patches.safetensors"))


def _photo_kernel() -> Denoiser:
    crops, photos = wide_crops(
        (3, 24, 24), KERNEL_CROPS, generator=torch.Generator().manual_seed(0), return_photos=True
    )
    return EmpiricalDenoiser(crops, labels=photos, bandwidth=KERNEL_BANDWIDTH)


_DENOISERS: dict[str, Callable[[], Denoiser]] = {
    "photo-patches": _photo_patches,
    "photo-kernel": _photo_kernel,
}
