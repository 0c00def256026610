"""Embedded data and denoisers: something to sample from without a download.

Closed forms of photographs' patches, whose answers are exact, and small networks of diffusers trained by
`python -m pgm_sync.zoo.train`: of pictures, of characters, and of motion. Every one has a model card beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ..denoisers import Denoiser, EmpiricalDenoiser, MixtureDenoiser
from ..errors import UnknownNameError
from .classifier import Classifier
from .pictures import PHOTOGRAPHS, PICTURES, SCALES, TEXTURES, photographs, wide_crops
from .trained import (
    MODELS,
    TrainedDenoiser,
    describe,
    load_classifier,
    load_denoiser,
    load_scheduler,
    trained_names,
)

__all__ = [
    "PHOTOGRAPHS",
    "PICTURES",
    "SCALES",
    "TEXTURES",
    "Classifier",
    "TrainedDenoiser",
    "classes",
    "classifier",
    "folder",
    "load",
    "names",
    "photographs",
    "scheduler",
    "wide_crops",
]

KERNEL_CROPS = 2100
KERNEL_BANDWIDTH = 0.03


def names() -> list[str]:
    """The denoisers that `load` knows: closed forms first, then networks.

    >>> names()
    ['photo-patches', 'photo-kernel', 'glyph-unet', 'motion-unet', 'photo-unet']
    """
    return [*_CLOSED_FORMS, *trained_names()]


def load(name: str) -> Denoiser:
    """An embedded denoiser, of contents in [-1, 1] (of motion: about as large).

    ==============  ============  =============================================  ================
    name            shape         what                                           condition
    ==============  ============  =============================================  ================
    photo-patches   (3, 24, 24)   Gaussian mixture, exact                        `PHOTOGRAPHS`
    photo-kernel    (3, 24, 24)   kernel density of 2,100 crops, sharper         `PHOTOGRAPHS`
    photo-unet      (3, 32, 32)   network, of photographs and textures           `PICTURES`
    glyph-unet      (1, 32, 32)   network, of digits and capital letters         characters
    motion-unet     (4, 32)       network, of windows of a double pendulum       styles
    ==============  ============  =============================================  ================

    A condition is a position in ``classes(name)``, or None for all of them. The networks (`TrainedDenoiser`) run in
    float32 on the CPU until told otherwise (``load(name).model.to(device)``), and take ``GuidedDenoiser``'s guidance.

    Raises UnknownNameError, which lists the names, and SavedFileError where a file is damaged.

    >>> load("photo-patches")
    MixtureDenoiser(shape=(3, 24, 24), components=168, latent=160, rank=56, conditions=[0, 1, 2, 3, 4, 5, 6])
    """
    return _CLOSED_FORMS[name]() if name in _CLOSED_FORMS else load_denoiser(folder(name))


def classes(name: str) -> tuple[str, ...]:
    """What the conditions of the denoiser called `name` stand for, by position. Raises UnknownNameError.

    >>> classes("motion-unet")
    ('slow', 'fast', 'mixed', 'wild')
    """
    return PHOTOGRAPHS if name in _CLOSED_FORMS else tuple(describe(folder(name))["classes"])


def scheduler(name: str) -> Any:
    """A fresh `diffusers.DDIMScheduler` with the noise schedule of the network called `name`; any other works too.

    >>> scheduler("motion-unet").config.prediction_type
    'v_prediction'

    Raises UnknownNameError; closed forms have no schedule.
    """
    return load_scheduler(folder(name))


def classifier(name: str) -> Classifier:
    """The classifier of the data of the network called `name`.

    ``classifier(name)(x)`` are logits ``(n, classes)``, ``.features(x)`` ``(n, 128)``.

    >>> from pgm_sync.zoo.data import glyphs
    >>> pictures, labels = glyphs(36, "test", generator=torch.Generator().manual_seed(0))
    >>> (classifier("glyph-unet")(pictures).argmax(1) == labels).float().mean().item() > 0.9
    True

    Raises UnknownNameError where there is none.
    """
    return load_classifier(folder(name))


def folder(name: str) -> Path:
    """Where the network called `name` lies, as diffusers keeps it.

    ``UNet2DModel.from_pretrained(folder("photo-unet"))`` reads it; such a network sees 2 x 2 pixels as channels
    (`networks.Squeezed`).

    >>> sorted(path.name for path in folder("motion-unet").iterdir())
    ['card.md', 'config.json', 'denoiser.json', 'diffusion_pytorch_model.safetensors', 'scheduler_config.json']

    Raises UnknownNameError.
    """
    if name in trained_names():
        return MODELS / name
    if name in _CLOSED_FORMS:
        raise UnknownNameError(f"{name!r} is no network; those are {', '.join(trained_names())}", name=name)
    raise UnknownNameError(f"no embedded denoiser is called {name!r}; there are {', '.join(names())}", name=name)


def _photo_patches() -> Denoiser:
    return MixtureDenoiser.load(Path(__file__).with_name("photo-patches.safetensors"))


def _photo_kernel() -> Denoiser:
    crops, photos = wide_crops(
        (3, 24, 24), KERNEL_CROPS, generator=torch.Generator().manual_seed(0), return_photos=True
    )
    return EmpiricalDenoiser(crops, labels=photos, bandwidth=KERNEL_BANDWIDTH)


_CLOSED_FORMS: dict[str, Callable[[], Denoiser]] = {
    "photo-patches": _photo_patches,
    "photo-kernel": _photo_kernel,
}
