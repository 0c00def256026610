"""What each trained denoiser is: its data, classes, network and licence. Training and loading read it here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UnknownNameError
from .data.characters import CHARACTERS, glyphs
from .data.motion import FEATURES, FRAMES, STYLES, motion_windows
from .networks import LabelChannels, Squeezed
from .pictures import PICTURES, wide_crops

Batch = Callable[[int, str, torch.Generator], tuple[Tensor, Tensor]]  # n, split, generator -> contents, labels

STEPS = 1000
SCHEDULE = {
    "num_train_timesteps": STEPS,
    "beta_schedule": "squaredcos_cap_v2",
    "prediction_type": "v_prediction",
    "timestep_spacing": "trailing",  # starts at the noisiest step, where a cosine schedule has no signal left
    "clip_sample": False,
    "set_alpha_to_one": True,
}


@dataclass(frozen=True)
class Recipe:
    """How a denoiser is trained: `draw` gives its data, `config` its network in diffusers' terms."""

    name: str
    classes: tuple[str, ...]
    shape: tuple[int, ...]
    draw: Batch
    network: str  # of diffusers
    config: dict[str, Any]
    what: str  # what, data, licence and limits: for the model card
    data: str
    licence: str
    limits: str
    squeeze: int = 1
    batch: int = 64
    rate: float = 1e-3
    ema: float = 0.999

    def build(self) -> Any:
        """The network of diffusers, with random weights."""
        import diffusers

        return getattr(diffusers, self.network)(**self.config)

    def wrap(self, network: Any) -> nn.Module:
        """The network as it is called with contents of `shape` and labels, the last one the null class."""
        return wrapped(network, len(self.classes), self.squeeze)


def wrapped(network: Any, classes: int, squeeze: int) -> nn.Module:
    """A network of diffusers behind ``(sample, timestep, class_labels)``."""
    if type(network).__name__ == "UNet1DModel":
        return LabelChannels(network, classes)
    return Squeezed(network, squeeze)


def _unet(channels: int, size: int, classes: int, widths: tuple[int, ...]) -> dict[str, Any]:
    return {
        "sample_size": size,
        "in_channels": channels,
        "out_channels": channels,
        "block_out_channels": widths,
        "layers_per_block": 1,
        "norm_num_groups": 8,
        "attention_head_dim": 32,
        "down_block_types": ("DownBlock2D",) * len(widths),
        "up_block_types": ("UpBlock2D",) * len(widths),
        "num_class_embeds": classes + 1,
    }


def _pictures(n: int, split: str, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    return wide_crops((3, 32, 32), n, split, generator=generator, pictures=PICTURES, return_photos=True)


def _glyphs(n: int, split: str, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    return glyphs(n, split, generator=generator)


def _motion_windows(n: int, split: str, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    return motion_windows(n, split, generator=generator)


def _photo() -> Recipe:
    return Recipe(
        name="photo-unet",
        classes=PICTURES,
        shape=(3, 32, 32),
        draw=_pictures,
        network="UNet2DModel",
        config=_unet(12, 16, len(PICTURES), (64, 128)),
        what="What a 32 x 32 colour window of one of seven photographs or three textures looks like.",
        data="random crops of the train bands of the pictures of `PHOTOGRAPHS.md`, as `wide_crops` draws them "
        "(1.25 to 2 pixels of the picture per pixel, mirrored or not); the other bands are held out.",
        licence="Apache-2.0, like the package. It is derived from pictures in the public domain, under CC0, and (china "
        "and flower) under CC BY 2.0; keep their attribution (`PHOTOGRAPHS.md`) when you pass the file on.",
        limits="It knows ten pictures, and crops of them at one range of scales. The held-out bands show other parts "
        "of the same pictures.",
        squeeze=2,
        batch=32,
    )


def _glyph() -> Recipe:
    return Recipe(
        name="glyph-unet",
        classes=CHARACTERS,
        shape=(1, 32, 32),
        draw=_glyphs,
        network="UNet2DModel",
        config=_unet(4, 16, len(CHARACTERS), (64, 128)),
        what="Digits and capital letters, bright on dark.",
        data="`pgm_sync.zoo.data.glyphs`: 13 faces of DejaVu and STIX (3 held out) and, for half of the digits, "
        "scikit-learn's handwritten digits (360 held out), with random slant, size, place and stroke weight.",
        licence="Apache-2.0, like the package. The faces allow it (licences of DejaVu and STIX, `GLYPHS.md`); the "
        "handwritten digits are by E. Alpaydin and C. Kaynak, UCI Machine Learning Repository, CC BY 4.0.",
        limits="Printed and written digits are one class, so a sample of it may be either, or between. O and 0 look "
        "alike in some faces. The held-out faces resemble some of the others.",
        squeeze=2,
        batch=32,
    )


def _motion() -> Recipe:
    # The U-Net over time of Janner et al. (2022), "Planning with diffusion for flexible behavior synthesis".
    config = {
        "sample_size": FRAMES,
        "in_channels": len(FEATURES) + len(STYLES),
        "out_channels": len(FEATURES),
        "time_embedding_type": "positional",
        "use_timestep_embedding": True,
        "flip_sin_to_cos": False,
        "freq_shift": 1,
        "block_out_channels": (32, 64, 128),
        "down_block_types": ("DownResnetBlock1D",) * 3,
        "up_block_types": ("UpResnetBlock1D",) * 2,
        "mid_block_type": "MidResTemporalBlock1D",
        "out_block_type": "OutConv1DBlock",
        "layers_per_block": 1,
        "act_fn": "mish",
        "norm_num_groups": 8,
        "downsample_each_block": False,
    }
    return Recipe(
        name="motion-unet",
        classes=STYLES,
        shape=(len(FEATURES), FRAMES),
        draw=_motion_windows,
        network="UNet1DModel",
        config=config,
        what="Windows of 32 frames, 3.2 s, of a planar double pendulum: two angles and their velocities.",
        data="`pgm_sync.zoo.data.motion_windows`: 4,096 simulated motions of 128 frames, their windows and mirror "
        "images; 1,024 other motions are held out.",
        licence="Apache-2.0, like the package; the data are simulated.",
        limits="One pendulum, without friction, that never turns over.",
        batch=64,
    )


_RECIPES = {"photo-unet": _photo, "glyph-unet": _glyph, "motion-unet": _motion}
NAMES = tuple(_RECIPES)


def recipe(name: str) -> Recipe:
    """The recipe of a trained denoiser. Raises UnknownNameError."""
    if name not in _RECIPES:
        raise UnknownNameError(f"no recipe is called {name!r}; there are {', '.join(NAMES)}", name=name)
    return _RECIPES[name]()
